"""Bases and hallucinators that all classes share (HaBa; Liu et al., NeurIPS 2022, section 3.1)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.errors import UserError
from bench.core.method import Problem
from bench.core.preprocess import Preprocess
from bench.core.registry import choose
from methods.blocks.parameterise.base import Balanced, first_logits, label_floats, most_within, random_members

BASIS_INITS = ("real", "noise")
HALLUCINATOR_INITS = ("official", "identity")


class Hallucinators(Balanced):
    """Every basis of a class under every hallucinator: x = D_j(scale_j * E_j(basis) + shift_j), not clamped.

    `bases` [n_classes * b,c,S,S]. The H hallucinators are stacked: a convolution E with `encoder_weight`
    [H,m,c,k,k] and `encoder_bias` [H,m], an element-wise affine map `scale`, `shift` [H,m,S',S'] where
    S' = S + 2 * padding - k + 1, and a transposed convolution D with `decoder_weight` [H,m,C,k,k] and
    `decoder_bias` [H,C]. No nonlinearity: a decoded image is affine in its basis. Basis i of class c under
    hallucinator j is item c * (b * H) + j * b + i.
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
        self.bases_per_class, self.hallucinators = len(bases) // n_classes, len(scale)
        super().__init__(n_classes, self.bases_per_class * self.hallucinators, preprocess, **common)
        self.learn(bases=bases, encoder_weight=encoder_weight, encoder_bias=encoder_bias)
        self.learn(scale=scale, shift=shift, decoder_weight=decoder_weight, decoder_bias=decoder_bias)
        self.padding = padding

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
        """Bases and hallucinators; the hallucinators are drawn after the bases.

        `bases_per_class`: how many are stored (HaBa's own sets go over the budget); None: as many as the
        budget holds beside the hallucinators and the labels. `basis_channels`: those of the images, or 1
        for grey bases. `init`: "real", random real images (for grey bases their channel mean), or "noise",
        N(0, 1). `hallucinator_init`: "official", the usual random start of a convolution, scale 1 and shift
        0, or "identity", which needs an odd kernel with (kernel - 1) / 2 padding. Raises UserError for what
        does not fit, in pixels or in floats.
        """
        choose("init", init, BASIS_INITS)
        choose("hallucinator init", hallucinator_init, HALLUCINATOR_INITS)
        n_classes, (channels, side, _) = problem.n_classes, problem.image_shape
        grey = basis_channels or channels
        shapes = _shapes(hallucinators, channels, grey, side, kernel, padding)
        if hallucinator_init == "identity" and kernel != 2 * padding + 1:
            raise UserError(
                f"no identity with kernel {kernel} and padding {padding}: set padding (kernel - 1) / 2"
            )
        b = _bases_within(problem, shapes, grey, labels) if bases_per_class is None else bases_per_class
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
        return {"n_classes": self.n_classes, "padding": self.padding}

    def pair(self, basis: Tensor, hallucinator: Tensor) -> Tensor:
        """The items [n] of stored bases (c * b + i) [n] under hallucinators [n], or one [1] for all."""
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
        """[n,c,S,S] -> [n,H,C,S,S]: every hallucinator at once, as the groups of one convolution."""
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
    """Those of the stacked tensors; latent channels as an image has. Raises UserError for impossible ones."""
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
    """How many bases per class the budget holds. Raises UserError for none."""
    h, side = shapes["scale"][0], problem.image_shape[1]
    maps = sum(map(math.prod, shapes.values()))

    def floats(b: int) -> int:
        bases = problem.n_classes * b * basis_channels * side**2
        return bases + maps + label_floats(labels, problem.n_classes, b * h)

    b = most_within(problem.budget, floats)
    if b < 1:
        raise UserError(
            f"{h} hallucinators of {maps // h:,} floats and one basis per class ({labels} labels) take "
            f"{floats(1):,} of {problem.budget:,} floats: take fewer hallucinators, one basis channel or a "
            "larger ipc"
        )
    return b


def _first_bases(
    problem: Problem, per_class: int, channels: int, init: str, generator: torch.Generator
) -> Tensor:
    """[n_classes * per_class,channels,S,S]: noise, or random real images, grey where there is one channel."""
    if init == "noise":
        shape = (problem.n_classes * per_class, channels, *problem.image_shape[1:])
        return torch.randn(shape, generator=generator)
    real = problem.preprocess(problem.images[random_members(problem, per_class, generator)])
    return real.mean(1, keepdim=True) if channels < real.shape[1] else real


def _official(shapes: dict[str, tuple[int, ...]], generator: torch.Generator) -> dict[str, Tensor]:
    """Weights and biases from U(-1, 1) / sqrt(fan), as torch starts its convolutions; scale 1, shift 0."""
    drawn = {"scale": torch.ones(shapes["scale"]), "shift": torch.zeros(shapes["shift"])}
    for part in ("encoder", "decoder"):
        fan = math.prod(shapes[f"{part}_weight"][2:])
        for name in (f"{part}_weight", f"{part}_bias"):
            drawn[name] = (2 * torch.rand(shapes[name], generator=generator) - 1) / math.sqrt(fan)
    return drawn


def _identity(shapes: dict[str, tuple[int, ...]], _: torch.Generator) -> dict[str, Tensor]:
    """Each image is its basis (a grey basis in every channel); draws nothing."""
    maps = {name: torch.zeros(shape) for name, shape in shapes.items()}
    maps["scale"] += 1
    for part in ("encoder", "decoder"):
        weight = maps[f"{part}_weight"]
        latent, seen, kernel = weight.shape[1:4]
        same = torch.ones(latent, 1) if seen < latent else torch.eye(latent)
        weight[..., kernel // 2, kernel // 2] = same
    return maps
