"""The parts of a gateway, put together for `looms serve`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from loom.cli.whose import async_client_of
from loom.config.assemble import load_catalog
from loom.config.load import load_settings
from loom.core.ambient import SystemClock, secret_bytes
from loom.core.errors import ConfigInvalid
from loom.core.request import Timeouts
from loom.layers.breaker import Breaker
from loom.layers.limiter import Limiter
from loom.ledger.entry import Opening
from loom.ledger.open import open_ledger
from loom.server.gateway.app import Gateway
from loom.server.gateway.counter import KeyLimiters
from loom.server.gateway.keys import open_door
from loom.server.gateway.keys_ring import KeyRing
from loom.server.gateway.keys_text import digest_of, new_key
from loom.server.gateway.keys_watch import KeyWatch
from loom.server.gateway.limits import DoorLimits
from loom.server.gateway.metrics import Metrics
from loom.server.gateway.process import raise_file_limit
from loom.server.gateway.readiness import OK, Readiness
from loom.server.gateway.run import GatewayServer

if TYPE_CHECKING:
    from loom.client.calls import AsyncClient
    from loom.layers.limit_rate import RateLimit
    from loom.ledger.budgets import Budget

__all__ = ["ROUTES", "Serving"]

ROUTES = (
    "/v1/chat/completions", "/v1/embeddings", "/v1/fim/completions", "/v1/models",
    "/v1/models/{id}", "/health", "/health/ready", "/metrics", "/openapi.json",
)  # fmt: skip
"""What may be a label of a metric."""

# As many as a process may have open: one for a caller, one for the vendor, some for the rest.
_FILES = 65_536
_OTHER_FILES = 256
_LOOK_S = 1.0


class Serving:
    """
    A gateway and what it stands on.

    Attributes:
        host: Where it listens.
        admin_key: The gateway's own key: it holds until the process ends.
        ledger_name: Where the ledger is.

    Args:
        ledger: "memory:", or a path.
        keys: The file of keys.
        host: Where to listen.
        client: Arguments of the client that asks the vendor; money and limits are not among them.
        rate_limit: What the vendor allows; None: nobody counts.
        budgets: Of all callers together.
        rescue: Whether answers that break begin anew elsewhere.
        body_bytes: What a request's body may weigh.
        connections: Connections at once from one address.

    Raises:
        ConfigInvalid: If a setting is not as it must be.
        InvalidAPIKey: If there is no key for the vendor.
    """

    def __init__(
        self,
        *,
        ledger: str,
        keys: Path,
        host: str,
        client: Mapping[str, Any],
        rate_limit: RateLimit | None = None,
        budgets: Sequence[Budget] = (),
        rescue: bool = False,
        body_bytes: int,
        connections: int,
    ) -> None:
        self.host = host
        self.ledger_name = ledger
        self.admin_key = new_key()
        self._clock = SystemClock()
        self._given = client
        self._breaker = Breaker()
        self._limiter = None if rate_limit is None else Limiter(rate_limit)
        self._budgets = tuple(budgets)
        self._rescue = rescue
        self._limits = DoorLimits(body_bytes=body_bytes, connections_per_address=connections)
        self._catalog = load_catalog()
        self._ledger = open_ledger(ledger, clock=self._clock)
        self._ring = KeyRing(
            KeyWatch(keys),
            host=host,
            admin_hash=digest_of(self.admin_key.reveal()),
            clock=self._clock,
        )
        # What a key has used of its minute is not forgotten when settings are read anew.
        self._limiters = KeyLimiters()
        self._metrics = Metrics(ROUTES, self._known)
        self._readiness = Readiness()
        self._readiness.watch("ledger", self._ledger_state)
        self._readiness.watch("keys", self._keys_trouble)
        # The last one serves; those before it end what they began.
        self._served: list[tuple[Gateway, AsyncClient]] = []
        self._retiring: set[asyncio.Task[None]] = set()
        self._sockets = 1
        self._open = AsyncExitStack()

    @property
    def keys_state(self) -> str:
        """How many keys there are, in words."""
        if self._ring.is_open:
            return "none: callers on this machine need no key until the first one is made"
        now = self._clock.now()
        active = sum(key.state(now) == "active" for key in self._ring.keys)
        return f"{active} that may call"

    def run(self, *, port: int, drain_s: float, on_ready: Callable[[int], None]) -> int:
        """
        Serve until a signal ends it.

        Args:
            port: Where to listen; 0 lets the kernel choose.
            drain_s: What running requests get after the signal, in seconds.
            on_ready: Told the port when a request would be answered.

        Returns:
            The exit code.

        Raises:
            ConfigInvalid: If it cannot listen there, or nobody would need a key on an address
                that others reach.
            LedgerUnavailable: If the ledger is another process's, or damaged.
        """
        self._sockets = max(1, (raise_file_limit(_FILES) - _OTHER_FILES) // 2)
        self._limits = replace(self._limits, connections=self._sockets)
        server = GatewayServer(
            self._app(),
            self.host,
            port,
            limits=self._limits,
            drain_s=drain_s,
            readiness=self._readiness,
            opening=self._opening,
            closing=self._open.aclose,
            reload=self._reloaded,
            on_ready=on_ready,
            needs_no_key=lambda: self._ring.is_open,
            dropped=self._metrics.dropped,
        )
        self._watch(server)
        return server.run()

    # --- its parts -----------------------------------------------------------------------------

    def _app(self) -> Gateway:
        """Make the application by the settings as they are now."""
        given = dict(self._given)
        settings = load_settings()
        model = given.pop("model", None) or settings.model
        limits = {"first_byte_s": settings.timeout_s, "total_s": settings.deadline_s}
        more = {
            "breaker": self._breaker, "rate_limit": self._limiter, "model": model,
            "max_connections": self._sockets,
        }  # fmt: skip
        given |= {name: value for name, value in more.items() if value is not None}
        client = async_client_of(given)
        gateway = Gateway(
            provider=client.provider,
            ledger=self._ledger,
            ring=self._ring,
            catalog=self._catalog,
            clock=self._clock,
            new_id=lambda: secret_bytes(16).hex(),
            budgets=self._budgets,
            readiness=self._readiness,
            metrics=self._metrics,
            rescue=self._rescue,
            body_bytes=self._limits.body_bytes,
            limiters=self._limiters,
            timeouts=replace(Timeouts(), **{k: v for k, v in limits.items() if v is not None}),
        )
        self._served.append((gateway, client))
        return gateway

    async def _opening(self) -> None:
        self._open.push_async_callback(self._ledger.aclose)
        # Whoever asks for sums becomes the writer: another process's file is refused here.
        await self._ledger.standings(Opening(provider="", asked_model=""), ())
        self._open.push_async_callback(self._close_clients)
        await self._open.enter_async_context(self._ring)
        if not self._ring.keys and not open_door(self.host, ()):
            raise ConfigInvalid(
                f"on {self.host} everybody who reaches it could spend your money: there is no key",
                hint="Make one with `looms keys create --name NAME`, or leave out --host.",
            )

    async def _close_clients(self) -> None:
        for task in tuple(self._retiring):
            task.cancel()
        for _, client in self._served:
            await client.aclose()

    async def _reloaded(self) -> Gateway:
        # First what can fail: the old application stays whole if the new one cannot be made.
        catalog, before = load_catalog(), self._catalog
        self._catalog = catalog
        old = self._served[-1]
        try:
            app = self._app()
        except Exception:
            # Whatever a setting or an extra came to: what runs goes on with what it had.
            self._catalog = before
            raise
        task = asyncio.ensure_future(self._retire(*old))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return app

    async def _retire(self, gateway: Gateway, client: AsyncClient) -> None:
        """Close the sockets of an application that another one follows, after its last request."""
        await self._clock.sleep(_LOOK_S)
        while gateway.running:
            await self._clock.sleep(_LOOK_S)
        self._served.remove((gateway, client))
        await client.aclose()

    # --- what is told of them --------------------------------------------------------------------

    def _known(self, model: str) -> bool:
        return self._catalog.anywhere(model, self._clock.now().date()) is not None

    def _ledger_state(self) -> str:
        trouble = getattr(self._ledger, "trouble", None)
        return OK if trouble is None else f"unavailable: {trouble}"

    def _keys_trouble(self) -> str:
        return OK if self._ring.trouble is None else "the keys of the last look hold"

    def _watch(self, server: GatewayServer) -> None:
        watch = self._metrics.watch
        watch("in_flight", "Requests inside.", "", lambda: {"": server.door.running})
        watch(
            "ready",
            "1 for each part that works.",
            "part",
            lambda: {name: said == OK for name, said in self._readiness().items()},
        )
        waiting = "Calls that wait for their caller's turn to begin."
        watch("waiting", waiting, "", lambda: {"": self._served[-1][0].turns.waiting})
        queued = partial(getattr, self._ledger, "waiting", 0)
        watch("ledger_queue", "Calls that wait for their row.", "", lambda: {"": queued()})
        watch("breaker_open", "1 for each origin that is not asked.", "origin", self._breakers)
        limiter = self._limiter
        if limiter is not None:
            watch(
                "limiter_queue", "Calls that wait for their turn.", "", lambda: {"": limiter.queued}
            )
            watch("limiter_held", "Calls that have a permit.", "", lambda: {"": limiter.held})

    def _breakers(self) -> Mapping[str, float]:
        # By origin alone: the key's fingerprint is nobody's business, and models are many.
        found: dict[str, float] = {}
        for key, state in self._breaker.states().items():
            is_open = state.at(self._clock.monotonic_s()).state == "open"
            found[key[0]] = max(found.get(key[0], 0.0), float(is_open))
        return found
