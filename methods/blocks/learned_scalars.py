"""The learned numbers of the inner loop: its step size alpha (eta), and its momentum mu."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from methods.blocks.parameterise.base import Balanced

FACTOR = math.log(2)  # the most that one step moves the logarithm: a gradient gone wild must not freeze it


class LearnedScalars:
    """`inner_lr`, kept positive as exp(z), or `inner_momentum`, kept in (0, 1) as sigmoid(z).

    Gradient descent with momentum moves z. With x the number, dL/dz = dL/dx dx/dz, and at the rate
    lr / (dx/dz)^2, taken at the start, the first step is to first order that of plain gradient descent on x
    with rate `lr`. The value is part of the artifact; with `lr` 0 it is fixed, and the method's own.
    """

    def __init__(
        self,
        synthetic: Balanced,
        name: Literal["inner_lr", "inner_momentum"],
        start: float,
        lr: float,
        momentum: float,
    ) -> None:
        self._synthetic, self._name, self._momentum = synthetic, name, momentum
        x = torch.tensor(start, device=next(synthetic.parameters()).device)
        self._z, self._velocity = x.log() if name == "inner_lr" else x.logit(), torch.zeros_like(x)
        self._rate = lr / (start if name == "inner_lr" else start * (1 - start)) ** 2
        if lr:
            synthetic.register_parameter(name, nn.Parameter(x.clone(), requires_grad=False))

    def _slope(self, x: Tensor) -> Tensor:
        """dx/dz."""
        return x if self._name == "inner_lr" else x * (1 - x)

    @property
    def value(self) -> Tensor:
        """x, 0-dim: a leaf that asks for its gradient where it is learned."""
        x = self._z.exp() if self._name == "inner_lr" else self._z.sigmoid()
        return x.requires_grad_(self._rate > 0)

    def step(self, gradient: Tensor | None) -> None:
        """One step along dL/dx; None, the gradient of what is not learned, leaves it alone."""
        if gradient is None:
            return
        self._velocity = self._momentum * self._velocity + gradient * self._slope(self.value.detach())
        self._z = self._z - (self._rate * self._velocity).clamp(-FACTOR, FACTOR)
        self._synthetic.get_parameter(self._name).data.copy_(self.value.detach())

    def state_dict(self) -> dict[str, Any]:
        return {"z": self._z, "velocity": self._velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._z, self._velocity = state["z"].to(self._z), state["velocity"].to(self._z)
