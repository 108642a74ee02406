"""The program from end to end, one job after the other: what it runs, redoes, reports and refuses."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from helpers.cli import (
    FILES,
    ONE_METHOD,
    Ended,
    ddbench,
    find_record,
    leftovers,
    run_inline,
    stable,
    stable_records,
    sweep_file,
    without_plots,
    written,
)

COLUMNS = {
    *("method", "dataset", "ipc", "distill_arch", "eval_arch", "protocol"),
    *("accuracy_mean", "accuracy_ci_low", "accuracy_ci_high", "n_seeds", "n_students"),
    *("stored_floats", "stored_bytes", "ipc_equivalent"),
    *("prepare_s", "distill_s", "evaluate_s", "peak_memory_bytes", "device"),
}


def summary(out: Path) -> list[dict[str, str]]:
    with (out / "tables/summary.csv").open() as file:
        return list(csv.DictReader(file))


def cells(out: Path, *names: str) -> set[tuple[str, ...]]:
    return {tuple(row[name] for name in names) for row in summary(out)}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """The tiny sweep, run into an empty folder, plots included. Tests that change the folder take `copy`."""
    folder = tmp_path_factory.mktemp("first")
    return folder / "out", ddbench("run", sweep_file(folder), "--out", folder / "out", "--executor", "inline")


@pytest.fixture
def copy(first: tuple[Path, Ended], tmp_path: Path) -> Path:
    return shutil.copytree(first[0], tmp_path / "out")


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return sweep_file(tmp_path)


# --- run ----------------------------------------------------------------------------------------------------


def test_run_fills_every_cell_and_reports(first: tuple[Path, Ended]) -> None:
    out, ended = first
    assert (ended.code, ended.err) == (0, "")
    assert "distill 9/9 evaluate 10/10" in ended.text
    assert "19 jobs in" in ended.text
    rows = summary(out)
    assert rows[0].keys() >= COLUMNS
    methods = {("full", ""), *((m, i) for m in ("random_real", "dm") for i in "12")}
    assert cells(out, "method", "ipc") == methods
    assert cells(out, "n_seeds", "n_students", "eval_arch", "protocol") == {("2", "1", "mlp", "quick")}
    assert cells(out, "method", "distill_arch") == {
        *(("full", "any"), ("random_real", "any"), ("dm", "convnet-d1-w4"))
    }
    assert all(float(row["accuracy_mean"]) > 0.3 for row in rows)
    stored = {row["method"]: int(row["stored_floats"]) for row in rows if row["ipc"] != "2"}
    assert stored == {"full": 1437 * 64, "random_real": 640, "dm": 640}
    assert all(int(row["stored_bytes"]) == 4 * int(row["stored_floats"]) for row in rows)
    assert all(float(row["evaluate_s"]) > 0 and int(row["peak_memory_bytes"]) > 0 for row in rows)
    told = {line.partition(": ")[0]: line.partition(": ")[2].split(", ") for line in ended.out.splitlines()}
    assert all((path := Path(name)).stem in told[f"  {out / path.parent}"] for name in FILES)
    assert matplotlib.image.imread(out / "plots/accuracy_vs_ipc.png").std() > 0
    assert "random_real" in (out / "plots/accuracy_vs_ipc.svg").read_text()
    assert [len(list((out / folder).iterdir())) for folder in ("records", "artifacts")] == [10, 9]
    assert leftovers(out) == []


def test_second_run_runs_nothing(copy: Path, sweep: Path) -> None:
    before = written(copy)
    ended = run_inline(sweep, copy)
    assert ended.code == 0
    assert f"Every cell has its record in {copy}." in ended.out
    assert "jobs in" not in ended.text
    assert written(copy) == before


def test_deleted_records_and_nothing_else_are_made_again_to_the_same_values(copy: Path, sweep: Path) -> None:
    gone = [find_record(copy, method="dm", ipc=2, seed=1), find_record(copy, method="full", seed=0)]
    before, values = written(copy), stable_records(copy)
    for path in gone:
        path.unlink()
    kept = written(copy)
    assert "19 jobs in" in (planned := ddbench("plan", sweep, "--out", copy)).text
    assert "to run: 2 evaluate about" in planned.text
    ended = run_inline(sweep, copy)
    assert ended.code == 0
    assert "distill 9/9 evaluate 10/10" in ended.text
    assert "2 jobs in" in ended.text
    after = written(copy)
    assert after.keys() == before.keys()
    assert {name: after[name] for name in kept} == kept
    assert stable_records(copy) == values


def test_without_artifacts_the_records_still_count(copy: Path, sweep: Path) -> None:
    shutil.rmtree(copy / "artifacts")
    before = written(copy)
    ended = run_inline(sweep, copy)
    assert ended.code == 0
    assert "Every cell has its record" in ended.text
    assert written(copy) == before
    assert not (copy / "artifacts").exists()


def test_record_whose_artifact_is_gone_brings_back_that_artifact_only(copy: Path, sweep: Path) -> None:
    values, record = stable_records(copy), find_record(copy, method="dm", ipc=1, seed=0)
    artifact = json.loads(record.read_text())["artifact"]
    content = (copy / "artifacts" / artifact / "data.safetensors").read_bytes()
    shutil.rmtree(copy / "artifacts")
    record.unlink()
    assert run_inline(sweep, copy).code == 0
    assert [path.name for path in (copy / "artifacts").iterdir()] == [artifact]
    assert (copy / "artifacts" / artifact / "data.safetensors").read_bytes() == content
    assert stable_records(copy) == values


def test_new_evaluation_architecture_distils_nothing(copy: Path, tmp_path: Path) -> None:
    sweep = sweep_file(
        tmp_path,
        methods=[{"name": "dm", "steps": 2}],
        ipc=[1],
        evaluate={"architectures": ["mlp", "convnet-d1-w4"], "students": 1, "protocol": "quick"},
    )
    before = written(copy, "artifacts")
    ended = run_inline(sweep, copy)
    assert ended.code == 0
    assert "distill 2/2 evaluate 4/4" in ended.text
    assert "2 jobs in" in ended.text
    assert written(copy, "artifacts") == before
    assert ("dm", "1", "convnet-d1-w4") in cells(copy, "method", "ipc", "eval_arch")


def test_another_sweep_adds_to_the_folder_and_drops_nothing(copy: Path, tmp_path: Path) -> None:
    before = written(copy)
    ended = run_inline(sweep_file(tmp_path, methods=[{"name": "dm", "steps": 3}], ipc=[1]), copy)
    assert ended.code == 0
    assert before.items() <= written(copy).items()
    assert {("dm[steps=2]", "1"), ("dm[steps=3]", "1"), ("dm[steps=2]", "2"), ("full", "")} <= cells(
        copy, "method", "ipc"
    )


def test_limit_stops_after_so_many_jobs_and_the_next_run_goes_on(
    first: tuple[Path, Ended], sweep: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = run_inline(sweep, out, "--limit", 2)
    assert ended.code == 0
    assert "17 jobs left (--limit 2)" in ended.text
    assert len(stable_records(out)) == 1
    before = written(out)
    ended = run_inline(sweep, out, "--set", "ipc=[1]", "--set", "methods=[full, random_real]")
    assert ended.code == 0
    assert before.items() <= written(out).items()
    found = stable_records(out)
    assert len(found) == 4
    assert found.items() <= stable_records(first[0]).items()


def test_set_reaches_nested_keys_and_entries_of_lists(sweep: Path, tmp_path: Path) -> None:
    words = ["--set", "methods.dm.steps=3", "--set", "methods.random_real={name: dm, steps: 4}"]
    words += ["--set", "evaluate.students=2", "--set", "distill.seeds=[7]", "--set", "resources.cpus=1"]
    ended = run_inline(sweep, tmp_path / "out", *words, "--set", "methods.0=random_real", "--set", "ipc=[3]")
    assert (ended.code, ended.err) == (0, "")
    found = stable_records(tmp_path / "out").values()
    assert {(r["method"], r["hyperparameters"].get("steps"), r["ipc"], r["seed"]) for r in found} == {
        *(("random_real", None, 3, 7), ("dm", 4, 3, 7), ("dm", 3, 3, 7))
    }
    assert {len(r["accuracies"]) for r in found} == {2}


def test_default_folder_is_named_after_the_sweep_and_borrows_from_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = sweep_file(tmp_path, **ONE_METHOD)

    def run(*words: str) -> Ended:
        with without_plots():
            return ddbench("run", sweep, "--executor", "inline", *words)

    assert run().code == 0
    ended = run("--set", "name=other")
    assert ended.code == 0
    assert "Every cell has its record" in ended.text
    one, other = tmp_path / "results/tiny", tmp_path / "results/other"
    assert len(stable_records(one)) == 2
    assert {p.name: p.read_bytes() for p in (one / "records").iterdir()} == {
        p.name: p.read_bytes() for p in (other / "records").iterdir()
    }
    relabelled = ("name=third", "datasets=[{name: digits, label: figures}]")
    ended = run(*(word for override in relabelled for word in ("--set", override)))
    assert ended.code == 0
    assert "2 finished jobs taken over from neighbouring folders" in ended.text  # the artifacts
    assert "2 jobs in" in ended.text  # the evaluations
    assert {r["dataset"] for r in stable_records(tmp_path / "results/third").values()} == {"figures"}


# --- damage -------------------------------------------------------------------------------------------------


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


RECORD_DAMAGE = {
    "another's": lambda path: shutil.copy(find_record(path.parent.parent, method="dm", ipc=2, seed=0), path),
    "truncated": lambda path: path.write_text(path.read_text()[:300]),
    "empty": lambda path: path.write_text(""),
    "edited accuracy": lambda path: _edit(path, accuracies=[1.0]),
    "other schema": lambda path: _edit(path, schema_version=3),
    "not an object": lambda path: path.write_text("[]"),
}


def test_damaged_records_are_named_left_out_and_redone(copy: Path, sweep: Path) -> None:
    values = stable_records(copy)
    paths = sorted(path for path in (copy / "records").iterdir() if stable(path)["ipc"] == 1)
    paths.remove(find_record(copy, method="dm", ipc=1, seed=0))
    paths += [find_record(copy, method=method, ipc=2, seed=1) for method in ("random_real", "dm")]
    paths.append(find_record(copy, method="full", seed=0))
    kept = {n: t for n, t in written(copy).items() if not any(n.endswith(path.name) for path in paths)}
    for path, damage in zip(paths, RECORD_DAMAGE.values(), strict=True):
        damage(path)
    with without_plots():
        ended = ddbench("report", copy)
    planned = ddbench("plan", sweep, "--out", copy)
    assert ended.code == 1
    counted = {(row["method"], row["ipc"]): row["n_seeds"] for row in summary(copy)}
    assert counted == {("full", ""): "1", ("dm", "1"): "1", ("dm", "2"): "1", ("random_real", "2"): "1"}
    again = run_inline(sweep, copy)
    assert again.code == 0
    for path in paths:
        assert f"left out: records/{path.name}" in ended.out
        assert f"damaged: records/{path.name}" in planned.text
        assert f"made again: records/{path.name}" in again.out
    assert f"{len(paths)} jobs in" in again.text
    assert stable_records(copy) == values
    assert kept.items() <= written(copy).items()
    with without_plots():
        assert ddbench("report", copy).code == 0


def test_report_of_damaged_records_only_is_refused(first: tuple[Path, Ended], tmp_path: Path) -> None:
    shutil.copytree(first[0] / "records", tmp_path / "records")
    for path in (tmp_path / "records").iterdir():
        path.write_text("{")
    ended = ddbench("report", tmp_path)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "unreadable: 10; records/" in ended.err


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


ARTIFACT_DAMAGE = {
    "flipped bit": lambda folder: _flip(folder / "data.safetensors"),
    "truncated": lambda folder: (folder / "data.safetensors").write_bytes(b""),
    "no data": lambda folder: (folder / "data.safetensors").unlink(),
    "other schema": lambda folder: _edit(folder / "meta.json", schema=99),
    "no meta": lambda folder: (folder / "meta.json").unlink(),
    "half a meta": lambda folder: (folder / "meta.json").write_text('{"schema": 1, "files"'),
}


@pytest.mark.parametrize("with_records", [False, True])
def test_damaged_artifacts_are_named_and_redone(with_records: bool, copy: Path, sweep: Path) -> None:
    values, damaged = stable_records(copy), {}
    records = [path for path in (copy / "records").iterdir() if stable(path)["method"] != "full"]
    for record, damage in zip(sorted(records), ARTIFACT_DAMAGE.values(), strict=False):
        folder = copy / "artifacts" / stable(record)["artifact"]
        damaged[folder] = (folder / "data.safetensors").read_bytes()
        damage(folder)
        if not with_records:
            record.unlink()
    names = [folder.name for folder in damaged]
    kept = {name: t for name, t in written(copy).items() if not any(n in name for n in names)}
    ended = run_inline(sweep, copy)
    assert ended.code == 0
    assert f"{len(damaged) * (1 if with_records else 2)} jobs in" in ended.text
    for folder, content in damaged.items():
        assert f"made again: artifacts/{folder.name}" in ended.out
        assert (folder / "data.safetensors").read_bytes() == content
    assert stable_records(copy) == values
    assert kept.items() <= written(copy).items()


# --- report, plan, show -------------------------------------------------------------------------------------


def test_report_needs_nothing_but_the_records(first: tuple[Path, Ended], tmp_path: Path) -> None:
    shutil.copytree(first[0] / "records", tmp_path / "records")
    ended = ddbench("report", tmp_path)
    assert ended.code == 0
    assert "random_real" in ended.out
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (first[0] / name).read_bytes(), name


@pytest.mark.parametrize("command", ["report", "show"])
def test_folder_without_results_is_refused(command: str, tmp_path: Path) -> None:
    ended = ddbench(command, tmp_path / "nowhere")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert str(tmp_path / "nowhere") in ended.err
    assert not (tmp_path / "nowhere").exists()


def test_plan_lists_jobs_states_and_costs_and_runs_nothing(copy: Path, sweep: Path, tmp_path: Path) -> None:
    ended = ddbench("plan", sweep, "--out", tmp_path / "new")
    assert ended.code == 0
    assert "nothing like these jobs has finished here, so there is no estimate" in ended.text
    assert "to run: 9 distill, 10 evaluate" in ended.text
    assert not (tmp_path / "new").exists()
    record = find_record(copy, method="dm", ipc=1, seed=0)
    artifact = json.loads(record.read_text())["artifact"]
    shutil.rmtree(copy / "artifacts" / artifact)
    full = json.loads(find_record(copy, method="full", seed=0).read_text())["artifact"]
    shutil.rmtree(copy / "artifacts" / full)
    record.unlink()
    before = written(copy)
    ended = ddbench("plan", sweep, "--out", copy)
    assert ended.code == 0
    by_key = {key: line for line in ended.out.splitlines() for key in (artifact, record.stem) if key in line}
    for line in by_key.values():
        assert "missing" in line
        assert line.rstrip().endswith(" s")
    assert len(by_key) == 2
    assert "not needed" in next(line for line in ended.out.splitlines() if " full digits seed 0 " in line)
    assert "to run: 1 distill, 1 evaluate about" in ended.text
    assert written(copy) == before


def test_show_draws_one_grid_for_each_cell(copy: Path) -> None:
    ended = ddbench("show", copy)
    assert ended.code == 0
    kinds = [path.stem.partition("-")[2] for path in (copy / "grids").iterdir()]
    assert sorted(kinds) == ["", "", "", "", "", "evolution", "evolution"]  # dm has steps
    for method in ("full", "random_real", "dm"):
        assert f"{method} digits" in ended.out
    assert all(matplotlib.image.imread(path).std() > 0 for path in (copy / "grids").iterdir())


def test_show_takes_the_beginning_of_a_key(copy: Path) -> None:
    key = json.loads(find_record(copy, method="dm", ipc=2, seed=1).read_text())["artifact"]
    ended = ddbench("show", copy, key[:8])
    assert ended.code == 0
    assert f"{copy}/grids/{key}.png\n" in ended.out
    names = {path.name for path in (copy / "grids").iterdir()}
    assert names == {f"{key}.png", f"{key}-evolution.png"}


def test_show_refuses_what_is_unknown_ambiguous_or_damaged(copy: Path) -> None:
    keys = sorted(path.name for path in (copy / "artifacts").iterdir())
    shutil.copytree(copy / "artifacts" / keys[0], copy / "artifacts" / (keys[0][:8] + "x"))
    _flip(copy / "artifacts" / keys[1] / "data.safetensors")
    for word, why in [
        ("zzz", "no artifact begins"),
        ("*", "no artifact begins"),
        ("/etc", "no artifact begins"),
        (keys[0][:8], "several artifacts begin"),
        (keys[1], "does not match the checksum"),
    ]:
        ended = ddbench("show", copy, word)
        assert (ended.code, ended.err.count("\n")) == (2, 1), word
        assert why in ended.err
    assert not (copy / "grids").exists()
