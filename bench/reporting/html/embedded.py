"""Data that the page holds, compressed."""

import base64
import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.core.io import read_plain_file
from bench.records.schema import load_record


def pack(text: str) -> str:
    """Compress text by gzip, as base64; the same text gives the same bytes."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def record_lines(keys: Iterable[str], folders: Sequence[Path]) -> list[str]:
    """Read record files as a line of JSON each.

    Args:
        keys: Of the records.
        folders: Result folders; a record is read from the first where it is readable.

    Raises:
        ValueError: A record is in none of the folders.
    """
    return [_line(key, [folder / "records" / f"{key}.json" for folder in folders]) for key in keys]


def _line(key: str, paths: Sequence[Path]) -> str:
    for path in paths:
        try:
            load_record(path)
        except ValueError:  # not there, or damaged: the report has said so
            continue
        content = json.loads(read_plain_file(path), parse_constant=lambda _: None)  # browsers read no NaN
        return json.dumps(content, separators=(",", ":"))
    raise ValueError(f"no record {key}: it was deleted while the page was built")
