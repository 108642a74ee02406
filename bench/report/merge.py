"""The records of several result folders as one set."""

from collections.abc import Sequence
from pathlib import Path

from bench.aggregate import load_records
from bench.record import Record

MEASURED = {"cost", "versions"}  # may differ between two runs of the same job


def gather(directories: Sequence[Path]) -> tuple[list[Record], list[str]]:
    """The readable records by key, of the first folder that has it, and a line for each that is left out.

    A record that stands in two folders counts once. Where the two differ in more than what was measured or
    with which versions, that is one of the lines. Raises UserError for a folder without records.
    """
    if len(directories) == 1:
        return load_records(directories[0])
    found: dict[str, tuple[Path, Record]] = {}
    problems: list[str] = []
    for directory in directories:
        records, bad = load_records(directory)
        problems += [f"{directory}/{line}" for line in bad]
        for record in records:
            first, known = found.setdefault(record.key, (directory, record))
            if changed := _changed(known, record):
                problems.append(
                    f"{directory}/records/{record.key}.json differs from the one in {first} in "
                    f"{', '.join(changed)}: the first is kept; make one of them again"
                )
    return [record for _, record in found.values()], problems


def _changed(one: Record, other: Record) -> list[str]:
    names = [name for name in type(one).model_fields if name not in MEASURED]
    return [name for name in names if getattr(one, name) != getattr(other, name)]
