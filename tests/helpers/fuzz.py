"""What the fuzz tests share: the property that each of them asserts, altered files, and nested values.

In the suite they take seconds and draw the same examples every time. For long, with other examples each time:
`pytest tests/fuzz --hypothesis-profile=long --timeout=0`.
"""

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from bench.core.errors import UserError
from helpers.importer import K, noise, unit
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


# --- nested values --------------------------------------------------------------------------------

Place = tuple[str | int, ...]
Changes = dict[Place, Any]


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Every key and entry of nested values."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield (*at, key)
        yield from places(part, (*at, key))


def value_at(content: Any, place: Place) -> Any:
    return functools.reduce(lambda part, key: part[key], place, content)


def kin(value: Any) -> st.SearchStrategy[Any]:
    """Values of the same type, which may well fit."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.one_of(st.integers(0, 20), st.sampled_from([-1, 2**31, 2**53, 2**63 - 1, 10**30]))
    if isinstance(value, float):
        return st.one_of(st.floats(0, 1), st.floats(allow_nan=False, allow_infinity=False), st.just(0))
    if isinstance(value, list):
        return st.lists(kin(value[0]), max_size=3) if value else values
    return st.one_of(texts, st.none()) if value is None or isinstance(value, str) else st.just({})


def changes(content: Any, most: int = 3) -> st.SearchStrategy[Changes]:
    """Other values for a few places of nested values, most of them of the type that is there."""

    def change(place: Place) -> st.SearchStrategy[tuple[Place, Any]]:
        return st.tuples(st.just(place), mostly(kin(value_at(content, place)), values))

    places_in = st.sampled_from(sorted(places(content), key=str))
    return st.lists(places_in.flatmap(change), min_size=1, max_size=most).map(dict)


def changed(content: Any, by: Changes) -> Any:
    """A copy with these values, as far as the places are still there."""
    content = copy.deepcopy(content)
    for place, value in by.items():
        with contextlib.suppress(LookupError, TypeError):
            value_at(content, place[:-1])[place[-1]] = value
    return content


# --- tensors --------------------------------------------------------------------------------------

KINDS = [
    *(torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.int8, torch.bool),
    *(torch.complex64, torch.float8_e4m3fn, torch.uint16),
]
NOT_OF_NUMPY = (torch.bfloat16, torch.float8_e4m3fn)
FORMS = ["expanded", "far", "meta", "sparse", "parameter", "array", "list"]
ODD = st.lists(st.sampled_from([0, 1, 2, 3, 4, 6]), max_size=5).map(tuple)
Values = st.SearchStrategy[Any]


def filled(shape: tuple[int, ...], fill: str) -> Tensor:
    count = math.prod(shape)
    makers: dict[str, Callable[[], Tensor]] = {
        "noise": lambda: noise(count),
        "unit": lambda: unit(count),
        "classes": lambda: torch.arange(count) * K // max(count, 1),
        "nan": lambda: torch.full((count,), float("nan")),
        "huge": lambda: torch.full((count,), 1e38),
    }
    return makers[fill]().view(shape)


def formed(tensor: Tensor, form: str) -> Any:
    """The tensor in another form, if it can take it."""
    first = tensor.flatten()[:1]
    if form == "expanded" and tensor.dim() and len(tensor):
        return tensor[:1].expand_as(tensor)
    if form == "far" and len(first):
        return first.expand(10**9, 1)
    if form == "sparse" and tensor.dtype == torch.float32:
        return tensor.to_sparse()
    if form == "array" and tensor.dtype not in NOT_OF_NUMPY:
        return tensor.numpy()
    if form == "list" and tensor.dim():
        return list(tensor)
    if form == "parameter" and tensor.is_floating_point():
        return torch.nn.Parameter(tensor)
    return tensor.to("meta") if form == "meta" else tensor


def near(*shape: int, fill: str = "noise", plain: bool = False) -> Values:
    """Mostly a tensor of this shape; else another one, or anything (`plain`: always a dense tensor)."""
    shapes = mostly(st.just(shape), ODD)
    fills = mostly(st.just(fill), st.sampled_from(["noise", "unit", "classes", "nan", "huge"]))
    kinds = mostly(st.none(), st.sampled_from(KINDS))
    tensors = st.builds(
        lambda shape, fill, kind: filled(shape, fill).to(filled((), fill).dtype if kind is None else kind),
        *(shapes, fills, kinds),
    )
    found = st.builds(formed, tensors, mostly(st.just("plain"), st.sampled_from(FORMS)))
    return tensors if plain else mostly(found, values)
