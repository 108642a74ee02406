"""RDED: the crops that a teacher finds easiest, tiled into stored images."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.method import problem_for, small
from hypothesis import given
from hypothesis import strategies as st

from bench.core import random
from bench.core.augment.tiles import resolve_tiles
from bench.core.errors import UserError
from bench.core.method import Problem
from bench.core.sampling import ClassIndex
from bench.planning.sweep import build_method
from methods.blocks.crops import cut_crops, draw_crops
from methods.blocks.parameterise.multi_formation import cut
from methods.blocks.parameterise.resample import bilinear, resample
from methods.blocks.parameterise.tiles import Tiles
from methods.rded import RDED, easiest


def rded(**values: Any) -> Any:
    return small("rded", **values)


def problem_of(method: Any, **shape: Any) -> Problem:
    return problem_for(method, **{"side": 8, "n_classes": 3, "ipc": 2, "members": 12} | shape)


@given(m=st.integers(1, 9), seed=st.integers(0, 99), data=st.data())
def test_the_easiest_come_first_and_repeats_last(m: int, seed: int, data: st.DataObject) -> None:
    k, count = data.draw(st.integers(1, m)), data.draw(st.integers(1, m))
    losses = torch.rand(2, m, generator=random.generator(seed))
    rounds = (torch.arange(m) // count).expand(2, -1)
    for row, chosen in zip(losses.tolist(), easiest(losses, rounds, k).tolist(), strict=True):
        assert chosen == sorted(range(m), key=lambda j: (j // count, row[j]))[:k]


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_stored_images_are_the_easiest_crops_of_each_class(factor: int) -> None:
    """Found again by a slow loop: each image's best crop, and of those the best, enlarged for the teacher."""
    method = rded(factor=factor, images=10, crops=3, smallest=0.3)
    problem = problem_of(method, ipc=1)
    stored = method.distill(problem)
    assert stored.images.dtype == torch.uint8
    net, index = method.named_teacher.trained(problem), ClassIndex.of(problem.labels, 3)
    draws = problem.rng("rded", "images")
    walks = [index.members(c)[torch.randperm(12, generator=draws)] for c in range(3)]
    seen = torch.stack(walks)[:, : max(factor**2, 10)]
    crops = draw_crops(3 * seen[0].numel() * 3, 8, 0.3, problem.rng("rded", "crops")).view(
        *seen.shape, 3, 2, 2
    )
    to, tiles = -(-8 // factor), cut(stored.images.float().unflatten(0, (3, -1)), factor)
    for c in range(3):
        best = []
        for i, member in enumerate(seen[c].tolist()):
            image = problem.images[member : member + 1].expand(3, -1, -1, -1).float() / 255
            small_crops = cut_crops(image, crops[c, i], to)
            full = resample(small_crops, bilinear(to, 8, small_crops)) if factor > 1 else small_crops
            targets = torch.full((3,), c)
            losses = F.cross_entropy(net(problem.preprocess(full)), targets, reduction="none")
            best.append((float(losses.min()), small_crops[losses.argmin()]))
        best.sort(key=lambda pair: pair[0])
        for tile, (_, crop) in zip(tiles[c], best, strict=False):
            inside = tile[..., : 8 // factor, : 8 // factor]  # of the last tiles, pixels may be missing
            torch.testing.assert_close(
                inside, (crop * 255).round()[..., : 8 // factor, : 8 // factor], atol=1, rtol=0
            )


def test_chosen_crops_are_easier_than_random_ones() -> None:
    method = rded(teacher_epochs=20, teacher_lr=0.05)
    problem = problem_of(method, members=40)
    net = method.named_teacher.trained(problem)
    images, labels = method.distill(problem).decode()
    other, _ = Tiles.start(problem, problem.rng("any")).decode()
    assert F.cross_entropy(net(images), labels) < F.cross_entropy(net(other), labels)


@pytest.mark.parametrize(("decoder", "shown"), [("stored", 2), ("enlarged", 8)])
def test_both_decoders_store_the_same(decoder: str, shown: int) -> None:
    method = rded(factor=2, decoder=decoder)
    problem = problem_of(method)
    stored = method.distill(problem)
    images, labels = stored.decode()
    assert stored.n_stored == problem.budget
    assert stored.bytes_uint8 == problem.budget
    assert labels.bincount().tolist() == [shown] * 3
    same = small("rded", factor=2).distill(problem)
    assert torch.equal(stored.images, same.images)
    if decoder == "stored":
        assert torch.equal(images, problem.preprocess(stored.images))
    else:  # tile (i, j) of image m is image (i * 2 + j) * n + m
        tile = stored.images[1:2, :, :4, 4:].float() / 255
        torch.testing.assert_close(
            images[3:4], problem.preprocess(resample(tile, bilinear(4, 8, tile))), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize(("decoder", "shuffled"), [("stored", "tiles2+flip"), ("enlarged", "flip")])
def test_protocols_may_shuffle_the_tiles_that_students_see(decoder: str, shuffled: str) -> None:
    method = rded(decoder=decoder, factor=2)
    stored = method.distill(problem_of(method, ipc=1))
    assert resolve_tiles("tiles+flip", stored.tiles) == shuffled


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"teacher": "convnet-d2-w4-bash"}, "cannot read 'bash'"),
        ({"teacher": "resnet19"}, "no architecture named 'resnet19'"),
        ({"teacher_augment": "crop_flop"}, "flop"),
        ({"smallest": 0.0}, "smallest"),
        ({"smallest": 1.5}, "smallest"),
        ({"factor": 0}, "factor"),
        ({"decoder": "tiled"}, "decoder"),
    ],
)
def test_values_that_are_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        build_method("rded", values)
    assert "\n" not in str(caught.value)


def test_images_that_the_teacher_or_the_tiles_cannot_take_are_refused_before_anything_runs() -> None:
    problem = problem_for(side=4)
    with pytest.raises(UserError, match="architecture convnet-d4-batch of depth 4 is too deep"):
        RDED(teacher="convnet-d4-batch").check(problem)
    with pytest.raises(UserError, match="factor 5 cuts no 4 x 4 image"):
        rded(factor=5).check(problem)


def test_one_teacher_serves_all_seeds_and_architectures() -> None:
    method = rded()
    problem = problem_of(method)
    other = problem_of(method, architecture="mlp")
    for name, tensor in problem.prepared["teacher"].items():
        assert torch.equal(tensor, other.prepared["teacher"][name])
    seeded = dataclasses.replace(problem, seed=1)
    assert not torch.equal(method.distill(problem).images, method.distill(seeded).images)
