"""Numbers and spans of time as people write them."""

import re


def count(n: int, noun: str) -> str:
    """`1 job`, `2 jobs`, `1,000 jobs`; for nouns whose plural ends in s."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def true_minus(text: str) -> str:
    """Write negative numbers with a minus sign instead of a hyphen: for text that only people read."""
    return re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
