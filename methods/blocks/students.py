"""A network on its way through training, which can be put aside at any step and taken up again exactly."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from bench.core import timing
from bench.core.networks.base import Network
from bench.core.training import Recipe, augmented_loss


class InnerStudent:
    """A network and its SGD, trained one batch at a time at a constant learning rate.

    Of the recipe it reads lr, momentum, weight_decay, augment and cutmix; augmentation comes from `draws`.
    """

    def __init__(self, net: Network, recipe: Recipe, draws: torch.Generator) -> None:
        self.net, self._recipe, self._draws = net.train(), recipe, draws
        self.optimiser = torch.optim.SGD(
            net.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )

    @timing.charged("network update")
    def step(self, images: Tensor, targets: Tensor) -> None:
        """One step on normalised images [n,C,H,W] and class indices [n] or probabilities [n,K].

        No gradient stays behind, neither on the network nor on what the images came from.
        """
        recipe = self._recipe
        loss = augmented_loss(self.net, images, targets, recipe.augment, recipe.cutmix, self._draws)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def velocity(self) -> Tensor:
        """The momentum [P], flat like the weights; there is one after the first step."""
        parameters = self.net.parameters()
        return parameters_to_vector([self.optimiser.state[p]["momentum_buffer"] for p in parameters])

    def set_velocity(self, velocity: Tensor) -> None:
        """Go on with this momentum [P], which becomes the student's own."""
        parameters = list(self.net.parameters())
        for p, v in zip(parameters, velocity.split([p.numel() for p in parameters]), strict=True):
            self.optimiser.state[p]["momentum_buffer"] = v.view_as(p)

    def state_dict(self) -> dict[str, Any]:
        """Weights and momentum; the draws are kept by whoever gave them."""
        return {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict()` was taken."""
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
