"""A hold-out of the training set in the place of the test split."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cli import ddbench, sweep_file
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from bench.core import random
from bench.core.errors import UserError
from bench.data import builtin
from bench.data.cache import channel_stats, prepare_dataset, read_dataset
from bench.data.dataset import Dataset, DecodedSplits, Split
from bench.data.holdout import held_out
from bench.data.spec import DatasetSpec, preset_name

FRACTIONS = st.floats(0.01, 0.5)
COUNTS = st.lists(st.integers(2, 40), min_size=1, max_size=6)


def labelled(counts: list[int], seed: int = 0) -> Tensor:
    """Labels of these counts, shuffled."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=random.generator(seed))]


def digits_with(**keys: Any) -> Dataset:
    return read_dataset(prepare_dataset(DatasetSpec(name="digits", **keys)))


def rows(split: Split) -> set[bytes]:
    return {
        image.numpy().tobytes() + bytes([int(y)]) for image, y in zip(split.images, split.labels, strict=True)
    }


# --- which images ---------------------------------------------------------------------------------


@given(COUNTS, FRACTIONS, st.integers(0, 99))
def test_the_two_sides_are_a_stratified_partition(counts: list[int], fraction: float, seed: int) -> None:
    labels = labelled(counts)
    rest, held = held_out(labels, len(counts), fraction, random.generator(seed))
    assert torch.equal(torch.cat([rest, held]).sort().values, torch.arange(len(labels)))
    for part in (rest, held):
        assert torch.equal(part, part.sort().values)
    wanted = [min(max(round(n * fraction), 1), n - 1) for n in counts]
    assert labels[held].bincount(minlength=len(counts)).tolist() == wanted


@given(COUNTS, FRACTIONS, FRACTIONS)
def test_a_larger_part_holds_a_smaller(counts: list[int], one: float, other: float) -> None:
    labels = labelled(counts)
    small, large = (held_out(labels, len(counts), f, random.generator(0))[1] for f in sorted((one, other)))
    assert torch.isin(small, large).all()


def test_every_image_is_held_out_as_often() -> None:
    labels, n = labelled([5, 20, 50]), 1000
    g = random.generator(0)
    times = torch.stack([held_out(labels, 3, 0.2, g)[1] for _ in range(n)]).flatten().bincount()
    assert torch.all((times - n / 5).abs() < 4.5 * (n * 0.2 * 0.8) ** 0.5)


def test_the_generator_alone_decides() -> None:
    state = torch.get_rng_state()
    one, same, other = (held_out(labelled([30, 30]), 2, 0.3, random.generator(s))[1] for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("counts", "message"), [([3, 1, 5], r"class 1 \(from 0\) has 1 training"), ([3, 0], "has 0")]
)
def test_a_class_of_one_image_cannot_be_on_both_sides(counts: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        held_out(labelled(counts), len(counts), 0.5, random.generator(0))


# --- a data set with a hold-out -------------------------------------------------------------------


def test_the_training_split_is_parted_and_the_test_split_is_gone(digits: Dataset) -> None:
    data = digits_with(holdout=0.2)
    assert (data.name, data.label) == ("digits", "digits-holdout")
    assert len(data.train.labels) + len(data.test.labels) == len(digits.train.labels)
    assert rows(data.train) | rows(data.test) == rows(digits.train)
    assert not rows(data.test) & rows(digits.test)
    for c, n in enumerate(digits.train.labels.bincount().tolist()):
        assert int((data.test.labels == c).sum()) == round(0.2 * n)
    assert (data.mean, data.std) == channel_stats(data.train.images.numpy())
    assert data.fingerprint != digits.fingerprint


def test_the_hold_out_is_fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = digits_with(holdout=0.1).fingerprint
    assert here != digits_with(holdout=0.2).fingerprint
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path))
    assert digits_with(holdout=0.1, label="mine").fingerprint == here


def test_some_classes_hold_out_what_the_whole_does() -> None:
    """So a set of some classes can be scored on all of them, and no image is in both splits."""
    spec = DatasetSpec(name="digits", classes=(7, 1, 4), holdout=0.2)
    assert spec.label == "digits-3-classes-holdout"
    assert spec.whole == spec.whole.whole == DatasetSpec(name="digits", holdout=0.2)
    some, whole = read_dataset(prepare_dataset(spec)), read_dataset(prepare_dataset(spec.whole))
    assert some.classes == ("7", "1", "4")
    for part, all_of in ((some.train, whole.train), (some.test, whole.test)):
        for new, old in enumerate((7, 1, 4)):
            assert torch.equal(part.images[part.labels == new], all_of.images[all_of.labels == old])
    assert (some.mean, some.std) == channel_stats(some.train.images.numpy())


def test_the_data_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path))
    reads, read = [], builtin.read_digits
    monkeypatch.setattr(builtin, "read_digits", lambda: reads.append(0) or read())
    for keys in ({"holdout": 0.2}, {"holdout": 0.3}, {"holdout": 0.3, "classes": (0, 1)}, {}):
        digits_with(**keys)
    assert len(reads) == 1


def test_a_class_too_small_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path))
    train, test = (Split(torch.zeros(3, 1, 2, 2).byte(), torch.tensor([0, 1, 1])) for _ in range(2))
    monkeypatch.setattr(builtin, "read_digits", lambda: DecodedSplits(train, test, ("cat", "dog")))
    with pytest.raises(UserError, match=r"^holdout of digits-holdout: class 0 \(from 0\) has 1") as caught:
        digits_with(holdout=0.2)
    assert len(str(caught.value).splitlines()) == 1


# --- the entry of a config ------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0, -0.1, 0.51, 1, float("nan"), "most", True])
def test_bad_fractions(fraction: object) -> None:
    with pytest.raises(ValidationError) as caught:
        DatasetSpec(name="digits", holdout=fraction)
    assert caught.value.errors()[0]["loc"] == ("holdout",)


@pytest.mark.parametrize(
    ("keys", "label", "presets"),
    [
        ({"name": "digits"}, "digits-holdout", "digits"),
        ({"name": "digits", "label": "mine"}, "mine-holdout", "digits"),
        ({"name": "image_folder", "path": "data/cifar10"}, "cifar10-holdout", "cifar10"),
        ({"name": "image_folder", "path": "x", "label": "cifar10"}, "cifar10-holdout", "cifar10"),
    ],
)
def test_labels_say_it_and_presets_are_found_without_it(
    keys: dict[str, Any], label: str, presets: str
) -> None:
    spec = DatasetSpec(**keys, holdout=0.25)
    assert (spec.label, preset_name(spec.name, spec.label)) == (label, presets)
    assert DatasetSpec.model_validate(json.loads(spec.model_dump_json())) == spec
    plain = DatasetSpec(**keys)
    assert preset_name(plain.name, plain.label) == presets


def test_a_hold_out_is_set_on_the_command_line(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, datasets=[{"name": "digits"}])
    ended = ddbench("plan", path, "--out", tmp_path / "out", "--set", "datasets.0.holdout=0.2")
    assert ended.code == 0, ended.err
    assert "random_real digits-holdout ipc 1" in ended.text
    ended = ddbench("plan", path, "--out", tmp_path / "out", "--set", "datasets.0.holdout=0.7")
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert "datasets.0.holdout" in ended.err
