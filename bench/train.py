"""Plain training of one network, and its accuracy."""

from collections.abc import Callable, Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt
from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from bench import augment
from bench.artifact import Preprocess


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Recipe:
    """SGD with momentum and steps of the learning rate; `steps` or `epochs`, not both."""

    batch_size: Annotated[int, Gt(0)]
    lr: Annotated[float, Gt(0)]
    momentum: Annotated[float, Ge(0)] = 0.9
    weight_decay: Annotated[float, Ge(0)] = 5e-4
    steps: Annotated[int, Gt(0)] | None = None
    epochs: Annotated[int, Gt(0)] | None = None
    # fractions of the training after which the rate is multiplied by gamma
    milestones: tuple[Annotated[float, Gt(0), Lt(1)], ...] = ()
    gamma: Annotated[float, Gt(0)] = 0.1
    augment: str = "none"  # a DSA strategy, drawn per image

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give steps or epochs, and not both")
        augment.parse(self.augment)

    def n_steps(self, n_images: int) -> int:
        """Optimiser steps on a set of this size; the last, partial batch of an epoch is a step too."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or 0) * -(-n_images // self.batch_size)


RECIPE = TypeAdapter(Recipe)


def batches(n: int, size: int, generator: torch.Generator, device: torch.device) -> Iterator[Tensor]:
    """Endless index batches, a new permutation each epoch; the last of an epoch may be smaller."""
    while True:
        yield from torch.randperm(n, generator=generator).to(device).split(size)


def train(
    net: nn.Module,
    images: Tensor,
    targets: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    preprocess: Preprocess | None = None,
) -> None:
    """Train in place on [N,C,H,W] images (normalised floats, or uint8 with `preprocess`).

    Targets are class indices [N] or probabilities [N,K]. Order and augmentation come from `generator`.
    """
    n = len(images)
    steps = recipe.n_steps(n)
    optimiser = torch.optim.SGD(
        net.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    drops = [round(m * steps) for m in recipe.milestones]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, drops, recipe.gamma)
    net.train()
    order = batches(n, recipe.batch_size, generator, images.device)
    for _, index in zip(range(steps), order, strict=False):
        x = images[index] if preprocess is None else preprocess(images[index])
        x = augment.apply(x, augment.draw(recipe.augment, len(x), generator))
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(net(x), targets[index]).backward()
        optimiser.step()
        schedule.step()


def in_pieces(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """`function` of all images [N,...], some at a time; for what does not couple the images of a batch.

    On a CPU the activations of a piece stay in the cache: 50 images at a time were measured 2 to 3 times
    faster than 1000. A GPU wants to be filled.
    """
    size = 50 if images.device.type == "cpu" else 2000
    return torch.cat([function(x) for x in images.split(size)])


@torch.inference_mode()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor, preprocess: Preprocess) -> float:
    """The fraction of uint8 images [N,C,H,W] classified right; one wait for the device, at the end."""
    net.eval()
    predicted = in_pieces(lambda x: net(preprocess(x)).argmax(1), images)
    return int((predicted == labels).sum()) / len(labels)
