"""Contributed results: what is wrong with them is found, and what is right passes."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import Ended, ddbench, run_inline, sweep_file, without_plots
from safetensors.torch import load_file, save_file

from bench.execution.store import META, Store
from bench.interop.submission import tolerance
from bench.records.schema import content_digest, dump_record, load_record

TWO: dict[str, Any] = {
    "methods": ["full", {"name": "dm", "steps": 2}],
    "ipc": [1],
    "evaluate": {"architectures": ["mlp"], "students": 2, "protocol": "quick", "curve": [0.5]},
}
CHECKS = 10


@pytest.fixture(scope="module")
def contributed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contributed")
    assert run_inline(sweep_file(folder, **TWO), folder / "out").code == 0
    return folder / "out"


@pytest.fixture
def folder(contributed: Path, tmp_path: Path) -> Path:
    shutil.copytree(contributed, tmp_path / "out")
    return tmp_path / "out"


def check(folder: Path, *words: object) -> Ended:
    return ddbench("submit-check", folder, *words)


def verdicts(ended: Ended) -> list[str]:
    """pass or fail of each check, in their order."""
    lines = [line.split() for line in ended.out.splitlines() if not line.startswith("  ")]
    return [word for line in lines for word in line if word in ("pass", "fail")]


def record(folder: Path, method: str = "dm") -> Path:
    """The first record of a method."""
    return next(p for p in sorted((folder / "records").iterdir()) if load_record(p).method == method)


def rewrite(path: Path, **changes: Any) -> Path:
    """A record that says something else, with a checksum that fits."""
    changed = load_record(path).model_copy(update=changes)
    path.write_text(dump_record(changed))
    return path


def test_honest_results_pass_and_are_reproduced_to_the_bit(folder: Path) -> None:
    ended = check(folder, "--sample", 4)
    assert (ended.code, verdicts(ended)) == (0, ["pass"] * CHECKS)
    assert "4 of 4 evaluated again" in ended.text
    for path in (folder / "records").iterdir():
        accuracy = 100 * sum(load_record(path).accuracies) / 2
        claim = f"{load_record(path).method} on mlp: claimed {accuracy:.1f} %, measured {accuracy:.1f} %"
        assert f"{path.stem}: {claim}" in ended.text


def test_somebody_elses_set_that_was_evaluated_passes_too(folder: Path, tmp_path: Path) -> None:
    """No sweep distills it: its key is that of what was stored, and how it is scored is planned."""
    artifact = load_record(record(folder)).artifact
    assert ddbench("export", folder, artifact, "--to", tmp_path / "set", "--format", "plain").code == 0
    words = ("--dataset", "digits", "--architecture", "mlp", "--protocol", "quick", "--students", 1)
    with without_plots():
        assert ddbench("evaluate", tmp_path / "set", *words, "--out", tmp_path / "theirs").code == 0
    ended = check(tmp_path / "theirs")
    assert (ended.code, verdicts(ended)) == (0, ["pass"] * CHECKS)
    assert "1 of 1 evaluated again" in ended.text


def test_sample_is_as_large_as_asked_for_and_the_same_again(folder: Path) -> None:
    one, other = check(folder, "--sample", 1), check(folder, "--sample", 1)
    assert one.out == other.out
    assert one.out.count("measured") == 1
    assert check(folder, "--sample", 0).out.count("measured") == 0


def damage_record(folder: Path) -> None:
    path = record(folder)
    path.write_text(path.read_text().replace('"seed": ', '"seed": 1'))


def copy_record(folder: Path) -> None:
    source = load_record(record(folder))
    (folder / "records/0123456789abcdef.json").write_text(
        dump_record(source.model_copy(update={"key": "0123456789abcdef"}))
    )


def lose_artifact(folder: Path) -> None:
    shutil.rmtree(folder / "artifacts" / load_record(record(folder)).artifact)


def damage_artifact(folder: Path) -> None:
    path = folder / "artifacts" / load_record(record(folder)).artifact / "data.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def rename_method(folder: Path) -> None:
    rewrite(record(folder), hyperparameters={**load_record(record(folder)).hyperparameters, "steps": 3})


def claim_speed(folder: Path) -> None:
    cost = load_record(record(folder)).cost
    rewrite(
        record(folder),
        cost=cost.model_copy(update={"distill_s": cost.distill_s / 2 if cost.distill_s else 0}),
    )


def claim_less_storage(folder: Path) -> None:
    storage = load_record(record(folder)).storage
    rewrite(record(folder), storage=storage.model_copy(update={"floats": storage.floats - 1}))


def claim_other_protocol(folder: Path) -> None:
    rewrite(record(folder), protocol="standard.plain")


def claim_accuracy(folder: Path) -> None:
    rewrite(record(folder), accuracies=[0.999, 0.999])


def add_pixels(folder: Path) -> None:
    """An artifact that was swapped for a larger one, with checksums that fit."""
    store, key = Store(folder), load_record(record(folder)).artifact
    tensors = load_file(path := store.artifact(key) / "data.safetensors")
    meta = {k: v for k, v in store.meta(key).items() if k not in ("schema", "files")}
    header = _header(path)
    shutil.rmtree(store.artifact(key))
    twice = {name: t.repeat(2, *[1] * (t.dim() - 1)) for name, t in tensors.items()}
    store.publish(key, meta, lambda to: save_file(twice, to / "data.safetensors", metadata=header))


def of_seed(folder: Path, seed: int) -> Path:
    """The record of dm with this seed."""
    return next(
        p for p in (folder / "records").iterdir() if (r := load_record(p)).method == "dm" and r.seed == seed
    )


def borrow_artifact(folder: Path) -> None:
    """The set of a luckier seed under the key of another: both are whole, and of one method."""
    luckier = load_record(of_seed(folder, 0))
    rewrite(of_seed(folder, 1), artifact=luckier.artifact, cost=luckier.cost)


def swap_seeds(folder: Path) -> None:
    """Each with the costs of the other's artifact."""
    first, second = of_seed(folder, 0), of_seed(folder, 1)
    one, other = load_record(first), load_record(second)
    rewrite(first, seed=1, cost=other.cost, artifact=other.artifact)
    rewrite(second, seed=0, cost=one.cost, artifact=one.artifact)


def claim_other_version(folder: Path) -> None:
    rewrite(record(folder), protocol_version=7)


def claim_other_data(folder: Path) -> None:
    rewrite(record(folder), dataset="cifar10")


def claim_other_rate(folder: Path) -> None:
    """One that the protocol does not have: chosen by looking at the test images, say."""
    training = load_record(record(folder)).training
    rewrite(record(folder), training=training.model_copy(update={"lr": 3 * training.lr}))


def claim_less_training(folder: Path) -> None:
    training = load_record(record(folder)).training
    rewrite(record(folder), training=training.model_copy(update={"steps": 1}))


def claim_spread(folder: Path) -> None:
    """A mean that is far too high, of accuracies so far apart that much seems possible."""
    rewrite(record(folder), accuracies=[1.0, 0.7])


def _header(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        found: dict[str, str] = file.metadata()
    return found


def forge_identity(folder: Path) -> None:
    """The artifact says it was made otherwise, with a checksum that fits: its key no longer does."""
    path = folder / "artifacts" / load_record(record(folder)).artifact / META
    meta = json.loads(path.read_text())
    meta.pop("sha256")
    meta["identity"]["hyperparameters"]["steps"] = 1
    path.write_text(json.dumps({**meta, "sha256": content_digest(meta)}))


def leave_copy(folder: Path) -> None:
    (folder / "records.parquet").write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "which", "words"),
    [
        (damage_record, 0, "does not match its checksum"),
        (copy_record, 1, "is the experiment of"),
        (lose_artifact, 2, "is not there: contribute it too"),
        (damage_artifact, 2, "does not match the checksum of data.safetensors"),
        (rename_method, 3, "in hyperparameters"),
        (claim_speed, 3, "in cost.distill_s"),
        (claim_other_data, 3, "in dataset"),
        (forge_identity, 3, "does not have the key of its content"),
        (claim_less_storage, 5, "storage: floats 639, counted 640"),
        (add_pixels, 5, "20 images for 10 labels"),
        (claim_other_protocol, 7, "the key is another one today"),
        (borrow_artifact, 7, "differs from what its key says in artifact"),
        (swap_seeds, 7, "differs from what its key says in artifact, seed"),
        (claim_other_version, 7, "differs from what its key says in protocol_version"),
        (claim_other_rate, 8, "training.lr"),
        (claim_less_training, 8, "training.steps 1, measured"),
        (claim_spread, 8, "claimed 85.0 %, measured"),
        (claim_accuracy, 8, "claimed 99.9 %, measured"),
        (leave_copy, 9, "records.parquet: reports would read it"),
    ],
)
def test_what_is_wrong_is_found(folder: Path, spoil: Callable[[Path], None], which: int, words: str) -> None:
    spoil(folder)
    ended = check(folder, "--sample", 4 if which == 8 else 0)
    assert ended.code == 1
    assert verdicts(ended)[which] == "fail"
    assert verdicts(ended)[:which] == ["pass"] * which
    assert words in ended.text


def test_missing_data_set_is_asked_for(folder: Path) -> None:
    """The contributor's folder of images is not on this machine."""
    for path in (folder / "artifacts").glob(f"*/{META}"):
        meta = json.loads(path.read_text())
        meta.pop("sha256")
        meta["dataset_spec"] = {"name": "image_folder", "path": "/nowhere/at/all", "label": "digits"}
        path.write_text(json.dumps({**meta, "sha256": content_digest(meta)}))
    ended = check(folder)
    assert ended.code == 1
    assert "or give the data set digits with --dataset" in ended.text
    assert check(folder, "--dataset", "digits").code == 0


def test_bad_usage_is_refused(tmp_path: Path, folder: Path) -> None:
    assert check(tmp_path / "nowhere").code == 2
    assert check(folder, "--sample", -1).code == 2
    assert check(folder, "--dataset", "no_such_set").code == 2


def test_tolerance_by_hand() -> None:
    """Two points, or two standard errors of the difference of two means."""
    assert tolerance([0.9], 10_000) == 0.02  # 2 sqrt(2) sqrt(0.09 / 10,000) = 0.0085
    assert tolerance([0.5], 100) == pytest.approx(2 * math.sqrt(2) * 0.05)
    # four students, deviation 0.1154..: two standard errors are 2 x 0.1154.. / sqrt(2)
    spread = tolerance([0.4, 0.4, 0.6, 0.6], 10_000)
    assert spread == pytest.approx(2 * math.sqrt(0.04 / 3) / math.sqrt(2))
