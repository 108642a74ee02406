"""`ddbench recall`: tasks that an artifact was not distilled for, asked of it through the command line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import WriteProtocol
from helpers.cli import Ended, ddbench, run_inline, sweep_file
from torch import Tensor

from bench.core import random
from bench.core.distilled import DistilledDataset, load_distilled
from bench.core.method import Problem
from bench.core.preprocess import Preprocess
from bench.data.cache import prepare_dataset, read_dataset, regroup_dataset
from bench.data.dataset import Dataset
from bench.data.spec import DatasetSpec
from bench.execution.store import WEIGHTS, Store
from bench.tools.recall import RIDGE, RecallQuestion, RecallTask, _from_memory
from methods.blocks.parameterise.linear_bases import LinearBases
from methods.blocks.parameterise.multi_formation import MultiFormation
from methods.blocks.parameterise.pixels import Pixels

WHOLE = DatasetSpec(name="digits")
HALF = DatasetSpec(name="digits", classes=tuple(range(5)))
IPC = 5
MEMORY = {"bases": 16, "downsample": 1, "init": "pca"}
FAST = ("--architecture", "mlp", "--students", 2)


def start(spec: DatasetSpec, cls: Any, **options: Any) -> tuple[Dataset, DistilledDataset]:
    found = read_dataset(prepare_dataset(spec))
    problem = Problem(
        images=found.train.images,
        labels=found.train.labels,
        n_classes=found.n_classes,
        ipc=IPC,
        preprocess=Preprocess(found.mean, found.std),
        make_net=lambda _: pytest.fail("an initial state needs no network"),
        seed=0,
        prepared={},
    )
    return found, cls.start(problem, random.generator(0, "recall tests"), **options)


def publish(store: Store, key: str, spec: DatasetSpec, cls: Any, **options: Any) -> None:
    """An initial state as the artifact of a distillation; with the principal directions it shows digits."""
    found, distilled = start(spec, cls, **options)
    meta = {
        "kind": "distill",
        "label": f"{key} of {found.label}",
        "identity": {"dataset": found.fingerprint, "ipc": IPC},
        "dataset_spec": spec.model_dump(mode="json"),
        "classes": list(found.classes),
    }
    store.publish(key, meta, lambda folder: distilled.save(folder / WEIGHTS))


@pytest.fixture(scope="module")
def results(_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(tmp_path_factory.mktemp("results"))
    publish(store, "memory", WHOLE, LinearBases, **MEMORY)
    publish(store, "half", HALF, LinearBases, **MEMORY)
    publish(store, "named", HALF, LinearBases, **MEMORY, queries="centroid", query_dim=4)
    publish(store, "learned", HALF, LinearBases, **MEMORY, queries="learned", query_dim=4)
    publish(store, "pixels", HALF, Pixels)
    publish(store, "formation", HALF, MultiFormation, factor=2)
    return store.root


def asked(results: Path, key: str, task: str, *words: object) -> dict[str, Any]:
    """What the command keeps as JSON; its rows by their names."""
    ended = ddbench("recall", results, key, "--classes", task, *FAST, *words)
    assert ended.code == 0, ended.err
    path = Path(ended.out.strip().splitlines()[-1].strip())
    kept: dict[str, Any] = json.loads(path.read_text())
    assert path.parent == results / "recall"
    assert path.name.startswith(f"{key}-")
    for row in kept["rows"]:  # the table tells the same
        assert f"{row['name']} {100 * sum(row['accuracies']) / len(row['accuracies']):.1f} ±" in ended.text
    return kept | {"rows": {row["name"]: row for row in kept["rows"]}}


def worst(kept: dict[str, Any], name: str) -> float:
    accuracies: list[float] = kept["rows"][name]["accuracies"]
    assert len(accuracies) == 2
    return min(accuracies)


# --- recombination ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "groups", "least"), [("0,1,7", 3, 0.9), ("0+2+4+6+8,1+3+5+7+9", 2, 0.8)])
def test_a_memory_recombines_its_classes(results: Path, task: str, groups: int, least: float) -> None:
    kept = asked(results, "memory", task)
    assert list(kept["rows"]) == [
        "memory (recombined)",
        "real images, same storage per class",
        "whole training set",
    ]
    assert kept["task"] == task.split(",")
    assert len(kept["task"]) == groups
    assert worst(kept, "memory (recombined)") > least
    assert worst(kept, "whole training set") > 0.9


@pytest.mark.parametrize("key", ["pixels", "formation"])
def test_any_artifact_recombines(results: Path, key: str) -> None:
    assert worst(asked(results, key, "0+2,1+3"), "memory (recombined)") > 0.7


def test_storage_and_images_are_counted(results: Path) -> None:
    kept = asked(results, "memory", "0,1+7")
    memory = load_distilled(results / "artifacts" / "memory" / WEIGHTS)
    row = kept["rows"]["memory (recombined)"]
    assert row["floats"] == memory.n_stored
    assert row["images_per_class"] == [memory.per_class] * 2
    real = kept["rows"]["real images, same storage per class"]
    assert (real["floats"], real["images_per_class"]) == (3 * IPC * 64, [IPC] * 2)
    whole = read_dataset(prepare_dataset(WHOLE))
    counts = whole.train.labels.bincount()[[0, 1, 7]].tolist()
    row = kept["rows"]["whole training set"]
    assert (row["floats"], row["images_per_class"]) == (sum(counts) * 64, [min(counts), max(counts)])


def test_the_same_question_has_the_same_answer_and_file(results: Path) -> None:
    first = asked(results, "pixels", "0,1")
    files = {p.name: p.read_bytes() for p in (results / "recall").glob("pixels-*")}
    assert asked(results, "pixels", "0,1") == first
    assert {p.name: p.read_bytes() for p in (results / "recall").glob("pixels-*")} == files
    asked(results, "pixels", "1,0")
    assert len(list((results / "recall").glob("pixels-*"))) == len(files) + 1


# --- classes that the memory does not hold ------------------------------------------------------------------


def test_unseen_classes_are_fitted(results: Path) -> None:
    kept = asked(results, "half", "5,6,7,8,9", "--shots", 10)
    assert list(kept["rows"]) == [
        "memory (fitted, 10 shots)",
        "real images, same storage per class",
        "real images, 10 shots",
        "whole training set",
    ]
    assert worst(kept, "memory (fitted, 10 shots)") > 0.6
    row = kept["rows"]["memory (fitted, 10 shots)"]
    stored = load_distilled(results / "artifacts" / "half" / WEIGHTS).n_stored
    assert row["floats"] == stored + 5 * 10 * MEMORY["bases"]
    assert row["images_per_class"] == [10, 10]


def test_centroid_queries_take_an_embedding(results: Path) -> None:
    kept = asked(results, "named", "0,7", "--shots", 1)
    row = kept["rows"]["memory (embedding, 1 shot)"]
    memory = load_distilled(results / "artifacts" / "named" / WEIGHTS)
    assert row["floats"] == memory.n_stored + 4
    assert row["images_per_class"] == [memory.per_class] * 2
    assert kept["rows"]["memory (fitted, 1 shot)"]["images_per_class"] == [1, memory.per_class]


def test_learned_queries_take_none(results: Path) -> None:
    assert not any("embedding" in name for name in asked(results, "learned", "0,7", "--shots", 1)["rows"])


def question(task: str, shots: int = 5) -> RecallQuestion:
    return RecallQuestion(task, shots, "mlp", "quick", 1, 0)


def answers(spec: DatasetSpec, groups: list[list[int]], shots: int = 5, **options: Any) -> Any:
    """What students would be trained on, and the memory that made it."""
    whole, memory = read_dataset(prepare_dataset(WHOLE)), start(spec, LinearBases, **MEMORY | options)[1]
    held = list(range(len(spec.classes or range(10))))
    task = RecallTask(whole, groups, held, regroup_dataset(whole, groups, "task"))
    return _from_memory(memory, task, question("", shots)), memory, task


def test_recombined_images_are_those_of_the_one_hot_queries() -> None:
    (found,), memory, _ = answers(WHOLE, [[3, 1], [7]])
    wanted = memory.recall(torch.eye(10)[[3, 1, 7]]).detach()
    torch.testing.assert_close(found.images, wanted)
    assert found.labels.tolist() == [0] * (2 * memory.per_class) + [1] * memory.per_class


def test_fitted_images_are_the_nearest_in_the_span_of_the_bases() -> None:
    """The residual of each shot is orthogonal to every base, but for the ridge: M (x - aM) = ridge a."""
    (found, *_), memory, task = answers(HALF, [[8], [9]])
    shots = task.real(5, random.generator(0, "recall", "shots"))
    wanted = memory.preprocess(torch.cat([shots[8], shots[9]])).flatten(1)
    bases = memory.bases.detach().flatten(1)
    assert torch.linalg.matrix_rank(found.images.flatten(1)) <= 10
    coefficients = memory.fit(wanted.unflatten(1, (1, 8, 8)), RIDGE).detach()
    residual = (wanted - found.images.flatten(1)) @ bases.T
    torch.testing.assert_close(residual, RIDGE * coefficients, atol=1e-4, rtol=0)


def test_an_embedding_of_all_its_images_recalls_a_stored_class() -> None:
    _, memory, task = answers(HALF, [[0], [9]], queries="centroid", query_dim=4)
    images = memory.preprocess(task.whole.train.images[task.whole.train.labels == 2])
    own = memory.decode(torch.arange(2 * memory.per_class, 3 * memory.per_class))[0]
    torch.testing.assert_close(memory.recall(memory.embed(images)[None]), own, atol=1e-4, rtol=1e-4)


def test_small_classes_are_repeated_until_all_weigh_alike() -> None:
    found = answers(HALF, [[0, 7], [8]], shots=2)[0][0]
    assert found.images_per_class[0] == 2 < found.images_per_class[1]
    assert found.labels.bincount().tolist() == [2 * found.images_per_class[1], found.images_per_class[1]]
    assert len(found.images[found.labels == 1].unique(dim=0)) == 2


def test_real_images_of_a_small_class_are_all_of_them_once() -> None:
    whole = read_dataset(prepare_dataset(DatasetSpec(name="digits")))
    counts = whole.train.labels.bincount()
    task = RecallTask(whole, [[0], [8]], [0, 8], regroup_dataset(whole, [[0], [8]], "two"))
    most = int(counts.max())
    assert int(counts[8]) < most
    drawn = task.real(most, random.generator(0, "real"))
    assert [len(drawn[c].unique(dim=0)) for c in (0, 8)] == [len(drawn[c]) for c in (0, 8)]
    assert [len(drawn[c]) for c in (0, 8)] == [min(most, int(counts[c])) for c in (0, 8)]


def test_the_shots_of_a_class_depend_on_nothing_but_the_seed() -> None:
    def shots(groups: list[list[int]], seed: int) -> Tensor:
        whole = read_dataset(prepare_dataset(WHOLE))
        task = RecallTask(whole, groups, [], whole)
        return task.real(3, random.generator(seed, "recall", "shots"))[7]

    assert torch.equal(shots([[7], [8]], 0), shots([[1], [5, 7]], 0))
    assert not torch.equal(shots([[7], [8]], 0), shots([[7], [8]], 1))


# --- where the artifact lies, and what cannot be asked of it ------------------------------------------------


def test_a_sweep_on_half_the_digits_is_recalled_for_the_others(tmp_path: Path) -> None:
    """A distillation says where its data are; the artifact is named by its own folder."""
    sweep = sweep_file(
        tmp_path,
        datasets=[{"name": "digits", "classes": [0, 1, 2, 3, 4]}],
        methods=[{"name": "rtp", "steps": 1, "unroll": 1, **MEMORY}],
        ipc=[IPC],
        distill={"architectures": ["mlp"], "seeds": [0]},
    )
    assert run_inline(sweep, tmp_path / "out").code == 0
    (folder,) = (tmp_path / "out" / "artifacts").iterdir()
    ended = ddbench("recall", folder, "--classes", "7,9", *FAST)
    assert ended.code == 0, ended.err
    assert "memory (fitted, 5 shots)" in ended.text
    assert len(list((tmp_path / "out" / "recall").glob(f"{folder.name}-*.json"))) == 1


def failed(*words: object) -> str:
    ended: Ended = ddbench("recall", *words)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1, ended.err
    return ended.err


@pytest.mark.parametrize(
    ("key", "words", "message"),
    [
        ("memory", ("--classes", "0,x"), "--classes: no class 'x'; choose from: 0, 1"),
        ("memory", ("--classes", "0,10"), "--classes: no class '10'"),
        ("memory", ("--classes", "0,,1"), "a class is missing"),
        ("memory", ("--classes", "0+,1"), "a class is missing"),
        ("memory", ("--classes", "0,1+0"), "--classes: class '0' is given twice"),
        ("memory", ("--classes", "0+1"), "one group leaves nothing to tell apart"),
        ("half", ("--classes", "0,7", "--shots", 0), "--shots 0: must be at least 1"),
        ("half", ("--classes", "0,7", "--shots", 500), "--shots 500: a new class has 143 training images"),
        ("pixels", ("--classes", "0,7"), "does not hold '7', and its Pixels cannot make images"),
        ("formation", ("--classes", "0,7"), "does not hold '7', and its MultiFormation cannot make images"),
        ("memory", ("--classes", "0,1", "--students", 0), "--students 0: must be at least 1"),
        ("memory", ("--classes", "0,1", "--protocol", "slow"), "no protocol named 'slow'"),
        ("memory", ("--classes", "0,1", "--architecture", "convnet-d9"), "too deep for 8-pixel images"),
        ("nothing", ("--classes", "0,1"), "no artifact begins with 'nothing'"),
    ],
)
def test_bad_questions_end_in_one_line(
    results: Path, key: str, words: tuple[object, ...], message: str
) -> None:
    assert message in failed(results, key, *words)


def test_a_folder_without_artifacts_and_one_without_a_choice(results: Path, tmp_path: Path) -> None:
    assert f"no artifacts in {tmp_path}" in failed(tmp_path, "a", "--classes", "0,1")
    assert "which artifact of" in failed(results, "--classes", "0,1")


Change = Callable[[dict[str, Any]], object]


def changed(results: Path, folder: Path, change: Change) -> Path:
    """The artifact of pixels in another result folder, with another meta.json."""
    store, meta = Store(folder), Store(results).meta("pixels")
    change(meta)
    source = results / "artifacts" / "pixels" / WEIGHTS
    store.publish("pixels", meta, lambda target: shutil.copyfile(source, target / WEIGHTS))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta.pop("dataset_spec"), "distill it again"),
        (lambda meta: meta["identity"].update(dataset="0" * 32), "are no longer those that"),
        (
            lambda meta: meta["dataset_spec"].update(name="image_folder", path="/nowhere"),
            "no folder /nowhere",
        ),
        (lambda meta: meta.update(kind="prepare"), "it holds no images"),
    ],
)
def test_data_that_are_not_there(results: Path, tmp_path: Path, change: Change, message: str) -> None:
    assert message in failed(changed(results, tmp_path, change), "pixels", "--classes", "0,1")


def test_a_damaged_artifact_is_refused(results: Path, tmp_path: Path) -> None:
    path = changed(results, tmp_path, lambda _: None) / "artifacts" / "pixels" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1])
    assert f"does not match the checksum of {WEIGHTS}" in failed(tmp_path, "pixels", "--classes", "0,1")


def test_recall_applies_the_rules_of_the_protocol(results: Path, write_protocol: WriteProtocol) -> None:
    """A rate too small to learn anything with, on this data set."""
    write_protocol("quick", rules=[{"datasets": ["digits"], "recipe": {"lr": 1e-9}}])
    slow = asked(results, "memory", "3,8")["rows"]
    write_protocol("quick")
    assert asked(results, "memory", "3,8")["rows"] != slow
