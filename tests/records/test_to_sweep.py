"""The command that the page gives for a record plans that very record."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from helpers.cli import ddbench, run_inline, sweep_file
from helpers.record import make, measured, trained
from PIL import Image

from bench.analysis.aggregate import grouped
from bench.data.dataset import Dataset, Split
from bench.planning.graph import Job, plan_sweep, recorded_hyperparameters
from bench.planning.sweep import Sweep, load_sweep
from bench.records.columns import Row, record_frame
from bench.records.naming import CELL, without_regime
from bench.records.reader import read_records
from bench.records.schema import CurvePoint, Record
from bench.records.to_sweep import dataset_entry, reproducing_command, rows_by_sweep, sweep_of

FINGERPRINT = "ab12cd34"


def planned(sweep: Sweep, fingerprint: str = FINGERPRINT) -> dict[str, Job]:
    """The jobs of a sweep, for data of which only the fingerprint and the number of images are known."""
    labels = [spec.label for spec in sweep.datasets]
    split = Split(torch.empty(0), torch.empty(0))
    fields: dict[str, Any] = {"train": split, "test": split, "classes": (), "mean": (), "std": ()}
    data = {label: Dataset(name=label, label=label, fingerprint=fingerprint, **fields) for label in labels}
    return plan_sweep(sweep, data, sweep.protocols)


def records_of(jobs: dict[str, Job]) -> list[Record]:
    """The records that the evaluations of a plan would write."""
    return [_record(job, jobs[job.inputs["artifact"]]) for job in jobs.values() if job.kind == "evaluate"]


def _record(job: Job, made: Job) -> Record:
    scored, method = job.identity, made.identity
    students = (0.5,) * scored["students"]
    curve = [
        CurvePoint(fraction=f, step=int(100 * f), accuracies=list(students)) for f in scored.get("curve", ())
    ]
    protocol = scored["protocol"]
    record = make(
        method["method"],
        method["ipc"],
        students,
        hyperparameters=json.loads(json.dumps(recorded_hyperparameters(method))),
        metrics=measured(len(students), curve=curve),
        artifact=made.key,
        method_version=method["version"],
        distill_arch=method["architecture"],
        eval_arch=scored["architecture"],
        protocol=protocol["name"],
        protocol_version=protocol["version"],
        seed=scored["seed"],
        training=trained(precision=protocol.get("precision", "fp32")),
    )
    return record.model_copy(update={"key": job.key})


def cells(records: Sequence[Record]) -> list[list[Row]]:
    return [
        rows
        for _, cell in grouped(record_frame(records), CELL)
        for rows in rows_by_sweep(cast(list[Row], cell.to_dict("records")))
    ]


def written_by(command: str, folder: Path) -> tuple[Path, list[str]]:
    """What a shell makes of the command up to `ddbench`: the sweep file, and the rest of the line."""
    *before, run = command.splitlines()
    subprocess.run(["bash", "-ec", "\n".join(before)], cwd=folder, check=True)
    program, verb, file, *words = run.split()
    assert (program, verb) == ("ddbench", "run")
    return folder / file, words


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"protocol": "standard"},  # chooses a learning rate, on the first seed's set
        {"protocol": ["standard.teacher", "dc_bench.dsa"]},
        {"curve": [0.1, 0.5], "students": 2},
        {"architectures": ["mlp", "resnet10-w16", "convnet-d1-w8-batch-max"]},
        {"distill": {"experts_per_seed": True}},
        {"distill": {"precision": "bf16"}, "precision": "tf32"},
    ],
    ids=str,
)
def test_command_plans_the_records_of_a_row(changes: dict[str, Any], tmp_path: Path) -> None:
    # where a protocol chooses a rate, on the first seed: a record does not say which one that was
    seeds = [0, 1, 4] if "protocol" in changes else [1, 0, 4]
    methods = ["full", "random_real", "herding", {"name": "dm", "steps": 2, "lr": 1e-5}, "mtt", "haba"]
    methods += [{"name": "idc", "factor": 3, "preprocess": "zca"}, {"name": "bptt", "precision": "tf32"}]
    methods += [{"name": "compose", "parameterisation": "linear_bases", "objective": "distribution_matching"}]
    asked = changes.get("distill", {})
    scored = {"architectures": ["convnet-d2-w16"], "students": 3, "protocol": "quick"} | (
        {name: value for name, value in changes.items() if name != "distill"}
    )
    content = {
        "methods": methods,
        "ipc": [3, 12],
        "distill": {"architectures": ["convnet-d2-w16"], "seeds": seeds, **asked},
    }
    records = records_of(planned(load_sweep(sweep_file(tmp_path, evaluate=scored, **content))))
    rows = cells(records)
    assert sum(map(len, rows)) == len(records) > 3 * (7 * 2 + 1) - 1
    for row in rows:
        file, words = written_by(reproducing_command(row, None), tmp_path)
        assert words == []
        jobs = planned(load_sweep(file))
        assert {r["key"] for r in row} == {key for key, job in jobs.items() if job.kind == "evaluate"}


def image_folder(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("dark", "bright", "other"):
            (root / split / name).mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(0, 255, (10, 10, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.mark.parametrize("with_artifacts", [True, False])
def test_command_for_a_folder_of_images_takes_its_place_from_who_runs_it(
    tmp_path: Path, with_artifacts: bool
) -> None:
    """The artifact stores image size and classes; without it the entry is the whole folder."""
    asked = (
        {"image_size": 8, "classes": ["dark", "other"], "label": "two"}
        if with_artifacts
        else {"label": "all"}
    )
    entry = {"name": "image_folder", "path": str(image_folder(tmp_path / "pictures"))} | asked
    out = tmp_path / "out"
    sweep = sweep_file(tmp_path, datasets=[entry], methods=["random_real"], ipc=[1])
    assert run_inline(sweep, out).code == 0
    records, _ = read_records(out)
    ((*rows,),) = cells(records)
    meta = json.loads((out / "artifacts" / rows[0]["artifact"] / "meta.json").read_text())
    command = reproducing_command(rows, meta["dataset_spec"] if with_artifacts else None)
    assert str(tmp_path) not in command, "no path of the machine that made it"
    file, words = written_by(command, tmp_path)
    assert words == ["--set", "datasets.0.path=/where/it/is"]
    ended = ddbench("plan", file, "--out", out, "--set", f"datasets.0.path={tmp_path / 'pictures'}")
    assert ended.code == 0, ended.err
    for record in records:
        line = next(line for line in ended.out.splitlines() if record.key in line)
        assert "done" in line
    assert "to run: nothing" in ended.text


def test_data_set_as_people_write_it() -> None:
    assert dataset_entry("digits", None) == {"name": "digits"}
    spec = {
        "name": "cifar10",
        "data_dir": "/home/someone/x",
        "download": True,
        "path": None,
        "label": "cifar10",
    }
    assert dataset_entry("cifar10", spec) == {
        "name": "cifar10",
        "data_dir": "data/cifar10",
        "download": True,
    }
    held = {"name": "digits", "holdout": 0.2, "label": "digits-holdout"}
    assert dataset_entry("digits-holdout", held) == held


def test_somebody_elses_set_is_evaluated_again_not_distilled() -> None:
    published = {"format": "dc", "sha256": "0123"}
    record = make("it's theirs.pt", 10, hyperparameters=published, distill_arch="any")
    ((row,),) = cells([record])
    assert reproducing_command([row], None).splitlines()[-1] == (
        "ddbench evaluate FILE --dataset digits --architecture convnet --protocol quick --students 1 "
        "--name 'it'\"'\"'s theirs.pt'"
    )


def test_what_a_record_holds_is_never_run(tmp_path: Path) -> None:
    """Records may come from strangers, and the commands are pasted into shells, whatever a schema allows."""
    evil = "x; touch $(touch ran) `touch ran`\ntouch ran\nEND\ntouch ran"
    published = {"format": "dc", "sha256": "0123"}
    names = ("method", "eval_arch", "protocol", "dataset", "dataset_fingerprint")
    for hyperparameters in ({"k": evil}, published):
        plain = make("x", hyperparameters=hyperparameters, distill_arch="any")
        ((row,),) = cells([plain.model_copy(update=dict.fromkeys(names, evil))])
        command = "ddbench() { :; }\n" + reproducing_command([row], None)
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert not (tmp_path / "ran").exists()


def test_rows_with_other_students_get_sweeps_of_their_own() -> None:
    records = [make("dm", 1, (0.5,) * n, seed=seed) for seed, n in enumerate((2, 2, 3))]
    assert [len(rows) for rows in cells(records)] == [2, 1]
    sweeps = [sweep_of(rows, {"name": "digits"}) for rows in cells(records)]
    assert [(s["evaluate"]["students"], s["distill"]["seeds"]) for s in sweeps] == [(2, [0, 1]), (3, [2])]


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("standard.soft", "standard"),
        ("standard", "standard"),
        ("dc_bench.none", "dc_bench.none"),
        ("soft", "soft"),
        ("short.teacher@12ab", "short@12ab"),
    ],
)
def test_protocols_of_all_regimes_have_a_name_in_common(name: str, base: str) -> None:
    assert without_regime(name) == base
