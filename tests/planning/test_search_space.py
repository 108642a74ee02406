"""Search spaces that methods declare: valid ranges that hold the defaults and keep trials alike."""

import dataclasses

import pytest

from bench.cli.listing import list_methods
from bench.core.registry import method_class, own_method_names
from bench.core.search import Choices, Search, search_space
from bench.planning.presets import preset
from bench.planning.sweep import build_method

TUNED = [name for name in own_method_names() if search_space(method_class(name))]


def test_values_are_drawn_evenly_on_their_scale() -> None:
    assert [Search(0.01, 100).at(u) for u in (0, 0.25, 0.5, 1)] == [0.01, 0.1, 1, 100]
    assert [Search(0, 0.9, "linear").at(u) for u in (0, 0.5, 1)] == [0, 0.45, 0.9]
    assert Search(1, 10).at(0.111) == 1.29, "three digits"
    assert [Choices(("a", "b")).at(u) for u in (0, 0.49, 0.5, 1)] == ["a", "a", "b", "b"]


def test_every_distilling_method_has_a_space() -> None:
    with_rate = {
        name
        for name in own_method_names()
        if "lr" in {f.name for f in dataclasses.fields(method_class(name))}
    }
    assert with_rate <= set(TUNED)
    assert all("lr" in search_space(method_class(name)) for name in with_rate)


@pytest.mark.parametrize("name", TUNED)
def test_a_method_takes_both_ends_of_each_range_and_its_default_lies_within(name: str) -> None:
    space, default = search_space(method_class(name)), method_class(name)()
    for key, where in space.items():
        ends = where.values if isinstance(where, Choices) else (where.low, where.high)
        for value in ends:
            build_method(name, {key: value})
        for at in (default, build_method(name, preset(name, "digits", 1))):
            value = getattr(at, key)
            inside = value in ends if isinstance(where, Choices) else where.low <= value <= where.high
            assert inside, f"{key}={value}"


@pytest.mark.parametrize("name", TUNED)
def test_no_searched_value_moves_prerequisites(name: str) -> None:
    """Experts and trained networks are made once for all trials."""
    default = method_class(name)()
    for key, where in search_space(method_class(name)).items():
        for place in (0.0, 0.99):
            assert build_method(name, {key: where.at(place)}).requires() == default.requires()


def test_what_a_sweep_fixes_is_not_searched() -> None:
    assert search_space(method_class("dm"), {"lr", "init"}).keys() == {"momentum"}
    assert not search_space(method_class("random_real"))


def test_the_list_of_methods_shows_where_a_tuning_looks() -> None:
    found = list_methods()
    assert found["dm"].endswith(
        ". Tuned: lr 0.01 to 100 (log), momentum 0 to 0.95 (linear), init real or noise"
    )
    assert "Tuned" not in found["random_real"]
