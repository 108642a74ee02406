"""Schedules of learning rates."""

import pytest

from bench.core.schedules import cosine


def test_a_cosine_falls_from_one_to_the_last() -> None:
    assert [cosine(step, 4) for step in (0, 2, 4)] == pytest.approx([1, 0.5, 0])
    assert [cosine(step, 8, 0.1) for step in (0, 4, 8)] == pytest.approx([1, 0.55, 0.1])
