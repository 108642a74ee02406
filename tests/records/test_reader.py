"""The flat frame of a folder is the same from JSON files and from the cache, which is checked every time."""

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.record import make, measured, sweep, write

from bench.analysis.aggregate import metrics_summary, summary_frame, training_course, transfer
from bench.analysis.dd_ranking import dd_ranking_scores
from bench.records import columns, reader, schema
from bench.records.schema import CurvePoint, Record

TABLES = (summary_frame, metrics_summary, training_course, transfer, dd_ranking_scores)


def with_metrics(one: Record, curve: bool) -> Record:
    ends = [CurvePoint(fraction=0.5, step=50, accuracies=[a / 2 for a in one.accuracies])] if curve else []
    classes = [[0.1, None, a] for a in one.accuracies]
    metrics = measured(class_accuracies=classes, calibration_errors=[0.1, None], agreement=0.5, curve=ends)
    return one.model_copy(update={"metrics": metrics})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Records with and without agreement, curves and hyperparameters, and three files that are none."""
    records = [with_metrics(one, i % 2 == 0) if i % 3 else one for i, one in enumerate(sweep())]
    records.append(make("compose", 1, hyperparameters={"parameterisation": "pixels", "lr": [1, "é"]}))
    records.append(make("imported", 10, cost={"distill_s": None, "bookkeeping_s": None}, seed=7))
    directory = write(tmp_path / "results", records)
    (directory / "records" / "half.json").write_text('{"key": ')
    (directory / "records" / "link.json").symlink_to("nowhere")
    (directory / "records" / "wrong.json").write_text(schema.dump_record(records[0]))
    return directory


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Caches small folders too; the list of the files that were read."""
    names: list[str] = []
    monkeypatch.setattr(reader, "COMPACT_FROM", 1)
    load = schema.load_record

    def noted(path: Path) -> Record:
        names.append(path.stem)
        return load(path)

    monkeypatch.setattr(reader, "load_record", noted)
    return names


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    for name in ("accuracies", "curve", "image_shape"):
        if name not in one:
            continue
        assert [type(value) for value in one[name]] == [type(value) for value in other[name]]


def test_from_json_and_from_parquet_all_is_the_same(folder: Path, read: list[str]) -> None:
    flat, problems = reader.load_frame(folder)
    assert len(problems) == 3
    assert (folder / reader.PARQUET).exists()
    del read[:]
    again, named = reader.load_frame(folder)
    assert set(read) == {"half", "link", "wrong"}, "what is no record is read, and named, each time"
    assert named == problems
    same(flat, again)
    for table in TABLES:
        same(table(flat), table(again))
    records, found_problems = reader.read_records(folder)
    same(flat, columns.record_frame(records))
    assert found_problems == problems


def test_only_what_changed_is_read_again(folder: Path, read: list[str]) -> None:
    before, _ = reader.load_frame(folder)
    first, second, *_ = before["key"]
    (folder / "records" / f"{first}.json").unlink()
    changed = folder / "records" / f"{second}.json"
    one = schema.load_record(changed).model_copy(update={"accuracies": [0.125]})
    changed.write_text(schema.dump_record(one))
    new = make("new", 5)
    (folder / "records" / f"{new.key}.json").write_text(schema.dump_record(new))
    del read[:]
    after, _ = reader.load_frame(folder)
    assert set(read) == {second, new.key, "half", "link", "wrong"}
    assert set(after["key"]) == set(before["key"]) - {first} | {new.key}
    assert after.set_index("key").loc[second, "accuracy"] == 0.125
    (folder / reader.PARQUET).unlink()
    same(after, reader.load_frame(folder)[0])


def test_a_file_that_is_touched_or_spoilt_is_not_taken_from_before(folder: Path, read: list[str]) -> None:
    flat, _ = reader.load_frame(folder)
    key = flat["key"].iloc[0]
    path = folder / "records" / f"{key}.json"
    os.utime(path, ns=(1, 1))
    del read[:]
    same(flat, reader.load_frame(folder)[0])
    assert key in read
    path.write_text(path.read_text().replace("convnet", "resnets"))
    after, problems = reader.load_frame(folder)
    assert key not in set(after["key"])
    assert any(line.startswith(f"records/{path.name} does not match its checksum") for line in problems)


def older(path: Path) -> None:
    pq.write_table(pq.read_table(path).replace_schema_metadata({"ddbench records": "0"}), path)


def of_another_program(path: Path) -> None:
    pq.write_table(pa.table({"key": ["a"], "size": [1], "mtime_ns": [2]}), path)


@pytest.mark.parametrize(
    "spoil",
    [older, of_another_program, lambda path: path.write_text("{}"), lambda path: path.write_bytes(b"")],
    ids=["older", "of_another_program", "not parquet", "empty"],
)
def test_what_is_damaged_or_of_somebody_else_is_made_again(folder: Path, read: list[str], spoil: Any) -> None:
    flat, _ = reader.load_frame(folder)
    spoil(folder / reader.PARQUET)
    del read[:]
    same(flat, reader.load_frame(folder)[0])
    assert len(read) == len(flat) + 3
    del read[:]
    same(flat, reader.load_frame(folder)[0])
    assert len(read) == 3


def test_a_flipped_bit_is_noticed_or_harmless(folder: Path, read: list[str]) -> None:
    reader.load_frame(folder)
    path = folder / reader.PARQUET
    content, known = path.read_bytes(), str(reader._compacted(path).to_pydict())
    noticed = 0
    for place in range(0, len(content), 61):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        table = reader._compacted(path)
        noticed += not len(table)
        assert not len(table) or str(table.to_pydict()) == known
    assert noticed > 100


def test_a_folder_that_cannot_be_written_to(folder: Path, read: list[str]) -> None:
    (folder / reader.PARQUET).mkdir()  # as good as read-only, for root too
    flat, _ = reader.load_frame(folder)
    same(flat, reader.load_frame(folder)[0])
    assert not list(folder.glob(".tmp-*"))


@pytest.mark.parametrize("fields", [{"seed": 2**63}, {"floats": 10**30}], ids=str)
def test_a_number_that_no_table_holds_is_named(folder: Path, fields: dict[str, int]) -> None:
    flat, problems = reader.load_frame(folder)
    path = folder / "records" / "large.json"
    large = make("large", 1)
    values = large.model_dump(mode="json")
    values["storage"] |= {"floats": fields.get("floats", 1)}
    values |= {"key": "large", "seed": fields.get("seed", 0)}
    path.write_text(json.dumps(values | {"sha256": schema.content_digest(values)}))
    after, found_problems = reader.load_frame(folder)
    same(flat, after)
    (new,) = set(found_problems) - set(problems)
    assert new.startswith("records/large.json does not fit schema 2: ")


def test_few_records_are_not_compacted(folder: Path) -> None:
    reader.load_frame(folder)
    assert not (folder / reader.PARQUET).exists()


def test_processes_read_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, problems = reader.load_frame(folder)
    monkeypatch.setattr(reader, "POOL_FROM", 1)
    monkeypatch.setattr(reader, "FILES_PER_TASK", 10)
    together, found_problems = reader.load_frame(folder)
    same(alone, together)
    assert found_problems == problems


def test_records_of_an_older_schema_are_told_in_one_line(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / "records" / f"{name}.json").write_text('{"schema_version": 1, "sha256": ""}')
    _, problems = reader.load_frame(folder)
    assert [line for line in problems if "schema" in line] == [
        "records/ holds a record that was written by an older schema (1, now 2): run the sweep again, and "
        "delete it (2 such records)"
    ]
