"""Numbers and spans of time as people write them."""

import itertools
import re
import unicodedata
from collections.abc import Iterable

from bench.core.errors import UserError

# they turn the direction of writing, or are no characters, which no SVG file may hold
_REFUSED = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFFFE, 0xFFFF)))
LONGEST_NAME = 200  # characters


def check_printable(text: str) -> str:
    """Return a text from a file or a folder that reaches terminals, tables and pictures.

    Raises:
        UserError: it holds control characters, which could move the cursor, end a tag or turn the direction
            of what follows. Line ends and tabs are allowed.
    """
    for i, c in enumerate("" if text.isprintable() else text):
        kind = unicodedata.category(c)
        if (kind in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\t") or c in _REFUSED:
            raise UserError(f"holds the control character U+{ord(c):04X} after {plain_text(text[:i])!r}")
    return text


def check_name(name: str) -> str:
    """Return a name of a class, a data set or the like. Raises UserError if it is not short and printable."""
    check_printable(name)
    if len(name) > LONGEST_NAME or "\n" in name or "\t" in name:
        raise UserError(f"{plain_text(name)!r} is no name: one line of at most {LONGEST_NAME} characters")
    return name


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


FLOP_UNITS = {f"{prefix}FLOP": 1000.0**i for i, prefix in enumerate(("", "K", "M", "G", "T", "P", "E", "Z"))}


def flop(operations: float) -> str:
    """Floating-point operations with three digits: `0 FLOP`, `12.5 GFLOP`, `200 TFLOP`."""
    rounded = float(f"{operations:.3g}")
    size, name = flop_unit(rounded)
    return f"{rounded / size:.4g} {name}"


def flop_unit(operations: float) -> tuple[float, str]:
    """The size and the name of the largest unit of which these operations are at least one."""
    return max((size, name) for name, size in FLOP_UNITS.items() if size <= max(1.0, operations))


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
