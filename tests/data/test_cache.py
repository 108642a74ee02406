"""The data package: specs, digits, the cache file and class-wise draws."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bench.core.errors import UserError
from bench.core.sampling import ClassIndex, ClassSampler
from bench.data import builtin, cache
from bench.data.cache import prepare_dataset, read_dataset
from bench.data.dataset import Split
from bench.data.spec import DATASETS, DatasetSpec


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))


# --- the spec -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelled", "name"),
    [("CIFAR10", "cifar10"), ("FashionMNIST", "fashion_mnist"), ("fashion-mnist", "fashion_mnist")],
)
def test_names_in_any_spelling(spelled: str, name: str) -> None:
    spec = DatasetSpec(name=spelled, data_dir=Path("here"))
    assert (spec.name, spec.label) == (name, name)
    assert spec.data_dir == Path.cwd() / "here"


def test_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ValidationError) as caught:
        DatasetSpec(name="cifar11")
    message = caught.value.errors()[0]["msg"]
    assert "did you mean cifar10" in message
    assert all(name in message for name in DATASETS)
    assert caught.value.error_count() == 1


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"name": "digits", "path": "x"}, "path"),
        ({"name": "digits", "download": True}, "download"),
        ({"name": "cifar10", "data_dir": "x", "image_size": 8}, "image_size"),
        ({"name": "image_folder", "path": "x", "data_dir": "y"}, "data_dir"),
        ({"name": "image_folder", "path": "x", "image_size": 0}, "image_size"),
        ({"name": "image_folder"}, "path"),
        ({"name": "cifar10"}, "data_dir"),
    ],
)
def test_wrong_keys_are_reported_by_name(keys: dict[str, object], key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DatasetSpec.model_validate(keys)
    assert caught.value.errors()[0]["loc"] == (key,)


@pytest.mark.parametrize("name", ["x" * 300, "~nobody_here", "a\0b", ""], ids=repr)
def test_names_that_are_no_path_either(name: str) -> None:
    with pytest.raises(ValidationError, match="unknown data set"):
        DatasetSpec.model_validate(name)


def test_the_folder_of_an_unknown_user_is_taken_as_it_is() -> None:
    found = DatasetSpec.model_validate({"name": "mnist", "data_dir": "~nobody_here/x"})
    assert found.data_dir == Path.cwd() / "~nobody_here/x"


def test_unknown_keys_name_the_known_ones() -> None:
    with pytest.raises(
        ValidationError, match=r"no key named 'lable' \(did you mean label\?\); choose from: "
    ):
        DatasetSpec.model_validate({"name": "digits", "lable": "d"})


def test_labels_and_round_trip(tmp_path: Path) -> None:
    spec = DatasetSpec(name="image_folder", path=tmp_path / "pets")
    assert spec.label == "pets"
    assert DatasetSpec(name="image_folder", path=tmp_path, label="mine").label == "mine"
    for each in (spec, DatasetSpec(name="digits")):
        assert DatasetSpec.model_validate(each.model_dump(mode="json")) == each


# --- digits ---------------------------------------------------------------------------------------


def test_digits_are_fixed_and_stratified() -> None:
    data = read_dataset(prepare_dataset(DatasetSpec(name="digits")))
    assert data.image_shape == (1, 8, 8)
    assert data.n_classes == 10
    assert data.classes[3] == "3"
    assert (len(data.train.labels), len(data.test.labels)) == (1437, 360)
    assert data.train.images.dtype == torch.uint8
    assert data.train.labels.dtype == torch.int64
    assert int(data.train.images.max()) == 255
    share = data.train.labels.bincount() / (data.train.labels.bincount() + data.test.labels.bincount())
    assert torch.all((share - 0.8).abs() < 0.01)
    assert cache.content_fingerprint(builtin.read_digits()) == data.fingerprint


# --- the cache ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
def test_failed_write_leaves_nothing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:

    def interrupted(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        save_file(tensors, path, metadata=metadata)
        raise error

    monkeypatch.setattr(cache, "save_file", interrupted)
    with pytest.raises((UserError, KeyboardInterrupt)):
        prepare_dataset(DatasetSpec(name="digits"))
    assert [
        file.suffix for file in (cache.cache_dir() / "datasets").iterdir() if file.suffix != ".lock"
    ] == []


def test_unusable_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cache folder") as caught:
        prepare_dataset(DatasetSpec(name="digits"))
    assert "DDBENCH_CACHE" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_cache_is_refused(tmp_path: Path) -> None:
    path = prepare_dataset(DatasetSpec(name="digits"))
    whole = path.read_bytes()
    assert b"[1437,1,8,8]" in whole
    damaged = {
        "short": whole[:-100],
        "head": whole[:20],
        "empty": b"",
        "reshaped": whole.replace(b"[1437,1,8,8]", b"[1437,8,1,8]"),
        "schema": whole.replace(b'\\"schema\\": 1', b'\\"schema\\": 0'),
        "of another program": whole.replace(b'"ddbench"', b'"other__"'),
    }
    for name, content in damaged.items():
        assert content != whole, name
        path.write_bytes(content)
        with pytest.raises(UserError, match="delete it") as caught:
            read_dataset(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no cache file"):
        read_dataset(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    "meta",
    [
        *("[]", "5", "null", "{", "[" * 10**5, "9" * 5001, '"' + "x" * 99 + '"'),
        *(
            {"classes": 5},
            {"classes": None},
            {"mean": "x"},
            {"mean": [0.5, 0.5]},
            {"std": None},
            {"shapes": []},
        ),
        *({"shapes": {"train_images": [3, 4]}}, {"shapes": 5}, {"name": None, "classes": {}, "mean": [None]}),
    ],
    ids=lambda meta: str(meta)[:40],
)
def test_a_cache_with_damaged_metadata_is_refused(meta: str | dict[str, object]) -> None:
    path = prepare_dataset(DatasetSpec(name="digits"))
    with safe_open(path, framework="pt") as file:
        good = json.loads(file.metadata()["ddbench"])
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    text = meta if isinstance(meta, str) else json.dumps(good | meta)
    save_file(tensors, path, metadata={"ddbench": text})
    with pytest.raises(UserError, match=r"is damaged .*: delete it to have it made again$"):
        read_dataset(path)


def test_a_cache_of_fewer_labels_is_refused() -> None:
    path = prepare_dataset(DatasetSpec(name="digits"))
    with safe_open(path, framework="pt") as file:
        meta = json.loads(file.metadata()["ddbench"])
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    tensors["train_labels"], meta["shapes"]["train_labels"] = tensors["train_labels"][1:].clone(), [1436]
    save_file(tensors, path, metadata={"ddbench": json.dumps(meta)})
    with pytest.raises(UserError, match="its images and labels are not as many"):
        read_dataset(path)


def test_loads_are_private_copies_on_write() -> None:
    path = prepare_dataset(DatasetSpec(name="digits"))
    before = path.read_bytes()
    mine, second = read_dataset(path), read_dataset(path)
    was = mine.train.images.clone()
    code = (
        "import sys; from pathlib import Path; from bench.data.cache import read_dataset as load\n"
        "data = load(Path(sys.argv[1])); data.train.images.fill_(77); data.train.labels.zero_()\n"
        "assert data.train.images.unique().tolist() == [77]"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=root)
    assert path.read_bytes() == before
    assert torch.equal(mine.train.images, was)
    mine.train.images.fill_(5)
    assert torch.equal(second.train.images, was)
    assert torch.equal(read_dataset(path).train.images, was)
    assert path.read_bytes() == before


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_load_maps_the_file() -> None:
    path = prepare_dataset(DatasetSpec(name="digits"))
    data = read_dataset(path)
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if path.name in line]
    ranges = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in lines]
    for tensor in (data.train.images, data.test.labels):
        assert any(start <= tensor.data_ptr() < end for start, end in ranges)
    assert all(line.split()[1].endswith("p") for line in lines)


# --- classes --------------------------------------------------------------------------------------

LABELS = torch.tensor([2, 0, 1, 2, 2, 0, 2, 2, 1, 2])  # 2, 2 and 6 members


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_class_index() -> None:
    index = ClassIndex.of(LABELS, 3)
    assert index.counts.tolist() == [2, 2, 6]
    assert index.members(2).tolist() == [0, 3, 4, 6, 7, 9]
    with pytest.raises(UserError, match="labels run from 0 to 2"):
        ClassIndex.of(LABELS, 2)


@pytest.mark.parametrize("per_class", [1, 2, 3, 4, 6, 7, 15])
@pytest.mark.parametrize("counts", [(2, 2, 6), (7, 7, 7), (1, 13, 40)])
def test_sampler_draws_each_class_without_replacement(per_class: int, counts: tuple[int, ...]) -> None:
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    index = ClassIndex.of(labels[torch.randperm(len(labels), generator=seeded())], 3)
    sampler = ClassSampler(index, per_class, seeded())
    draws = torch.stack([sampler.next() for _ in range(40)])  # [40, 3, per_class]
    for c in range(3):
        members = index.members(c)
        for draw in draws[:, c]:
            times = torch.bincount(draw, minlength=len(labels))
            assert times.sum() == times[members].sum()
            assert times[members].max() - times[members].min() <= 1  # none twice before each has come once
        whole = len(members) // per_class  # draws of one epoch
        if whole > 1:
            epochs = draws[: 40 // whole * whole, c].reshape(-1, whole * per_class)
            assert all(len(epoch.unique()) == whole * per_class for epoch in epochs)
    again = ClassSampler(index, per_class, seeded())
    assert torch.equal(draws[0], again.next())


def test_sampler_is_uniform() -> None:
    index = ClassIndex.of(LABELS, 3)
    sampler = ClassSampler(index, 2, seeded())
    drawn = torch.cat([sampler.next()[2] for _ in range(3000)])
    assert torch.all((torch.bincount(drawn)[index.members(2)] - 1000).abs() < 120)


@pytest.mark.parametrize("taken", [0, 1, 4])
def test_a_stopped_sampler_goes_on(taken: int) -> None:
    index = ClassIndex.of(LABELS, 3)
    sampler, other = (ClassSampler(index, 2, seeded(seed)) for seed in (0, 1))
    for _ in range(taken):
        sampler.next()
    state = sampler.state_dict()
    expected = torch.stack([sampler.next() for _ in range(9)])
    other.load_state_dict(state)
    assert torch.equal(torch.stack([other.next() for _ in range(9)]), expected)
    other.load_state_dict(state)  # it is a copy: what was drawn since has not moved it
    assert torch.equal(torch.stack([other.next() for _ in range(9)]), expected)


def test_draws_without_members() -> None:
    index = ClassIndex.of(LABELS, 4)
    with pytest.raises(UserError, match="no images of class 3"):
        ClassSampler(index, 1, seeded())
    with pytest.raises(UserError, match="at least 1"):
        ClassSampler(ClassIndex.of(LABELS, 3), 0, seeded())


def test_split_to_device() -> None:
    split = Split(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    assert split.to("meta").images.device.type == "meta"
    assert split.to("cpu").images is split.images
