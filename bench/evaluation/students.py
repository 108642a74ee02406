"""The students of one training set: trained together with stacked weights where that pays, else singly."""

import copy
import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils.flop_counter import FlopCounterMode

from bench.core import counting, timing
from bench.core.augment import dsa
from bench.core.augment.cutmix import CutMix
from bench.core.batches import BatchOrder
from bench.core.errors import UserError
from bench.core.losses import label_loss, teacher_loss
from bench.core.networks.base import Network
from bench.core.preprocess import Preprocess
from bench.core.training import (
    ADAMW_BETA2,
    ADAMW_EPS,
    Recipe,
    check_batches,
    maybe_cutmix,
    training,
)
from bench.core.transfer import device_kind, to_device

CPU = torch.device("cpu")
# where training together was measured to pay on one core (a student's multiply-adds: one batch, forward)
FEWEST_STUDENTS, MOST_WEIGHTS, MOST_MULTIPLY_ADDS = 5, 100_000, 2_000_000
DROP_NAMES = ("p", "dropout", "drop_prob")  # what modules call the probability with which they drop something


@dataclass(frozen=True)
class TrainingSet:
    """What every student of a distilled set is trained on, on one device.

    Images [N,C,H,W] are floats as networks see them, targets int64 [N] or probabilities [N,K]. A teacher (in
    evaluation mode) labels each batch as it is trained on, at `temperature`, in the targets' place. With
    `variants`, positions int64 [items,V] of images, an epoch takes one of each row.
    """

    images: Tensor
    targets: Tensor
    recipe: Recipe
    preprocess: Preprocess
    teacher: nn.Module | None = None
    temperature: float = 1.0
    variants: Tensor | None = None

    @property
    def epoch_size(self) -> int:
        """On how many images an epoch trains."""
        return len(self.images if self.variants is None else self.variants)

    @property
    def n_steps(self) -> int:
        """Optimiser steps of a student."""
        return self.recipe.n_steps(self.epoch_size)


@dataclass(frozen=True)
class Students:
    """Networks as they were after some step, in evaluation mode."""

    nets: tuple[nn.Module, ...]

    @property
    def count(self) -> int:
        return len(self.nets)

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """[n,C,H,W] as networks see them -> [count,n,K]. One after the other: a piece fills the device."""
        return torch.stack([net(images) for net in self.nets])


class StackedStudents:
    """Networks of one architecture that take each step at once: weights [S, ...] under vmap.

    The draws are those that `training` makes for each of them alone, from its own generator.
    """

    def __init__(
        self,
        nets: Sequence[nn.Module],
        training_set: TrainingSet,
        generators: Sequence[torch.Generator],
        rates: Sequence[float],
    ) -> None:
        self._nets, self._training_set, self._generators, self._rates = nets, training_set, generators, rates
        self._weights, self._buffers = stack_module_state([net.train() for net in nets])
        self._learned = [w for w in self._weights.values() if w.requires_grad]
        self._velocity = [torch.zeros_like(w) for w in self._learned]
        adaptive = self._learned if training_set.recipe.optimiser == "adamw" else ()
        self._squares = [torch.zeros_like(w) for w in adaptive]
        n, size = training_set.epoch_size, training_set.recipe.batch_size
        self._orders = [BatchOrder(n, size, one, CPU, training_set.variants) for one in generators]

    def training(self) -> Iterator[int]:
        """Train; yields how many optimiser steps were taken."""
        recipe, steps = self._training_set.recipe, self._training_set.n_steps
        descend = self._descend if recipe.optimiser == "sgd" else self._descend_adaptively
        factor, rates, fresh = 0.0, self._rates_of(0.0), recipe.fresh(steps)
        for taken, step in enumerate(timing.paced(steps)):
            if step in fresh:
                torch._foreach_zero_(self._velocity)
            if factor != (now := recipe.rate_factor(step, steps)):
                factor, rates = now, self._rates_of(now)
            gradients = torch.autograd.grad(self._loss(*self._batch()), self._learned)
            descend(list(gradients), rates, taken + 1)
            counting.count_steps(len(self._nets))
            yield step + 1

    def networks(self) -> list[nn.Module]:
        """Copies of the networks with the weights of now."""
        copies = [copy.deepcopy(net) for net in self._nets]
        for i, net in enumerate(copies):
            net.load_state_dict({name: w[i] for name, w in self._weights.items()}, strict=False)
        return copies

    def _rates_of(self, factor: float) -> list[Tensor]:
        """Each student's learning rate, once per weight [S, 1, ...]."""
        rates = (torch.tensor(self._rates, dtype=torch.float64) * factor).to(self._learned[0].dtype)
        rates = to_device(rates, self._learned[0].device)
        return [rates.view(-1, *[1] * (w.dim() - 1)) for w in self._learned]

    @torch.no_grad()
    def _descend(self, gradients: list[Tensor], rates: list[Tensor], _: int) -> None:
        """The step of torch.optim.SGD: v <- momentum v + grad + decay w, w <- w - rate v."""
        recipe = self._training_set.recipe
        torch._foreach_mul_(self._velocity, recipe.momentum)
        torch._foreach_add_(self._velocity, gradients)
        torch._foreach_add_(self._velocity, self._learned, alpha=recipe.weight_decay)
        torch._foreach_addcmul_(self._learned, self._velocity, rates, value=-1)

    @torch.no_grad()
    def _descend_adaptively(self, gradients: list[Tensor], rates: list[Tensor], step: int) -> None:
        """The step of torch.optim.AdamW, from 1; weights of one axis are biases and norms, without decay."""
        recipe = self._training_set.recipe
        one, two = recipe.momentum, ADAMW_BETA2
        torch._foreach_lerp_(self._velocity, gradients, 1 - one)
        torch._foreach_mul_(self._squares, two)
        torch._foreach_addcmul_(self._squares, gradients, gradients, value=1 - two)
        scales = torch._foreach_sqrt(self._squares)
        torch._foreach_div_(scales, (1 - two**step) ** 0.5)
        torch._foreach_add_(scales, ADAMW_EPS)
        torch._foreach_div_(scales, -1 / (1 - one**step))
        for weight, rate in zip(self._learned, rates, strict=True):
            if weight.dim() > 2:  # the first axis is that of the students
                weight.mul_(1 - rate * recipe.weight_decay)
        moves = torch._foreach_div(self._velocity, scales)
        torch._foreach_addcmul_(self._learned, moves, rates)

    def _batch(self) -> tuple[Tensor, Tensor, list[CutMix | None]]:
        """The next images [S B,C,H,W], augmented, their targets, and each student's CutMix."""
        training_set, recipe = self._training_set, self._training_set.recipe
        indices, draws, boxes = [], [], []
        for order, generator in zip(self._orders, self._generators, strict=True):
            index = next(order)
            indices.append(index)
            draws.append(dsa.draw(recipe.augment, len(index), generator))
            shape = torch.Size((len(index), *training_set.images.shape[1:]))
            boxes.append(maybe_cutmix(shape, recipe.cutmix, generator))
        index = to_device(torch.cat(indices), training_set.images.device)
        x = dsa.apply(training_set.images[index], dsa.concat(draws), training_set.preprocess)
        return x, training_set.targets[index], boxes

    def _loss(self, x: Tensor, targets: Tensor, boxes: list[CutMix | None]) -> Tensor:
        """The sum over the students of the mean loss of their batches."""
        training_set, count, kind = self._training_set, len(self._nets), self._training_set.recipe.loss
        mixed = any(boxes)
        if mixed:
            x, partner, weight = _cutmix(x, boxes)
        logits = self._logits(x.unflatten(0, (count, -1))).flatten(0, 1)
        if training_set.teacher is not None:
            weights = targets.sum(1) if targets.ndim == 2 else None
            if weights is not None and mixed:
                weights = weight * weights + (1 - weight) * weights[partner]
            return count * teacher_loss(logits, x, training_set.teacher, training_set.temperature, weights)
        if not mixed:
            return count * label_loss(logits, targets, kind)
        own, pasted = (label_loss(logits, t, kind, "none") for t in (targets, targets[partner]))
        return count * (weight * own + (1 - weight) * pasted).mean()

    def _logits(self, x: Tensor) -> Tensor:
        """[S,B,C,H,W] -> [S,B,K]"""

        def one(weights: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Tensor:
            return functional_call(self._nets[0], (weights, buffers), (images,))

        return vmap(one)(self._weights, self._buffers, x)


def _cutmix(x: Tensor, boxes: Sequence[CutMix | None]) -> tuple[Tensor, Tensor, Tensor]:
    """Each student's own box in [S B,C,H,W]: the mixed images, the partners [S B], and the weights [S B].

    A student without a box keeps its images, with weight 1.
    """
    size = len(x) // len(boxes)
    partner = torch.arange(len(x)).view(len(boxes), size)
    inside = torch.zeros(len(boxes), 1, *x.shape[2:], dtype=torch.bool)
    weight = torch.ones(len(boxes), dtype=x.dtype)
    for i, box in enumerate(boxes):
        if box is not None:
            partner[i] = i * size + box.partner
            inside[i, 0, box.rows, box.columns] = True
            weight[i] = box.weight
    partner, inside, weight = (to_device(t, x.device) for t in (partner.flatten(), inside, weight))
    mixed = torch.where(inside.repeat_interleave(size, 0), x[partner], x)
    return mixed, partner, weight.repeat_interleave(size)


def stackable(net: nn.Module) -> bool:
    """Whether vmap holds all of a training step: no running statistics, and nothing that draws."""
    return not any(
        getattr(module, "track_running_stats", False)
        or isinstance(module, nn.RReLU | nn.FractionalMaxPool2d)
        or any(isinstance(p := getattr(module, name, None), int | float) and p > 0 for name in DROP_NAMES)
        for module in net.modules()
    )


def together_pays(net: nn.Module, training_set: TrainingSet, students: int) -> bool:
    """Whether to train these students together: by device, network, batch and number, never by timing.

    On a CPU only what a step spends on calls is saved, so it pays for many students of small networks: 1.5
    to 3 times as fast where this says so (`make benchmark` times both ways), and down to half as fast
    where it does not. A GPU always takes them together where vmap holds the network (not measured yet).
    """
    if students < 2 or not stackable(net):
        return False
    if device_kind(training_set.images.device) != "cpu":
        return True
    size = min(training_set.recipe.batch_size, training_set.epoch_size)
    few_weights = sum(p.numel() for p in net.parameters()) <= MOST_WEIGHTS
    return (
        students >= FEWEST_STUDENTS
        and few_weights
        and multiply_adds(net, training_set, size) <= MOST_MULTIPLY_ADDS
    )


def multiply_adds(net: nn.Module, training_set: TrainingSet, size: int) -> int:
    """Of the forward pass of a batch: convolutions and matrix products, from shapes alone."""
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(net).to("meta")(training_set.images[:size].to("meta"))
    return counter.get_total_flops() // 2


def train_students(
    build: Callable[[int], Network],
    training_set: TrainingSet,
    generators: Sequence[torch.Generator],
    *,
    rates: Sequence[float] | None = None,
    marks: Sequence[int] = (),
    together: bool | None = None,
) -> dict[int, Students]:
    """Train a student per generator; {step: the students as they were then} for each mark and the last step.

    Student i starts as `build(i)`, moved to the training_set's device, learns at `rates[i]` (by default the
    recipe's) and takes its order and augmentation from `generators[i]`: who else is trained changes nothing.
    `together` forces one of the ways, which agree but for rounding; by default `together_pays` says which.
    Students that do not fit the memory together are trained in halves, down to one by one.

    Raises UserError for marks outside of the training, for no images, for batches that a network cannot be
    trained on, and for a network that cannot be trained together.
    """
    n, recipe = len(training_set.images), training_set.recipe
    count, steps = len(generators), training_set.n_steps
    outside = [mark for mark in marks if not 1 <= mark <= steps]
    if outside:
        raise UserError(f"there is no step {outside[0]} in a training of {steps} steps; use 1 to {steps}")
    rates = [recipe.lr] * count if rates is None else rates
    nets = [build(i).to(training_set.images.device) for i in range(count)]
    check_batches(nets[0], n, recipe.batch_size)
    if together is None:
        together = together_pays(nets[0], training_set, count)
    elif together and not stackable(nets[0]):
        raise UserError(
            "these students cannot be trained together, as their network keeps running statistics or drops "
            "at random; train them one by one"
        )
    found: dict[int, list[nn.Module]] = {step: [] for step in sorted({*marks, steps})}
    first, size = 0, count if together else 1
    while first < count:
        some = slice(first, first + size)
        trained = _train_some(nets[some], training_set, generators[some], rates[some], found.keys())
        if trained is None:
            size = -(-size // 2)
            continue
        for step, networks in trained.items():
            found[step] += networks
        first += size
    return {step: Students(tuple(trained)) for step, trained in found.items()}


def _train_some(
    nets: Sequence[nn.Module],
    training_set: TrainingSet,
    generators: Sequence[torch.Generator],
    rates: Sequence[float],
    marks: Collection[int],
) -> dict[int, list[nn.Module]] | None:
    """Train some students at once; None if several do not fit the memory, with their generators put back."""
    states = [generator.get_state() for generator in generators]
    kept: dict[int, list[nn.Module]] = {}
    try:
        if len(nets) == 1:
            for step in _train_alone(nets[0], training_set, generators[0], rates[0]):
                if step in marks:
                    kept[step] = [copy.deepcopy(nets[0]).eval()]
        else:
            stacked = StackedStudents(nets, training_set, generators, rates)
            for step in stacked.training():
                if step in marks:
                    kept[step] = [net.eval() for net in stacked.networks()]
        return kept
    except torch.OutOfMemoryError:
        if len(nets) == 1:
            raise
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
    return None


def _train_alone(
    net: nn.Module, training_set: TrainingSet, generator: torch.Generator, rate: float
) -> Iterator[int]:
    """Train one student in place, a step at a time."""
    return training(
        net,
        training_set.images,
        training_set.targets,
        dataclasses.replace(training_set.recipe, lr=rate),
        generator,
        preprocess=training_set.preprocess,
        teacher=training_set.teacher,
        temperature=training_set.temperature,
        variants=training_set.variants,
    )
