"""What a result says that it was made by, and what is done with results of other sources."""

import io
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cli import ONE_METHOD, ddbench, find_record, sweep_file
from rich.console import Console

from bench.execution import provenance
from bench.execution.jobs import _checkpoint
from bench.execution.provenance import job_sources, planned_sources, same_sources, source_commit, versions
from bench.execution.session import Session
from bench.execution.store import Store
from bench.planning.graph import Job
from bench.records.schema import Record, dump_record, load_record

# --- versions and settings ----------------------------------------------------------------------------------


def test_versions_name_packages_and_processor() -> None:
    found = versions()
    packages = {"python", "torch", "numpy", "scipy", "scikit-learn", "torchvision", "ray"}
    assert packages <= found.keys()
    assert torch.__version__.startswith(found["torch"])
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert found["cpu"]
    assert "cudnn" not in found


def test_a_job_on_a_gpu_says_its_settings() -> None:
    found = versions(torch.device("cuda:0"))
    assert found["cudnn_deterministic"] == str(torch.backends.cudnn.deterministic)
    assert found["deterministic_algorithms"] == "False"
    assert {"cuda", "cudnn", "matmul_precision", "convolution_precision", "cudnn_benchmark"} <= found.keys()


def test_packages_that_bring_a_method_are_told_from_the_rest() -> None:
    everything = versions(torch.device("cuda:0")) | {"commit": "c", "sources": "s", "evaluation_sources": "e"}
    assert provenance.method_packages(everything) == []
    assert provenance.method_packages({**everything, "theirs": "1"}) == ["theirs"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A repository with one commit, in the place of ddbench's own; runs git in it."""

    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    for name in ("bench", "results"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    return git


def test_a_dirty_checkout_is_told_with_a_digest_of_its_changes(
    checkout: Callable[..., str], tmp_path: Path
) -> None:
    head = checkout("rev-parse", "HEAD")
    (tmp_path / "results" / "b.json").write_text("{}")  # what runs write is no change of the code
    assert source_commit() == head
    edited = []
    for text in ("a = 2\n", "a = 3\n", "a = 2\n"):
        (tmp_path / "bench" / "a.py").write_text(text)
        edited.append(source_commit())
    assert edited[0].startswith(f"{head}+dirty.")
    assert len(edited[0]) == len(f"{head}+dirty.") + 8
    assert edited[0] == edited[2] != edited[1]
    checkout("checkout", "-q", "bench")
    (tmp_path / "bench" / "new.py").write_text("b = 1\n")
    assert source_commit() not in (head, *edited)
    assert source_commit().startswith(f"{head}+dirty.")


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    assert source_commit() == "unknown"


# --- sources ------------------------------------------------------------------------------------------------


def job(kind: str, inputs: dict[str, str] | None = None, **identity: Any) -> Job:
    return Job(kind, "k" * 16, "label", {"architecture": "any", **identity}, inputs or {})


def test_each_kind_of_job_has_the_sources_that_make_it() -> None:
    dm = job("distill", method="dm", hyperparameters={})
    networks = job("distill", method="dm", hyperparameters={}, architecture="mlp")
    white = job("distill", {"whitening": "w"}, method="dm", hyperparameters={})
    herding = job("distill", method="herding", hyperparameters={})
    prepare = job("prepare", block="ExpertEpoch")
    digests = [job_sources(one)["sources"] for one in (dm, networks, white, herding, prepare)]
    assert len(set(digests)) == 5
    evaluation = job("evaluate", {"artifact": "a"}, architecture="mlp")
    taught = job("evaluate", {"artifact": "a", "teacher": "t"}, architecture="mlp")
    assert job_sources(evaluation).keys() == {"evaluation_sources"}
    assert job_sources(evaluation) != job_sources(taught)
    assert planned_sources(evaluation, {"a": dm}) == job_sources(evaluation) | job_sources(dm)


def test_a_set_from_elsewhere_has_no_sources() -> None:
    assert job_sources(job("distill", method="x.pt", hyperparameters={"format": "dc", "sha256": ""})) == {}


@pytest.mark.parametrize(
    ("recorded", "same"),
    [
        ({"sources": "s", "evaluation_sources": "e", "torch": "2"}, True),
        ({"sources": "t", "evaluation_sources": "e"}, False),
        ({"evaluation_sources": "f"}, False),
        ({"evaluation_sources": "e"}, None),
        ({}, None),
    ],
)
def test_sources_are_the_same_others_or_unknown(recorded: dict[str, str], same: bool | None) -> None:
    assert same_sources({"sources": "s", "evaluation_sources": "e"}, recorded) is same


def test_no_checkpoint_of_other_sources_is_gone_on_with(tmp_path: Path) -> None:
    store, one = Store(tmp_path), job("distill", method="dm", hyperparameters={})
    kept = _checkpoint(one, store) / "checkpoint"
    kept.write_text("of these sources")
    assert _checkpoint(one, store) == kept.parent
    assert kept.exists()
    _checkpoint(job("distill", method="herding", hyperparameters={}), store)
    assert not kept.exists()


# --- from the command line ----------------------------------------------------------------------------------


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """edited("methods.random_real") is as if that file were another one."""
    digest = provenance.source_digest

    def edit(module: str) -> None:
        def changed(*roots: str) -> str:
            return digest(*roots)[::-1] if module in roots else digest(*roots)

        monkeypatch.setattr(provenance, "source_digest", changed)

    return edit


def opened(sweep: Path, out: Path, fresh: bool = False) -> Session:
    return Session.open(sweep, [], out, on_cluster=False, fresh=fresh)


def run(sweep: Path, out: Path, fresh: bool = False) -> str:
    """What a run says; no report is written."""
    told = io.StringIO()
    outcome = opened(sweep, out, fresh).run("inline", None, None, Console(file=told, width=200))
    assert not outcome.failed
    return " ".join(told.getvalue().split())


def planned(sweep: Path, out: Path, fresh: bool = False) -> str:
    return " ".join(opened(sweep, out, fresh).plan_summary())


def made(out: Path) -> dict[str, Record]:
    return {path.name: load_record(path) for path in (out / "records").iterdir()}


def test_fresh_makes_again_what_other_sources_made(tmp_path: Path, edited: Callable[[str], None]) -> None:
    sweep = sweep_file(tmp_path, **{**ONE_METHOD, "methods": ["random_real", "class_mean"]})
    out = tmp_path / "out"
    assert "sources" not in run(sweep, out)
    assert "sources" not in planned(sweep, out)
    before = made(out)
    edited("methods.random_real")
    told = "4 finished jobs made by other sources than today's (random_real): "
    session = opened(sweep, out)
    assert [session.state(key) for key in session.jobs].count("done by other sources") == 4
    assert f"{told}they count as done; --fresh makes them again" in planned(sweep, out)
    assert "to run: nothing" in planned(sweep, out)
    assert told in run(sweep, out)
    assert made(out) == before
    assert "to run: 2 distill, 2 evaluate" in planned(sweep, out, fresh=True)
    assert f"{told}they are made again" in run(sweep, out, fresh=True)
    after = made(out)
    moved = {name for name in before if before[name] != after[name]}
    assert moved == {name for name in before if before[name].method == "random_real"}
    for name in moved:
        assert after[name].versions["sources"] == before[name].versions["sources"][::-1]
        assert after[name].accuracies == before[name].accuracies
    assert "sources" not in planned(sweep, out, fresh=True)


def test_an_edited_evaluation_makes_only_the_evaluations_again(
    tmp_path: Path, edited: Callable[[str], None]
) -> None:
    sweep, out = sweep_file(tmp_path, **ONE_METHOD), tmp_path / "out"
    run(sweep, out)
    edited("bench.evaluation.scoring")
    assert "to run: 2 evaluate" in planned(sweep, out, fresh=True)


def test_what_stands_on_a_set_that_is_made_again_is_too(
    tmp_path: Path, edited: Callable[[str], None]
) -> None:
    """Also a record that does not say its sources, so would be kept alone."""
    sweep, out = sweep_file(tmp_path, **ONE_METHOD), tmp_path / "out"
    run(sweep, out)
    forget(out)
    edited("methods.random_real")
    assert "to run: 2 distill, 2 evaluate" in planned(sweep, out, fresh=True)


def forget(out: Path) -> None:
    """Records as an earlier ddbench wrote them."""
    for path in (out / "records").iterdir():
        path.write_text(dump_record(load_record(path).model_copy(update={"versions": {"torch": "2"}})))


def test_records_that_do_not_say_their_sources_count_as_done(tmp_path: Path) -> None:
    sweep, out = sweep_file(tmp_path, **ONE_METHOD), tmp_path / "out"
    run(sweep, out)
    record = load_record(find_record(out, seed=0))
    said = versions().keys() | {"commit", "sources", "evaluation_sources"}
    assert record.versions.keys() == said
    assert record.versions["sources"] == Store(out).meta(record.artifact)["versions"]["sources"]
    forget(out)
    for fresh in (False, True):
        text = planned(sweep, out, fresh)
        assert "to run: nothing" in text
        assert "2 finished jobs without a record of the sources: they count as done here" in text
        assert "other sources" not in text


def test_plan_and_run_take_fresh(tmp_path: Path, edited: Callable[[str], None]) -> None:
    sweep, out = sweep_file(tmp_path, **ONE_METHOD), tmp_path / "out"
    run(sweep, out)
    edited("methods.random_real")
    assert "to run: nothing" in ddbench("plan", sweep, "--out", out).text
    assert "to run: 2 distill, 2 evaluate" in ddbench("plan", sweep, "--out", out, "--fresh").text
