"""Plain training of one network, and its accuracy."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from bench.core import timing
from bench.core.augment import dsa
from bench.core.augment.cutmix import CutMix, apply_cutmix, draw_cutmix
from bench.core.preprocess import Preprocess


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Recipe:
    """SGD with momentum and steps of the learning rate; `steps` or `epochs`, not both."""

    batch_size: Annotated[int, Gt(0), Field(description="images per step")]
    lr: Annotated[float, Gt(0), Field(description="learning rate")]
    momentum: Annotated[float, Ge(0), Field(description="of the optimiser")] = 0.9
    weight_decay: Annotated[float, Ge(0), Field(description="of the optimiser")] = 5e-4
    steps: Annotated[Annotated[int, Gt(0)] | None, Field(description="optimiser steps")] = None
    epochs: Annotated[Annotated[int, Gt(0)] | None, Field(description="passes over the images")] = None
    milestones: Annotated[
        tuple[Annotated[float, Gt(0), Lt(1)], ...],
        Field(description="fractions of the training after which the learning rate is multiplied by gamma"),
    ] = ()
    gamma: Annotated[float, Gt(0), Field(description="factor of the learning rate at each milestone")] = 0.1
    augment: Annotated[
        str, Field(description="augmentation, drawn for each image: a DSA strategy or a policy by name")
    ] = "none"
    cutmix: Annotated[
        float, Ge(0), Le(1), Field(description="probability that a batch is mixed by CutMix")
    ] = 0.0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give steps or epochs, and not both")
        dsa.parse_strategy(self.augment, policies=True)

    def n_steps(self, n_images: int) -> int:
        """Optimiser steps on a set of this size; the last, partial batch of an epoch is a step too."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or 0) * -(-n_images // self.batch_size)

    def drops(self, steps: int) -> list[int]:
        """The numbers of steps, out of `steps`, after which the rate is multiplied by gamma."""
        return [round(m * steps) for m in self.milestones]


RECIPE = TypeAdapter(Recipe)


class BatchOrder(Iterator[Tensor]):
    """Endless index batches of n items, a new permutation each epoch; the last of an epoch may be smaller.

    The generator is a CPU one; the indices are int64 on `device`. A saved state resumes it exactly.
    """

    def __init__(self, n: int, size: int, generator: torch.Generator, device: torch.device) -> None:
        self._n, self._size, self._generator, self._device = n, size, generator, device
        self._permutation = torch.empty(0, dtype=torch.int64, device=device)
        self._cursor = n  # nothing is left: the first batch shuffles

    def __next__(self) -> Tensor:
        if self._cursor >= self._n:
            self._permutation = torch.randperm(self._n, generator=self._generator).to(
                self._device, non_blocking=True
            )
            self._cursor = 0
        batch = self._permutation[self._cursor : self._cursor + self._size]
        self._cursor += self._size
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The permutation, the place in it, and the generator's state."""
        state = {"permutation": self._permutation, "cursor": self._cursor}
        return {**state, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict()` was taken."""
        self._permutation, self._cursor = state["permutation"].to(self._device), state["cursor"]
        self._generator.set_state(state["generator"].cpu())


def maybe_cutmix(shape: torch.Size, probability: float, generator: torch.Generator) -> CutMix | None:
    """CutMix of a batch [N,C,H,W] with this probability; 0 draws nothing at all."""
    if not probability or float(torch.rand((), generator=generator)) >= probability:
        return None
    return draw_cutmix(shape, generator)


def teacher_loss(logits: Tensor, images: Tensor, teacher: nn.Module, temperature: float) -> Tensor:
    """T^2 CE(logits / T, softmax(teacher(images) / T)), the batch mean (Hinton et al., 2015, section 2).

    Logits [N,K] are the student's of the same images [N,C,H,W]; the teacher gets no gradient.
    """
    with torch.no_grad():
        probabilities = (teacher(images) / temperature).softmax(1)
    return temperature**2 * F.cross_entropy(logits / temperature, probabilities)


def augmented_loss(
    net: nn.Module,
    images: Tensor,
    targets: Tensor,
    strategy: str,
    cutmix: float,
    generator: torch.Generator,
    preprocess: Preprocess | None = None,
    teacher: nn.Module | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Mean cross-entropy of one training batch [N,C,H,W], augmented image by image, then mixed.

    Targets are class indices [N] or probabilities [N,K]; a teacher's answers to the batch as it is trained
    on take their place. CutMix comes with probability `cutmix`; 0 draws nothing for it. Augmentation
    policies read pixels, which takes the images' `preprocess`. All draws come from the CPU generator, so
    nothing waits for the device.
    """
    x = dsa.apply(images, dsa.draw(strategy, len(images), generator), preprocess)
    drawn = maybe_cutmix(x.shape, cutmix, generator)
    x = x if drawn is None else apply_cutmix(x, drawn)
    logits = net(x)
    if teacher is not None:
        return teacher_loss(logits, x, teacher, temperature)
    own = F.cross_entropy(logits, targets)
    if drawn is None:
        return own
    partners = targets[drawn.partner.to(targets.device, non_blocking=True)]
    return drawn.weight * own + (1 - drawn.weight) * F.cross_entropy(logits, partners)


def training(
    net: nn.Module,
    images: Tensor,
    targets: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    preprocess: Preprocess | None = None,
    teacher: nn.Module | None = None,
    temperature: float = 1.0,
) -> Iterator[int]:
    """Train in place as `train` does, a step at a time: yields how many optimiser steps were taken."""
    n = len(images)
    steps = recipe.n_steps(n)
    optimiser = torch.optim.SGD(
        net.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, recipe.drops(steps), recipe.gamma)
    net.train()
    order = BatchOrder(n, recipe.batch_size, generator, images.device)
    read = preprocess if images.dtype == torch.uint8 else None
    for step, index in zip(timing.paced(steps), order, strict=False):
        x = images[index] if read is None else read(images[index])
        optimiser.zero_grad(set_to_none=True)
        loss = augmented_loss(
            net,
            x,
            targets[index],
            recipe.augment,
            recipe.cutmix,
            generator,
            preprocess=preprocess,
            teacher=teacher,
            temperature=temperature,
        )
        loss.backward()
        optimiser.step()
        schedule.step()
        yield step + 1


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
    for _ in training(net, images, targets, recipe, generator, preprocess):
        pass


def piece_size(device: torch.device) -> int:
    """How many images go through a network at a time.

    On a CPU the activations of a piece stay in the cache: 50 images at a time were measured 2 to 3 times
    faster than 1000. A GPU wants to be filled.
    """
    return 50 if device.type == "cpu" else 2000


def in_pieces(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """`function` of all images [N,...], some at a time; for what does not couple the images of a batch."""
    return torch.cat([function(x) for x in images.split(piece_size(images.device))])


@torch.inference_mode()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor, preprocess: Preprocess) -> float:
    """The fraction of uint8 images [N,C,H,W] classified right; one wait for the device, at the end."""
    net.eval()
    predicted = in_pieces(lambda x: net(preprocess(x)).argmax(1), images)
    return int((predicted == labels).sum()) / len(labels)
