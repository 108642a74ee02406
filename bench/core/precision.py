"""The precision of a job's arithmetic: chosen, set for the time of the job, and put back."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

Precision = Literal["fp32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DEFAULT: Precision = "fp32"
Embedding = TypeVar("Embedding", bound=Callable[..., Tensor])

_now: Precision = DEFAULT  # of the block that runs


@contextmanager
def computing(precision: Precision) -> Iterator[None]:
    """Compute at this precision inside the block, whatever was set before; put back what was.

    A GPU's convolutions are repeatable inside: cuDNN takes deterministic algorithms, and does not choose them
    by timing. What else adds in no fixed order, such as the gradient of `grid_sample`, has no deterministic
    form in torch and stays as it is.

    Args:
        precision: "fp32": matrix products and convolutions without TF32, which torch's own default has on for
            convolutions; "tf32": both with it; "bf16": as "fp32", but forward passes of networks (see
            `in_precision`) under bfloat16 autocast.
    """
    global _now
    backends: Any = torch.backends  # some of what is set here is unknown to torch's types
    kept = "tf32" if precision == "tf32" else "ieee"
    wanted = [
        (backends.cuda.matmul, "fp32_precision", kept),
        (backends.cudnn.conv, "fp32_precision", kept),
        (backends.cudnn.rnn, "fp32_precision", kept),
        (backends.cudnn, "benchmark", False),
        (backends.cudnn, "deterministic", True),
    ]
    before = [(place, name, getattr(place, name)) for place, name, _ in wanted]
    outer, _now = _now, precision
    try:
        for place, name, value in wanted:
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)
        _now = outer


def precision_now() -> Precision:
    """The precision of the block that runs; fp32 outside of any."""
    return _now


def in_precision(forward: Embedding) -> Embedding:
    """Decorate a network's method of images -> features or logits, to run at the precision of the block.

    Under bf16 convolutions and matrix products are bfloat16 inside, and what is returned is float32, so that
    losses are. Weights are cast at each call, since those of `functional_call` are no parameters.
    """

    @functools.wraps(forward)
    def call(self: Any, x: Tensor) -> Tensor:
        if _now != "bf16" or x.device.type == "meta":  # meta has no autocast, and knows shapes only
            return forward(self, x)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, cache_enabled=False):
            return forward(self, x).float()

    return call  # type: ignore[return-value]  # mypy loses that `forward` is a method
