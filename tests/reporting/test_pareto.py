"""The Pareto front, where points are drawn, and the bars of the runtime breakdown."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.record import make
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.aggregate import summary_frame
from bench.records.columns import record_frame
from bench.records.schema import Record
from bench.reporting.plots import pareto, style
from bench.reporting.plots.pareto import pareto_front
from bench.reporting.plots.seconds import seconds_breakdown

few = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])  # so that ties are common
points = st.lists(st.tuples(st.one_of(few, st.floats(0, 1e6)), st.one_of(few, st.floats(0, 1))), max_size=12)


def table(*records: Record) -> pd.DataFrame:
    return summary_frame(record_frame(list(records)))


def spent(method: str, seconds: float | None, accuracy: float, **fields: Any) -> Record:
    return make(method, accuracies=(accuracy,), cost={"distill_s": seconds}, **fields)


def rings(figure: style.Figure, panel: int = 0) -> list[tuple[float, float]]:
    """The positions of the rings in a panel: x, and percent."""
    found = [one for one in figure.axes[panel].lines if one.get_markersize() == pareto.RING["markersize"]]
    return [at for one in found for at in zip(one.get_xdata(), one.get_ydata(), strict=True)]  # type: ignore[arg-type]


def written(figure: style.Figure, panel: int = 0) -> list[str]:
    """The direct labels in a panel, from the lowest to the highest."""
    return [text.get_text() for text in figure.axes[panel].texts]


# --- the front ----------------------------------------------------------------------------------------------


@given(points)
def test_nothing_beats_the_front_and_the_front_beats_the_rest(found: list[tuple[float, float]]) -> None:
    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return one[0] <= other[0] and one[1] >= other[1] and one != other

    on = pareto_front([c for c, _ in found], [a for _, a in found])
    best = [point for point, yes in zip(found, on, strict=True) if yes]
    for point, yes in zip(found, on, strict=True):
        assert yes != any(beats(other, point) for other in found)
        assert yes or any(beats(other, point) for other in best)
    in_order = sorted(set(best))
    assert all(a < b for (_, a), (_, b) in itertools.pairwise(in_order))
    assert bool(best) == bool(found)


@given(points, st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order(found: list[tuple[float, float]], random: object) -> None:
    order = list(range(len(found)))
    random.shuffle(order)  # type: ignore[attr-defined]
    costs, accuracies = np.array([c for c, _ in found]), np.array([a for _, a in found])
    assert (pareto_front(costs[order], accuracies[order]) == pareto_front(costs, accuracies)[order]).all()


def test_equal_points_share_the_front_and_unknown_costs_have_no_place() -> None:
    assert pareto_front([1, 1, 2, 2], [0.5, 0.5, 0.5, 0.6]).tolist() == [True, True, False, True]
    assert pareto_front([np.nan, 2], [0.9, 0.5]).tolist() == [False, True]
    assert pareto_front([], []).tolist() == []


# --- drawn --------------------------------------------------------------------------------------------------


def test_on_seconds_sets_of_one_ipc_within_their_budget_compete() -> None:
    found = table(
        spent("herding", 0.0001, 0.4),
        spent("dm", 5.0, 0.7),
        spent("dc", 9.0, 0.65),
        spent("haba", 2.0, 0.8, within_budget=False),
        spent("file", None, 0.9),  # distilled elsewhere: not measured
        spent("dc", 9.0, 0.9, ipc=10),
        make("full", None, (0.99,)),
    )
    figure = pareto.accuracy_vs_seconds(found)
    assert rings(figure) == [(5.0, 70.0)]
    assert written(figure) == ["herding, <0.001 s", "dm"]
    assert rings(figure, 1) == [(9.0, 90.0)]
    assert "quicker than the axis shows" in figure.get_supxlabel()
    assert figure.axes[0].get_xlim()[0] > 0.05
    assert figure.axes[0].get_ylim() != figure.axes[1].get_ylim()


def test_seconds_of_jobs_that_ran_side_by_side_are_noted() -> None:
    alone, shared = (
        pareto.accuracy_vs_seconds(table(spent("dm", 1.0, 0.5), spent("dc", 2.0, 0.5, **fields)))
        for fields in ({}, {"exclusive": False})
    )
    assert "side by side" not in alone.get_supxlabel()
    assert "Jobs ran side by side" in shared.get_supxlabel()


@pytest.mark.parametrize(
    ("seconds", "start"),
    [
        ([0.001, 2, 3], 2),
        ([0.0, 0.001, 2, 3], 2),
        ([0.0, 0.001], 0.001),
        ([0.001, 0.02, 0.5], 0),  # no gap is wide
        ([1, 100, 10000], 0),  # nothing is quick
        ([float("nan"), 1], 0),
        ([], 0),
    ],
)
def test_the_axis_of_seconds_begins_above_a_wide_gap(seconds: list[float], start: float) -> None:
    assert pareto.axis_start(pd.Series(seconds, dtype=float)) == start


def test_every_point_is_drawn_at_its_own_size() -> None:
    """Also where many sets are of nearly one size."""
    sizes = {"a": 640, "b": 640, "c": 650, "d": 6272, "e": 6400, "f": 6861}
    records = [
        make(name, ipc, (0.5 + i / 20,), floats=floats)
        for i, (name, floats) in enumerate(sizes.items())
        for ipc in [1 if floats < 1000 else 10]
    ]
    figure = pareto.accuracy_vs_bytes(table(*records))
    drawn = sorted(
        x
        for line in figure.axes[0].lines
        if line.get_marker() in style.MARKERS and line.get_markersize() < 8
        for x in line.get_xdata()  # type: ignore[union-attr]
    )
    assert drawn == pytest.approx([floats * 4 / 1024 for floats in sizes.values()])


def test_labels_of_the_front_do_not_cover_each_other_and_stay_inside() -> None:
    records = [make(f"m{i}", 1, (0.9 + i / 1000,), floats=640 + i) for i in range(6)]
    figure = pareto.accuracy_vs_bytes(table(*records))
    axes = figure.axes[0]
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert written(figure) == [f"m{i}" for i in range(6)]
    assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))
    assert boxes[-1].y1 <= axes.get_window_extent().y1 + 1


def test_on_bytes_all_of_them_compete() -> None:
    found = table(
        make("dm", 1, (0.6,)),
        make("haba", 1, (0.8,), floats=1280, within_budget=False),
        make("dc", 10, (0.7,), floats=6400),
        make("full", None, (0.99,)),
    )
    assert rings(pareto.accuracy_vs_bytes(found)) == [(2.5, 60.0), (5.0, 80.0)]


def test_the_whole_set_alone_has_no_front() -> None:
    whole = table(make("full", None, (0.99,)))
    assert rings(pareto.accuracy_vs_bytes(whole)) == rings(pareto.accuracy_vs_seconds(whole)) == []


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ((0.002, 200), [0.01, 0.1, 1, 10, 100]),
        ((3, 40), [2, 5, 10, 20, 50]),
        ((1e-3, 1e9), None),
        ((24, 25), None),
    ],
)
def test_log_axes_have_a_few_round_ticks(values: tuple[float, float], ticks: list[float] | None) -> None:
    axes = style.Figure().add_subplot()
    style.log_axis(axes, pd.Series(values))
    found = list(axes.get_xticks())
    assert ticks is None or found == pytest.approx(ticks)
    assert 2 <= len(found) <= style.MOST_TICKS


def test_the_legend_names_methods_without_seconds() -> None:
    found = table(spent("file", None, 0.9), spent("dm", 1.0, 0.5), spent("full", None, 0.9, ipc=None))
    names = {
        draw: [text.get_text() for text in draw(found).legends[0].get_texts()]
        for draw in (pareto.accuracy_vs_seconds, pareto.accuracy_vs_bytes)
    }
    assert names[pareto.accuracy_vs_seconds][:3] == ["dm", "file (not measured)", "full (whole set)"]
    assert names[pareto.accuracy_vs_bytes][:3] == ["dm", "file", "full (whole set)"]


# --- where the seconds go -----------------------------------------------------------------------------------


def test_bars_are_stacked_in_order_and_numbers_stand_beside_them(tmp_path: Path) -> None:
    cost = {"prepare_s": 4.0, "distill_s": 6.0, "evaluate_s": 2.0}
    found = table(
        make("mtt", cost=cost),
        make("herding", cost={"prepare_s": 0.0, "distill_s": 0.002, "evaluate_s": 1.0}),
        make("haba", within_budget=False, cost={**cost, "distill_s": 60.0}),
    )
    figure = seconds_breakdown(found)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["herding", "mtt", "haba ‡"]
    mtt = [bar.patches[1] for bar in axes.containers]
    assert [bar.get_x() for bar in mtt] == [0, 4, 10]
    assert [bar.get_width() for bar in mtt] == pytest.approx([4, 6, 2])
    texts = [text.get_text() for text in axes.texts]
    assert texts[:8] == ["prepare", "0", "4.0", "4.0", "distill", "0.002", "6.0", "60.0"]
    assert texts[-4:] == ["total", "1.0", "12.0", "66.0"]
    assert axes.get_xlim()[0] == 0
    assert any("‡ stores more" in text.get_text() for text in figure.texts)
    style.save_plot(lambda: figure, tmp_path / "breakdown")


def test_unmeasured_seconds_are_a_dash() -> None:
    figure = seconds_breakdown(table(spent("file", None, 0.9)))
    assert [text.get_text() for text in figure.axes[0].texts][:4] == ["prepare", "0", "distill", "—"]
    assert [text.get_text() for text in figure.axes[0].texts][-2:] == ["total", "—"]  # not that of the rest
