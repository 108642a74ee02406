"""A teacher's weights at the end and at some stops of its training, in one mapping; and its labels."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench.core.training import in_pieces

_STOP = "stop."  # begins the names of the weights at a stop


def stop_prefix(stop: float) -> str:
    """What the names of a teacher's weights begin with after a fraction of its training; "" for all of it."""
    return "" if stop == 1 else f"{_STOP}{stop:g}:"


def teacher_state(tensors: Mapping[str, Tensor], stop: float = 1.0) -> dict[str, Tensor]:
    """The weights of a teacher after a fraction of its training.

    Args:
        tensors: what its prerequisite made.
        stop: the fraction; 1 is the end.

    Returns:
        A `state_dict`, without what `tensors` holds of other stops.
    """
    prefix = stop_prefix(stop)
    if prefix:
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    return {name: t for name, t in tensors.items() if not name.startswith(_STOP)}


@torch.no_grad()
def soft_labels(teacher: nn.Module, images: Tensor, temperature: float) -> Tensor:
    """One probability vector an image, softmax(teacher(image) / T).

    Args:
        teacher: the network, in evaluation mode.
        images: float [n,C,H,W], as the teacher takes them.
        temperature: T.

    Returns:
        Probabilities [n,K].
    """
    return in_pieces(lambda x: (teacher(x) / temperature).softmax(1), images)
