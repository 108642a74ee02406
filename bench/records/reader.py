"""From a folder of records to the flat frame, by several processes if there are many files.

`records.parquet` beside `records/` caches the rows of the files, with the size and time of each. Files that
changed since are read again, rows of deleted files are dropped, and unreadable files are never cached.
"""

import contextlib
import gc
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky import get_reusable_executor

from bench.core.errors import UserError, worker_deaths_told
from bench.core.io import replacing
from bench.records import columns
from bench.records.naming import labelled
from bench.records.schema import OlderSchemaError, Record, load_record

PARQUET = "records.parquet"
COMPACT_FROM = 1000  # records: fewer are read as fast without a cache
POOL_FROM = 4000  # files: fewer are read in less time than processes need to start
FILES_PER_TASK = 1000  # files per task
MOST_WORKERS = 8  # each takes about 200 MiB
PARQUET_VERSION = {b"ddbench records": b"4"}  # raise it when a column or what a record holds changes
PARQUET_SCHEMA = pa.schema(
    [*columns.COLUMNS_SCHEMA, pa.field("size", pa.int64()), pa.field("mtime_ns", pa.int64())], PARQUET_VERSION
)

Stamp = tuple[int, int]  # of a file: size in bytes, modification time in nanoseconds


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Turn off garbage collection: with many records it finds nothing and takes as long as reading them."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def load_frame(directory: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read a results folder.

    Returns:
        The flat frame, in the order of the files, and a line for each file that cannot be read.

    Raises:
        UserError: when no record can be read.
    """
    table, problems = read_table(directory)
    return labelled(columns.record_rows(table)), problems


def read_records(directory: Path) -> tuple[list[Record], list[str]]:
    """Like `load_frame`, but the records themselves."""
    found, problems = _records(directory, _listing(directory))
    if not found:
        raise _nothing(directory, problems)
    return found, _counted(problems)


def read_table(directory: Path) -> tuple[pa.Table, list[str]]:
    """Like `load_frame`, but a table without labels, which several folders have to get together."""
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
    return table.select(columns.COLUMNS_SCHEMA.names), _counted(problems)


# --- the files ----------------------------------------------------------------------------------------------


def _listing(directory: Path) -> dict[str, Stamp]:
    """{file name without .json: stamp} of all files that may be records, sorted by full name."""
    found: dict[str, Stamp] = {}
    nothing = contextlib.suppress(FileNotFoundError, NotADirectoryError)
    with nothing, os.scandir(directory / "records") as entries:
        for entry in entries:
            # A hidden file is one that is still being written.
            if entry.name.endswith(".json") and not entry.name.startswith("."):
                found[entry.name.removesuffix(".json")] = _stamp(entry)
    return {key: found[key] for key in sorted(found, key=_name)}


def _stamp(entry: os.DirEntry[str]) -> Stamp:
    try:
        stat = entry.stat()
    except OSError:  # a broken link: reading it will report that
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
        except OlderSchemaError as error:  # a folder has many of them or none
            problems.append(f"records/ holds a record that {error}: run the sweep again, and delete it")
        except ValueError as error:
            problems.append(f"records/{_name(key)} {error}; `ddbench run` makes it again")
    return found, problems


def _counted(problems: list[str]) -> list[str]:
    """Equal lines once, with their number."""
    return [line if n == 1 else f"{line} ({n} such records)" for line, n in Counter(problems).items()]


def _nothing(directory: Path, problems: list[str]) -> UserError:
    bad = f" (unreadable: {len(problems)}; {problems[0]})" if problems else ""
    return UserError(f"no records in {directory}: run `ddbench run SWEEP.yaml --out {directory}` first{bad}")


def _read_chunk(directory: Path, keys: list[str]) -> tuple[pa.Table, list[str]]:
    with uncollected():
        found, problems = _records(directory, keys)
        return columns.record_table(found), problems


def _read(directory: Path, keys: list[str]) -> tuple[pa.Table, list[str]]:
    """The rows of these files and the problems, read by one process per core if there are many files."""
    chunks = [keys[start : start + FILES_PER_TASK] for start in range(0, len(keys), FILES_PER_TASK)]
    workers = min(cpu_count(), len(chunks), MOST_WORKERS) if len(keys) >= POOL_FROM else 1
    try:
        with worker_deaths_told("reads records"):
            read = Parallel(n_jobs=workers)(delayed(_read_chunk)(directory, chunk) for chunk in chunks)
    finally:
        if workers > 1:
            get_reusable_executor().shutdown(kill_workers=True)
    tables = [columns.COLUMNS_SCHEMA.empty_table(), *(table for table, _ in read)]
    return pa.concat_tables(tables), [problem for _, problems in read for problem in problems]


# --- the cache ----------------------------------------------------------------------------------------------


def _compacted(path: Path) -> pa.Table:
    """The cached table; an empty one if the file is missing, damaged or of another version."""
    if not path.is_file():  # nothing, or a pipe that somebody left there
        return PARQUET_SCHEMA.empty_table()
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
    """Write the cache; a folder that cannot be written to has none."""
    with contextlib.suppress(OSError, UserError), replacing(path) as unfinished:
        pq.write_table(table, unfinished, write_page_checksum=True)
