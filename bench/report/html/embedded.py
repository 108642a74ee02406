"""What travels inside the page, compressed."""

import base64
import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.records.schema import load_record


def pack(text: str) -> str:
    """gzip, as base64: the same text gives the same bytes."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def record_lines(keys: Iterable[str], folders: Sequence[Path]) -> list[str]:
    """The files of these records, each on one line, from the first folder where it is readable.

    Raises ValueError for a record that is in none.
    """
    return [_line(key, [folder / "records" / f"{key}.json" for folder in folders]) for key in keys]


def _line(key: str, paths: Sequence[Path]) -> str:
    for path in paths:
        try:
            load_record(path)
        except ValueError:  # not there, or damaged: the report names it
            continue
        content = json.loads(path.read_text(), parse_constant=lambda _: None)  # NaN is no JSON in a browser
        return json.dumps(content, separators=(",", ":"))
    raise ValueError(f"no record {key}: it was taken away while the page was built")
