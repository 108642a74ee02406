"""A network in training, whose state can be saved after any step and restored exactly."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from bench.core import timing
from bench.core.networks.base import Network
from bench.core.training import Recipe, augmented_loss, draw_augmentation


class InnerStudent:
    """A network and its SGD, trained one batch at a time at a constant learning rate.

    Args:
        net: the network; trained in place.
        recipe: only its lr, momentum, weight_decay, augment and cutmix are used.
        draws: a CPU generator for the augmentation.
    """

    def __init__(self, net: Network, recipe: Recipe, draws: torch.Generator) -> None:
        self.net, self._recipe, self._draws = net.train(), recipe, draws
        self.optimiser = torch.optim.SGD(
            net.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )

    @timing.charged("network update")
    def step(self, images: Tensor, targets: Tensor) -> None:
        """Take one step; no gradient is kept, neither in the network nor in what the images come from.

        Args:
            images: normalised [n,C,H,W].
            targets: classes int64 [n], or probabilities [n,K].
        """
        recipe = self._recipe
        loss = augmented_loss(self.net, images, targets, recipe.augment, recipe.cutmix, self._draws)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def skip(self, shape: tuple[int, ...]) -> None:
        """Make the draws of a step on a batch of this shape (N, C, H, W), and do not take it."""
        draw_augmentation(shape, self._recipe.augment, self._recipe.cutmix, self._draws)

    def velocity(self) -> Tensor:
        """The momentum [P], in the order of the weights; there is none before the first step."""
        parameters = self.net.parameters()
        return parameters_to_vector([self.optimiser.state[p]["momentum_buffer"] for p in parameters])

    def set_velocity(self, velocity: Tensor) -> None:
        """Continue with this momentum [P]; the tensor is not copied."""
        parameters = list(self.net.parameters())
        for p, v in zip(parameters, velocity.split([p.numel() for p in parameters]), strict=True):
            self.optimiser.state[p]["momentum_buffer"] = v.view_as(p)

    def state_dict(self) -> dict[str, Any]:
        """Weights and momentum; the state of `draws` is not included."""
        return {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
