"""The offline Mistral for the length of a `with`."""

# Not `simulator.py`: an import of that module would take the function's place in the package.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loom.server.simulator import Simulator

__all__ = ["simulator"]


def simulator(**options: Any) -> Simulator:
    """
    Serve Mistral's API on a free port of this machine, until the `with` ends.

        with simulator(seed=7) as sim, Mistral(sim.api_key, base_url=sim.base_url) as m:
            ...

    Args:
        options: As those of `loom.server.simulator.Simulator`; `as_of` may be a text too, for
            example "2024-11".

    Returns:
        A simulator that `with` starts and stops; each has its own port, state and journal.

    Raises:
        TypeError: If there is no such option; the message names those that there are.
        ConfigInvalid: If the value of an option is not as it must be.
    """
    from loom.catalog.dates import parse_as_of  # noqa: PLC0415 - pytest reads this at its start
    from loom.server.simulator import Simulator  # noqa: PLC0415 - the same

    known = _options_of(Simulator)
    for name in options:
        if name not in known:
            raise TypeError(f"simulator() has no option {name!r}; it has {', '.join(known)}")
    if isinstance(options.get("as_of"), str):
        options["as_of"] = parse_as_of(options["as_of"])
    return Simulator(**options)


def _options_of(kind: type[Simulator]) -> tuple[str, ...]:
    import inspect  # noqa: PLC0415 - pytest reads this at its start

    return tuple(inspect.signature(kind).parameters)
