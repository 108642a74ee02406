"""Short names of methods on plots and pictures: `idc[factor=2, lr=0.1]` is "idc · factor 2 · lr 0.1"."""

import re
from collections.abc import Iterable

from bench.records.columns import COMPOSED_OF

LINE = 40  # characters of a line
MOST_LINES = 3
MOST_VALUE = 24  # characters of a value; a longer one loses its middle
SEPARATOR = " · "
ELLIPSIS = "…"


def method_settings(label: str) -> tuple[str, dict[str, str]]:
    """Split the label of a method.

    Args:
        label: As `records.naming` makes it, such as `idc[factor=2, lr=0.1]`.

    Returns:
        The name, and the value of each hyper-parameter that the label holds, as text.
    """
    name, bracket, inside = label.partition("[")
    if not bracket or not label.endswith("]"):
        return label, {}
    settings = re.split(r", (?=\w+=)", inside.removesuffix("]"))
    return name, dict(tuple(setting.split("=", 1)) for setting in settings if "=" in setting)


def _value(text: str) -> str:
    """A value without digits that say nothing; a long one loses its middle."""
    text = re.sub(r"^(-?\d+)\.0$", r"\1", text)
    return text if len(text) <= MOST_VALUE else f"{text[: MOST_VALUE // 2]}{ELLIPSIS}{text[-8:]}"


def _parts(name: str, settings: dict[str, str]) -> list[str]:
    """The name and a part for each setting; the blocks of a composition need no name before them."""
    composed = all(block in settings for block in COMPOSED_OF)
    chips = [_value(v) if composed and k in COMPOSED_OF else f"{k} {_value(v)}" for k, v in settings.items()]
    return chips if composed else [name, *chips]


def wrapped(parts: list[str], width: int = LINE) -> str:
    """The parts in lines of at most `width` characters, where a part fits; those left out are counted."""
    lines = [parts[0]]
    for i, part in enumerate(parts[1:], start=1):
        if len(lines[-1]) + len(SEPARATOR) + len(part) <= width:
            lines[-1] += SEPARATOR + part
        elif len(lines) < MOST_LINES:
            lines.append(part)
        else:
            lines[-1] += f"{SEPARATOR}{ELLIPSIS} {len(parts) - i} more"
            break
    return "\n".join(lines)


def short_names(labels: Iterable[str]) -> dict[str, str]:
    """Names for a plot of these methods, in one to three lines.

    A setting that all labels of a method have in common is left out. Different labels have different names.

    Args:
        labels: All methods that are shown, in the order of the result.
    """
    split = {label: method_settings(label) for label in labels}
    found: dict[str, str] = {}
    taken: dict[str, int] = {}
    for label, (name, settings) in split.items():
        others = [held for other, held in split.values() if other == name]
        shared = {k for k, v in settings.items() if all(held.get(k) == v for held in others)}
        left_out = shared if len(others) > 1 else set()
        text = wrapped(_parts(name, {k: v for k, v in settings.items() if k not in left_out}))
        taken[text] = taken.get(text, 0) + 1
        found[label] = text if taken[text] == 1 else f"{text} ({taken[text]})"
    return found


def name_on_one_line(label: str) -> str:
    """The name of a method and all settings that its label holds, in one line."""
    name, settings = method_settings(label)
    return SEPARATOR.join(dict.fromkeys([name, *_parts(name, settings)]))
