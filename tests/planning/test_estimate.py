"""What jobs will cost: each by what its own group has cost."""

from pathlib import Path
from typing import Any

import pytest
from helpers.cli import sweep_file
from helpers.record import make, measured
from test_graph import QUICK, dataset, sweep

from bench.execution.session import Session
from bench.planning.estimate import Estimate, Estimator, Source, loop_steps, repetition
from bench.planning.graph import Job, make_job, plan_sweep
from bench.planning.protocols import TeacherConfig
from bench.planning.size import paper_sized, smaller_setting
from bench.records.schema import Record

Jobs = dict[str, Job]
PRINT = "f" * 32


def planned(**changes: Any) -> Jobs:
    return plan_sweep(sweep(**changes), {"digits": dataset()}, [QUICK])


def one(jobs: Jobs, kind: str, **identity: Any) -> str:
    """The key of the first such job."""
    return next(k for k, job in jobs.items() if job.kind == kind and identity.items() <= job.identity.items())


def recorded(method: str, jobs: Jobs, **fields: Any) -> Record:
    """A record of a planned distillation of this method: 2 s of it, 3 s of one student."""
    identity = jobs[one(jobs, "distill", method=method)].identity
    values = {
        "ipc": identity["ipc"],
        "hyperparameters": identity["hyperparameters"],
        "dataset_fingerprint": PRINT,
        "distill_arch": identity["architecture"],
        "eval_arch": "convnet-d2-w8",
        "protocol_version": QUICK.version,
        "artifact": method,
    }
    return make(method, **values | fields)


DM = {"name": "dm", "steps": 100}


# --- groups -------------------------------------------------------------------------------------------------


def test_each_group_has_its_own_price() -> None:
    jobs = planned(methods=["random_real", DM], ipc=[1, 2], seeds=[0, 1])
    costs = Estimator(jobs)
    costs.learn_job(one(jobs, "distill", method="random_real", ipc=1, seed=0), 0.003, Source.FINISHED)
    costs.learn_job(one(jobs, "distill", method="dm", ipc=2, seed=0), 7200.0, Source.FINISHED)
    known = {
        (job.identity["method"], job.identity["ipc"]): costs.seconds(key)
        for key, job in jobs.items()
        if job.kind == "distill"
    }
    assert known == {
        ("random_real", 1): 0.003,
        ("random_real", 2): None,
        ("dm", 1): None,
        ("dm", 2): 7200.0,
    }
    total = costs.sum(key for key, job in jobs.items() if job.kind == "distill")
    assert total == Estimate(pytest.approx(2 * 7200 + 2 * 0.003), at_least=True)
    assert str(total) == "at least 4.0 h"


@pytest.mark.parametrize(
    "change",
    [{"methods": ["random_real"]}, {"ipc": [3]}, {"architectures": ["mlp"]}],
)
def test_another_group_says_nothing(change: dict[str, Any]) -> None:
    """Method, budget and network; the data set is in the identity too."""
    here, there = planned(methods=[DM]), planned(**{"methods": [DM]} | change)
    costs = Estimator(here | there)
    costs.learn_job(one(here, "distill"), 10.0, Source.FINISHED)
    assert costs.seconds(one(there, "distill")) is None


def test_another_data_set_says_nothing() -> None:
    here = planned(methods=[DM])
    there = plan_sweep(sweep(methods=[DM]), {"digits": dataset(fingerprint="e" * 32)}, [QUICK])
    costs = Estimator(here | there)
    costs.learn_job(one(here, "distill"), 10.0, Source.FINISHED)
    assert costs.seconds(one(there, "distill")) is None


def test_more_steps_cost_more_and_other_values_the_same_until_they_are_seen() -> None:
    jobs = planned(methods=[DM, {"name": "dm", "steps": 300}, {"name": "dm", "steps": 200, "lr": 5.0}])
    short, long, other = (key for key, job in jobs.items() if job.kind == "distill")
    costs = Estimator(jobs)
    costs.learn_job(short, 10.0, Source.FINISHED)
    assert [costs.seconds(key) for key in (short, long, other)] == pytest.approx([10.0, 30.0, 20.0])
    assert [costs.seen(key) for key in (short, long, other)] == [True, True, False]
    costs.learn_job(other, 50.0, Source.FINISHED)
    assert [costs.seconds(key) for key in (short, long, other)] == pytest.approx([10.0, 30.0, 50.0])


def test_the_steps_of_a_loop() -> None:
    assert loop_steps({"steps": 20000, "inner_steps": 50}) == 20000  # one step unrolls the inner ones
    assert loop_steps({"iterations": 2000, "inner_steps": 100}) == 200_000
    assert loop_steps({"steps": None, "epochs": 30}) == 30
    assert loop_steps({"lr": 1.0}) == 1


def test_what_counts_first() -> None:
    """This run, then finished jobs, then what runs now tells, then steps measured, then a profile."""
    jobs = planned(methods=[DM], seeds=[0, 1])
    key, costs = one(jobs, "distill", seed=0), Estimator(jobs)
    other = one(jobs, "distill", seed=1)
    for source, seconds in ((Source.PROFILE, 1.0), (Source.MEASURED, 2.0)):
        costs.learn_job(key, seconds, source)
        assert costs.seconds(other) == seconds
    costs.expect({key: 3.0})
    assert costs.seconds(other) == 3.0
    costs.learn_job(key, 4.0, Source.FINISHED)
    assert costs.seconds(other) == 4.0
    for seconds in (5.0, 7.0):
        costs.learn_job(key, seconds, Source.RUN)
    assert costs.seconds(other) == pytest.approx(6.0)
    costs.expect({})
    assert costs.seconds(other) == pytest.approx(6.0)


# --- records, artifacts, profiles ---------------------------------------------------------------------------


def chain(n: int) -> Jobs:
    """A distillation with n prerequisites."""
    places = {"dataset": PRINT, "architecture": "convnet", "ipc": None, "seed": 0}
    needed = [make_job("prepare", "p", {"block": f"B{i}", "values": {}, **places}, {}) for i in range(n)]
    identity = {"method": "m", "hyperparameters": {}, **places, "ipc": 1}
    user = make_job("distill", "d", identity, {f"role {i}": job.key for i, job in enumerate(needed)})
    return {job.key: job for job in (*needed, user)}


def test_prerequisites_are_priced_one_by_one() -> None:
    """Six of 10 s were once 2.7 s in all."""
    jobs = chain(6)
    costs = Estimator(jobs)
    record = make(
        "m", 1, dataset_fingerprint=PRINT, distill_arch="convnet", cost={"prepare_s": 60.0, "distill_s": 2.0}
    )
    costs.learn_record(record)
    assert [costs.seconds(key) for key in jobs] == pytest.approx([10.0] * 6 + [2.0])
    first, *_ = jobs
    meta = {"kind": "prepare", "identity": jobs[first].identity, "inputs": {}, "cost": {"prepare_s": 35.0}}
    costs.learn_artifact(first, meta)  # its own seconds are worth more than a share
    assert [costs.seconds(key) for key in jobs] == pytest.approx([35.0] + [10.0] * 5 + [2.0])


def test_a_set_counts_once_however_often_it_was_scored() -> None:
    jobs = planned(methods=[DM])
    costs, key = Estimator(jobs), one(jobs, "distill")
    for spent in (2.0, 2.0):
        costs.learn_record(recorded("dm", jobs, artifact="a", cost={"distill_s": spent}))
    costs.learn_record(recorded("dm", jobs, artifact="b", cost={"distill_s": 8.0}))
    assert costs.seconds(key) == 5.0


def test_an_evaluation_costs_by_student_and_set() -> None:
    jobs = planned(methods=[DM], students=4)
    plain = one(jobs, "evaluate")
    with_snapshots = planned(methods=[DM], students=4, snapshots=True)
    snapped = one(with_snapshots, "evaluate")
    costs = Estimator(jobs | with_snapshots)
    costs.learn_record(recorded("dm", jobs, accuracies=(0.5, 0.5), cost={"evaluate_s": 6.0}))
    assert costs.seconds(plain) == 12.0  # 3 s a student
    assert costs.seconds(snapped) == 48.0  # and three snapshots
    costs = Estimator(jobs | with_snapshots)
    costs.learn_record(recorded("dm", jobs, metrics=measured(snapshots=[]), cost={"evaluate_s": 3.0}))
    assert costs.seconds(snapped) == 12.0  # a method without steps has none


def test_a_choice_of_rates_costs_an_evaluation_at_each() -> None:
    protocol = QUICK.model_copy(update={"rates": (0.03, 0.1, 1.0)})
    jobs = plan_sweep(sweep(methods=[DM], seeds=[0, 1]), {"digits": dataset()}, [protocol])
    costs, tune = Estimator(jobs), one(jobs, "tune")
    costs.learn_record(recorded("dm", jobs, cost={"evaluate_s": 5.0}))
    assert costs.seconds(tune) == 30.0  # two students at three rates
    costs.learn_job(tune, 12.0, Source.RUN)
    assert costs.seconds(tune) == 12.0
    assert costs.seconds(one(jobs, "evaluate")) == 10.0  # which says nothing of evaluations


def test_a_choice_of_labels_costs_an_evaluation_with_each() -> None:
    taught = TeacherConfig(recipe=QUICK.recipe, stops=(0.5, 1.0), temperatures=(1.0, 2.0, 4.0))
    changes = {"labels": "soft", "teacher": taught, "rates": (0.03, 0.1)}
    protocol = QUICK.model_copy(update=changes)
    jobs = plan_sweep(sweep(methods=[DM]), {"digits": dataset()}, [protocol])
    costs, tune = Estimator(jobs), one(jobs, "tune")
    costs.learn_record(recorded("dm", jobs, cost={"evaluate_s": 5.0}))
    assert costs.seconds(tune) == 2 * 5.0 * (2 * 3 + 2)  # two students; stops x temperatures, then rates


def test_a_profile_prices_what_it_is_of() -> None:
    jobs = planned(methods=[DM, "random_real"], ipc=[1, 2])
    identity = jobs[one(jobs, "distill", method="dm", ipc=1)].identity
    profile = {
        "method": "dm",
        "hyperparameters": identity["hyperparameters"] | {"steps": 50},
        "dataset": "digits",
        "ipc": 1,
        "architecture": "convnet-d2-w8",
        "protocol": "quick",
        "phases": [
            {"name": name, "projected_s": s} for name, s in (("prepare", 0), ("distill", 7), ("evaluate", 3))
        ],
    }
    costs = Estimator(jobs)
    costs.learn_profile(profile, {PRINT: "digits"})
    priced = {job.kind: seconds for key, job in jobs.items() if (seconds := costs.seconds(key))}
    assert priced == pytest.approx({"distill": 14.0, "evaluate": 6.0})  # twice the steps, two students
    assert sum(costs.seconds(key) is not None for key in jobs) == 2  # of dm at ipc 1
    other = Estimator(jobs)
    other.learn_profile(profile, {PRINT: "birds"})
    assert not any(other.seconds(key) for key in jobs)


# --- size ---------------------------------------------------------------------------------------------------


def test_defaults_as_large_as_a_papers_are_said() -> None:
    birds = {"name": "image_folder", "path": "/x", "label": "birds"}
    chosen = sweep(datasets=[birds], methods=["dm", "idc", "random_real", {"name": "mtt", "steps": 5}])
    line = paper_sized(chosen, ["dm", "idc", "random_real", "mtt"])
    assert line == (
        "as large as in the papers: dm 20,000 steps, idc 200,000 steps; for a first look "
        "--set methods.dm.steps=200 --set methods.idc.iterations=20"
    )
    assert paper_sized(chosen, ["random_real", "mtt"]) is None
    assert paper_sized(sweep(methods=["dm"]), ["dm"]) is None  # the digits have a preset of their own


def test_the_setting_that_makes_the_most_expensive_part_smaller() -> None:
    jobs = planned(methods=[DM, "herding"], ipc=[1, 2])
    costs = Estimator(jobs)
    assert smaller_setting(jobs, jobs, costs) is None
    costs.learn_job(one(jobs, "evaluate"), 10_000.0, Source.MEASURED)
    assert smaller_setting(jobs, jobs, costs) == "evaluate.students=1"
    costs.learn_job(one(jobs, "prepare"), 36_000.0, Source.MEASURED)
    steps = jobs[one(jobs, "distill", method="herding")].identity["hyperparameters"]["network_steps"]
    assert steps == 150
    assert smaller_setting(jobs, jobs, costs) == "methods.herding.network_steps=10"  # a tenth, rounded down
    costs.learn_job(one(jobs, "distill", method="dm", ipc=1), 100_000.0, Source.MEASURED)
    assert smaller_setting(jobs, jobs, costs) == "methods.dm.steps=3"


# --- what `plan` and `run` say ------------------------------------------------------------------------------


def test_plan_and_run_name_what_is_long_and_what_would_be_shorter(tmp_path: Path) -> None:
    methods = [{"name": "dm", "steps": 7200}, "random_real"]
    file = sweep_file(tmp_path, methods=methods, ipc=[1], distill={"architectures": ["mlp"], "seeds": [0, 1]})
    session = Session.open(file, [], tmp_path / "out", on_cluster=False)
    counts = f"8 jobs in {tmp_path / 'out'}; to run: 4 distill, 4 evaluate"
    nothing = "nothing like these jobs has finished here, so there is no estimate: --measure makes one"
    assert session.plan_summary() == [counts, nothing]
    assert session.warnings() == []
    costs, dm = session.costs, one(session.jobs, "distill", method="dm")
    costs.learn_job(dm, 1800.0, Source.MEASURED)
    assert session.warnings() == [], "an hour, and no more"
    costs.learn_job(dm, 5400.0, Source.MEASURED)
    assert session.plan_summary() == [
        counts,
        "at least 2.0 h of work, shared by the workers, without 6 jobs like none that has finished here",
        "the longest job: dm digits ipc 1 mlp seed 0, about 60 min",
    ]
    assert session.warnings() == [
        "at least 2.0 h of work, shared by the workers; for less of it --set methods.dm.steps=3000"
    ]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"steps": 500}, (0, 0)),
        ({"steps": 500, "every": 30}, (30, 30)),
        ({"iterations": 5, "inner_steps": 100}, (100, 1)),
        ({"iterations": 5, "inner_steps": 100, "every": 10}, (100, 10)),
        ({"iterations": 5, "inner_steps": 4, "every": 10}, (20, 20)),
        ({"iterations": 5, "inner_steps": 100, "every": "epoch"}, (100, 1)),
        ({"factor": 2}, (0, 0)),
    ],
)
def test_a_loop_repeats_itself_after_a_network_or_new_images(
    values: dict[str, Any], found: tuple[int, int]
) -> None:
    assert repetition(values) == found
