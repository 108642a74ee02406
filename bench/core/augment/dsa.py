"""Differentiable siamese augmentation (DSA; Zhao & Bilen, ICML 2021), batched, with explicit random draws.

A strategy consists of stages. `+` joins stages, which are applied one after the other; `_` separates the
operations of a stage, one of which is drawn. So `color_crop_flip` applies one of three (as DSA does), and
`color+crop+cutout` applies all three (as IDC does). `dc-crop`, `dc-scale`, `dc-rotate` and `dc-noise` are
the operations with which DC trains students (bench.core.augment.dc_operations). `augmix`, the policies
`autoaugment` and `randaugment` (bench.core.augment.policies) and `tiles`, `tiles2` to `tiles5`
(bench.core.augment.tiles) are whole stages.

A `Draw` holds the operations and their parameters for each group of images. With groups of one image, each
image is augmented independently, as in ordinary training. With one group per class, used for both the real
and the synthetic images of that class, it is the siamese augmentation of the matching methods. Images are
normalised, so the fill value 0 is the data set's mean; the policies fill with black.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.core import timing
from bench.core.augment.dc_operations import DC_CONSTANTS, DC_OPERATIONS, NOISE, dc_noise
from bench.core.augment.geometry import shift, turn, warp
from bench.core.augment.policies import POLICY_OPERATIONS, Policy, dispatch, draw_policy, policy_constants
from bench.core.augment.tiles import RATIO, TILE_OPERATIONS, TRIES, TileDraw, draw_tiles
from bench.core.errors import UserError
from bench.core.preprocess import Preprocess
from bench.core.registry import choose
from bench.core.transfer import to_device

CROP, CUTOUT, SCALE, ROTATE = 0.125, 0.5, 1.2, 15.0  # ratios of the side; factor; degrees
FLIP = 0.5  # probability
BRIGHTNESS, SATURATION, CONTRAST = (
    (-0.5, 0.5),
    (0.0, 2.0),
    (0.5, 1.5),
)  # ranges: one is added, two are factors
_PARAMS = 3  # the most uniforms that one operation reads
AUGMIX = "augmix"
CHAINS, DEPTH, CHAIN_OPS = 3, 3, ("color", "crop", "scale", "rotate")  # of AugMix; DEPTH at the most
_NO_GRADIENT = (
    "a policy works on 8-bit pixels and passes no gradient; use it to train the students of a protocol, "
    "and not inside a distillation"
)


def flip(x: Tensor, u: Tensor) -> Tensor:
    """Horizontal flip with probability 1/2."""
    return torch.where((u[:, 0] < FLIP).view(-1, 1, 1, 1), x.flip(3), x)


def color(x: Tensor, u: Tensor) -> Tensor:
    """Brightness x + (u - 0.5), saturation times 2u, contrast times (u + 0.5), in this order."""
    ranges = (BRIGHTNESS, SATURATION, CONTRAST)
    bright, saturate, contrast = (
        (u[:, i] * (high - low) + low).view(-1, 1, 1, 1) for i, (low, high) in enumerate(ranges)
    )
    x = x + bright
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * saturate + grey if x.shape[1] > 1 else x
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * contrast + mean


def crop(x: Tensor, u: Tensor) -> Tensor:
    """Shift each axis by a whole number of pixels in [-side/8, side/8], filling with zeros."""
    pad = int(x.shape[2] * CROP + 0.5)
    return shift(x, (u[:, :2] * (2 * pad + 1)).long().clamp_(max=2 * pad), pad)


def cutout(x: Tensor, u: Tensor) -> Tensor:
    """Set a square to zero: half the image's side, centred anywhere in the image, clipped at the border."""
    _, _, h, w = x.shape
    side = int(h * CUTOUT + 0.5)

    def inside(centre: Tensor, length: int) -> Tensor:  # [n, length]
        first = (centre * (length + 1 - side % 2)).floor()[:, None] - side // 2
        at = torch.arange(length, device=x.device)
        return (at >= first) & (at < first + side)

    hole = inside(u[:, 0], h)[:, :, None] & inside(u[:, 1], w)[:, None, :]
    return x * ~hole[:, None]


def scale(x: Tensor, u: Tensor) -> Tensor:
    """Scale each axis by its own factor between 1/1.2 and 1.2, filling with zeros."""
    factor = u[:, :2] * (SCALE - 1 / SCALE) + 1 / SCALE
    theta = torch.zeros(len(x), 2, 3, dtype=x.dtype, device=x.device)
    theta[:, 0, 0], theta[:, 1, 1] = factor[:, 0], factor[:, 1]
    return warp(x, theta)


def rotate(x: Tensor, u: Tensor) -> Tensor:
    """Rotate by an angle between -15 and 15 degrees, filling with zeros."""
    return turn(x, (u[:, 0] - 0.5) * 2 * ROTATE)


OPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": color,
    "crop": crop,
    "cutout": cutout,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
    **DC_OPERATIONS,
}
_FUNCTIONS = {"none": lambda x, _: x, **OPS}
WHOLE = (AUGMIX, *POLICY_OPERATIONS, *TILE_OPERATIONS)  # each is a whole stage


@functools.cache
def parse_strategy(strategy: str, *, policies: bool = False) -> tuple[tuple[str, ...], ...]:
    """The stages of a strategy: `color+crop_flip` -> (("color",), ("crop", "flip")), `none` -> ().

    Args:
        strategy: the text.
        policies: whether augmentation policies are allowed. They pass no gradient, so a distillation cannot
            use them.

    Returns:
        The operations of each stage.

    Raises:
        UserError: an operation is unknown, AugMix or a policy shares its stage with others, or there is a
            policy and none is allowed.
    """
    if strategy == "none":
        return ()
    stages = [stage.split("_") for stage in strategy.split("+")]
    for stage in stages:
        whole = next((op for op in stage if op in WHOLE), None)
        if whole is not None and len(stage) > 1:
            raise UserError(
                f"augmentation {strategy!r}: {whole} is a stage of its own; join it with +, not _"
            )
        if whole in POLICY_OPERATIONS and not policies:
            raise UserError(f"augmentation {strategy!r}: {_NO_GRADIENT}")
    return tuple(tuple(choose("augmentation", op, (*OPS, *WHOLE)) for op in stage) for stage in stages)


_CONSTANTS: dict[str, Any] = {
    "color": {"brightness": BRIGHTNESS, "saturation": SATURATION, "contrast": CONTRAST},
    "crop": CROP,
    "cutout": CUTOUT,
    "flip": FLIP,
    "scale": SCALE,
    "rotate": ROTATE,
    **DC_CONSTANTS,
}


@functools.cache
def constants(strategy: str) -> dict[str, Any]:
    """{operation: its constants} of all operations of a strategy, as plain JSON: part of every key.

    Raises UserError as `parse_strategy` does.
    """
    operations = {op for stage in parse_strategy(strategy, policies=True) for op in stage}
    found = {op: policy_constants(op) for op in operations & POLICY_OPERATIONS.keys()}
    if AUGMIX in operations:
        found[AUGMIX] = {"chains": CHAINS, "depth": DEPTH}
        operations |= set(CHAIN_OPS)
    found |= {op: {"ratio": RATIO, "tries": TRIES} for op in operations & TILE_OPERATIONS.keys()}
    return found | {op: _CONSTANTS[op] for op in operations & _CONSTANTS.keys()}


@dataclass(frozen=True)
class Pick:
    """A stage that applies one operation to each of G groups.

    Args:
        ops: the operations to choose from.
        choice: position of each group's operation in `ops`, int64 [G], on the CPU.
        uniforms: the operation's random numbers in [0, 1), [G, 3], on the CPU.
    """

    ops: tuple[str, ...]
    choice: Tensor
    uniforms: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Augment images [G*B,C,H,W], running each operation once, on all of its groups.

        The choice is known on the host, so nothing waits for the device.
        """
        size = len(images) // len(self.choice)
        here, choice = self.uniforms.repeat_interleave(size, 0), self.choice.repeat_interleave(size)
        operations = [
            (lambda x, _, u=here[choice == i]: dc_noise(x, u)) if op == NOISE else _FUNCTIONS[op]
            for i, op in enumerate(self.ops)
        ]
        uniforms = to_device(here, images.device).to(images.dtype)
        if len(operations) == 1:  # nothing to sort
            return operations[0](images, uniforms)
        return dispatch(choice, operations, images, uniforms)


@dataclass(frozen=True)
class Mix:
    """A stage that applies AugMix to each of G groups.

    Args:
        shares: weights of the image and of each chain's result, [G, 1 + chains].
        chains: the operations of each chain.
    """

    shares: Tensor
    chains: tuple[tuple[Pick, ...], ...]

    def __call__(self, images: Tensor) -> Tensor:
        """The convex combination of images [G*B,C,H,W] with the results of the chains."""
        shares = self.shares.repeat_interleave(len(images) // len(self.shares), 0)
        shares = to_device(shares, images.device).to(images.dtype)
        mixed = images * shares[:, 0].view(-1, 1, 1, 1)
        for chain, share in zip(self.chains, shares[:, 1:].unbind(1), strict=True):
            mixed = mixed + functools.reduce(lambda x, pick: pick(x), chain, images) * share.view(-1, 1, 1, 1)
        return mixed


@dataclass(frozen=True)
class Draw:
    """The augmentation drawn for each group of images; it can be applied any number of times.

    Args:
        groups: number of groups, G.
        stages: applied one after the other.
    """

    groups: int
    stages: tuple[Pick | Mix | Policy | TileDraw, ...]


@timing.charged("augment")
def draw(strategy: str, groups: int, generator: torch.Generator) -> Draw:
    """Draw, for each group, one operation of each stage (uniformly) and its parameters.

    Args:
        strategy: see `parse_strategy`. "none" draws as many numbers as one stage, and applies nothing.
        groups: number of groups.
        generator: a CPU generator.

    Returns:
        The draw, for `apply`.

    References:
        Zhao & Bilen, Differentiable Siamese Augmentation, ICML 2021, section 3.2.
    """
    stages = parse_strategy(strategy, policies=True)
    if not stages:
        _pick(("none",), groups, generator)
    return Draw(groups, tuple(_stage(ops, groups, generator) for ops in stages))


def concat(draws: Sequence[Draw]) -> Draw:
    """Join draws of the same strategy: the groups of the first, then those of the second, and so on.

    Applying the result to concatenated images gives the same as applying each draw to its own images. Raises
    ValueError for draws of different strategies.
    """
    stages = zip(*(drawn.stages for drawn in draws), strict=True)
    return Draw(sum(drawn.groups for drawn in draws), tuple(_joined(parts) for parts in stages))


def _joined(parts: Sequence[Any]) -> Any:
    """Join stages of the same strategy: only their tensors differ, whose first axis is that of the groups."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(tuple(parts))
    if isinstance(first, Pick | Mix | Policy | TileDraw):
        return type(first)(*map(_joined, zip(*(vars(part).values() for part in parts), strict=True)))
    if isinstance(first, tuple):
        return tuple(map(_joined, zip(*parts, strict=True)))
    if any(part != first for part in parts):
        raise ValueError("draws of different strategies cannot be joined")
    return first


def _stage(ops: tuple[str, ...], groups: int, generator: torch.Generator) -> Pick | Mix | Policy | TileDraw:
    if ops[0] in TILE_OPERATIONS:
        return draw_tiles(ops[0], groups, generator)
    if ops[0] in POLICY_OPERATIONS:
        return draw_policy(ops[0], groups, generator)
    return _mix(groups, generator) if ops[0] == AUGMIX else _pick(ops, groups, generator)


def _pick(ops: tuple[str, ...], groups: int, generator: torch.Generator) -> Pick:
    choice = torch.randint(len(ops), (groups,), generator=generator)
    return Pick(ops, choice, torch.rand(groups, _PARAMS, generator=generator))


def _mix(groups: int, generator: torch.Generator) -> Mix:
    """Draw AugMix (Hendrycks et al., ICLR 2020, algorithm 1), with this module's operations and strengths.

    The result is m x + (1 - m) sum_i w_i chain_i(x), with m ~ Beta(1, 1), w ~ Dirichlet(1, 1, 1), and chains
    of 1 to 3 operations.
    """
    m, *cuts = torch.rand(CHAINS, groups, generator=generator)  # the gaps of uniform cuts are Dirichlet(1)
    ends = torch.stack([torch.zeros(groups), *cuts, torch.ones(groups)], 1).sort(1).values
    shares = torch.cat([m[:, None], (1 - m)[:, None] * ends.diff(dim=1)], 1)
    lengths = torch.randint(1, DEPTH + 1, (CHAINS, groups), generator=generator)
    return Mix(shares, tuple(_chain(length, groups, generator) for length in lengths))


def _chain(length: Tensor, groups: int, generator: torch.Generator) -> tuple[Pick, ...]:
    """`DEPTH` picks for each group; those after the first `length` [G] do nothing."""
    picks = [_pick(CHAIN_OPS, groups, generator) for _ in range(DEPTH)]
    ops = ("none", *CHAIN_OPS)
    return tuple(Pick(ops, torch.where(i < length, p.choice + 1, 0), p.uniforms) for i, p in enumerate(picks))


@timing.charged("augment")
def apply(images: Tensor, drawn: Draw, preprocess: Preprocess | None = None) -> Tensor:
    """Apply a draw; differentiable in the images, except for augmentation policies.

    Args:
        images: normalised [G*B,C,H,W], group after group.
        drawn: what to do with each of the G groups.
        preprocess: how the images were normalised; needed by policies, which work on pixels.

    Returns:
        The augmented images [G*B,C,H,W].

    Raises:
        ValueError: the images do not divide into G groups.
        UserError: there is a policy, and `preprocess` is missing.
    """
    if len(images) % drawn.groups:
        raise ValueError(f"{len(images)} images do not divide into {drawn.groups} groups")
    for stage in drawn.stages:
        if not isinstance(stage, Policy):
            images = stage(images)
        elif preprocess is None:
            raise UserError(f"augmentation {stage.name!r}: {_NO_GRADIENT}")
        else:
            images = stage(images, preprocess)
    return images
