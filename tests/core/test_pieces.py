"""How many images go through a network at a time: by bytes on a GPU, and fewer where they do not fit."""

import pytest
import torch
from torch import Tensor

from bench.core.pieces import MAPS, PIECE_BYTES, Halving, piece_size
from bench.core.preprocess import Preprocess
from bench.core.training import in_pieces
from bench.evaluation.metrics import score_students

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


@pytest.mark.parametrize(
    ("side", "size"), [(8, 2000), (28, 2000), (32, 2000), (64, 500), (128, 125), (224, 40), (4096, 1)]
)
def test_pieces_on_a_gpu_are_as_large_as_their_bytes_allow(side: int, size: int) -> None:
    found = piece_size(GPU, (60_000, 3, side, side))
    assert found == size
    assert found == 1 or found * MAPS * side * side * 4 <= PIECE_BYTES


@pytest.mark.parametrize("shape", [(), (7,), (9, 5), (9, 3, 128, 128)])
def test_pieces_on_a_cpu_fit_its_cache(shape: tuple[int, ...]) -> None:
    assert piece_size(CPU, shape) == 50


class Memory:
    """A function of images for which more than `most` do not fit; `sizes` is what it was called on."""

    def __init__(self, most: int) -> None:
        self.most, self.sizes = most, list[int]()

    def __call__(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        return images * 2


@pytest.mark.parametrize("most", [1, 3, 10, 50, 60])
def test_images_that_do_not_fit_are_halved_until_they_do(most: int) -> None:
    images, memory = torch.arange(120.0)[:, None], Memory(most)
    assert torch.equal(in_pieces(memory, images), 2 * images)
    assert sum(size for size in memory.sizes if size <= most) == 120
    tried = [size for size in memory.sizes if size > most]
    assert tried == sorted(set(tried), reverse=True), "what did not fit once is not tried again"


def test_one_image_that_does_not_fit_fails() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Halving(Memory(0))(torch.zeros(4, 1))


def test_no_images_are_one_empty_piece() -> None:
    assert in_pieces(lambda x: x.flatten(1), torch.zeros(0, 3, 8, 8)).shape == (0, 192)


def test_scores_in_halved_pieces_are_those_of_whole_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (70, 1, 4, 4), generator=generator, dtype=torch.uint8)
    labels, weights = torch.arange(70) % 3, torch.randn(2, 16, 3, generator=generator)

    def logits(x: Tensor) -> Tensor:
        return x.flatten(1) @ weights

    def short(x: Tensor) -> Tensor:
        if len(x) > 8:
            raise torch.OutOfMemoryError
        return logits(x)

    found, whole = (score_students(f, images, labels, Preprocess((0.0,), (1.0,)), 3) for f in (short, logits))
    assert found == whole
