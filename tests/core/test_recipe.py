"""Recipes: what is refused, their arithmetic, how they are written; and the order of batches."""

import io
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.core import random
from bench.core.augment import dsa
from bench.core.batches import BatchOrder, batches_per_epoch
from bench.core.training import RECIPE, Recipe
from bench.planning.protocols import load_protocol, load_protocols, protocol_names

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({}, "steps or epochs"),
        ({"steps": 1, "epochs": 1}, "steps or epochs"),
        ({"steps": 0}, "steps"),
        ({"epochs": -1}, "epochs"),
        ({"steps": 1, "batch_size": 0}, "batch_size"),
        ({"steps": 1, "lr": 0.0}, "lr"),
        ({"steps": 1, "lr": float("inf")}, "lr"),
        ({"steps": 1, "momentum": -0.1}, "momentum"),
        ({"steps": 1, "weight_decay": -0.1}, "weight_decay"),
        ({"steps": 1, "augment": "colour"}, "did you mean color?"),
        ({"steps": 1, "augment": "color+flop"}, "did you mean flip?"),
        ({"steps": 1, "cutmix": -0.1}, "cutmix"),
        ({"steps": 1, "cutmix": 1.1}, "cutmix"),
        ({"steps": 1, "milestones": [30, 60]}, "milestones"),
        ({"steps": 1, "milestones": [0.0]}, "milestones"),
        ({"steps": 1, "gamma": 0.0}, "gamma"),
        ({"steps": 1, "nesterov": True}, "nesterov"),
        ({"steps": 1, "optimiser": "adam"}, "optimiser"),
        ({"steps": 1, "schedule": "cosin"}, "schedule"),
        ({"steps": 1, "schedule": "cosine", "milestones": [0.5]}, "milestones: not with `schedule: cosine`"),
    ],
)
def test_bad_recipes_are_refused(values: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        RECIPE.validate_python({"batch_size": 8, "lr": 0.1, **values})


@given(n=st.integers(1, 500), size=st.integers(1, 500), epochs=st.integers(1, 9))
def test_steps_of_an_epoch_cover_every_image(n: int, size: int, epochs: int) -> None:
    steps = Recipe(batch_size=size, lr=0.1, epochs=epochs).n_steps(n)
    assert steps == epochs * len(torch.arange(n).split(size)) - epochs * (n > size > 1 and n % size == 1)
    assert Recipe(batch_size=size, lr=0.1, steps=epochs).n_steps(n) == epochs


@given(n=st.integers(1, 40), size=st.integers(1, 50))
def test_batches_visit_each_image_once_an_epoch(n: int, size: int) -> None:
    per_epoch = batches_per_epoch(n, size)
    drawn = list(islice(BatchOrder(n, size, random.generator(0), CPU), 3 * per_epoch))
    for epoch in range(3):
        part = drawn[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert torch.equal(torch.cat(part).sort().values, torch.arange(n))
        assert all(len(batch) == size for batch in part[:-1])
        assert len(part[-1]) > 1 or 1 in (n, size)


@given(n=st.integers(1, 40), size=st.integers(1, 50))
def test_batches_are_the_pieces_of_permutations(n: int, size: int) -> None:
    """The draws of records that exist; but a last piece of one image joins the one before it."""
    order, by_hand = BatchOrder(n, size, random.generator(3), CPU), random.generator(3)
    for _ in range(3):
        pieces = list(torch.randperm(n, generator=by_hand).split(size))
        if size > 1 and len(pieces) > 1 and len(pieces[-1]) == 1:
            *pieces, before, one = pieces
            pieces.append(torch.cat([before, one]))
        for piece in pieces:
            assert torch.equal(next(order), piece)


@given(n=st.integers(1, 20), size=st.integers(1, 25), taken=st.integers(0, 30))
def test_a_stopped_batch_order_goes_on(n: int, size: int, taken: int) -> None:
    order = BatchOrder(n, size, random.generator(3), CPU)
    for _ in range(taken):
        next(order)
    file = io.BytesIO()
    torch.save(order.state_dict(), file)
    expected = list(islice(order, 10))
    file.seek(0)
    other = BatchOrder(n, size, random.generator(4), CPU)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(islice(other, 10), expected, strict=True))


def test_a_recipe_is_written_with_every_field() -> None:
    """Records are found by a hash of what a recipe is written as: a new default is a new key.

    What came after the first records is left out where it changes nothing.
    """
    written = {"augment": "none", "batch_size": 50, "cutmix": 0.0, "epochs": None, "gamma": 0.1, "lr": 0.03}
    written |= {"milestones": [0.5], "momentum": 0.9, "steps": 150, "weight_decay": 0.0005}
    assert load_protocol("quick").model_dump(mode="json")["recipe"] == written
    for protocol in (p for name in protocol_names() for p in load_protocols(name)):
        recipe = protocol.recipe
        assert RECIPE.validate_python(RECIPE.dump_python(recipe, mode="json")) == recipe


def test_a_later_field_is_written_where_it_changes_something() -> None:
    later = {"optimiser": "adamw", "schedule": "half_cosine"}
    plain = {"batch_size": 8, "lr": 0.1, "steps": 1}
    written = RECIPE.dump_python(RECIPE.validate_python(plain | later), mode="json")
    assert written.items() >= later.items()
    assert RECIPE.dump_python(RECIPE.validate_python(plain), mode="json").keys() == written.keys() - later


def test_the_rate_falls_by_the_schedule() -> None:
    def factors(**schedule: Any) -> list[float]:
        recipe = Recipe(batch_size=8, lr=0.1, steps=4, **schedule)
        return [recipe.rate_factor(step, 4) for step in range(5)]

    assert factors(milestones=(0.5, 0.75), gamma=0.5) == [1, 1, 0.5, 0.25, 0.25]
    assert factors(schedule="cosine") == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0])
    assert factors(schedule="half_cosine")[::2] == pytest.approx([1, 0.5 + 0.5**1.5, 0.5])


def test_the_protocol_of_idc() -> None:
    """1000 epochs; the rate is 0.01 times 0.2 at 2/3 and 5/6 of the steps."""
    recipe = load_protocol("idc").recipe
    steps = recipe.n_steps(100)
    assert steps == 2000
    assert [round(m * steps) for m in recipe.milestones] == [1333, 1667]
    assert dsa.parse_strategy(recipe.augment) == (("color",), ("flip",), ("crop", "scale", "rotate"))


@given(rates=st.lists(st.integers(1, 99), max_size=3), steps=st.integers(1, 300))
def test_drops_are_shares_of_the_steps(rates: list[int], steps: int) -> None:
    recipe = Recipe(batch_size=1, lr=0.1, steps=steps, milestones=tuple(r / 100 for r in rates))
    assert all(abs(drop - r / 100 * steps) <= 0.5 for drop, r in zip(recipe.drops(steps), rates, strict=True))
