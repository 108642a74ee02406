"""Artifacts: what is saved is what is loaded, what it takes, and files that are refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.core import random
from bench.core.distilled import DistilledDataset, load_distilled
from bench.core.errors import UserError
from bench.core.preprocess import ZCA_KINDS, Preprocess, Zca
from bench.core.registry import registered_blocks
from methods.blocks.parameterise.pixels import Pixels

PREPROCESS = Preprocess((0.1307, 0.5, 0.25), (0.3081, 0.2, 0.125))
COUNTS = [2, 1, 3]


def pixels(dtype: torch.dtype, counts: list[int] = COUNTS, preprocess: Preprocess = PREPROCESS) -> Pixels:
    shape = (sum(counts), 3, 4, 4)
    if dtype == torch.uint8:
        images = torch.randint(256, shape, dtype=dtype, generator=random.generator(0))
    else:
        images = torch.randn(shape, dtype=dtype, generator=random.generator(0))
    return Pixels(images, counts, preprocess)


def whitening(kind: str = "mtt") -> Zca:
    images = torch.randint(256, (80, 3, 4, 4), dtype=torch.uint8, generator=random.generator(1))
    return Zca.fit(images, kind)


def saved(path: Path, dtype: torch.dtype = torch.float32) -> DistilledDataset:
    artifact = pixels(dtype)
    artifact.save(path)
    return artifact


# --- round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_saved_and_loaded_is_the_same(tmp_path: Path, dtype: torch.dtype) -> None:
    before = saved(tmp_path / "data.safetensors", dtype)
    after = load_distilled(tmp_path / "data.safetensors")
    assert type(after) is Pixels
    assert after.config() == before.config()
    assert after.preprocess == PREPROCESS
    assert after.state_dict().keys() == before.state_dict().keys()
    for name, tensor in before.state_dict().items():
        assert after.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(after.state_dict()[name], tensor)
    for one, two in zip(before.decode(), after.decode(), strict=True):
        assert torch.equal(one, two)


def test_a_file_is_the_same_every_time_and_holds_tensors_only(tmp_path: Path) -> None:
    saved(tmp_path / "one")
    saved(tmp_path / "two")
    content = (tmp_path / "one").read_bytes()
    assert content == (tmp_path / "two").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert header.keys() == {"images", "__metadata__"}
    assert len(content) == 8 + length + 4 * 6 * 3 * 4 * 4
    assert load_file(tmp_path / "one").keys() == {"images"}


def test_a_file_is_what_it_was_before_there_was_whitening(tmp_path: Path) -> None:
    images = torch.arange(6 * 3 * 4 * 4, dtype=torch.float32).view(6, 3, 4, 4)
    Pixels(images, COUNTS, PREPROCESS).save(tmp_path / "x")
    found = hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()
    assert found == "a5ce882794bad58ac238ecc35264f29801e2db340453b6e96f26156f034e539c"


@pytest.mark.parametrize("kind", ZCA_KINDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_whitening_travels_in_the_file_and_costs_nothing(
    tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    before, plain = pixels(dtype, preprocess=whitening(kind)), pixels(dtype)
    before.save(tmp_path / "x")
    after = load_distilled(tmp_path / "x")
    assert after.preprocess == before.preprocess
    assert all(map(torch.equal, after.decode(), before.decode()))
    assert after.state_dict().keys() == {"images"}
    assert (after.n_stored, after.bytes_uint8) == (plain.n_stored, plain.bytes_uint8)
    assert (after.transform_floats, plain.transform_floats) == (48**2 + 2 * 48 + 2 * 3, 0)
    assert load_file(tmp_path / "x").keys() - {"images"} == {
        f"preprocess.{name}" for name in ("mean", "std", "centre", "directions", "scales")
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 1)), min_size=1, max_size=4))
def test_preprocess_and_back(dtype: torch.dtype, stats: list[tuple[float, float]]) -> None:
    mean, std = zip(*stats, strict=True)
    preprocess = Preprocess(mean, std)
    x = torch.rand(2, len(stats), 3, 3, dtype=dtype, generator=random.generator(0))
    atol = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(preprocess.invert(preprocess(x)), x, rtol=0, atol=atol)


def test_preprocess_in_closed_form() -> None:
    x = torch.tensor([[0, 51], [102, 255]], dtype=torch.uint8).expand(1, 2, 2, 2)
    y = Preprocess((0.0, 0.2), (1.0, 0.5))(x)
    assert y.dtype == torch.float32
    expected = torch.tensor([[[0, 0.2], [0.4, 1]], [[-0.4, 0], [0.4, 1.6]]])[None]
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)
    assert int(x[0, 0, 1, 1]) == 255  # not in place


# --- what it takes --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_position_implies_the_label_and_labels_cost_nothing(dtype: torch.dtype) -> None:
    artifact = pixels(dtype)
    _, labels = artifact.decode()
    assert labels.tolist() == [0, 0, 1, 2, 2, 2]
    assert artifact.n_stored == 6 * 3 * 4 * 4
    assert artifact.bytes_uint8 == (6 * 3 * 4 * 4 if dtype == torch.uint8 else None)


def test_what_is_not_an_image_costs_four_bytes() -> None:
    class WithMatrix(Pixels):
        def __init__(self, images: Tensor, counts: list[int], preprocess: Preprocess) -> None:
            super().__init__(images, counts, preprocess)
            self.register_buffer("matrix", torch.zeros(5, 7))

    artifact = WithMatrix(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), [3], Preprocess((0.0,), (1.0,)))
    assert artifact.n_stored == 12 + 35
    assert artifact.bytes_uint8 == 12 + 4 * 35


def test_numbers_of_eight_bytes_count_twice() -> None:
    assert pixels(torch.float64).n_stored == 2 * pixels(torch.float32).n_stored


class Configured(Pixels):
    """A set whose config is what a test says."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(torch.zeros(1, 1, 2, 2), [1], Preprocess((0.0,), (1.0,)))
        self._config = config

    def config(self) -> dict[str, Any]:
        return self._config


@pytest.mark.parametrize(
    "value",
    [
        *(3, -0.5, True, None, "multi_scale", "x" * 64, [0.5] * 16, [], ["a", "b"], list(range(1000))),
        pytest.param([2**31 - 1] * 17, id="large counts"),
    ],
)
def test_a_config_of_small_things_is_saved(value: Any, tmp_path: Path) -> None:
    Configured({"value": value}).save(tmp_path / "x")
    assert (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "value",
    [
        *("x" * 65, [0.5] * 17, [1] * 16 + [0.5], ["a"] * 17, ["x" * 65], {"a": 1}, [[1]]),
        *(2**63, -(10**400), [2**70], float("nan"), float("inf"), b"bytes"),
    ],
    ids=repr,
)
def test_a_config_that_could_hold_pixels_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^config\(\) must not hold value, .* which count$"):
        Configured({"value": value}).save(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_config_has_few_entries_with_short_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="17 entries, of which 16 are allowed"):
        Configured({str(i): i for i in range(17)}).save(tmp_path / "x")
    with pytest.raises(UserError, match=r"must not hold x{64}, but"):
        Configured({"x" * 65: 1}).save(tmp_path / "x")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_decode_of_some_items(dtype: torch.dtype) -> None:
    artifact, items = pixels(dtype), torch.tensor([5, 0, 0, 2])
    images, labels = artifact.decode()
    some, some_labels = artifact.decode(items)
    assert torch.equal(some, images[items])
    assert torch.equal(some_labels, labels[items])


def test_floats_learn_and_bytes_do_not() -> None:
    learnable = pixels(torch.float64)
    assert torch.autograd.gradcheck(lambda _: learnable.decode()[0].square(), learnable.images)
    assert list(pixels(torch.uint8).parameters()) == []
    bytes_ = pixels(torch.uint8)
    assert torch.equal(bytes_.decode()[0], PREPROCESS(bytes_.images))


# --- files that are refused -----------------------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_distilled(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_what_is_not_an_artifact(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert "not a readable ddbench artifact" in refused(path)
    saved(path)
    whole = path.read_bytes()
    for content in (b"", b"garbage" * 100, whole[:5], whole[:60], whole[:-1], b"\xff" * 8 + whole[8:]):
        path.write_bytes(content)
        assert "not a readable ddbench artifact" in refused(path)
    save_file({"images": torch.zeros(3)}, path)
    assert "not a readable ddbench artifact" in refused(path)
    torch.save({"images": torch.zeros(3)}, path)
    assert "not a readable ddbench artifact" in refused(path)
    assert "not a readable ddbench artifact" in refused(tmp_path)


def test_no_block_is_renamed() -> None:
    """Artifacts name their parameterisation, and job keys their prerequisites: another name loses them."""
    saved = {"Hallucinators", "LinearBases", "MultiFormation", "Pixels"}
    keyed = {"Embedding", "ExpertEpoch", "NamedTeacher", "Teacher", "Whitening"}
    assert saved | keyed <= registered_blocks().keys()


GOOD: dict[str, Any] = {
    "schema": 1,
    "parameterisation": "Pixels",
    "config": {"counts": [3]},
    "preprocess": {"mean": [0.5], "std": [0.5]},
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "schema 2, this ddbench reads 1"),
        ({"schema": None}, "schema None, this ddbench reads 1"),
        ({"parameterisation": "Pixel"}, "did you mean Pixels?"),
        ({"parameterisation": "os.system"}, "no parameterisation named 'os.system'"),
        ({"parameterisation": "Embedding"}, "no parameterisation named 'Embedding'"),
        ({"parameterisation": None}, "not a readable ddbench artifact"),
        ({"config": {}}, "not a readable ddbench artifact"),
        ({"config": {"counts": [3], "extra": 1}}, "not a readable ddbench artifact"),
        ({"config": {"counts": [2]}}, "not a readable ddbench artifact"),
        ({"config": {"counts": [3], "more": "x" * 65}}, "config() must not hold more"),
        ({"config": {"counts": "three"}}, "not a readable ddbench artifact"),
        ({"preprocess": {"mean": [0.5]}}, "not a readable ddbench artifact"),
        ({"preprocess": {"kind": "mtt"}}, "not a readable ddbench artifact"),
        ({"preprocess": {"kind": "pca"}}, "not a readable ddbench artifact"),
    ],
)
def test_headers_that_do_not_fit(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "x"
    header = {key: value for key, value in (GOOD | change).items() if value is not None}
    save_file({"images": torch.zeros(3, 1, 2, 2)}, path, metadata={"ddbench": json.dumps(header)})
    assert words in refused(path)


@pytest.mark.parametrize("text", ["[]", "5", "null", "{", ""])
def test_headers_that_are_no_mapping(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x"
    save_file({"images": torch.zeros(3, 1, 2, 2)}, path, metadata={"ddbench": text})
    assert "not a readable ddbench artifact" in refused(path)


def test_the_good_header_is_good(tmp_path: Path) -> None:
    save_file({"images": torch.zeros(3, 1, 2, 2)}, tmp_path / "x", metadata={"ddbench": json.dumps(GOOD)})
    assert load_distilled(tmp_path / "x").decode()[0].shape == (3, 1, 2, 2)
