"""Artifacts of ddbench that were altered: absurd counts, types and headers are refused, in little memory."""

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.artifact import BASES, GOOD, IMAGES, formation, hallucinators, written
from helpers.importer import K, noise, only, refused, smooth
from helpers.memory import limited
from safetensors.torch import save_file
from torch import Tensor

from bench.core import distilled
from bench.core.distilled import load_distilled
from bench.core.errors import UserError
from methods.blocks.parameterise.pixels import Pixels


@pytest.mark.parametrize("kind", GOOD)
def test_these_are_good(tmp_path: Path, kind: str) -> None:
    images, targets = load_distilled(written(tmp_path / "a", kind, *GOOD[kind])).decode()
    assert images.shape[1:] == (3, 4, 4)
    assert sorted(set(targets.tolist())) == list(range(K))


@pytest.mark.parametrize(
    ("kind", "config", "tensors"),
    [
        ("Pixels", {"counts": [10**12]}, IMAGES),
        ("Pixels", {"counts": [20, *[0] * 10**6]}, {"images": noise(20, 3, 4, 4)}),
        ("Pixels", {"counts": [2**62] * K}, IMAGES),
        ("Pixels", {"counts": [8, -2]}, IMAGES),
        ("Pixels", {"counts": []}, IMAGES),
        ("Pixels", {"counts": 6}, IMAGES),
        ("Pixels", {"counts": [2.0, 2.0, 2.0]}, IMAGES),
        ("Pixels", {"counts": [2] * K}, {"images": torch.tensor(1.0)}),
        ("Pixels", {"counts": [2] * K}, {"images": smooth().long()}),
        ("Pixels", {"counts": [2] * K}, {"images": smooth().to(torch.float8_e4m3fn)}),
        ("Pixels", {"counts": [2] * K}, {**IMAGES, "label_logits": torch.tensor(0.0)}),
        ("Pixels", {"counts": [2] * K}, {**IMAGES, "inner_lr": torch.zeros(3)}),
        ("MultiFormation", formation(n_classes=10**12), IMAGES),
        ("MultiFormation", formation(n_classes=0), IMAGES),
        ("MultiFormation", formation(n_classes=-K), IMAGES),
        ("MultiFormation", formation(n_classes=4), IMAGES),
        ("MultiFormation", formation(n_classes="3"), IMAGES),
        ("MultiFormation", formation(factor=10**9, decoder="multi_scale"), IMAGES),
        ("MultiFormation", formation(factor=10**9, decoder="bounded"), IMAGES),
        ("MultiFormation", formation(factor=-1), IMAGES),
        ("MultiFormation", formation(factor=1.5), IMAGES),
        ("MultiFormation", formation(decoder="best"), IMAGES),
        ("LinearBases", {"downsample": 2}, {**BASES, "addresses": noise(2)}),
        ("LinearBases", {"downsample": 0}, BASES),
        ("LinearBases", {"downsample": "2"}, BASES),
        ("Hallucinators", {"n_classes": 10**12, "padding": 0}, hallucinators(2, K)),
        ("Hallucinators", {"n_classes": K, "padding": 0}, hallucinators(2, 4)),
        ("Hallucinators", {"n_classes": K, "padding": 0}, hallucinators(2, 0)),
        ("Hallucinators", {"n_classes": 1, "padding": 0}, hallucinators(5000, 5000)),
    ],
)
def test_counts_and_types_that_are_absurd(
    tmp_path: Path, kind: str, config: Any, tensors: dict[str, Tensor]
) -> None:
    path = written(tmp_path / "data.safetensors", kind, config, tensors)
    with limited(), pytest.raises(UserError) as caught:
        load_distilled(path)
    assert str(caught.value).startswith(f"{path} is not a readable ddbench artifact: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "preprocess",
    [
        {"mean": [0.5] * 3, "std": [0.5, 0.0, 0.5]},
        {"mean": [0.5] * 3, "std": [0.5, -1.0, 0.5]},
        {"mean": [float("nan")] * 3, "std": [0.5] * 3},
        {"mean": [0.5] * 3, "std": [float("inf")] * 3},
        {"mean": [0.5] * 3, "std": [0.5] * 2},
        {"mean": "abc", "std": "def"},
        {"mean": [[0.5]] * 3, "std": [[0.5]] * 3},
        {"mean": [10**400] * 3, "std": [0.5] * 3},
        {"mean": [], "std": []},
        *(5, None, [], "kind"),
    ],
    ids=str,
)
def test_preprocessing_that_is_none(tmp_path: Path, preprocess: Any) -> None:
    path = written(tmp_path / "data.safetensors", "Pixels", *GOOD["Pixels"], preprocess)
    assert "is not a readable ddbench artifact" in refused(path)


@pytest.mark.parametrize(
    "text", ["[" * 10**5, '{"schema": ' * 10**5, "9" * 5001, '{"schema": 1e999}'], ids=["[", "{", "9", "e"]
)
def test_a_header_that_no_reader_takes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "data.safetensors"
    save_file(IMAGES, path, metadata={"ddbench": text})
    assert "is not a readable ddbench artifact" in refused(path)


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 8,
        struct.pack("<Q", 2**27),
        struct.pack("<Q", 90)
        + b'{"images":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}   ',
        struct.pack("<Q", 90)
        + b'{"images":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}     ',
    ],
    ids=["header", "longer header", "data", "overflow"],
)
@pytest.mark.parametrize("name", ["data.safetensors", "a.safetensors"])
def test_a_header_that_promises_too_much(tmp_path: Path, said: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(said + bytes(64))
    with limited():
        message = refused(tmp_path / name)
    assert "damaged" in message or "not a readable ddbench artifact" in message


@pytest.mark.parametrize(
    ("kind", "config", "tensors", "words"),
    [
        ("LinearBases", {"downsample": 10**5}, BASES, "decodes to more than 1,024 MiB"),
        ("LinearBases", {"downsample": 2**40}, BASES, "its tensors do not fit each other"),
        ("LinearBases", {"downsample": 2}, {**BASES, "addresses": noise(2, K, 3)}, "do not fit each other"),
        ("LinearBases", {"downsample": 2}, {**BASES, "bases": noise(2)}, "do not fit each other"),
        ("Hallucinators", {"n_classes": K, "padding": 1}, hallucinators(2, K), "do not fit each other"),
        ("Hallucinators", {"n_classes": K, "padding": -1}, hallucinators(2, K), "do not fit each other"),
        (
            "Hallucinators",
            {"n_classes": K, "padding": 0},
            hallucinators(4000, 4191),
            "decodes to more than 1,024 MiB",
        ),
        ("Pixels", {"counts": [2] * K}, {"images": noise(6)}, "not to images"),
        ("Pixels", {"counts": [2] * K}, {"images": torch.zeros(6, 2, 4, 4, dtype=torch.uint8)}, "do not fit"),
    ],
)
def test_sets_that_decode_to_too_much_or_not_at_all(
    tmp_path: Path, kind: str, config: Any, tensors: dict[str, Tensor], words: str
) -> None:
    path = written(tmp_path / "data.safetensors", kind, config, tensors)
    with limited():
        assert words in refused(path)


class Counted(Pixels):
    """A parameterisation from elsewhere, whose decoding depends on what is stored."""

    def _images(self, items: Tensor | None) -> Tensor:
        return super()._images(items) * float(self.images.max() > 0)


def test_a_plug_in_that_needs_numbers_to_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distilled, "registered_blocks", lambda: {"Counted": Counted})
    path = written(tmp_path / "data.safetensors", "Counted", *GOOD["Pixels"])
    assert type(only(path).distilled) is Counted
