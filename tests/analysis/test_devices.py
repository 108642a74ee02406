"""Seconds of several devices do not compare, and no mean, front or advice is made of them in silence."""

from typing import Any

import pandas as pd
import pytest
from helpers.record import make

from bench.analysis.advice import Question, advise
from bench.analysis.aggregate import distillation_course, summary_frame
from bench.analysis.devices import device_letters, device_shares, of_one_device, several_devices
from bench.analysis.regression import moved_cells
from bench.records.columns import SECONDS, record_frame
from bench.records.schema import Record
from bench.reporting.plots.pareto import accuracy_vs_seconds
from bench.reporting.plots.seconds import seconds_breakdown
from bench.reporting.tables.regression import regression_tables
from bench.reporting.tables.summary import summary_tables

A, B = "NVIDIA H100 80GB HBM3", "AMD EPYC"
NOTE = "Seconds are of several devices, and compare within one only."


def on(
    device: str, method: str = "dm", seeds: tuple[int, ...] = (0, 1), mean: float = 0.5, **cost: Any
) -> list[Record]:
    """Records of a method whose seeds were made on a device."""
    return [
        make(method, accuracies=(mean + 0.01 * seed,), seed=seed, cost={"device": device, **cost})
        for seed in seeds
    ]


def test_another_share_of_a_device_is_another_device() -> None:
    frame = record_frame(on(A))
    frame["cpus"], frame["gpus"] = [1, 2], [0.25, 1.0]
    assert device_shares(frame).tolist() == [f"{A}, 1 CPU and 0.25 GPU a job", f"{A}, 2 CPUs and 1 GPU a job"]
    assert device_shares(frame[:0]).tolist() == []
    frame["cpus"] = frame["gpus"] = 1
    assert device_shares(frame).tolist() == [A, A]


def test_phases_on_another_device_are_told_with_the_device() -> None:
    (record,) = on(A, seeds=(0,), devices={"evaluate": B, "tune": B})
    assert record_frame([record])["device"].tolist() == [f"{A} (evaluate on {B}, tune on {B})"]


def test_no_mean_is_taken_over_seeds_of_several_devices() -> None:
    both = summary_frame(record_frame([*on(A, seeds=(0, 1)), *on(B, seeds=(2,))]))
    assert both["device"].tolist() == [f"{B}; {A}"]
    assert both[SECONDS].isna().all(axis=None)
    one = summary_frame(record_frame([*on(A), *on(B, "dsa")]))
    assert one["distill_s"].tolist() == [2.0, 2.0]


def test_a_course_over_seconds_of_several_devices_has_none() -> None:
    frame = record_frame([*on(A, seeds=(0,)), *on(B, seeds=(1,))])
    frame["snapshots"] = pd.Series([[(1.0, 1, 2.0, 0.5)]] * 2, dtype=object)
    course = distillation_course(frame)
    assert len(course) == 1
    assert course[["prepare_s", "distill_s"]].isna().all(axis=None)
    assert course["accuracy_mean"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("devices", "letters"),
    [
        ([A, A], {}),
        ([], {}),
        ([A, B], {B: "a", A: "b"}),
        ([f"{B}; {A}"], {B: "a", A: "b"}),
    ],
)
def test_letters(devices: list[str], letters: dict[str, str]) -> None:
    assert device_letters(devices) == letters
    assert several_devices(devices) == ([NOTE] if letters else [])


def test_many_devices_have_letters_of_their_own() -> None:
    letters = list(device_letters(f"device {i:03}" for i in range(60)).values())
    assert letters[24:29] == ["y", "z", "aa", "ab", "ac"]
    assert len(set(letters)) == 60


def test_the_table_names_the_device_of_each_row() -> None:
    (table,) = summary_tables(
        summary_frame(record_frame([*on(A), *on(B, "dsa"), *on(A, "mtt"), *on(B, "mtt", (7,))]))
    )
    place = [column.header for column in table.columns].index("device")
    names = [column.header for column in table.columns].index("method")
    distill = [column.header for column in table.columns].index("distill s")
    rows = {row[names].text: row for group in table.groups for row in group}
    assert {name: row[place].text for name, row in rows.items()} == {"dm": "b", "dsa": "a", "mtt": "a, b"}
    assert rows["mtt"][distill].text == "—"
    assert any(f"seconds on a: {B}; b: {A}" in note for note in table.notes)
    assert "Seconds compare between rows of one device only; a mean over several is not taken." in table.notes


def test_a_table_of_one_device_says_it_once() -> None:
    (table,) = summary_tables(summary_frame(record_frame([*on(A), *on(A, "dsa")])))
    assert "device" not in [column.header for column in table.columns]
    assert f"KiB at fp32; seconds on {A}." in table.notes


def texts(figure: Any) -> str:
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    return " ".join([*found, *(text.get_text() for text in figure.texts), figure.get_supxlabel()])


def rings(figure: Any) -> int:
    """Points on a front."""
    return sum(len(line.get_xdata()) for axes in figure.axes for line in axes.lines if line.get_zorder() == 4)


def test_plots_over_seconds_say_it_and_draw_no_front() -> None:
    several = summary_frame(record_frame([*on(A), *on(B, "dsa", distill_s=9.0)]))
    one = summary_frame(record_frame([*on(A), *on(A, "dsa", distill_s=9.0)]))
    assert NOTE in texts(seconds_breakdown(several))
    assert NOTE not in texts(seconds_breakdown(one))
    assert NOTE in texts(accuracy_vs_seconds(several))
    assert (rings(accuracy_vs_seconds(several)), rings(accuracy_vs_seconds(one))) == (0, 1)


def test_a_comparison_of_two_folders_says_it() -> None:
    frames = [record_frame(on(device)) for device in (A, B)]
    table = moved_cells(*frames)
    assert any(NOTE in found.notes for found in regression_tables(table, []))
    same = moved_cells(frames[0], frames[0])
    assert not any(NOTE in found.notes for found in regression_tables(same, []))


def test_advice_compares_seconds_of_one_device() -> None:
    """The device with the most seeds; what was made on another one may be quicker or slower."""
    asked = Question("digits", "ab12cd34", (1, 8, 8), 10, ipc=1, seconds=3600.0)
    many = [*on(A, "dm", (0, 1, 2), distill_s=50.0), *on(A, "dsa", (0, 1, 2), distill_s=60.0)]
    advice = advise(
        {"results/one": record_frame([*many, *on(B, "herding", (0, 1, 2), distill_s=1.0)])}, asked
    )
    standing = dict(zip(advice.rows["method"], advice.rows["standing"], strict=True))
    assert (advice.advised["method"], standing["herding"]) == ("dm", "cost unknown")
    assert f"seconds: measured on {A}, and not compared with those on {B}; " in advice.notes[3]


def test_rows_of_one_device() -> None:
    frame = record_frame([*on(A), *on(A, "dsa", (0,)), *on(B, "dsa", (1,))])
    assert of_one_device(frame).tolist() == [True, True, False, False]
