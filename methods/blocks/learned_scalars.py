"""The learned numbers of the inner loop: its step size alpha (eta), and its momentum mu."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from methods.blocks.parameterise.base import Balanced

FACTOR = math.log(2)  # the most that one step can change z, so that one huge gradient does not ruin it


class LearnedScalars:
    """A learned number x: `inner_lr`, kept positive as exp(z), or `inner_momentum`, in (0, 1) as sigmoid(z).

    z is learned by gradient descent with momentum, with dL/dz = dL/dx dx/dz. Its learning rate is
    lr / (dx/dz)^2 with dx/dz at the start, so that to first order the first step is that of plain gradient
    descent on x with learning rate `lr`.

    Args:
        synthetic: the set that stores the number; it stores nothing when `lr` is 0.
        name: "inner_lr" or "inner_momentum".
        start: initial value of x.
        lr: learning rate; 0 keeps x fixed.
        momentum: of the descent.
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
        """x, 0-dim; it requires a gradient if it is learned."""
        x = self._z.exp() if self._name == "inner_lr" else self._z.sigmoid()
        return x.requires_grad_(self._rate > 0)

    def step(self, gradient: Tensor | None) -> None:
        """Take one step, given dL/dx (0-dim); None, for a number that is not learned, does nothing."""
        if gradient is None:
            return
        self._velocity = self._momentum * self._velocity + gradient * self._slope(self.value.detach())
        self._z = self._z - (self._rate * self._velocity).clamp(-FACTOR, FACTOR)
        self._synthetic.get_parameter(self._name).data.copy_(self.value.detach())

    def state_dict(self) -> dict[str, Any]:
        """z and its velocity, 0-dim each."""
        return {"z": self._z, "velocity": self._velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        self._z, self._velocity = state["z"].to(self._z), state["velocity"].to(self._z)
