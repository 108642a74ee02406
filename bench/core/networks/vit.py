"""A small vision transformer (Dosovitskiy et al., ICLR 2021)."""

from typing import Any

import torch
from torch import Tensor, nn

from bench.core.errors import UserError
from bench.core.networks.base import Network, Shape

HEAD = 64  # numbers of an attention head
HIDDEN = 4  # times the width
# deviation of the initial positions: under SGD at the field's rates, with 0.02, it long sees a bag of patches
POSITIONS = 0.2


class Attention(nn.Module):
    """Self-attention [N,T,width] -> [N,T,width]; written out, for vmap and for gradients of gradients."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.inputs(x).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)  # [3,N,heads,T,HEAD]
        query, key, value = heads.unbind(0)
        weights = (query @ key.mT * HEAD**-0.5).softmax(-1)
        return self.output((weights @ value).transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Attention, then a hidden layer of 4 times the width, each around a shortcut and after a layer norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(width))
        wide = [nn.Linear(width, HIDDEN * width), nn.GELU(), nn.Linear(HIDDEN * width, width)]
        self.hidden = nn.Sequential(nn.LayerNorm(width), *wide)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.hidden(x)


class ViT(Network):
    """A vision transformer of `patch`-pixel tokens with heads of 64 numbers; the mean token is classified.

    No dropout. Learned positions; 8-pixel images want `vit-p2`. Width and heads
    are those of DeiT-Ti, at half its depth: 2.7 M parameters.
    """

    def __init__(
        self, image_shape: Shape, n_classes: int, *, depth: int = 6, width: int = 192, patch: int = 4
    ) -> None:
        super().__init__()
        channels, side, _ = image_shape
        self.tokens = nn.Conv2d(channels, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.empty(1, (side // patch) ** 2, width))
        self.layers = nn.Sequential(*(TransformerLayer(width) for _ in range(depth)), nn.LayerNorm(width))
        self.classifier = nn.Linear(width, n_classes)
        nn.init.normal_(self.positions, std=POSITIONS)

    @classmethod
    def check(cls, image_shape: Shape, **params: Any) -> None:
        side, width, patch = image_shape[1], params["width"], params["patch"]
        if side % patch:
            raise UserError(f"has patches of {patch} pixels, which do not divide images of {side}")
        if width % HEAD:
            raise UserError(f"has heads of {HEAD} numbers, so width {width} must divide by {HEAD}")

    @classmethod
    def constants(cls) -> dict[str, Any]:
        return {"head": HEAD, "hidden": HIDDEN, "positions": POSITIONS}

    def embed(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x).flatten(2).mT + self.positions
        return self.layers(tokens).mean(1)
