"""A small vision transformer (Dosovitskiy et al., ICLR 2021)."""

from typing import Any

import torch
from torch import Tensor, nn

from bench.core.errors import UserError
from bench.core.networks.base import Network, Shape
from bench.core.precision import in_precision

HEAD = 64  # numbers of an attention head
HIDDEN = 4  # times the width
# deviation of the initial positions: under SGD at the field's rates, with 0.02, it long sees a bag of patches
POSITIONS = 0.2


class Attention(nn.Module):
    """Multi-head self-attention, written out because vmap and second derivatives need it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[N,T,width] -> [N,T,width]."""
        heads = self.inputs(x).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)  # [3,N,heads,T,HEAD]
        query, key, value = heads.unbind(0)
        weights = (query @ key.mT * HEAD**-0.5).softmax(-1)
        return self.output((weights @ value).transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Attention, then a hidden layer of 4 times the width; each has a layer norm before it and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(width))
        wide = [nn.Linear(width, HIDDEN * width), nn.GELU(), nn.Linear(HIDDEN * width, width)]
        self.hidden = nn.Sequential(nn.LayerNorm(width), *wide)

    def forward(self, x: Tensor) -> Tensor:
        """[N,T,width] -> [N,T,width]."""
        x = x + self.attention(x)
        return x + self.hidden(x)


class ViT(Network):
    """A vision transformer on patches of `patch` pixels, which classifies the mean token.

    Position embeddings are learned; there is no dropout. Width and heads (of 64 dimensions) are those of
    DeiT-Ti, at half its depth: 2.7 M parameters. Use `vit-p2` for 8-pixel images.

    Args:
        image_shape: (C, H, W).
        n_classes: number of outputs.
        depth: number of transformer layers.
        width: numbers per token, a multiple of 64.
        patch: side of a patch in pixels; it must divide the side of the images.

    References:
        Dosovitskiy et al., ICLR 2021; Touvron et al. (DeiT), ICML 2021.
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
        """Raises UserError if the patches do not divide the images, or the width is no multiple of 64."""
        side, width, patch = image_shape[1], params["width"], params["patch"]
        if side % patch:
            raise UserError(f"has patches of {patch} pixels, which do not divide images of {side}")
        if width % HEAD:
            raise UserError(f"has heads of {HEAD} numbers, so width {width} must divide by {HEAD}")

    @classmethod
    def constants(cls) -> dict[str, Any]:
        """As in `Network`."""
        return {"head": HEAD, "hidden": HIDDEN, "positions": POSITIONS}

    @in_precision
    def embed(self, x: Tensor) -> Tensor:
        """Images [N,C,H,W] -> the mean of the last tokens [N,width]."""
        tokens = self.tokens(x).flatten(2).mT + self.positions
        return self.layers(tokens).mean(1)
