"""Numbers and spans of time as people write them."""

import itertools
import re
from collections.abc import Iterable


def count(n: int, noun: str) -> str:
    """`1 job`, `2 jobs`, `1,000 jobs`; for nouns whose plural ends in s."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def plain_text(text: str, most: int = 60) -> str:
    """A text of a file as a message may hold it: a few printable characters, on one line."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:most])
    return shown if len(text) <= most else f"{shown}..."


def listed(names: Iterable[object], most: int = 8) -> str:
    """`a, b, c`, the first names that a file holds, as a message may hold them; or `nothing`."""
    return ", ".join(plain_text(str(name)) for name in itertools.islice(names, most)) or "nothing"


def true_minus(text: str) -> str:
    """Write negative numbers with a minus sign instead of a hyphen: for text that only people read."""
    return re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
