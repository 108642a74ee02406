"""What the fuzz tests share: the property that each of them asserts, altered files, and nested values."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from bench.core.errors import UserError
from helpers.memory import limited

Alteration = tuple[str, int, bytes]
ALTERATIONS = ("flip", "overwrite", "insert", "delete", "double", "cut")
STRANGE = (b"\0" * 8, b"\xff" * 8, b"\xff\xff\xff\x7f", b"\x80", b'"', b"[", b"{", b"1e999", b"-1", b"NaN")


def tidy(call: Callable[[], object]) -> str | None:
    """Call it, in a memory that is limited: it succeeds, or it ends in the one kind of error that has a
    message. Returns that message. A hang ends the test by its time limit.
    """
    with limited(2**30):
        try:
            call()
        except UserError as error:
            message = str(error)
            assert message.strip()
            assert len(message) < 5000
            return message
    return None


def one_line(call: Callable[[], object]) -> str | None:
    """The same for what has one fault at a time: the message is one line."""
    message = tidy(call)
    assert message is None or "\n" not in message
    return message


@st.composite
def mostly(draw: st.DrawFn, usual: st.SearchStrategy[Any], other: st.SearchStrategy[Any]) -> Any:
    """The usual, seven times of eight: files with one fault get further than those with many."""
    return draw(other if draw(st.integers(0, 7)) == 7 else usual)


alterations: st.SearchStrategy[list[Alteration]] = st.lists(
    st.tuples(
        st.sampled_from(ALTERATIONS),
        st.integers(0, 2**16),
        st.one_of(st.sampled_from(STRANGE), st.binary(min_size=1, max_size=6)),
    ),
    min_size=1,
    max_size=4,
)


def altered(content: bytes, how: list[Alteration]) -> bytes:
    """The content with each of these done to it, one after the other."""
    for kind, where, new in how:
        at = where % (len(content) + 1)
        before, after = content[:at], content[at:]
        content = {
            "flip": before + bytes(byte ^ (1 << where % 8) for byte in after[:1]) + after[1:],
            "overwrite": before + new + after[len(new) :],
            "insert": before + new + after,
            "delete": before + after[1 + where % 40 :],
            "double": before + after[:40] + after,
            "cut": before,
        }[kind]
    return content


numbers = st.one_of(
    st.integers(-2, 3),
    st.sampled_from([2**31, 2**53, 2**63, -(2**63), 2**64, 10**30, 10**400]),
    st.floats(),
)
texts = st.one_of(st.text(max_size=8), st.sampled_from(["", "x" * 300, "\0", "../..", "nan", "1e999"]))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)
