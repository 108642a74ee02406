"""What jobs get by kind: what a kind leaves out is that of all jobs."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.plan import planned, sweep

from bench.core.errors import UserError
from bench.execution.machine import check_resources
from bench.planning.graph import JOB_KINDS
from bench.planning.resources import Needs, Resources
from bench.planning.sweep import load_sweep

CONTENT: dict[str, Any] = {"datasets": ["digits"], "methods": ["dm"], "ipc": [1]}


def test_the_kinds_are_those_of_jobs() -> None:
    assert tuple(Resources.kinds()) == JOB_KINDS


@pytest.mark.parametrize(
    ("given", "kind", "needs"),
    [
        ({}, "tune", Needs(1, 0)),
        ({"cpus": 2, "gpus": 0.5}, "prepare", Needs(2, 0.5)),
        ({"cpus": 2, "distill": {"gpus": 1}}, "distill", Needs(2, 1)),
        ({"cpus": 2, "distill": {"gpus": 1}}, "evaluate", Needs(2, 0)),
        ({"gpus": 1, "evaluate": {"gpus": 0, "cpus": 4}}, "evaluate", Needs(4, 0)),
        ({"gpus": 1, "accelerator": "H100", "evaluate": {"gpus": 0}}, "distill", Needs(1, 1, "H100")),
        ({"gpus": 1, "accelerator": "H100", "evaluate": {"gpus": 0}}, "evaluate", Needs(1, 0)),
    ],
)
def test_what_a_job_gets(given: dict[str, Any], kind: str, needs: Needs) -> None:
    assert Resources.model_validate(given).of(kind) == needs


def refused(folder: Path, resources: Any, *overrides: str) -> str:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, "resources": resources}))
    with pytest.raises(UserError) as caught:
        load_sweep(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"distil": {"gpus": 1}}, ["resources", "no key named 'distil'", "did you mean distill?"]),
        ({"distill": {"gpu": 1}}, ["resources.distill", "no key named 'gpu'", "did you mean gpus?"]),
        ({"distill": {"gpus": 2}}, ["resources.distill.gpus", "less than or equal to 1", "not 2"]),
        ({"evaluate": {"cpus": 0}}, ["resources.evaluate.cpus", "greater than 0", "not 0"]),
        ({"evaluate": 1}, ["resources.evaluate"]),
        ({"accelerator": "H100"}, ["resources", "accelerator: H100, but no job gets a GPU"]),
        ({"gpus": 1, "accelerator": "H 100"}, ["resources.accelerator"]),
        ({"gpus": 1, "accelerator": ["H100"]}, ["resources.accelerator"]),
    ],
)
def test_what_no_job_can_get_is_refused(resources: Any, words: list[str], tmp_path: Path) -> None:
    message = refused(tmp_path, resources)
    assert all(word in message for word in words), message


def test_a_kind_is_set_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(CONTENT))
    chosen = load_sweep(path, ["resources.distill.gpus=1", "resources.accelerator=A100"]).resources
    assert (chosen.of("distill"), chosen.of("tune")) == (Needs(1, 1, "A100"), Needs(1, 0))


def test_resources_are_in_no_key() -> None:
    given = {"cpus": 2, "gpus": 1, "accelerator": "H100", "evaluate": {"gpus": 0.25}}
    assert planned(sweep(resources=given)).keys() == planned().keys()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cpus": 10_000}, "resources.cpus: 10000 a job, but this machine has"),
        ({"evaluate": {"cpus": 10_000}}, "resources.evaluate.cpus: 10000 a job, but this machine has"),
        ({"gpus": 1}, "resources.gpus: 1 a job, but torch finds no GPU here; use gpus: 0"),
        ({"distill": {"gpus": 0.5}}, "resources.distill.gpus: 0.5 a job, but torch finds no GPU here"),
    ],
)
def test_what_this_machine_has_not_is_said_by_its_key(
    given: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=words):
        check_resources(Resources.model_validate(given))
    check_resources(Resources.model_validate(given), on_cluster=True)  # which says what it has


@pytest.mark.parametrize(
    ("accelerator", "device", "there"),
    [
        ("H100", "NVIDIA H100 80GB HBM3", True),
        ("h100", "NVIDIA H100 80GB HBM3", True),
        ("RTX-PRO-6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition", True),
        ("GeForce-RTX-5090", "NVIDIA GeForce RTX 5090", True),
        ("A100", "NVIDIA A100-SXM4-80GB", True),
        ("A10", "NVIDIA A100-SXM4-80GB", False),
        ("H100", "NVIDIA H200", False),
    ],
)
def test_the_make_of_this_machines_gpu(
    accelerator: str, device: str, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: device)
    chosen = Resources.model_validate({"gpus": 1, "accelerator": accelerator})
    if there:
        check_resources(chosen)
        return
    with pytest.raises(
        UserError, match=f"resources.accelerator: {accelerator}, but this machine has {device}"
    ):
        check_resources(chosen)
