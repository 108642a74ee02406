"""A report deletes tables and plots of records that are gone, and nothing else."""

import shutil
from pathlib import Path

import pytest
from helpers.cli import ddbench
from helpers.record import make, measured, sweep, trained, write
from helpers.report import empty_plots

from bench.records.schema import CurvePoint, Operations, Record, Snapshot
from bench.reporting.build import SECTIONS, build_report
from bench.reporting.tables.table import distinct_names


def everything() -> list[Record]:
    """Records that fill every section except the pictures."""
    metrics = measured(
        2,
        curve=[CurvePoint(fraction=0.5, step=5, accuracies=[0.4])],
        snapshots=[
            Snapshot(fraction=part, step=int(10 * part), seconds=part, accuracies=[0.5]) for part in (0.5, 1)
        ],
    )
    spent = Operations(prepare=1e9, distill=1e9, budget=1e12)
    found = [
        record.model_copy(update={"cost": record.cost.model_copy(update={"operations": spent})})
        for record in sweep(metrics=metrics)
    ]
    for regime in ("hard", "soft"):
        found += sweep(methods=("random_real", "dm"), protocol=f"quick.{regime}", training=trained(regime))
    found.append(make("dc", 10, (0.4,), dataset="cifar10"))
    for name in ("pixels", "linear_bases"):
        values = {"parameterisation": name, "objective": "unrolled"}
        found.append(make("compose", 10, (0.5,), hyperparameters=values, eval_arch=name))
    return found


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@empty_plots()
def test_tables_of_what_the_records_no_longer_hold_are_deleted(tmp_path: Path) -> None:
    folder = write(tmp_path / "out", everything())
    shown = build_report(folder).sections
    assert len(shown) == len(SECTIONS) - 5  # all but pictures, tunings and the diagram, which needs six units
    own = [folder / name for name in ("tables/mine.tex", "plots/mine.png", "tables/summary.txt", "notes.md")]
    for path in own:
        path.write_text("mine")
    (folder / "plots/critical_difference.png").write_text("as it was named once")
    shutil.rmtree(folder / "records")
    write(folder, [make()])
    build_report(folder)
    for path in own:
        assert path.read_text() == "mine"
        path.unlink()
    fresh = write(tmp_path / "fresh", [make()])
    build_report(fresh)
    assert listing(folder) == listing(fresh)


def test_pictures_stay_where_none_can_be_drawn(tmp_path: Path) -> None:
    """Artifacts are often kept elsewhere, or not at all."""
    folder = write(tmp_path / "out", [make()])
    for name in ("plots/pictures_digits_dm_ipc1.png", "tables/pictures.csv"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("drawn before")
    build_report(folder)
    assert (folder / "plots/pictures_digits_dm_ipc1.png").exists()
    assert (folder / "tables/pictures.csv").exists()


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_where_nothing_can_be_written_is_one_line(tmp_path: Path, where: str) -> None:
    folder = write(tmp_path / "out", [make()])
    (tmp_path / "file").write_text("")
    ended = ddbench("report", folder, "--html", "--out", tmp_path / where)
    assert ended.code == 2
    assert ended.err.startswith(f"error: {tmp_path / where}/tables: cannot be written: ")
    assert len(ended.err.splitlines()) == 1


def test_names_that_files_cannot_tell_apart_get_a_number() -> None:
    assert distinct_names(["a", "b", "a", "a-2", "a"]) == ["a", "b", "a-2", "a-2-2", "a-3"]
    long = distinct_names(["x" * 300, "x" * 299])
    assert long == ["x" * 120, "x" * 120 + "-2"]
