"""What `--set KEY=VALUE` changes, where KEY is a dotted path."""

from collections.abc import Sequence
from typing import Any

from bench.core.errors import UserError
from bench.core.words import listed, plain_text
from bench.planning.yaml_text import MOST_DEPTH, parse_yaml

Place = tuple[str | int, ...]  # the keys and positions that lead to a value


def read_overrides(overrides: Sequence[str], example: str) -> dict[str, Any]:
    """{dotted path: value} of what the command line sets.

    Args:
        overrides: each KEY=VALUE.
        example: of one, for messages.

    Raises:
        UserError: for what is none, and for a key given twice.
    """
    found: dict[str, Any] = {}
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign or not all(parts := key.split(".")) or len(parts) > MOST_DEPTH:
            raise UserError(f"--set {plain_text(override)}: write KEY=VALUE, for example --set {example}")
        if key in found:
            raise UserError(f"--set {plain_text(key)}: given twice, give it once")
        try:
            found[key] = parse_yaml(text)
        except UserError as error:
            raise UserError(f"--set {plain_text(override)}: the value {error}") from None
    return found


def set_keys(content: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set keys of a sweep file in place; a list's entry is given by its position or its name.

    Args:
        content: of the file.
        overrides: each KEY=VALUE.

    Raises:
        UserError: for a key that leads nowhere, and for one given twice, be it under a name and a position.
    """
    places: list[Place] = []
    for key, value in read_overrides(overrides, "evaluate.students=5").items():
        place = _set_key(content, key, value)
        if place in places:
            raise UserError(f"--set {plain_text(key)}: given twice, give it once")
        places.append(place)


def _set_key(content: Any, key: str, value: Any) -> Place:
    """Set one key; returns where it is."""
    *parents, last = key.split(".")
    place: Place = ()
    for part in parents:
        place += (_step(content, part, key),)
        content = _child(content, place[-1], key)
    place += (_step(content, last, key),)
    content[place[-1]] = value
    return place


def _child(content: Any, step: str | int, key: str) -> Any:
    if isinstance(content, dict):
        content.setdefault(step, {})
    elif isinstance(content[step], str):
        content[step] = {"name": content[step]}
    if not isinstance(content[step], dict | list):
        raise UserError(f"--set {plain_text(key)}: {plain_text(str(step))} holds no keys")
    return content[step]


def _step(content: Any, part: str, key: str) -> str | int:
    """A key of a mapping, or the position of a list's entry."""
    if isinstance(content, dict):
        return part
    names = [e.get("name") if isinstance(e, dict) else e for e in content]
    if part in names:
        return names.index(part)
    if part in map(str, range(len(content))):
        return int(part)
    raise UserError(f"--set {plain_text(key)}: no entry {plain_text(part)!r}; there are {listed(names)}")
