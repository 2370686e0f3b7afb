"""Where the simulator on this machine plays each vendor, for `sim=True`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING

from loom.config.places import Place
from loom.core.errors import ConfigInvalid
from loom.core.secret import Secret
from loom.providers.key import Key

if TYPE_CHECKING:
    from loom.config.assemble import Elsewhere
    from loom.config.vendors import Vendor
    from loom.core.route import Route

__all__ = ["simulated"]


def simulated(as_of: date | None, elsewhere: Elsewhere) -> tuple[Elsewhere, Callable[[], None]]:
    """
    Have vendors played by the process's simulator.

    Args:
        as_of: The day whose models exist; None: today.
        elsewhere: Finds where a route leads that names a key or an address of its own.

    Returns:
        Where each vendor is played, and what gives the simulator back.
    """
    from loom.server.simulator import shared_simulator  # noqa: PLC0415 - brings a server

    simulator = shared_simulator(as_of)
    key = Key(Secret(simulator.api_key))
    addresses = {"mistral": simulator.base_url, "openai": simulator.openai_base_url}

    def place(vendor: Vendor, route: Route) -> Place:
        if vendor.provider or route.api_key is not None or route.base_url is not None:
            return elsewhere(vendor, route)
        if vendor.name not in addresses:
            raise ConfigInvalid(f"the simulator does not play {vendor.title}")
        return Place(address=addresses[vendor.name], key=key)

    return place, simulator.release
