"""Folders as people have them: published layouts, class folders alone, names in two Unicode forms."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.cli import ddbench, sweep_file
from helpers.folders import folder, get, make_tree, paint, refused
from pydantic import ValidationError

from bench.data.cache import prepare_dataset
from bench.data.dataset import Dataset
from bench.data.image_folder import scan
from bench.data.spec import DatasetSpec
from bench.data.subset import class_positions

IDS = ("n01443537", "n01629819")
CAFE = "caf\u00e9"
DECOMPOSED = unicodedata.normalize("NFD", CAFE)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))


def reds(data: Dataset) -> tuple[list[int], list[int]]:
    """The red of each training and each test image, which `paint` made of one colour."""
    return tuple(part.images[:, 0, 0, 0].tolist() for part in (data.train, data.test))


# --- published layouts ------------------------------------------------------------------------------


def tiny_imagenet(root: Path) -> Path:
    """train/<id>/images/* beside boxes, val/images/* with annotations out of order, an unlabelled test/."""
    lines = []
    for c, name in enumerate(IDS):
        for i in range(2):
            paint(root / f"train/{name}/images/{name}_{i}.png", 10 * c + i)
            (root / f"train/{name}/{name}_boxes.txt").write_text("x")
        paint(root / f"val/images/val_{1 - c}.png", 100 + c)
        lines.append(f"val_{1 - c}.png\t{name}\t0\t0\t3\t3")
    paint(root / "test/images/test_0.png", 255)
    (root / "val/val_annotations.txt").write_text("\n".join(lines))
    (root / "wnids.txt").write_text("\n".join(IDS))
    return root


def ilsvrc(root: Path) -> Path:
    """train/<id>/*, a flat val/, its labels as at Kaggle, and a flat, unlabelled test/."""
    lines = ["ImageId,PredictionString"]
    for c, name in enumerate(IDS):
        for i in range(2):
            paint(root / f"train/{name}/{name}_{i}.JPEG", 0)
        paint(root / f"val/ILSVRC2012_val_{1 - c}.JPEG", 200 * c)
        lines.append(f"ILSVRC2012_val_{1 - c},{name} 1 2 3 4 {name} 5 6 7 8 ")
    paint(root / "test/ILSVRC2012_test_0.JPEG", 255)
    (root / "LOC_val_solution.csv").write_text("\n".join(lines) + "\n")
    return root


def test_tiny_imagenet_as_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = get(folder(tiny_imagenet(tmp_path / "tiny")))
    assert data.classes == IDS
    assert reds(data) == ([0, 1, 10, 11], [100, 101])
    assert data.test.labels.tolist() == [0, 1]
    assert capsys.readouterr().err.splitlines()[1:] == [
        "tiny: test/ has no labels: val/ is the test split",
    ]


@pytest.mark.parametrize("beside", [True, False])
def test_ilsvrc_as_published(tmp_path: Path, beside: bool) -> None:
    root = ilsvrc(tmp_path / "ilsvrc")
    if not beside:
        (root / "LOC_val_solution.csv").rename(root / "val/LOC_val_solution.csv")
    data = get(folder(root))
    assert data.classes == IDS
    assert data.test.labels.tolist() == [0, 1]
    assert reds(data)[1] == pytest.approx([0, 200], abs=2)  # JPEG


def test_a_flat_split_without_labels_says_what_to_do(tmp_path: Path) -> None:
    root = ilsvrc(tmp_path / "ilsvrc")
    (root / "LOC_val_solution.csv").unlink()
    refused(folder(root), f"{root / 'val'} holds none of the class folders", "val_annotations.txt", "tab")


def test_class_folders_win_over_a_file_of_labels(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path / "tiny")
    for c, name in enumerate(IDS):
        (root / f"val/{name}").mkdir()
        (root / f"val/images/val_{1 - c}.png").rename(root / f"val/{name}/{c}.png")
    (root / "val/images").rmdir()
    assert reds(get(folder(root)))[1] == [100, 101]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.splitlines()[0], ["val_0.png has no line"]),
        (lambda text: text + "\nval_7.png\tn01443537", ["val_7.png is not there"]),
        (lambda text: text.replace(IDS[1], "n9"), ["differ", f"{IDS[1]} only in train", "n9 only in val"]),
        (lambda text: text.replace("\t", " "), ["line 1 names no class", "a file name, a tab and a class"]),
        (lambda text: text.encode() + b"\n\xff\tn9", ["is no text in UTF-8"]),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, change: Any, words: list[str]) -> None:
    root = tiny_imagenet(tmp_path / "tiny")
    file = root / "val/val_annotations.txt"
    text = change(file.read_text())
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(folder(root), str(root), *words)


@pytest.mark.parametrize("inside", ["unknown/0.png", "0.png", None])
def test_an_unlabelled_test_split_does_not_win(tmp_path: Path, inside: str | None) -> None:
    root = make_tree(tmp_path / "set", test="val")
    (root / "test").mkdir()
    if inside:
        paint(root / "test" / inside, 255)
    assert reds(get(folder(root)))[1] == [100, 101]


def test_a_labelled_test_split_wins_and_has_to_fit(tmp_path: Path) -> None:
    root = make_tree(make_tree(tmp_path / "set", test="val"))
    paint(root / "test/cat/0.png", 77)
    assert reds(get(folder(root)))[1] == [77, 101]
    paint(root / "test/owl/0.png", 255)
    refused(folder(root), "owl only in test")


# --- class folders alone ----------------------------------------------------------------------------


def flat(root: Path, counts: tuple[int, ...] = (10, 5), names: tuple[str, ...] = ("cat", "dog")) -> Path:
    for c, (name, count) in enumerate(zip(names, counts, strict=True)):
        for i in range(count):
            paint(root / name / f"{i:02}.png", 100 * c + i)
    return root


def test_split_parts_each_class_the_same_way_each_time(tmp_path: Path) -> None:
    data = get(folder(flat(tmp_path / "one"), split=0.2))
    assert data.train.labels.tolist() == [0] * 8 + [1] * 4
    assert data.test.labels.tolist() == [0] * 2 + [1]
    train, test = reds(data)
    assert sorted(train + test) == [*range(10), *range(100, 105)]
    assert reds(get(folder(flat(tmp_path / "two"), split=0.2, label="other"))) == (train, test)
    assert test != [8, 9, 104], "not the last of each class"


def test_split_is_in_the_identity(tmp_path: Path) -> None:
    root = flat(tmp_path / "set")
    specs = [folder(root, split=split) for split in (0.2, 0.4)]
    assert len({prepare_dataset(spec) for spec in specs}) == 2
    assert len({get(spec).fingerprint for spec in specs}) == 2
    whole = folder(root, split=0.4, classes=["dog", "cat"], holdout=0.25).published.whole
    assert (whole.split, whole.holdout, whole.classes) == (0.4, None, None)


def test_split_and_holdout_part_one_after_the_other(tmp_path: Path) -> None:
    root = flat(tmp_path / "set")
    train, test = reds(get(folder(root, split=0.2)))
    rest, held = reds(get(folder(root, split=0.2, holdout=0.25)))
    assert sorted(rest + held) == train
    assert not set(held) & set(test)


def test_split_where_it_does_not_fit(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set")
    refused(folder(root, split=0.2), f"{root} has train/", "remove it")
    refused(folder(flat(tmp_path / "small", (3, 1)), split=0.2), "class dog", "one image", "split needs two")
    refused(folder(flat(tmp_path / "alone")), "no folder", "split: 0.2")
    refused(folder(flat(tmp_path / "one", (3,), ("cat",)), split=0.2), "one class, cat")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert get(folder(flat(tmp_path / "set", names=("train", "bus")), split=0.2)).classes == ("bus", "train")


@pytest.mark.parametrize(
    "keys", [{"split": value} for value in (0, 1, -0.5, "half", True)] + [{"name": "digits"}]
)
def test_bad_splits(tmp_path: Path, keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        DatasetSpec.model_validate({"name": "image_folder", "path": tmp_path, "split": 0.2} | keys)
    assert ("split",) in {fault["loc"] for fault in caught.value.errors()}


def test_init_parts_a_flat_folder_and_its_sweep_can_be_planned(tmp_path: Path) -> None:
    root = flat(tmp_path / "birds", names=("owl", "wren"))
    path = tmp_path / "birds.yaml"
    assert ddbench("init", root, "--out", path).code == 0
    entry = {"name": "image_folder", "path": str(root), "split": 0.2}
    assert yaml.safe_load(path.read_text())["datasets"] == [entry]
    plan = sweep_file(tmp_path / "small", datasets=[entry], ipc=[1])
    assert ddbench("plan", plan, "--out", tmp_path / "out").code == 0


# --- names ------------------------------------------------------------------------------------------


def test_names_are_compared_in_one_unicode_form(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set", (CAFE, "dog"))
    composed = get(folder(root))
    (root / "test" / CAFE).rename(root / "test" / DECOMPOSED)
    tree = scan(root)
    assert tree.classes == (CAFE, "dog")
    assert get(folder(root)).fingerprint == composed.fingerprint
    assert class_positions([DECOMPOSED], tree.classes) == [0]
    assert class_positions([CAFE], tree.classes) == [0]


def test_one_name_in_two_unicode_forms_is_refused(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set", (CAFE, "dog"))
    paint(root / "train" / DECOMPOSED / "0.png", 1)
    refused(folder(root), str(root / "train"), f"two folders {CAFE}", "join them")


@pytest.mark.parametrize("text", ["x" * 300, "~nobody-of-this-name/pictures", "a\0b/"])
def test_names_that_are_no_paths(text: str) -> None:
    with pytest.raises((ValidationError, ValueError)) as caught:
        get(DatasetSpec.model_validate(text))
    assert any(words in str(caught.value) for words in ("unknown data set", "no folder", "no name", "U+0000"))
