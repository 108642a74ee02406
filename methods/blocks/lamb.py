"""LAMB, which torch does not have: Adam whose step is scaled to the norm of what it changes."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]


class Lamb(torch.optim.Optimizer):
    """Steps of lr |w| u / |u| for each tensor w, where u is the step of Adam; without weight decay.

    Args:
        params: tensors, or groups of them.
        lr: by which part of its own norm a tensor moves.
        betas: decay of the running mean of gradients and of their squares.
        eps: added to the root of the squares.

    References:
        You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 Minutes, ICLR 2020,
        algorithm 2, with the identity for phi.
    """

    def __init__(
        self, params: Parameters, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no loss is returned
        """Take one step; tensors without a gradient stay.

        Args:
            closure: not used.
        """
        for group in self.param_groups:
            one, two = group["betas"]
            for w in group["params"]:
                if w.grad is None:
                    continue
                state = self.state[w]
                if not state:
                    state |= {"step": 0, "mean": torch.zeros_like(w), "squares": torch.zeros_like(w)}
                state["step"] += 1
                state["mean"].lerp_(w.grad, 1 - one)
                state["squares"].lerp_(w.grad.square(), 1 - two)
                scale = (state["squares"] / (1 - two ** state["step"])).sqrt_().add_(group["eps"])
                update = state["mean"] / (1 - one ** state["step"]) / scale
                norms = torch.linalg.vector_norm(w), torch.linalg.vector_norm(update)
                trust = torch.where((norms[0] > 0) & (norms[1] > 0), norms[0] / norms[1], 1.0)
                w.sub_(group["lr"] * trust * update)
