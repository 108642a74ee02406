"""Bases, and hallucinators that all classes share (HaBa; Liu et al., NeurIPS 2022, section 3.1)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.errors import OverBudget, UserError
from bench.core.method import Problem
from bench.core.preprocess import Preprocess
from bench.core.registry import choose
from methods.blocks.parameterise.base import (
    Balanced,
    first_logits,
    label_floats,
    most_within,
    random_members,
    rows_per_class,
)

BASIS_INITS = ("real", "noise")
HALLUCINATOR_INITS = ("official", "identity")


class Hallucinators(Balanced):
    """Each basis of a class under each of H hallucinators: x = D_j(scale_j * E_j(basis) + shift_j).

    E is a convolution and D a transposed one. There is no nonlinearity and no clamping: a decoded image is
    affine in its basis. Basis i of class c under hallucinator j is item c * (b * H) + j * b + i. The tensors
    of the H hallucinators are stacked.

    Args:
        bases: [n_classes * b,c,S,S].
        encoder_weight: [H,m,c,k,k].
        encoder_bias: [H,m].
        scale: [H,m,S',S'] with S' = S + 2 * padding - k + 1.
        shift: [H,m,S',S'].
        decoder_weight: [H,m,C,k,k].
        decoder_bias: [H,C].
        n_classes: number of classes.
        padding: of both convolutions.
        preprocess: how pixels become what networks see.
        common: `label_logits`, `inner_lr` and `inner_momentum` of `Balanced`.
    """

    bases: nn.Parameter
    encoder_weight: nn.Parameter
    encoder_bias: nn.Parameter
    scale: nn.Parameter
    shift: nn.Parameter
    decoder_weight: nn.Parameter
    decoder_bias: nn.Parameter

    def __init__(
        self,
        bases: Tensor,
        encoder_weight: Tensor,
        encoder_bias: Tensor,
        scale: Tensor,
        shift: Tensor,
        decoder_weight: Tensor,
        decoder_bias: Tensor,
        n_classes: int,
        padding: int,
        preprocess: Preprocess,
        **common: Tensor | None,
    ) -> None:
        self.bases_per_class, self.hallucinators = rows_per_class(bases, n_classes), len(scale)
        super().__init__(n_classes, self.bases_per_class * self.hallucinators, preprocess, **common)
        self.learn(bases=bases, encoder_weight=encoder_weight, encoder_bias=encoder_bias)
        self.learn(scale=scale, shift=shift, decoder_weight=decoder_weight, decoder_bias=decoder_bias)
        self.padding = padding

    @staticmethod
    def count(
        problem: Problem,
        *,
        hallucinators: int = 5,
        bases_per_class: int | None = None,
        basis_channels: int | None = None,
        kernel: int = 3,
        padding: int = 0,
        hallucinator_init: str = "official",
        labels: str = "hard",
    ) -> int:
        """How many bases per class fit in the budget beside the hallucinators, or `bases_per_class`.

        The arguments are those of `start`, and so is what it raises.
        """
        choose("hallucinator init", hallucinator_init, HALLUCINATOR_INITS)
        channels, side, _ = problem.image_shape
        grey = basis_channels or channels
        shapes = _shapes(hallucinators, channels, grey, side, kernel, padding)
        if hallucinator_init == "identity" and kernel != 2 * padding + 1:
            raise UserError(
                f"no identity with kernel {kernel} and padding {padding}: set padding (kernel - 1) / 2"
            )
        return _bases_within(problem, shapes, grey, labels) if bases_per_class is None else bases_per_class

    @classmethod
    def start(
        cls,
        problem: Problem,
        generator: torch.Generator,
        *,
        hallucinators: int = 5,
        bases_per_class: int | None = None,
        basis_channels: int | None = None,
        kernel: int = 3,
        padding: int = 0,
        init: str = "real",
        hallucinator_init: str = "official",
        labels: str = "hard",
    ) -> "Hallucinators":
        """The initial set.

        Args:
            problem: the training set and the budget.
            generator: a CPU generator; the hallucinators are drawn after the bases.
            hallucinators: H.
            bases_per_class: b; by default as many as the budget allows after hallucinators and labels.
                (HaBa's published sets exceed the budget.)
            basis_channels: as many as the images have, which is the default, or 1 for grey bases.
            kernel: k, side of the convolutions.
            padding: of the convolutions.
            init: of the bases: "real", random real images (for grey bases their channel mean), or "noise",
                N(0, 1).
            hallucinator_init: "official", random convolutions as in torch, scale 1 and shift 0; or
                "identity", which needs an odd kernel and a padding of (kernel - 1) / 2.
            labels: "hard", "class" or "image", see `label_floats`.

        Returns:
            The set, on the problem's device.

        Raises:
            UserError: an argument is invalid, the kernel does not fit the images, or not even one basis per
                class fits the budget.
        """
        choose("init", init, BASIS_INITS)
        n_classes, (channels, side, _) = problem.n_classes, problem.image_shape
        grey = basis_channels or channels
        b = cls.count(
            problem,
            hallucinators=hallucinators,
            bases_per_class=bases_per_class,
            basis_channels=grey,
            kernel=kernel,
            padding=padding,
            hallucinator_init=hallucinator_init,
            labels=labels,
        )
        shapes = _shapes(hallucinators, channels, grey, side, kernel, padding)
        bases = _first_bases(problem, b, grey, init, generator)
        make = _identity if hallucinator_init == "identity" else _official
        tensors = {"bases": bases, **make(shapes, generator)}
        logits = first_logits(labels, n_classes, b * hallucinators)
        stored = cls(
            **tensors,
            n_classes=n_classes,
            padding=padding,
            preprocess=problem.preprocess,
            label_logits=logits,
        )
        return stored.to(problem.device)

    def config(self) -> dict[str, Any]:
        """The number of classes and the padding."""
        return {"n_classes": self.n_classes, "padding": self.padding}

    def variants(self) -> Tensor:
        """Each basis under every hallucinator, see `DistilledDataset.variants`."""
        items = torch.arange(len(self.labels), device=self.labels.device)
        return items.view(self.n_classes, self.hallucinators, self.bases_per_class).mT.flatten(0, 1)

    def pair(self, basis: Tensor, hallucinator: Tensor) -> Tensor:
        """The items of some bases under some hallucinators.

        Args:
            basis: positions c * b + i of stored bases, int64 [n].
            hallucinator: int64 [n], or [1] for the same one everywhere.

        Returns:
            Positions among the decoded images, int64 [n].
        """
        b = self.bases_per_class
        return basis // b * self.per_class + hallucinator * b + basis % b

    def _images(self, items: Tensor | None) -> Tensor:
        b = self.bases_per_class
        if items is None:
            every = self._hallucinate(self.bases).unflatten(0, (self.n_classes, b))  # K,b,H,C,S,S
            return every.transpose(1, 2).flatten(0, 2)
        c, place = items // self.per_class, items % self.per_class
        every = self._hallucinate(self.bases[c * b + place % b])
        return every[torch.arange(len(items), device=every.device), place // b]

    def _hallucinate(self, bases: Tensor) -> Tensor:
        """[n,c,S,S] -> [n,H,C,S,S]: all hallucinators at once, as groups of one convolution."""
        h = self.hallucinators
        z = F.conv2d(
            bases, self.encoder_weight.flatten(0, 1), self.encoder_bias.flatten(), padding=self.padding
        )
        z = z * self.scale.flatten(0, 1) + self.shift.flatten(0, 1)
        weight, bias = self.decoder_weight.flatten(0, 1), self.decoder_bias.flatten()
        return F.conv_transpose2d(z, weight, bias, padding=self.padding, groups=h).unflatten(1, (h, -1))


def _shapes(
    hallucinators: int, channels: int, basis_channels: int, side: int, kernel: int, padding: int
) -> dict[str, tuple[int, ...]]:
    """The shapes of the stacked tensors, with as many latent channels as an image has.

    Raises UserError for impossible ones.
    """
    latent = side + 2 * padding - kernel + 1
    if hallucinators < 1 or basis_channels not in (1, channels):
        raise UserError(
            f"{hallucinators} hallucinators of bases with {basis_channels} channels: take at least one, "
            f"and bases with {channels} or 1"
        )
    if not 0 <= padding < kernel or latent < 1:
        raise UserError(
            f"kernel {kernel} with padding {padding} on {side} x {side} pixels: take a kernel of at most "
            f"{side} and less padding than kernel"
        )
    return {
        "encoder_weight": (hallucinators, channels, basis_channels, kernel, kernel),
        "encoder_bias": (hallucinators, channels),
        "scale": (hallucinators, channels, latent, latent),
        "shift": (hallucinators, channels, latent, latent),
        "decoder_weight": (hallucinators, channels, channels, kernel, kernel),
        "decoder_bias": (hallucinators, channels),
    }


def _bases_within(
    problem: Problem, shapes: dict[str, tuple[int, ...]], basis_channels: int, labels: str
) -> int:
    """How many bases per class fit the budget. Raises UserError if none does."""
    h, side = shapes["scale"][0], problem.image_shape[1]
    maps = sum(map(math.prod, shapes.values()))

    def floats(b: int) -> int:
        bases = problem.n_classes * b * basis_channels * side**2
        return bases + maps + label_floats(labels, problem.n_classes, b * h)

    b = most_within(problem.budget, floats)
    if b < 1:
        raise OverBudget(
            f"{h} hallucinators of {maps // h:,} floats and one basis per class ({labels} labels) take "
            f"{floats(1):,} of {problem.budget:,} floats: take fewer hallucinators, one basis channel or a "
            "larger ipc"
        )
    return b


def _first_bases(
    problem: Problem, per_class: int, channels: int, init: str, generator: torch.Generator
) -> Tensor:
    """Initial bases [n_classes * per_class,channels,S,S]: noise, or random real images, grey if wanted."""
    if init == "noise":
        shape = (problem.n_classes * per_class, channels, *problem.image_shape[1:])
        return torch.randn(shape, generator=generator)
    real = problem.preprocess(problem.images[random_members(problem, per_class, generator)])
    return real.mean(1, keepdim=True) if channels < real.shape[1] else real


def _official(shapes: dict[str, tuple[int, ...]], generator: torch.Generator) -> dict[str, Tensor]:
    """Weights and biases from U(-1, 1) / sqrt(fan), as torch initialises convolutions; scale 1, shift 0."""
    drawn = {"scale": torch.ones(shapes["scale"]), "shift": torch.zeros(shapes["shift"])}
    for part in ("encoder", "decoder"):
        fan = math.prod(shapes[f"{part}_weight"][2:])
        for name in (f"{part}_weight", f"{part}_bias"):
            drawn[name] = (2 * torch.rand(shapes[name], generator=generator) - 1) / math.sqrt(fan)
    return drawn


def _identity(shapes: dict[str, tuple[int, ...]], _: torch.Generator) -> dict[str, Tensor]:
    """Hallucinators that reproduce their basis (a grey one in every channel); nothing is drawn."""
    maps = {name: torch.zeros(shape) for name, shape in shapes.items()}
    maps["scale"] += 1
    for part in ("encoder", "decoder"):
        weight = maps[f"{part}_weight"]
        latent, seen, kernel = weight.shape[1:4]
        same = torch.ones(latent, 1) if seen < latent else torch.eye(latent)
        weight[..., kernel // 2, kernel // 2] = same
    return maps
