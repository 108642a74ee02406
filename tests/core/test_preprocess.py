"""Whitening: the three kinds by their definitions, the way back, the gradient, and what is kept."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cli import ddbench, run_inline, sweep_file
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.core import preprocess, random
from bench.core.distilled import load_distilled
from bench.core.errors import UserError
from bench.core.preprocess import ZCA_KINDS, Preprocess, Zca, restore_preprocess
from bench.data.dataset import Dataset
from bench.execution.store import Store
from bench.planning import sweep as config
from bench.planning.graph import Job, plan_sweep
from bench.planning.protocols import load_protocols
from bench.planning.sweep import MethodEntry, Sweep
from methods.blocks.whitening import Whitening
from methods.dm import DM

WEIGHTS = "data.safetensors"

EPS = 0.1
INVERTIBLE = ("mtt", "frepo")
kinds = pytest.mark.parametrize("kind", ZCA_KINDS)


def images(n: int = 200, channels: int = 2, side: int = 3, seed: int = 0) -> Tensor:
    """Correlated pixels [n,C,H,H], uint8, all channels different."""
    generator = random.generator(seed, "images")
    d = channels * side * side
    rows = torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=generator) / d**0.5
    grey = rows.unflatten(1, (channels, side, side)) * (40 + 10 * torch.arange(channels).view(-1, 1, 1)) + 120
    return grey.clamp(0, 255).byte()


def exact(x: Tensor) -> Tensor:
    """uint8 -> [0, 1] in float64."""
    return x.double() / 255


def normalised(x: Tensor) -> Tensor:
    """Rows [n,d] of uint8 images, by the mean and standard deviation of each channel."""
    by_channel = exact(x).transpose(0, 1).flatten(1)
    mean, std = (s.view(-1, 1, 1) for s in (by_channel.mean(1), by_channel.std(1, correction=0)))
    return ((exact(x) - mean) / std).flatten(1)


def by_definition(x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """The rows that a kind decorrelates [n,d], and their covariance as that kind takes it."""
    if kind == "mtt":
        rows = exact(x).flatten(1) - exact(x).flatten(1).mean(0)
        return rows, rows.T @ rows / (len(x) - 1)
    rows = exact(x).flatten(1) if kind == "rtp" else normalised(x)
    if kind == "frepo":
        rows = rows - rows.mean(0)
    else:
        rows = rows - rows.mean(1, keepdim=True)
        rows = rows / rows.norm(dim=1, keepdim=True)
    return rows, rows.T @ rows / len(x)


def floor(covariance: Tensor, kind: str) -> Tensor:
    return torch.tensor(EPS).double() * (1 if kind == "mtt" else covariance.trace() / len(covariance))


# --- the definitions ------------------------------------------------------------------------------


@kinds
def test_whitened_by_definition(kind: str) -> None:
    x = images()
    rows, covariance = by_definition(x, kind)
    variances, directions = torch.linalg.eigh(covariance)
    inverse_root = directions @ torch.diag((variances + floor(covariance, kind)).rsqrt()) @ directions.T
    found = Zca.fit(x, kind, EPS)(exact(x)).flatten(1)
    torch.testing.assert_close(found, rows @ inverse_root, rtol=1e-5, atol=1e-5)


@kinds
def test_what_is_left_of_the_variances(kind: str) -> None:
    """The covariance of whitened images has the eigenvalues L / (L + floor): towards 1, never above."""
    x = images()
    _, covariance = by_definition(x, kind)
    variances = torch.linalg.eigvalsh(covariance)
    whitened = Zca.fit(x, kind, EPS)(exact(x)).flatten(1)
    left = torch.linalg.eigvalsh(whitened.T @ whitened / (len(x) - (kind == "mtt")))
    torch.testing.assert_close(left, variances / (variances + floor(covariance, kind)), rtol=0, atol=1e-5)
    assert left.max() < 1


def test_the_example_of_kornias_documentation() -> None:
    """zca_whiten([[0, 1], [1, 0], [-1, 0]]), at any scale: it divides by n - 1."""
    x = torch.tensor([[100, 200], [200, 100], [0, 100]], dtype=torch.uint8).view(3, 1, 1, 2)
    found = Zca.fit(x, "mtt", 1e-6 * (100 / 255) ** 2)(x).flatten(1)
    expected = torch.tensor([[0, 1.1547], [1, -0.5773], [-1, -0.5773]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@kinds
def test_fewer_images_than_dimensions(kind: str) -> None:
    """The code of KIP and FRePo leaves the d - n last directions alone; kornia's gives them 1/sqrt(eps)."""
    zca = Zca.fit(images(n=5), kind, EPS)
    last = zca.scales[:13]  # 18 dimensions, in ascending order
    torch.testing.assert_close(last, torch.full((13,), math.sqrt(EPS) if kind == "mtt" else 1.0))
    assert len(zca.scales) == 18


@kinds
def test_the_size_of_a_piece_does_not_matter(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = images()
    whole = Zca.fit(x, kind)
    monkeypatch.setattr(preprocess, "FIT_PIECE", 7)
    torch.testing.assert_close(Zca.fit(x, kind)(x), whole(x))


@given(st.floats(0.5, 2), st.floats(-0.5, 0.5))
def test_kip_sees_neither_brightness_nor_contrast(contrast: float, brightness: float) -> None:
    x = images()
    zca = Zca.fit(x, "kip")
    plain = Preprocess(zca.mean, zca.std)
    other = plain.invert(contrast * plain(exact(x)) + brightness)
    torch.testing.assert_close(zca(other), zca(exact(x)))


@kinds
def test_even_images_and_constant_channels_stay_finite(kind: str) -> None:
    x = images(n=20)
    x[:, 1], x[3] = 77, 77
    assert torch.isfinite(Zca.fit(x, kind)(x)).all()


# --- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", INVERTIBLE)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_whitened_and_back(kind: str, channels: int, side: int, seed: int) -> None:
    zca = Zca.fit(images(50, channels, side, seed), kind)
    other = exact(images(20, channels, side, seed + 100))  # not fitted to these
    torch.testing.assert_close(zca.invert(zca(other)), other, rtol=0, atol=1e-5)


def test_kip_and_back_up_to_brightness_and_contrast() -> None:
    x = images()
    zca = Zca.fit(x, "kip")
    back = zca.invert(zca(exact(x)))
    torch.testing.assert_close(zca(back), zca(exact(x)), rtol=0, atol=1e-5)
    shown = Preprocess(zca.mean, zca.std)(back).flatten(1)
    torch.testing.assert_close(shown.mean(1), torch.zeros(200).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(shown.norm(dim=1), torch.full((200,), 18**0.5).double(), rtol=1e-5, atol=0)


@kinds
def test_types_and_shapes(kind: str) -> None:
    x = images()
    zca, before = Zca.fit(x, kind), x.clone()
    found = zca(x)
    assert found.dtype == torch.float32
    assert found.shape == x.shape
    torch.testing.assert_close(found, zca(exact(x)).float(), rtol=0, atol=1e-4)
    stacked = x.unflatten(0, (4, 50))
    torch.testing.assert_close(zca(stacked).flatten(0, 1), found)
    torch.testing.assert_close(zca.invert(zca(stacked)).flatten(0, 1), zca.invert(found))
    assert torch.equal(x, before)


@kinds
def test_the_gradient(kind: str) -> None:
    zca = Zca.fit(images(), kind)
    x = exact(images(n=2, seed=1)).requires_grad_()
    assert torch.autograd.gradcheck(zca, x)
    assert torch.autograd.gradcheck(zca.invert, x)


def test_what_was_first_used_without_a_graph_can_be_differentiated() -> None:
    zca, x = Zca.fit(images()), images(n=2).float() / 255
    with torch.inference_mode():
        zca(x), zca.invert(x)
    zca.invert(zca(x.requires_grad_())).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x), rtol=0, atol=1e-4)


# --- what is kept ---------------------------------------------------------------------------------


@kinds
def test_saved_and_restored_to_the_bit(kind: str) -> None:
    zca = Zca.fit(images(), kind)
    again = restore_preprocess(zca.header(), zca.tensors())
    assert again == zca
    assert hash(again) == hash(zca)
    assert torch.equal(again(images()), zca(images()))
    assert sum(t.numel() for t in zca.tensors().values()) == 18**2 + 2 * 18 + 2 * 2


def test_equal_is_what_whitens_alike() -> None:
    zca = Zca.fit(images())
    assert zca == Zca.fit(images())
    assert zca != Zca.fit(images(seed=1))
    assert zca != Zca.fit(images(), eps=0.2)
    assert zca != dataclasses.replace(zca, kind="frepo")
    plain = Preprocess(zca.mean, zca.std)
    assert plain != zca
    assert zca != plain


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "pca"}, "no whitening named 'pca'; choose from: frepo, kip, mtt"),
        ({"eps": 0.0}, "eps 0.0 must be above 0"),
        ({"eps": math.nan}, "eps nan must be above 0"),
    ],
)
def test_what_cannot_be_fitted(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        Zca.fit(images(), **values)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["centre", "directions", "scales"])
def test_tensors_that_do_not_fit(name: str) -> None:
    tensors = Zca.fit(images()).tensors()
    with pytest.raises(UserError, match="centre"):
        Zca.of("mtt", {**tensors, name: tensors[name][:-1]})
    with pytest.raises(KeyError):
        Zca.of("mtt", {other: tensor for other, tensor in tensors.items() if other != name})


@kinds
def test_the_prerequisite_is_fitted_to_the_training_set(
    kind: str, make_problem: Any, digits: Dataset
) -> None:
    block = Whitening(kind, 0.2)
    found = Zca.of(kind, block.build(make_problem()))
    assert found == Zca.fit(digits.train.images, kind, 0.2)
    assert block.requires() == {}


# --- whole methods on whitened images -------------------------------------------------------------

MTT = {"name": "mtt", "steps": 1, "inner_steps": 1, "experts": 1, "start_epochs": 1, "expert_epochs": 1}
COMPOSE = {"name": "compose", "parameterisation": "multi_formation", "steps": 1}
METHODS = ["random_real", {"name": "herding", "network_steps": 1}, MTT, COMPOSE]
TINY = {
    "name": "tiny",
    "datasets": ["digits"],
    "ipc": [1],
    "distill": {"architectures": ["convnet-d1-w4"], "seeds": [0]},
    "evaluate": {"architectures": ["mlp"], "students": 1, "protocol": "quick"},
}


def methods(value: str | None) -> list[dict[str, Any]]:
    entries = [{"name": entry} if isinstance(entry, str) else entry for entry in METHODS]
    return [entry if value is None else {**entry, "preprocess": value} for entry in entries]


def planned(digits: Dataset, value: str | None) -> dict[str, Job]:
    sweep = Sweep.model_validate({**TINY, "methods": methods(value)})
    return plan_sweep(sweep, {"digits": digits}, load_protocols(*sweep.evaluate.protocol))


def test_whitening_moves_every_key_and_the_default_none(digits: Dataset) -> None:
    plain, same, whitened = (planned(digits, value) for value in (None, "normalise", "zca"))
    assert list(plain) == list(same)
    assert not plain.keys() & whitened.keys()
    assert all("preprocess" not in job.identity for job in plain.values())
    (one,) = (job for job in whitened.values() if job.identity.get("block") == "Whitening")
    assert len(whitened) == len(plain) + 1
    for job in whitened.values():  # experts and embeddings are trained on whitened images too
        works_on_images = job.kind in ("prepare", "distill") and job is not one
        assert job.identity.get("preprocess") == ("zca" if works_on_images else None)
        assert job.inputs.get("whitening") == (one.key if works_on_images else None)


def test_a_preset_may_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"steps": 7, "preprocess": "zca"}
    monkeypatch.setattr(config, "preset", lambda name, dataset, ipc, *_: values if ipc == 1 else {})
    entry, over = (MethodEntry.model_validate(v) for v in ("dm", {"name": "dm", "preprocess": "normalise"}))
    assert [entry.preprocess("digits", ipc) for ipc in (1, 2)] == ["zca", "normalise"]
    assert over.preprocess("digits", 1) == "normalise"
    assert entry.resolve("digits", 1) == over.resolve("digits", 1) == DM(steps=7)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    out = tmp_path_factory.mktemp("whitened")
    sweep = sweep_file(out / "sweep", **TINY, methods=methods("zca"))
    ended = run_inline(sweep, out)
    assert ended.code == 0, ended.out + ended.err
    return out


def test_artifacts_hold_the_whitening_of_the_training_set(results: Path, digits: Dataset) -> None:
    expected, store = Zca.fit(digits.train.images), Store(results)
    keys = {json.loads(path.read_text())["artifact"] for path in store.records.iterdir()}
    assert len(keys) == len(METHODS)
    for key in keys:
        distilled = load_distilled(store.artifact(key) / WEIGHTS)
        assert distilled.preprocess == expected
        back = expected.invert(distilled.decode()[0])
        if store.meta(key)["identity"]["method"] == "random_real":
            torch.testing.assert_close(back, distilled.images.float() / 255, rtol=0, atol=1e-5)
        assert ddbench("show", results, key).code == 0


def test_records_tell_whitened_from_plain(results: Path) -> None:
    """A table would take two settings of a method for one where the hyper-parameters do not differ."""
    for path in (results / "records").iterdir():
        record = json.loads(path.read_text())
        assert record["hyperparameters"]["preprocess"] == "zca"
        assert record["storage"]["transform_floats"] == 64**2 + 2 * 64 + 2


def test_a_typo_is_one_line(tmp_path: Path) -> None:
    wrong = sweep_file(tmp_path, methods=[{"name": "random_real", "preprocess": "zcaa"}])
    ended = run_inline(wrong, tmp_path / "out")
    assert ended.code == 2
    assert "no preprocess named 'zcaa' (did you mean zca?); choose from: normalise, paper, zca," in ended.err
    assert len(ended.err.strip().splitlines()) == 1
