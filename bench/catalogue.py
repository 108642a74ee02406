"""What can be named in a sweep file, with one line on each."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from bench import networks, plugins
from bench.data import DATASETS
from bench.protocols import load_protocols, protocol_names


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


def _listed(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in parameters.items()) or "none"


def methods() -> dict[str, str]:
    found = {name: plugins.method(name) for name in sorted(plugins.method_names())}
    return {
        name: f"{cls.paper}. Parameters: {_listed({f.name: f.default for f in fields(cls)})}"
        for name, cls in found.items()
    }


def datasets() -> dict[str, str]:
    return dict(DATASETS)


def architectures() -> dict[str, str]:
    return {
        name: f"{_first_line(cls)} Parameters: {_listed(networks.parameters(name))}"
        for name, cls in networks.FAMILIES.items()
    }


def protocols() -> dict[str, str]:
    """One line each; the variants of a protocol one by one."""
    found = (p for name in protocol_names() for p in load_protocols(name))
    return {p.name: f"v{p.version}: {p.about}" for p in found}


def blocks() -> dict[str, str]:
    """What `compose` puts together, and what methods share besides; then what other packages bring."""
    own = {
        f"{kind} {name}": _first_line(thing)
        for kind, things in plugins.choices().items()
        for name, thing in things.items()
    }
    known = {thing for things in plugins.choices().values() for thing in things.values()}
    brought = {name: cls for name, cls in plugins.blocks().items() if cls not in known}
    return own | {name: _first_line(cls) for name, cls in brought.items()}


CATALOGUE: dict[str, Callable[[], dict[str, str]]] = {
    "methods": methods,
    "datasets": datasets,
    "architectures": architectures,
    "protocols": protocols,
    "blocks": blocks,
}
