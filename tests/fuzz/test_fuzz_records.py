"""Altered records: what cannot be used is named, a line each, and the report is made of the rest."""

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
from helpers import fuzz
from helpers.cli import without_plots
from helpers.record import write
from helpers.report import rich_sweep
from hypothesis import given, settings

from bench.api.results import load_records
from bench.records.schema import content_digest, dump_record
from bench.reporting.build import build_report

RECORDS = rich_sweep(methods=("random_real", "dm"), archs=("convnet",), seeds=2)[::2]
CONTENTS = [json.loads(dump_record(record)) for record in RECORDS]


def replaced(content: dict[str, Any], changes: fuzz.Changes) -> dict[str, Any]:
    """The record with these values, and a checksum that fits."""
    changed = fuzz.changed(content, changes)
    changed.pop("sha256", None)
    return changed | {"sha256": content_digest(changed)}


def loaded(folder: Path) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fuzz.one_line(lambda: load_records(folder))
    assert not any("\n" in str(one.message) for one in told)


@pytest.fixture(scope="module", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """pyarrow and pandas set aside address space when they are first used, outside of the limit."""
    folder = write(tmp_path_factory.mktemp("whole"), RECORDS)
    assert len(load_records(folder)) == len(RECORDS)
    with without_plots():
        assert not build_report(folder).problems


@given(fuzz.alterations)
def test_altered_files(how: list[fuzz.Alteration]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = write(Path(name), RECORDS[:2])
        path = folder / "records" / f"{RECORDS[0].key}.json"
        path.write_bytes(fuzz.altered(path.read_bytes(), how))
        loaded(folder)


@given(fuzz.changes(CONTENTS[0]))
def test_altered_values(changes: fuzz.Changes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = write(Path(name), RECORDS[:2])
        path = folder / "records" / f"{RECORDS[0].key}.json"
        path.write_text(json.dumps(replaced(CONTENTS[0], changes)))
        loaded(folder)


@pytest.mark.parametrize("altered", [1, len(RECORDS)])
@settings(max_examples=settings().max_examples // 10)  # a report takes a tenth of a second
@given(fuzz.changes(CONTENTS[0]))
def test_reports_of_altered_values(altered: int, changes: fuzz.Changes) -> None:
    with tempfile.TemporaryDirectory() as name, without_plots():
        folder = write(Path(name), RECORDS)
        for content in CONTENTS[:altered]:
            path = folder / "records" / f"{content['key']}.json"
            path.write_text(json.dumps(replaced(content, changes)))
        fuzz.one_line(lambda: build_report(folder))
