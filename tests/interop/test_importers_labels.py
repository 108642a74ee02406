"""Labels of other people's files: classes in any one-hot form, else what they were taken as is said."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.importer import LABELS, PER, K, archived, dataset, decoded, noise, only, saved, smooth
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

IMAGES = smooth()
HOT = F.one_hot(LABELS, K)


def read(path: Path, labels: Tensor, images: Tensor = IMAGES) -> tuple[Tensor, list[str]]:
    """The targets, and the notes on labels."""
    found = only(saved(path, {"images": images, "labels": labels}), space="normalized")
    return decoded(found)[1], [note for note in found.notes if "labels" in note]


@pytest.mark.parametrize(
    "labels",
    [
        HOT,
        HOT.bool(),
        HOT.float() - 1 / K,
        HOT.half() - 0.1,
        10 * HOT.float(),
        2.0 * HOT - 1,
        100.0 * HOT - 3.5,
        (20.0 * HOT).log_softmax(1),
        HOT.float() + 1e-7 * noise(K * PER, K),
        0.3 * HOT.double() + 5,
    ],
)
def test_one_hot_up_to_scale_and_shift_are_classes(tmp_path: Path, labels: Tensor) -> None:
    assert torch.equal(read(tmp_path / "a.pt", labels)[0], LABELS)
    archive = archived(tmp_path / "a.npz", images=IMAGES, labels=labels)
    assert torch.equal(decoded(only(archive, space="normalized"))[1], LABELS)


def test_two_classes_in_any_one_hot_form(tmp_path: Path) -> None:
    data, labels = dataset(names=("a", "b")), torch.tensor([0, 0, 0, 1, 1, 1])
    for rows in (F.one_hot(labels, 2) - 0.5, F.one_hot(labels, 2).float(), 4.0 * F.one_hot(labels, 2)):
        path = saved(tmp_path / "a.pt", {"images": IMAGES, "labels": rows})
        assert torch.equal(decoded(only(path, data, space="normalized"))[1], labels)
    rows = torch.tensor([[0.7, 0.3]] * 3 + [[0.2, 0.8]] * 3)  # two values in each row, but not the same two
    path = saved(tmp_path / "a.pt", {"images": IMAGES, "labels": rows})
    torch.testing.assert_close(decoded(only(path, data, space="normalized"))[1], rows)


@pytest.mark.parametrize(
    "labels",
    [
        noise(K * PER, K).softmax(1),
        0.9 * HOT + 0.1 / K,  # smoothed
        noise(K * PER, K).softmax(1).round(decimals=4),
        torch.tensor([[1.0 + 1e-7, -1e-7, 0.0], [0.5, 0.5, 0.0]] * K),
    ],
)
def test_probabilities_stay_and_are_said_to_be(tmp_path: Path, labels: Tensor) -> None:
    targets, notes = read(tmp_path / "a.pt", labels)
    torch.testing.assert_close(targets.sort(0).values, labels.sort(0).values, rtol=0, atol=2e-4)
    assert notes == ["labels taken as probabilities"]


@pytest.mark.parametrize(
    "labels", [3 * noise(K * PER, K), 100 * noise(K * PER, K).softmax(1), HOT * noise(6, 1)]
)
def test_other_rows_are_said_to_be_logits(tmp_path: Path, labels: Tensor) -> None:
    targets, notes = read(tmp_path / "a.pt", labels)
    torch.testing.assert_close(targets.sort(0).values, labels.float().softmax(1).sort(0).values)
    assert notes == ["labels taken as logits, of which the softmax is used"]


@given(st.lists(st.integers(0, K - 1), min_size=K, max_size=12), st.floats(0.01, 100), st.floats(-10, 10))
def test_any_scale_and_shift(
    tmp_path_factory: pytest.TempPathFactory, more: list[int], scale: float, shift: float
) -> None:
    labels = torch.tensor([*range(K), *more])
    path = tmp_path_factory.mktemp("hot") / "a.pt"
    found = only(
        saved(path, {"images": smooth(len(labels)), "labels": scale * F.one_hot(labels, K) + shift}),
        space="normalized",
    )
    assert torch.equal(decoded(found)[1], labels.sort().values)
    assert found.distilled.n_stored == len(labels) * 3 * 4 * 4  # labels cost nothing


def test_labels_of_kip_are_classes_and_said_to_be(tmp_path: Path) -> None:
    learned = HOT + 0.1 * noise(K * PER, K)
    arrays = {"images": np.asarray(IMAGES.permute(0, 2, 3, 1)), "labels": learned}
    found = only(archived(tmp_path / "kip_nozca.npz", **arrays), space="normalized")
    assert torch.equal(decoded(found)[1], LABELS)
    assert "labels taken as the class of their largest entry" in found.notes
