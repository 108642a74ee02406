"""Whitening against MTT's and HaBa's (kornia's, with eps 0.1) and against RTP's.

What is fitted is stored in float32, hence 1e-6; 1e-5 where it is also applied in float32.
"""

import numpy as np
import pytest
import torch
from helpers.parity import Compare, load
from torch import Tensor

from bench.core.preprocess import Zca


def pixels(seed: int, per_class: int) -> Tensor:
    """Random images around ten prototypes, uint8 [10 n,3,8,8]."""
    drawn = np.random.RandomState(seed)
    prototypes = drawn.rand(10, 1, 3, 8, 8)
    mixed = 0.6 * prototypes + 0.4 * drawn.rand(10, per_class, 3, 8, 8)
    return torch.tensor(np.clip(mixed * 255, 0, 255).astype(np.uint8).reshape(-1, 3, 8, 8))


TRAIN, TEST = pixels(71, 30), pixels(72, 2)


@pytest.mark.parametrize(("part", "images"), [("train", TRAIN[:40]), ("test", TEST)])
def test_whitening_of_mtt(part: str, images: Tensor, compare: Compare) -> None:
    held, fitted = load("misc_mtt"), Zca.fit(TRAIN, "mtt", 0.1)
    exact = fitted(images.double() / 255)
    compare("mtt", "whitened images", exact, held[f"zca_{part}_f64"], 1e-6)
    compare("mtt", "whitened images in float32", fitted(images), held[f"zca_{part}_f32"], 1e-5)
    if part == "test":
        compare("mtt", "images whitened and back", fitted.invert(exact), held["zca_inverse_f64"], 1e-6)
        back = fitted.invert(fitted(images))
        compare("mtt", "images whitened and back in float32", back, held["zca_inverse_f32"], 1e-5)


@pytest.mark.parametrize(("part", "images"), [("train", TRAIN[:40]), ("test", TEST)])
def test_whitening_of_rtp(part: str, images: Tensor, compare: Compare) -> None:
    """That of `kip` without a normalisation of each channel: all pixels are one channel."""

    def flat(x: Tensor) -> Tensor:
        return x.flatten(1)[:, None, None]

    fitted = Zca.fit(flat(TRAIN), "kip", 0.1)
    whitened = fitted(flat(images).double() / 255).view(images.shape)
    compare("rtp", "whitened images", whitened, load("misc_rtp")[f"kip_{part}"], 1e-6)
