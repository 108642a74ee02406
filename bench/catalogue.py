"""What can be named in a sweep file, with one line on each."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from bench import config, networks, plugins
from bench.data import DATASETS


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
    found = map(config.load_protocol, config.protocol_names())
    return {p.name: f"v{p.version}: {p.about}" for p in found}


def blocks() -> dict[str, str]:
    return {name: _first_line(cls) for name, cls in plugins.blocks().items()}


CATALOGUE: dict[str, Callable[[], dict[str, str]]] = {
    "methods": methods,
    "datasets": datasets,
    "architectures": architectures,
    "protocols": protocols,
    "blocks": blocks,
}
