"""A data set restricted to some of its classes, or with classes joined into groups."""

from collections.abc import Sequence

import torch

from bench.core.errors import UserError
from bench.core.registry import did_you_mean
from bench.data.dataset import DecodedSplits, Split
from bench.data.image_files import class_name

_SHOWN = 20  # class names in a message


def class_positions(chosen: Sequence[str | int], classes: Sequence[str]) -> list[int]:
    """The positions of chosen classes.

    Args:
        chosen: classes by name or by position from 0; what is a name is never read as a position.
        classes: all class names.

    Raises:
        UserError: for an unknown class and for one given twice.
    """
    found = [_position(class_name(str(name)), classes) for name in chosen]
    twice = next((c for i, c in enumerate(found) if c in found[:i]), None)
    if twice is not None:
        raise UserError(f"class {classes[twice]!r} is given twice: name it once")
    return found


def _position(name: str, classes: Sequence[str]) -> int:
    if name in classes:
        return classes.index(name)
    if name.isdecimal() and int(name) < len(classes):
        return int(name)
    hint = "" if name.isdecimal() else did_you_mean(name, classes)
    more = f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else ""
    raise UserError(f"no class {name!r}{hint}; choose from: {', '.join(classes[:_SHOWN])}{more}")


def regroup(whole: DecodedSplits, groups: Sequence[Sequence[int]]) -> DecodedSplits:
    """Keep the images of some classes, in their order, labelled by the group of their class.

    Args:
        whole: the data set.
        groups: `groups[j]` are the classes that become class j, named with "+" between their names; no class
            is in two groups.
    """
    group_of = torch.full((len(whole.classes),), -1)
    for j, members in enumerate(groups):
        group_of[list(members)] = j

    def restricted(split: Split) -> Split:
        labels = group_of[split.labels]
        rows = (labels >= 0).nonzero().flatten()
        return Split(split.images[rows], labels[rows])

    names = tuple("+".join(whole.classes[c] for c in members) for members in groups)
    return DecodedSplits(restricted(whole.train), restricted(whole.test), names)
