"""Plain images in other people's files: what is in them is what comes out, and what is not is asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.importer import (
    LABELS,
    PER,
    K,
    archived,
    dataset,
    decoded,
    noise,
    only,
    refused,
    saved,
    smooth,
    state,
    trajectory,
    unit,
)
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from bench.core import random
from bench.core.preprocess import Preprocess, Zca
from bench.interop.importers.class_folders import match_classes
from bench.interop.importers.read import IMPORT_FORMATS, read_set
from bench.interop.importers.request import ImportRequest

CIFAR10 = Preprocess((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


def shuffled() -> Tensor:
    return torch.randperm(K * PER, generator=random.generator(3))


# --- DC -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
def test_dc_has_a_set_for_each_experiment(tmp_path: Path, legacy: bool) -> None:
    """Numpy accuracies, float64 images, labels as a list: as the older files have them."""
    first, second = smooth(), smooth().double() + 1
    claims = {
        "ConvNet": [np.float64(0.25), np.float64(0.5), np.float64(0.75), np.float64(1)],
        "MLP": [0.5] * 3,
    }
    held = {"data": [[first, LABELS], [second, LABELS.tolist()]], "accs_all_exps": claims}
    path = saved(tmp_path / "res_DC_CIFAR10_ConvNet_2ipc.pt", held, legacy=legacy)
    found = read_set(ImportRequest(path), dataset())
    assert [one.format for one in found] == ["dc", "dc"]
    assert [one.seed for one in found] == [0, 1]
    assert [one.published for one in found] == [
        {"accuracies": {"ConvNet": [0.25, 0.5]}},
        {"accuracies": {"ConvNet": [0.75, 1.0]}},
    ]
    for one, images in zip(found, (first, second.float()), strict=True):
        pixels, targets = decoded(one)
        assert torch.equal(pixels, images)
        assert torch.equal(targets, LABELS)
        assert (one.ipc, one.source) == (PER, path.name)
        assert one.distilled.preprocess == CIFAR10


def test_images_in_any_order_are_sorted_by_class(tmp_path: Path) -> None:
    order = shuffled()
    path = saved(tmp_path / "a.pt", {"data": [[smooth()[order], LABELS[order]]]})
    images, targets = decoded(only(path))
    assert torch.equal(targets, LABELS)
    kept = order[LABELS[order].argsort(stable=True)]  # within a class, the order of the file
    assert torch.equal(images, smooth()[kept])


def test_classes_may_differ_in_size_but_none_may_be_empty(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"data": [[smooth(), [0, 0, 0, 1, 2, 2]]]})
    found = only(path)
    assert decoded(found)[1].tolist() == [0, 0, 0, 1, 2, 2]
    assert found.ipc == PER
    saved(path, {"data": [[smooth(), [0, 0, 0, 0, 2, 2]]]})
    assert "no image of class 1" in refused(path)


def test_grey_images_and_their_constants(tmp_path: Path) -> None:
    mnist = dataset("mnist", channels=1)
    path = saved(tmp_path / "a.pt", {"data": [[smooth(channels=1)[:, 0], LABELS]]})  # [N,H,W]
    found = only(path, mnist)
    assert torch.equal(decoded(found)[0], smooth(channels=1))
    assert found.distilled.preprocess == Preprocess((0.1307,), (0.3081,))


@pytest.mark.parametrize("label", ["cifar100", "CIFAR-100"])
def test_constants_of_cifar100_differ_between_the_repositories(tmp_path: Path, label: str) -> None:
    data = dataset(label)
    dc = only(saved(tmp_path / "a.pt", {"data": [[smooth(), LABELS]]}), data)
    mtt = only(trajectory(tmp_path / "b", smooth(), LABELS), data, space="normalized", lr=0.1)
    assert dc.distilled.preprocess == Preprocess((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))
    assert mtt.distilled.preprocess == CIFAR10


def test_other_data_sets_have_their_own_constants(tmp_path: Path) -> None:
    data = dataset("my-birds")
    found = only(saved(tmp_path / "a.pt", {"data": [[smooth(), LABELS]]}), data)
    assert found.distilled.preprocess == Preprocess(data.mean, data.std)
    assert any("the data set's own mean and std" in note for note in found.notes)


def test_accuracies_of_the_first_numpy(tmp_path: Path) -> None:
    claims = {"ConvNet": [np.float64(0.25)], "MLP": np.array([0.5])}
    path = saved(tmp_path / "a.pt", {"data": [[smooth(), LABELS]], "accs_all_exps": claims}, legacy=True)
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert only(path).published == {"accuracies": {"ConvNet": [0.25], "MLP": [0.5]}}
    saved(path, {"data": [[smooth(), LABELS]], "accs_all_exps": {"ConvNet": "good"}})
    assert only(path).published == {}


# --- MTT, DATM ------------------------------------------------------------------------------------


def test_mtt_needs_space_and_rate_and_keeps_them(tmp_path: Path) -> None:
    folder = trajectory(tmp_path / "run", smooth(), LABELS)
    assert "pass --lr" in refused(folder)
    assert "its pixels look normalized): pass --space raw01|raw255|signed|normalized|zca" in refused(
        folder, lr=0.02
    )
    found = only(folder, lr=0.02, space="normalized")
    assert found.format == "mtt"
    assert found.source == "images_best.pt, labels_best.pt"
    assert torch.equal(decoded(found)[0], smooth())
    assert float(state(found)["inner_lr"]) == pytest.approx(0.02)
    assert found.ipc == PER  # the rate is no image


def test_whitened_images_bring_the_whitening_of_the_training_set(tmp_path: Path) -> None:
    data = dataset()
    folder = trajectory(tmp_path / "run", noise(K * PER, 3, 4, 4), LABELS)
    found = only(folder, data, lr=0.02, space="zca")
    assert torch.equal(decoded(found)[0], noise(K * PER, 3, 4, 4))
    expected = Zca.fit(data.train.images, "mtt")
    test = data.test.images[:5]
    assert isinstance(found.distilled.preprocess, Zca)
    torch.testing.assert_close(found.distilled.preprocess(test), expected(test))


def test_an_iteration_by_its_file(tmp_path: Path) -> None:
    folder = trajectory(tmp_path, smooth() + 1, LABELS, it="500")
    trajectory(folder, smooth(), LABELS)
    found = only(folder / "images_500.pt", lr=0.1, space="normalized")
    assert found.source == "images_500.pt, labels_500.pt"
    assert torch.equal(decoded(found)[0], smooth() + 1)
    saved(folder / "images_zca_500.pt", smooth())
    assert "for viewing" in refused(folder / "images_zca_500.pt", lr=0.1, space="normalized")
    (folder / "labels_500.pt").unlink()
    assert "put them beside it, as labels_500.pt" in refused(folder / "images_500.pt", lr=0.1)


def test_datm_has_logits_and_its_rate(tmp_path: Path) -> None:
    logits = 3 * noise(K * PER, K)
    found = only(trajectory(tmp_path, smooth(), logits, lr=0.05), space="normalized")
    assert found.format == "datm"
    images, targets = decoded(found)
    order = logits.argmax(1).argsort(stable=True) if balanced(logits) else torch.arange(K * PER)
    assert torch.equal(images, smooth()[order])
    torch.testing.assert_close(targets, logits[order].softmax(1))
    assert float(state(found)["inner_lr"]) == pytest.approx(0.05)
    assert found.ipc == PER  # labels aside
    assert "leave out --lr" in refused(tmp_path, space="normalized", lr=0.1)
    assert only(tmp_path, space="normalized", lr=0.05).format == "datm"


def balanced(logits: Tensor) -> bool:
    return len(set(logits.argmax(1).bincount(minlength=K).tolist())) == 1


def test_soft_labels_sort_where_all_classes_have_as_many(tmp_path: Path) -> None:
    order = shuffled()
    logits = 10 * torch.nn.functional.one_hot(LABELS, K).float() + noise(K * PER, K)
    path = trajectory(tmp_path, smooth()[order], logits[order], lr=0.05)
    _, targets = decoded(only(path, space="normalized"))
    assert torch.equal(targets.argmax(1), LABELS)


@pytest.mark.parametrize("rate", [-0.1, float("nan"), [0.1, 0.2]])
def test_a_rate_that_is_none_is_asked_for(tmp_path: Path, rate: Any) -> None:
    path = trajectory(tmp_path, smooth(), LABELS, lr=rate)
    assert "pass a positive one, --lr" in refused(path, space="normalized")
    assert float(state(only(path, space="normalized", lr=0.1))["inner_lr"]) == pytest.approx(0.1)


# --- KIP, FRePo -----------------------------------------------------------------------------------


def centred(labels: Tensor = LABELS) -> Tensor:
    return torch.nn.functional.one_hot(labels, K).float() - 1 / K


def channels_last(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1)


def test_kip_is_whitened_where_its_name_says_so(tmp_path: Path) -> None:
    order, images = shuffled(), noise(K * PER, 3, 4, 4)
    arrays = {"images": channels_last(images[order]), "labels": centred()[order]}
    path = archived(tmp_path / "kip_cifar10_ConvNet3_ssize6_zca_nol_noaug_ckpt1000.npz", **arrays)
    found = only(path)
    assert found.format == "kip"
    pixels, targets = decoded(found)
    assert torch.equal(targets, LABELS)
    assert torch.equal(pixels, images[order[LABELS[order].argsort(stable=True)]])
    assert isinstance(found.distilled.preprocess, Zca)
    assert found.distilled.preprocess.kind == "kip"
    plain = archived(tmp_path / "kip_cifar10_ConvNet3_ssize6_nozca_nol_noaug_ckpt1000.npz", **arrays)
    assert "pass --space" in refused(plain)


def test_frepo_labels_are_probabilities_again(tmp_path: Path) -> None:
    images = noise(K * PER, 3, 4, 4)
    label = torch.tensor([[0.5, -0.1, -0.4]] * K * PER)  # plus 1/3: 0.8333, 0.2333, -0.0667
    label = torch.stack([row.roll(c) for row, c in zip(label, LABELS.tolist(), strict=False)])
    label = label / (K / 10) ** 0.5  # as FRePo scales them
    found = only(archived(tmp_path / "step.npz", image=channels_last(images), label=label))
    assert found.format == "frepo"
    assert isinstance(found.distilled.preprocess, Zca)
    assert found.distilled.preprocess.kind == "frepo"
    pixels, targets = decoded(found)
    assert torch.equal(pixels, images)
    row = torch.tensor([0.8333333, 0.2333333, 0.0]) / 1.0666667
    expected = torch.stack([row.roll(c) for c in LABELS.tolist()])
    torch.testing.assert_close(targets, expected, rtol=0, atol=1e-6)


def test_frepo_only_normalises_the_mnist_family(tmp_path: Path) -> None:
    path = archived(tmp_path / "a.npz", image=channels_last(smooth(channels=1)), label=centred() * 0.9)
    found = only(path, dataset("Fashion-MNIST", channels=1))
    assert found.distilled.preprocess == Preprocess((0.2861,), (0.3530,))


# --- folders --------------------------------------------------------------------------------------


def pictures(root: Path, names: list[str], per: int = PER, side: int = 4) -> Tensor:
    """Class folders of PNG files; returns the pixels, folder after folder."""
    shape = (len(names) * per, 3, side, side)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=random.generator(0, "pictures"))
    for i, image in enumerate(images):
        file = root / names[i // per] / f"id{9 + i % per}.png"  # id9, id10, ...: not in the order of letters
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)
    return images


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["owl", "cat", "dog"], [1, 2, 0]),
        (["Cat", "DOG", "owl"], [0, 1, 2]),
        (["2", "0", "1"], [1, 2, 0]),
        (["00000", "00001", "00002"], [0, 1, 2]),
        (["new000", "new001", "new002"], [0, 1, 2]),
        (["00001_dog", "00000_cat", "00002_owl"], [1, 0, 2]),
    ],
)
def test_class_folders_by_name_or_number(tmp_path: Path, names: list[str], order: list[int]) -> None:
    images = pictures(tmp_path, names).unflatten(0, (K, PER))
    found = only(tmp_path)
    assert found.format == "folder"
    stored = state(found)["images"]
    assert stored.dtype == torch.uint8
    assert torch.equal(stored, images[order].flatten(0, 1))
    assert torch.equal(decoded(found)[1], LABELS)
    data = dataset()
    assert found.distilled.preprocess == Preprocess(data.mean, data.std)


def test_ten_comes_after_nine() -> None:
    """RDED's class order: as text, 10 comes before 2."""
    names = sorted(str(c) for c in range(12))
    assert names[2] == "10"
    found, how = match_classes(names, tuple(f"class {c}" for c in range(12)), Path("x"))
    assert found == [int(name) for name in names]
    assert "number" in how


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["cat", "dog", "cow"], "neither the names"),
        (["0", "1", "3"], "neither the names"),
        (["cat", "dog"], "neither the names"),
        (["0_owl", "1_dog", "2_cat"], "but class 'owl' is number 2"),
    ],
)
def test_class_folders_that_fit_no_class(tmp_path: Path, names: list[str], words: str) -> None:
    pictures(tmp_path, names)
    assert words in refused(tmp_path)


def test_pictures_of_another_size(tmp_path: Path) -> None:
    pictures(tmp_path, ["0", "1", "2"], side=5)
    assert "its images are 6 x 3 x 5 x 5, those of cifar10 N x 3 x 4 x 4" in refused(tmp_path)
    assert "leave out --space" in refused(tmp_path, space="zca")


# --- plain ----------------------------------------------------------------------------------------


def test_plain_in_every_container(tmp_path: Path) -> None:
    images, labels = unit(K * PER, 3, 4, 4), LABELS
    both = {"images": images, "labels": labels}
    (tmp_path / "dd").mkdir()
    saved(tmp_path / "dd" / "labels.pt", labels)
    saved(tmp_path / "dd" / "lr.pt", torch.tensor(0.3))
    saved(tmp_path / "dd" / "images.pt", images)
    save_file(both, tmp_path / "a.safetensors")
    paths = [
        tmp_path / "dd",
        saved(tmp_path / "a.pt", {"data": images, "targets": labels}),
        archived(tmp_path / "c.npz", **both),
        tmp_path / "a.safetensors",
    ]
    data = dataset()
    expected = Preprocess(data.mean, data.std)(images)
    for path in paths:
        found = only(path)
        assert found.format == "plain"
        assert torch.equal(decoded(found)[0], expected)
        assert torch.equal(decoded(found)[1], labels)
        assert any("raw01" in note for note in found.notes)
    assert float(state(only(paths[0]))["inner_lr"]) == pytest.approx(0.3)


def test_bytes_stay_bytes(tmp_path: Path) -> None:
    images = torch.randint(256, (K * PER, 3, 4, 4), dtype=torch.uint8, generator=random.generator(0))
    found = only(saved(tmp_path / "a.pt", (images, LABELS)))
    assert torch.equal(state(found)["images"], images)
    assert found.distilled.bytes_uint8 == images.numel()


def test_every_format_is_described() -> None:
    assert set(IMPORT_FORMATS) == {
        *("dc", "mtt", "datm", "idc", "haba", "rtp"),
        *("frepo", "kip", "folder", "plain", "ddbench"),
    }
