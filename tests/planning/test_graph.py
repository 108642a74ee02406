"""The plan: which jobs, in which order, under which keys."""

import dataclasses
import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.plan import QUICK, Jobs, chain, dataset, keys, planned, sweep

from bench.core.augment import dsa
from bench.core.networks.convnet import ConvNet
from bench.core.training import Recipe
from bench.data.dataset import Dataset
from bench.planning import resolve
from bench.planning.graph import Job, make_job, plan_sweep
from bench.planning.protocols import TeacherConfig, load_protocol, load_protocols
from bench.planning.sweep import load_sweep
from methods.dm import DM

ROOT = Path(__file__).parents[2]
ALL = ["full", "random_real", "herding", "k_center", "k_means", "dm"]


# --- keys -----------------------------------------------------------------------------------------


def test_planning_is_pure() -> None:
    chosen = sweep(methods=ALL, ipc=[1, 2], seeds=[0, 1], students_on=["mlp", "lenet"])
    assert list(planned(chosen).items()) == list(planned(chosen).items())


def test_keys_are_the_same_in_every_process() -> None:
    here = list(planned(sweep(methods=ALL)))
    code = "from test_graph import ALL, planned, sweep; print(*planned(sweep(methods=ALL)))"
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "1",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests/planning'}",
    }
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == here


PROTOCOLS = {
    "recipe": QUICK.model_copy(update={"recipe": dataclasses.replace(QUICK.recipe, lr=0.5)}),
    "version": QUICK.model_copy(update={"version": 99}),
    "about": QUICK.model_copy(update={"about": "other words"}),
}


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"chosen": sweep(methods=[{"name": "dm", "lr": 0.5}])}, {"distill", "evaluate"}),
        ({"chosen": sweep(methods=["random_real"])}, {"distill", "evaluate"}),
        ({"chosen": sweep(seeds=[1])}, {"distill", "evaluate"}),
        ({"chosen": sweep(ipc=[2])}, {"distill", "evaluate"}),
        ({"chosen": sweep(architectures=["mlp"])}, {"distill", "evaluate"}),
        ({"chosen": sweep(architectures=["convnet-d2-w8-batch"])}, {"distill", "evaluate"}),
        ({"data": dataset(fingerprint="e" * 32)}, {"distill", "evaluate"}),
        ({"chosen": sweep(students_on=["mlp"])}, {"evaluate"}),
        ({"chosen": sweep(students=3)}, {"evaluate"}),
        ({"protocol": PROTOCOLS["recipe"]}, {"evaluate"}),
        ({"protocol": PROTOCOLS["version"]}, {"evaluate"}),
        ({"protocol": PROTOCOLS["about"]}, set()),
        ({"chosen": sweep(name="other")}, set()),
        ({"chosen": sweep(resources={"cpus": 7, "gpus": 1})}, set()),
        ({"chosen": sweep(datasets=[{"name": "image_folder", "path": "/x", "label": "digits"}])}, set()),
        ({"chosen": sweep(architectures=[{"name": "convnet", "width": 8, "depth": 2}])}, set()),
        ({"chosen": sweep(architectures=["convnet-w8-instance-d2"])}, set()),
        ({"data": dataset(label="my digits")}, set()),
    ],
)
def test_what_moves_a_key(change: dict[str, Any], moved: set[str]) -> None:
    before, after = planned(), planned(**change)
    assert {kind for kind in ("distill", "evaluate") if keys(kind, before) != keys(kind, after)} == moved
    assert len(before) == len(after)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(DM)])
def test_every_hyper_parameter_moves_the_key(field: str) -> None:
    other = {"steps": 7, "lr": 0.25, "momentum": 0.125, "batch_real": 3, "augment": "none", "init": "noise"}
    with_defaults, changed = ({**dataclasses.asdict(DM()), **extra} for extra in ({}, {field: other[field]}))
    one, two = (planned(sweep(methods=[{"name": "dm", **values}])) for values in (with_defaults, changed))
    assert not one.keys() & two.keys()


def test_what_a_default_says_need_not_be_written() -> None:
    presets = sweep().methods[0].resolve("digits", 1)
    written = sweep(methods=[{"name": "dm", **dataclasses.asdict(presets)}])
    assert planned(written).keys() == planned().keys()


def test_a_new_version_of_a_method_moves_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    before = planned(sweep(methods=["dm", "herding"]))
    monkeypatch.setattr(DM, "version", DM.version + 1)
    after = planned(sweep(methods=["dm", "herding"]))
    moved = [job for key, job in before.items() if job.kind == "distill" and key not in after]
    assert [job.identity["method"] for job in moved] == ["dm"]


def test_a_new_version_of_a_prerequisite_moves_all_that_stands_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = sweep(methods=["herding"])
    block = type(next(iter(chosen.methods[0].resolve("digits", 1).requires().values())))
    before = planned(chosen)
    monkeypatch.setattr(block, "version", block.version + 1)
    assert not before.keys() & planned(chosen).keys()


def constant_of_dsa(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(dsa._CONSTANTS, "crop", 0.25)
    dsa.constants.cache_clear()


def default_of_convnet(patch: pytest.MonkeyPatch) -> None:
    defaults = {**ConvNet.__init__.__kwdefaults__, "norm": "batch"}
    patch.setattr(ConvNet.__init__, "__kwdefaults__", defaults)


def constant_of_vit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("bench.core.networks.vit.HEAD", 32)


@pytest.mark.parametrize(
    ("change", "architecture", "moved"),
    [
        (constant_of_dsa, "mlp", {"distill", "evaluate"}),
        (default_of_convnet, "convnet-d2-w8", {"distill", "evaluate"}),
        (default_of_convnet, "mlp", set()),
        (constant_of_vit, "vit-p2", {"distill", "evaluate"}),
        (constant_of_vit, "mlp", set()),
    ],
)
def test_a_default_that_changes_in_the_code_moves_the_keys_that_use_it(
    monkeypatch: pytest.MonkeyPatch, change: Any, architecture: str, moved: set[str]
) -> None:
    def plan() -> Jobs:
        return planned(
            sweep(
                methods=[{"name": "dm", "augment": "crop_flip"}],
                architectures=[architecture],
                students_on=[architecture],
            )
        )

    before = plan()
    change(monkeypatch)
    try:
        after = plan()
    finally:
        monkeypatch.undo()
        dsa.constants.cache_clear()
    assert {kind for kind in ("distill", "evaluate") if keys(kind, before) != keys(kind, after)} == moved


def test_a_key_holds_the_constants_of_every_augmentation_that_is_named() -> None:
    jobs = planned(sweep(methods=[{"name": "idc", "augment": "cutout", "net_augment": "crop"}]))
    (job,) = (job for job in jobs.values() if job.kind == "distill")
    assert job.identity["resolved"]["augment"] == {"cutout": dsa.CUTOUT, "crop": dsa.CROP}
    taught = next(iter(planned(protocol=load_protocol("standard.teacher")).values()))
    assert taught.identity["resolved"]["architecture"]["family"] == "convnet"


def test_committed_records_keep_their_keys(digits: Dataset) -> None:
    """Keys are pinned: a change of the code that affects no result must not change them."""
    chosen = load_sweep(ROOT / "configs" / "sweeps" / "quickstart.yaml", [])
    jobs = plan_sweep(chosen, {"digits": digits}, load_protocols(*chosen.evaluate.protocol))
    recorded = {path.stem for path in (ROOT / "results" / "quickstart" / "records").glob("*.json")}
    assert recorded
    assert recorded <= keys("evaluate", jobs)


@pytest.mark.parametrize(
    ("method", "images", "batch", "moved"),
    [
        ("random_real", 40, 9, {"evaluate"}),  # 10 images are 9 and 1
        ("random_real", 40, 10, set()),
        ("random_real", 40, 11, set()),
        ("random_real", 41, 20, set()),  # nobody trains on the training set
        ("full", 41, 20, {"evaluate"}),
        ("full", 40, 9, set()),
        ({"name": "dc", "net_batch": 9}, 40, 50, {"distill", "evaluate"}),  # whose input has another key
        ({"name": "dc", "net_batch": 8}, 40, 50, set()),
        ({"name": "mtt", "expert_batch": 20}, 41, 50, {"prepare", "distill", "evaluate"}),
        ({"name": "mtt", "expert_batch": 20}, 40, 50, set()),
        ({"name": "mtt", "batch_synthetic": 3}, 40, 50, {"distill", "evaluate"}),
        ({"name": "tesla", "batch_synthetic": 5}, 40, 50, set()),
    ],
)
def test_a_key_tells_where_batches_leave_one_image_over(
    method: Any, images: int, batch: int, moved: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, and only there, an epoch has one batch less than in older results."""
    recipe = Recipe(batch_size=batch, lr=0.1, steps=10)
    protocol = QUICK.model_copy(update={"recipe": recipe})

    def plan() -> dict[str, Job]:
        return planned(sweep(methods=[method]), dataset(n=images), protocol)

    now = plan()
    monkeypatch.setattr(resolve, "leaves_one", lambda n, size: False)
    before = plan()
    kinds = {"prepare", "distill", "evaluate"}
    assert {kind for kind in kinds if keys(kind, now) != keys(kind, before)} == moved


@pytest.mark.parametrize("method", ["random_real", "class_mean", "herding", "k_center", "k_means"])
def test_a_younger_hyper_parameter_moves_no_key_at_its_default(method: str) -> None:
    plain = planned(sweep(methods=[method]))
    assert keys("distill", planned(sweep(methods=[{"name": method, "repeat": False}]))) == keys(
        "distill", plain
    )
    assert all("repeat" not in j.identity.get("hyperparameters", {}) for j in plain.values())
    (other,) = keys("distill", repeating := planned(sweep(methods=[{"name": method, "repeat": True}])))
    assert other not in plain
    assert repeating[other].identity["hyperparameters"]["repeat"] is True


def test_keys_of_a_teacher_are_those_of_the_first_records() -> None:
    """What teachers and recipes may have since then is in no key where it changes nothing."""
    recipe = Recipe(batch_size=50, lr=0.05, epochs=1, milestones=(0.5,))
    taught = {"labels": "teacher", "teacher": TeacherConfig(recipe=recipe, temperature=2.0)}
    found = {job.kind: key for key, job in planned(protocol=QUICK.model_copy(update=taught)).items()}
    assert (found["prepare"], found["evaluate"]) == ("8244bfa43ebe8944", "8b7621a387747e4e")


def test_one_teacher_serves_all_sets_and_both_of_its_regimes() -> None:
    chosen = sweep(
        methods=["dm", "random_real"], ipc=[1, 2], seeds=[0, 1], labels=["hard", "soft", "teacher"]
    )
    assert chosen.evaluate.protocol == ("quick.hard", "quick.soft", "quick.teacher")
    jobs = plan_sweep(chosen, {"digits": dataset()}, [load_protocol(n) for n in chosen.evaluate.protocol])
    assert Counter(job.kind for job in jobs.values()) == {
        "prepare": 1, "distill": 8, "tune": 4, "evaluate": 24
    }  # fmt: skip
    labels = [job.label for job in jobs.values() if job.kind == "evaluate"]
    assert len(set(labels)) == 24, "progress lines tell the regimes apart"
    assert "random_real digits ipc 1 seed 0 on convnet-d2-w8, soft labels" in labels
    (teacher,) = keys("prepare", jobs)
    for job in jobs.values():
        if job.kind in ("tune", "evaluate"):
            asked = job.identity["protocol"]["labels"]
            assert job.inputs.get("teacher") == (None if asked == "hard" else teacher)
            assert ("rate" in job.inputs) == (job.kind == "evaluate" and asked == "soft")


def test_stored_labels_are_asked_for_once_where_they_are_hard() -> None:
    """Plain images under `hard` and under `stored` are the same training."""
    methods = ["random_real", "label_only", "rtp", {"name": "rtp", "labels": "class"}]
    chosen = sweep(methods=methods, labels=["stored", "hard"])
    jobs = plan_sweep(chosen, {"digits": dataset()}, [load_protocol(n) for n in chosen.evaluate.protocol])
    asked = Counter(
        (job.label.split()[0], jobs[job.inputs["artifact"]].identity["hyperparameters"].get("labels"), labels)
        for job in jobs.values()
        if job.kind == "evaluate" and (labels := job.identity["protocol"]["labels"])
    )
    assert asked == {
        ("random_real", None, "hard"): 1,
        ("label_only", None, "hard"): 1,
        ("label_only", None, "stored"): 1,
        ("rtp", "hard", "hard"): 1,
        ("rtp", "class", "hard"): 1,
        ("rtp", "class", "stored"): 1,
    }


def test_a_teacher_may_have_another_network() -> None:
    soft = load_protocol("quick.soft")
    assert soft.teacher is not None
    other = soft.teacher.model_copy(update={"architecture": "mlp-w8"})
    jobs = planned(protocol=soft.model_copy(update={"teacher": other}))
    networks = {job.kind: job.identity["architecture"] for job in jobs.values()}
    assert networks == {
        "prepare": "mlp-w8", "distill": "convnet-d2-w8", "tune": "convnet-d2-w8", "evaluate": "convnet-d2-w8"
    }  # fmt: skip


def test_a_number_that_is_not_finite_has_no_key() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        make_job("distill", "x", {"lr": float("nan")}, {})


# --- what is shared -------------------------------------------------------------------------------

GRID: dict[str, Any] = {"ipc": [1, 2], "seeds": [0, 1, 2], "architectures": ["convnet-d2-w8", "mlp"]}


def count(**changes: Any) -> Counter[str]:
    return Counter(job.kind for job in planned(sweep(**{**GRID, **changes})).values())


def test_a_method_is_distilled_once_for_what_it_ignores() -> None:
    assert count(methods=["dm"]) == {"distill": 2 * 3 * 2, "evaluate": 2 * 3 * 2}
    assert count(methods=["random_real"]) == {"distill": 2 * 3, "evaluate": 2 * 3}
    assert count(methods=["full"]) == {"distill": 1, "evaluate": 3}


def test_students_of_one_artifact_differ_by_seed() -> None:
    jobs = planned(sweep(**GRID, methods=["full"]))
    evaluations = [job for job in jobs.values() if job.kind == "evaluate"]
    assert {job.identity["seed"] for job in evaluations} == {0, 1, 2}
    assert len({job.inputs["artifact"] for job in evaluations}) == 1
    assert len({job.label for job in jobs.values()}) == len(jobs)


def test_coresets_share_one_prerequisite() -> None:
    jobs = count(methods=["herding", "k_center", "k_means"])
    assert jobs == {"prepare": 2 * 3, "distill": 3 * 2 * 3 * 2, "evaluate": 3 * 2 * 3 * 2}
    longer = count(methods=["herding", {"name": "k_center", "network_steps": 99}])
    assert longer["prepare"] == 2 * 2 * 3


def test_another_student_distils_nothing() -> None:
    before = planned(sweep(methods=ALL, students_on=["mlp"]))
    after = planned(sweep(methods=ALL, students_on=["mlp", "lenet"]))
    assert before.keys() <= after.keys()
    assert {after[key].kind for key in after.keys() - before.keys()} == {"evaluate"}


def test_inputs_stand_before_their_users() -> None:
    jobs = planned(sweep(**GRID, methods=ALL, students_on=["mlp", "lenet"]))
    rank = {key: i for i, key in enumerate(jobs)}
    for key, job in jobs.items():
        assert job.key == key
        assert all(rank[needed] < rank[key] for needed in job.inputs.values())


def test_prerequisites_stand_on_prerequisites() -> None:
    jobs = chain(3)
    order = [job for job in jobs.values() if job.kind == "prepare"]
    assert [job.identity["values"] for job in order] == [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}]
    for before, job in itertools.pairwise(order):
        assert job.inputs == {"before": before.key, "again": before.key}
    assert [job.kind for job in jobs.values()] == ["prepare"] * 4 + ["distill", "evaluate"]
    assert keys("prepare", chain(3, 1)) == keys("prepare", jobs)  # named or not, each is one job
    assert keys("prepare", chain(2)) < keys("prepare", jobs)
    assert len(keys("prepare", chain(3, seeds=(0, 1)))) == 8


def test_a_long_chain_asked_for_link_by_link_is_planned_once() -> None:
    """Each link requires the one before twice: planning it anew each time would take 2^60 steps."""
    assert len(keys("prepare", chain(*range(61)))) == 61


def test_a_key_does_not_depend_on_what_else_is_planned() -> None:
    """1 and 1.0 are equal, and written differently in a key."""
    alone, beside = chain(1.0), chain(1, 1.0)
    assert keys("prepare", alone) < keys("prepare", beside)


def test_a_method_may_have_seeds_of_its_own() -> None:
    methods = [{"name": "random_real", "seeds": 3}, "herding"]
    jobs = planned(sweep(methods=methods, ipc=[1], seeds=[7]))
    found = {(j.identity["method"], j.identity["seed"]) for j in jobs.values() if j.kind == "distill"}
    assert found == {("herding", 7), *(("random_real", seed) for seed in range(3))}
