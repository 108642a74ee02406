"""What can be named in a sweep file, with one line on each."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from bench.cli.console import out
from bench.cli.options import PluginOption
from bench.core.registry import block_choices, load_plugin, method_class, method_names, registered_blocks
from bench.core.search import search_space


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


def _listed(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in parameters.items()) or "none"


def list_methods() -> dict[str, str]:
    """The citation and the hyper-parameters of each, with their defaults, and where `tune` looks for some."""
    found = {name: method_class(name) for name in sorted(method_names())}
    return {
        name: f"{cls.paper}. Parameters: {_listed({f.name: f.default for f in fields(cls)})}{_searched(cls)}"
        for name, cls in found.items()
    }


def _searched(method: Any) -> str:
    space = search_space(method)
    return f". Tuned: {', '.join(f'{name} {where}' for name, where in space.items())}" if space else ""


def list_datasets() -> dict[str, str]:
    """Size, classes and origin of each."""
    from bench.data.spec import DATASETS

    return dict(DATASETS)


def list_architectures() -> dict[str, str]:
    """What each is, and its parameters with their defaults."""
    from bench.core.networks.architecture import FAMILIES, family_parameters

    return {
        name: f"{_first_line(cls)} Parameters: {_listed(family_parameters(name))}"
        for name, cls in FAMILIES.items()
    }


def list_protocols() -> dict[str, str]:
    """One line each; the variants of a protocol one by one."""
    from bench.planning.protocols import load_protocols, protocol_names

    found = (p for name in protocol_names() for p in load_protocols(name))
    return {p.name: f"v{p.version}: {p.about}" for p in found}


def list_blocks() -> dict[str, str]:
    """What `compose` combines, what methods share, and what other packages bring."""
    own = {
        f"{kind} {name}": _first_line(thing)
        for kind, things in block_choices().items()
        for name, thing in things.items()
    }
    known = {thing for things in block_choices().values() for thing in things.values()}
    brought = {name: cls for name, cls in registered_blocks().items() if cls not in known}
    return own | {name: _first_line(cls) for name, cls in brought.items()}


CATALOGUE: dict[str, Callable[[], dict[str, str]]] = {
    "methods": list_methods,
    "datasets": list_datasets,
    "architectures": list_architectures,
    "protocols": list_protocols,
    "blocks": list_blocks,
}


def list_command(
    what: Annotated[
        Literal["methods", "datasets", "architectures", "protocols", "blocks"],
        typer.Argument(show_default=False),
    ],
    plugins: PluginOption = None,
) -> None:
    """What can be named in a sweep file, with one line on each."""
    for path in plugins or []:
        load_plugin(path)
    entries = CATALOGUE[what]()
    width = max(map(len, entries))
    for name, line in entries.items():
        out.print(f"[bold]{name:<{width}}[/bold]  {escape(line)}", highlight=False, soft_wrap=True)
