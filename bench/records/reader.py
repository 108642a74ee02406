"""From a folder of records to the flat frame: read side by side where there are many, and read once.

`records.parquet` beside `records/` holds what was read of each file, with its size and time. What has changed
since is read again and what is gone is left out; a file that cannot be read is never in it.
"""

import contextlib
import gc
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky import get_reusable_executor

from bench.core.errors import UserError
from bench.core.io import replacing
from bench.records import columns
from bench.records.naming import labelled
from bench.records.schema import Record, load_record

PARQUET = "records.parquet"
COMPACT_FROM = 1000  # records: fewer are read as fast as they are looked up
POOL_FROM = 4000  # files to read: fewer are read before processes have started
FILES_PER_TASK = 1000  # files per task
MOST_WORKERS = 8  # each takes some 200 MiB
PARQUET_VERSION = {b"ddbench records": b"1"}  # raise it when what stands in a column changes its meaning
PARQUET_SCHEMA = pa.schema(
    [*columns.COLUMNS_SCHEMA, pa.field("size", pa.int64()), pa.field("mtime_ns", pa.int64())], PARQUET_VERSION
)

Stamp = tuple[int, int]  # of a file: its size, and its time in nanoseconds


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Many records, cells and texts are no garbage, and looking for some takes as long as making them."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def load_frame(directory: Path) -> tuple[pd.DataFrame, list[str]]:
    """The flat frame of a results folder, in the order of its files, and a line for each not readable.

    Raises UserError when there is nothing to read.
    """
    table, problems = read_table(directory)
    return labelled(columns.record_rows(table)), problems


def read_records(directory: Path) -> tuple[list[Record], list[str]]:
    """As `load`, the records themselves."""
    found, problems = _records(directory, _listing(directory))
    if not found:
        raise _nothing(directory, problems)
    return found, problems


def read_table(directory: Path) -> tuple[pa.Table, list[str]]:
    """As `load`, a table without labels, to be labelled together with those of other folders."""
    files = _listing(directory)
    compact = len(files) >= COMPACT_FROM
    stored = _compacted(directory / PARQUET) if compact else PARQUET_SCHEMA.empty_table()
    stamps = zip(*(stored[name].to_pylist() for name in ("key", "size", "mtime_ns")), strict=True)
    current = [files.get(key) == (size, time) for key, size, time in stamps]
    known = stored.filter(pa.array(current, pa.bool_()))
    fresh, problems = _read(directory, sorted(files.keys() - set(known["key"].to_pylist()), key=_name))
    table = _in_order(pa.concat_tables([known, _stamped(fresh, files)]), files)
    if not len(table):
        raise _nothing(directory, problems)
    if compact and (len(fresh) or not all(current)):
        _store(table, directory / PARQUET)
    return table.select(columns.COLUMNS_SCHEMA.names), problems


# --- the files ----------------------------------------------------------------------------------------------


def _listing(directory: Path) -> dict[str, Stamp]:
    """The stamp of each file that may hold a record, by its name without .json; sorted by full name."""
    found: dict[str, Stamp] = {}
    nothing = contextlib.suppress(FileNotFoundError, NotADirectoryError)
    with nothing, os.scandir(directory / "records") as entries:
        for entry in entries:
            # A hidden name is a file that a writer has not finished.
            if entry.name.endswith(".json") and not entry.name.startswith("."):
                found[entry.name.removesuffix(".json")] = _stamp(entry)
    return {key: found[key] for key in sorted(found, key=_name)}


def _stamp(entry: os.DirEntry[str]) -> Stamp:
    try:
        stat = entry.stat()
    except OSError:  # a link to nothing: reading it says so
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _name(key: str) -> str:
    return f"{key}.json"


def _records(directory: Path, keys: Iterable[str]) -> tuple[list[Record], list[str]]:
    found: list[Record] = []
    problems: list[str] = []
    for key in keys:
        try:
            found.append(load_record(directory / "records" / _name(key)))
        except ValueError as error:
            problems.append(f"records/{_name(key)} {error}; `ddbench run` makes it again")
    return found, problems


def _nothing(directory: Path, problems: list[str]) -> UserError:
    bad = f" (unreadable: {len(problems)}; {problems[0]})" if problems else ""
    return UserError(f"no records in {directory}: run `ddbench run SWEEP.yaml --out {directory}` first{bad}")


def _read_chunk(directory: Path, keys: list[str]) -> tuple[pa.Table, list[str]]:
    with uncollected():
        found, problems = _records(directory, keys)
        return columns.record_table(found), problems


def _read(directory: Path, keys: list[str]) -> tuple[pa.Table, list[str]]:
    """The rows of these files, by as many processes as there are cores if there are many."""
    chunks = [keys[start : start + FILES_PER_TASK] for start in range(0, len(keys), FILES_PER_TASK)]
    workers = min(cpu_count(), len(chunks), MOST_WORKERS) if len(keys) >= POOL_FROM else 1
    try:
        read = Parallel(n_jobs=workers)(delayed(_read_chunk)(directory, chunk) for chunk in chunks)
    finally:
        if workers > 1:
            get_reusable_executor().shutdown(kill_workers=True)
    tables = [columns.COLUMNS_SCHEMA.empty_table(), *(table for table, _ in read)]
    return pa.concat_tables(tables), [problem for _, problems in read for problem in problems]


# --- what was read before -----------------------------------------------------------------------------------


def _compacted(path: Path) -> pa.Table:
    """The stored table; an empty one in place of what is not there, damaged or not of this ddbench."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, ValueError, pa.ArrowException):
        return PARQUET_SCHEMA.empty_table()
    ours = table.schema.equals(PARQUET_SCHEMA) and table.schema.metadata == PARQUET_SCHEMA.metadata
    return table if ours else PARQUET_SCHEMA.empty_table()


def _stamped(table: pa.Table, files: dict[str, Stamp]) -> pa.Table:
    stamps = np.array([files[key] for key in table["key"].to_pylist()], dtype=np.int64).reshape(-1, 2)
    return pa.table([*table.columns, *map(pa.array, stamps.T)], PARQUET_SCHEMA)


def _in_order(table: pa.Table, files: dict[str, Stamp]) -> pa.Table:
    place = {key: i for i, key in enumerate(files)}
    return table.take(np.argsort([place[key] for key in table["key"].to_pylist()], kind="stable"))


def _store(table: pa.Table, path: Path) -> None:
    """Kept for the next time, where the folder may be written to."""
    with contextlib.suppress(OSError), replacing(path) as unfinished:
        pq.write_table(table, unfinished, write_page_checksum=True)
