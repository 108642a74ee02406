"""Data sets of some classes, and of classes joined into groups, have fingerprints of their own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cli import ddbench, sweep_file
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import UserError
from bench.data import builtin
from bench.data.cache import (
    channel_stats,
    content_fingerprint,
    prepare_dataset,
    read_dataset,
    regroup_dataset,
)
from bench.data.dataset import Dataset, DecodedSplits, Split
from bench.data.spec import DatasetSpec
from bench.data.subset import class_positions, regroup


def subset(*classes: str | int, **more: Any) -> Dataset:
    return read_dataset(prepare_dataset(DatasetSpec(name="digits", classes=classes, **more)))


def raw(n_classes: int, n: int = 40) -> DecodedSplits:
    """Images whose pixels are their numbers, so that each can be traced."""
    generator = torch.Generator().manual_seed(n_classes)

    def split(first: int) -> Split:
        images = torch.arange(first, first + n, dtype=torch.uint8).view(-1, 1, 1, 1)
        return Split(images, torch.randint(n_classes, (n,), generator=generator))

    return DecodedSplits(split(0), split(n), tuple(f"class {c}" for c in range(n_classes)))


def same(a: DecodedSplits, b: DecodedSplits) -> bool:
    return content_fingerprint(a) == content_fingerprint(b)


@st.composite
def groupings(draw: st.DrawFn, n: int) -> list[list[int]]:
    """Disjoint groups of some of n classes, in any order."""
    order = draw(st.permutations(range(n)))
    cuts = sorted(draw(st.sets(st.integers(1, n), min_size=1)))
    return [order[a:b] for a, b in zip([0, *cuts[:-1]], cuts, strict=True)]


# --- groups -------------------------------------------------------------------------------------------------


@given(groupings(6))
def test_a_group_holds_the_images_of_its_classes_in_order(groups: list[list[int]]) -> None:
    whole = raw(6)
    found = regroup(whole, groups)
    for before, after in ((whole.train, found.train), (whole.test, found.test)):
        for j, members in enumerate(groups):
            wanted = before.images[torch.isin(before.labels, torch.tensor(members))]
            assert torch.equal(after.images[after.labels == j], wanted)
        assert len(after.labels) == sum(int((before.labels == c).sum()) for g in groups for c in g)
        assert torch.equal(after.images.flatten(), after.images.flatten().sort().values)


@given(st.data())
def test_grouping_twice_is_grouping_once(drawn: st.DataObject) -> None:
    first = drawn.draw(groupings(6))
    second = drawn.draw(groupings(len(first)))
    at_once = [[c for j in joined for c in first[j]] for joined in second]
    assert same(regroup(regroup(raw(6), first), second), regroup(raw(6), at_once))


def test_all_classes_in_their_order_are_the_whole() -> None:
    assert same(regroup(raw(4), [[0], [1], [2], [3]]), raw(4))
    assert not same(regroup(raw(4), [[1], [0], [2], [3]]), raw(4))


def test_a_task_has_the_names_statistics_and_fingerprint_of_its_own_images(digits: Dataset) -> None:
    task = regroup_dataset(digits, [[0, 2], [7]], "even or seven")
    assert (task.label, task.classes, task.n_classes) == ("even or seven", ("0+2", "7"), 2)
    assert (task.mean, task.std) == channel_stats(task.train.images.numpy())
    assert task.fingerprint not in (
        digits.fingerprint,
        regroup_dataset(digits, [[0], [2], [7]], "").fingerprint,
    )


# --- classes of a data set ----------------------------------------------------------------------------------


def test_classes_are_relabelled_in_the_order_given(digits: Dataset) -> None:
    found = subset(3, "1", 4)
    assert (found.classes, found.label, found.name) == (("3", "1", "4"), "digits-3-classes", "digits")
    for before, after in ((digits.train, found.train), (digits.test, found.test)):
        for new, old in enumerate((3, 1, 4)):
            assert torch.equal(after.images[after.labels == new], before.images[before.labels == old])
    assert (found.mean, found.std) == channel_stats(found.train.images.numpy())


def test_the_fingerprint_is_that_of_the_images(digits: Dataset) -> None:
    assert subset(*range(10)).fingerprint == digits.fingerprint
    assert subset(0, 1).fingerprint == subset("0", "1", label="two").fingerprint
    assert len({subset(*c).fingerprint for c in ((0, 1), (1, 0), (0, 2), range(10))}) == 4


def test_the_whole_is_decoded_once_for_all_subsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path))
    reads, read = [], builtin.read_digits
    monkeypatch.setattr(builtin, "read_digits", lambda: reads.append(0) or read())
    for classes in ((0, 1), (0, 1), (2, 3)):
        subset(*classes)
    read_dataset(prepare_dataset(DatasetSpec(name="digits")))
    assert len(reads) == 1


def test_a_spec_survives_json_and_knows_its_whole() -> None:
    spec = DatasetSpec(name="digits", classes=(0, "1"), label="bits")
    assert DatasetSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.whole == spec.whole.whole == DatasetSpec(name="digits")
    folder = DatasetSpec(name="image_folder", path=Path("pets"), classes=("cat", "dog"))
    assert (folder.label, folder.whole.label) == ("pets-2-classes", "pets")


@given(st.lists(st.integers(0, 9), unique=True))
def test_positions_and_names_name_the_same(chosen: list[int]) -> None:
    classes = [f"c{i}" for i in range(10)]
    assert class_positions(chosen, classes) == chosen
    assert class_positions([f"c{i}" for i in chosen], classes) == chosen


def test_a_name_is_not_read_as_a_position() -> None:
    assert class_positions([1, "2"], ["1", "2", "3"]) == [0, 1]
    assert class_positions([0, 2], ["1", "2", "3"]) == [0, 1]  # 0 is no name, so a position; 2 is a name


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["7"], "no class '7'; choose from: cat, dog, bird"),
        ([-1], "no class '-1'"),
        (["Cat"], "did you mean cat?"),
        (["cat", "dog", 0], "class 'cat' is given twice"),
    ],
)
def test_bad_classes(chosen: list[str | int], message: str) -> None:
    with pytest.raises(UserError) as caught:
        class_positions(chosen, ["cat", "dog", "bird"])
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_many_classes_are_not_all_listed() -> None:
    with pytest.raises(UserError, match=r"c19 and 80 more$"):
        class_positions(["x"], [f"c{i}" for i in range(100)])


# --- in a sweep ---------------------------------------------------------------------------------------------


def test_a_sweep_on_some_classes(tmp_path: Path) -> None:
    entries = [{"name": "digits", "classes": [0, 1, 2]}, "digits"]
    ended = ddbench("plan", sweep_file(tmp_path, datasets=entries), "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert "random_real digits-3-classes ipc 1" in ended.text
    assert "random_real digits ipc 1" in ended.text


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([0, 11], "classes of digits-2-classes: no class '11'; choose from: 0, 1"),
        ([0, "0"], "classes of digits-2-classes: class '0' is given twice"),
        ([3], "datasets.0.classes: a classifier needs two"),
        (3, "datasets.0.classes: must be a list"),
        ([True, 0], "datasets.0.classes.0"),
    ],
)
def test_bad_classes_of_a_sweep_end_in_one_line(tmp_path: Path, classes: Any, message: str) -> None:
    ended = ddbench("plan", sweep_file(tmp_path, datasets=[{"name": "digits", "classes": classes}]))
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
