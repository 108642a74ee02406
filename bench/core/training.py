"""Training of one network, and its accuracy."""

from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from bench.core import counting, timing
from bench.core.augment import dsa
from bench.core.augment.cutmix import CutMix, apply_cutmix, draw_cutmix
from bench.core.batches import BatchOrder, batch_share, batches_per_epoch
from bench.core.errors import UserError
from bench.core.losses import LossKind, label_loss, teacher_loss
from bench.core.pieces import Halving, piece_size
from bench.core.preprocess import Preprocess
from bench.core.schedules import cosine
from bench.core.transfer import to_device


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Recipe:
    """How a network is trained: optimiser, schedule of the learning rate, augmentation, `steps` or `epochs`.

    The fields after `cutmix` came later: at their default they are left out of what is written, and of keys.
    """

    batch_size: Annotated[
        int, Gt(0), Field(description="images per step; one image left over joins the step before")
    ]
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
    optimiser: Annotated[
        Literal["sgd", "adamw"],
        Field(
            exclude_if=lambda value: value == "sgd",
            description="SGD; or AdamW, whose first beta is `momentum` (the second is 0.999) and whose decay "
            "leaves out biases and norms",
        ),
    ] = "sgd"
    schedule: Annotated[
        Literal["steps", "cosine", "half_cosine"],
        Field(
            exclude_if=lambda value: value == "steps",
            description="of the learning rate: `milestones`; or a cosine that ends at 0; or its first half, "
            "which ends at half the rate",
        ),
    ] = "steps"
    loss: Annotated[
        LossKind,
        Field(
            exclude_if=lambda value: value == "cross_entropy",
            description="cross-entropy; or half of the squared distance between the logits and the labels, "
            "less 1/K and divided by sqrt(K/10), as in FRePo",
        ),
    ] = "cross_entropy"
    fresh_at_drops: Annotated[
        bool,
        Field(
            exclude_if=lambda value: not value,
            description="each milestone begins with a new optimiser, whose momentum is empty; SGD only",
        ),
    ] = False

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give steps or epochs, and not both")
        if self.milestones and self.schedule != "steps":
            raise ValueError(f"milestones: not with `schedule: {self.schedule}`")
        if self.fresh_at_drops and self.optimiser != "sgd":
            raise ValueError("fresh_at_drops: with `optimiser: sgd` only")
        dsa.parse_strategy(self.augment, policies=True)

    def n_steps(self, n_images: int) -> int:
        """Optimiser steps for `n_images` images; a smaller last batch of an epoch counts as a step."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or 0) * batches_per_epoch(n_images, self.batch_size)

    def fresh(self, steps: int) -> list[int]:
        """The steps, out of `steps`, after which the momentum is emptied."""
        return self.drops(steps) if self.fresh_at_drops else []

    def drops(self, steps: int) -> list[int]:
        """The steps, out of `steps`, after which the learning rate is multiplied by gamma."""
        return [round(m * steps) for m in self.milestones]

    def rate_factor(self, step: int, steps: int) -> float:
        """By what the learning rate is multiplied after `step` of `steps` optimiser steps."""
        if self.schedule == "steps":
            return self.gamma ** sum(drop <= step for drop in self.drops(steps))
        periods = 1 if self.schedule == "cosine" else 2
        return cosine(step, periods * steps)


RECIPE = TypeAdapter(Recipe)
ADAMW_BETA2, ADAMW_EPS = 0.999, 1e-8


def build_optimiser(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of a recipe, for all weights of a network."""
    weights = list(net.parameters())
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            weights, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    groups = [
        {"params": [w for w in weights if w.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [w for w in weights if w.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, ADAMW_BETA2), eps=ADAMW_EPS)


def _build_schedule(
    optimiser: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if recipe.schedule == "steps":
        return torch.optim.lr_scheduler.MultiStepLR(optimiser, recipe.drops(steps), recipe.gamma)
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: recipe.rate_factor(step, steps))


def check_batches(net: nn.Module, n: int, size: int) -> None:
    """Check that a network can be trained on n images in batches of `size`.

    Raises:
        UserError: there are no images, or batches of one for a network with batch norm.
    """
    if n < 1:
        raise UserError("no images to train on: give every class at least one")
    if min(n, size) == 1 and has_batch_norm(net):
        raise UserError(
            "batch norm cannot be trained on batches of one image: take another norm, or more images and a "
            "batch_size of at least 2"
        )


def has_batch_norm(net: nn.Module) -> bool:
    """Whether some layer takes its statistics over a batch, so that images of a batch are coupled."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())


def maybe_cutmix(shape: tuple[int, ...], probability: float, generator: torch.Generator) -> CutMix | None:
    """Draw CutMix for a batch [N,C,H,W] with this probability, else None; probability 0 draws nothing."""
    if not probability or float(torch.rand((), generator=generator)) >= probability:
        return None
    return draw_cutmix(shape, generator)


def draw_augmentation(
    shape: tuple[int, ...], strategy: str, cutmix: float, generator: torch.Generator
) -> tuple[dsa.Draw, CutMix | None]:
    """Draw what a training batch [N,C,H,W] needs: an augmentation for each image, then perhaps CutMix."""
    return dsa.draw(strategy, shape[0], generator), maybe_cutmix(shape, cutmix, generator)


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
    loss: LossKind = "cross_entropy",
) -> Tensor:
    """Mean loss of one training batch, augmented image by image and then mixed by CutMix.

    Args:
        net: the network.
        images: the batch [N,C,H,W], normalised.
        targets: classes int64 [N], or probabilities [N,K].
        strategy: the augmentation, as `dsa.parse_strategy` reads it.
        cutmix: the probability of CutMix; 0 draws nothing for it.
        generator: a CPU generator for all draws, so that nothing waits for the device.
        preprocess: how the images were normalised; needed by augmentation policies, which work on pixels.
        teacher: a network whose probabilities for the augmented batch take the place of `targets`. Of
            targets [N,K] the sums stay, as weights of the images.
        temperature: of the teacher's loss, see `teacher_loss`.
        loss: without a teacher, see `label_loss`.

    Returns:
        The loss, 0-dim.

    Raises:
        UserError: the strategy is an augmentation policy, and `preprocess` is missing.
    """
    each, drawn = draw_augmentation(images.shape, strategy, cutmix, generator)
    x = dsa.apply(images, each, preprocess)
    x = x if drawn is None else apply_cutmix(x, drawn)
    logits = net(x)
    if teacher is not None:
        weights = targets.sum(1) if targets.ndim == 2 else None
        if weights is not None and drawn is not None:
            partner = to_device(drawn.partner, targets.device)
            weights = drawn.weight * weights + (1 - drawn.weight) * weights[partner]
        return teacher_loss(logits, x, teacher, temperature, weights)
    own = label_loss(logits, targets, loss)
    if drawn is None:
        return own
    partners = targets[to_device(drawn.partner, targets.device)]
    return drawn.weight * own + (1 - drawn.weight) * label_loss(logits, partners, loss)


def training(
    net: nn.Module,
    images: Tensor,
    targets: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    preprocess: Preprocess | None = None,
    teacher: nn.Module | None = None,
    temperature: float = 1.0,
    variants: Tensor | None = None,
) -> Iterator[int]:
    """Train a network in place, one optimiser step at a time.

    Args:
        net: the network.
        images: [N,C,H,W], normalised floats, or uint8 together with `preprocess`.
        targets: classes int64 [N], or probabilities [N,K].
        recipe: optimiser, schedule, augmentation and length.
        generator: a CPU generator for the order of the images and their augmentation.
        preprocess: how uint8 images become what the network sees.
        teacher: a network whose probabilities take the place of `targets`.
        temperature: of the teacher's loss, see `teacher_loss`.
        variants: int64 [items,V], positions of images; an epoch goes over the items, and takes one of the V
            for each. By default it goes over the images.

    Yields:
        The number of optimiser steps taken so far: 1, 2, ...

    Raises:
        UserError: see `check_batches`.
    """
    n = len(images if variants is None else variants)
    check_batches(net, n, recipe.batch_size)
    steps = recipe.n_steps(n)
    share = batch_share(n, recipe.batch_size, steps)
    optimiser = build_optimiser(net, recipe)
    schedule, fresh = _build_schedule(optimiser, recipe, steps), recipe.fresh(steps)
    net.train()
    order = BatchOrder(n, recipe.batch_size, generator, images.device, variants)
    read = preprocess if images.dtype == torch.uint8 else None
    for step, index in zip(timing.paced(steps, share), order, strict=False):
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
            loss=recipe.loss,
        )
        loss.backward()
        optimiser.step()
        schedule.step()
        if step + 1 in fresh:
            optimiser.state.clear()
        counting.count_steps()
        yield step + 1


def train(
    net: nn.Module,
    images: Tensor,
    targets: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    preprocess: Preprocess | None = None,
) -> None:
    """Train a network in place; see `training` for a loop that can be watched.

    Args:
        net: the network.
        images: [N,C,H,W], normalised floats, or uint8 together with `preprocess`.
        targets: classes int64 [N], or probabilities [N,K].
        recipe: optimiser, schedule, augmentation and length.
        generator: a CPU generator for the order of the images and their augmentation.
        preprocess: how uint8 images become what the network sees.
    """
    for _ in training(net, images, targets, recipe, generator, preprocess):
        pass


def in_pieces(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """`function` of all images [N,...], some at a time; for what does not couple the images of a batch.

    Pieces that a watcher leaves out (see `timing.paced`) get the rows of the first that it does not.
    """
    pieces, found = images.split(piece_size(images.device, images.shape)), {}
    fitting = Halving(function)
    for i in timing.paced(len(pieces), len(images) / (len(pieces) * max(1, len(pieces[0])))):
        found[i] = fitting(pieces[i])
        counting.count_passes(len(pieces[i]))
    if len(found) < len(pieces):
        first = found[min(found)]
        rows = torch.arange(len(pieces[0]), device=first.device) % len(first)
        found = {i: found.get(i, first[rows[: len(piece)]]) for i, piece in enumerate(pieces)}
    return torch.cat([found[i] for i in range(len(pieces))])


@torch.inference_mode()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor, preprocess: Preprocess) -> float:
    """The fraction of images that the network classifies correctly, in evaluation mode.

    Args:
        net: the network.
        images: uint8 [N,C,H,W].
        labels: int64 [N].
        preprocess: how the images become what the network sees.

    Returns:
        A fraction in [0, 1]. The device is waited for once, at the end.
    """
    net.eval()
    predicted = in_pieces(lambda x: net(preprocess(x)).argmax(1), images)
    return int((predicted == labels).sum()) / len(labels)
