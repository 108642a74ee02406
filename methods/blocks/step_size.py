"""The learned step size of the inner loop."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from methods.blocks.parameterise import Balanced

FACTOR = math.log(2)  # the most that one step changes it: a gradient gone wild must not freeze it at 0


class StepSize:
    """alpha, kept positive: gradient descent with momentum moves its logarithm.

    d/d log alpha = alpha d/d alpha; with the rate lr / alpha_0^2 the first step is that of plain gradient
    descent on alpha with rate `lr`. The value is part of the artifact (`synthetic.inner_lr`); with `lr` 0 it
    is fixed, and a number of the method only.
    """

    def __init__(self, synthetic: Balanced, start: float, lr: float, momentum: float) -> None:
        self._synthetic, self._rate, self._momentum = synthetic, lr / start**2, momentum
        value = torch.tensor(start, device=next(synthetic.parameters()).device)
        if lr:
            synthetic.inner_lr = nn.Parameter(value.clone(), requires_grad=False)
        self._log, self._velocity = value.log(), torch.zeros_like(value)

    @property
    def value(self) -> Tensor:
        """alpha, 0-dim: a leaf that asks for its gradient where it is learned."""
        return self._log.exp().requires_grad_(self._rate > 0)

    def step(self, gradient: Tensor | None) -> None:
        """One step along dL/d alpha; None, the gradient of what is not learned, leaves it alone."""
        if gradient is None:
            return
        self._velocity = self._momentum * self._velocity + gradient * self._log.exp()
        self._log = self._log - (self._rate * self._velocity).clamp(-FACTOR, FACTOR)
        assert self._synthetic.inner_lr is not None
        self._synthetic.inner_lr.data.copy_(self._log.exp())

    def state_dict(self) -> dict[str, Any]:
        return {"log": self._log, "velocity": self._velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._log, self._velocity = state["log"].to(self._log), state["velocity"].to(self._log)
