"""`ddbench compare`: changes beyond noise, what is matched with what, and exit codes."""

import math
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.cli import ddbench
from helpers.record import make, write
from scipy import stats

from bench.analysis.regression import (
    any_regressed,
    compare_frames,
    compare_records,
    label_alike,
    moved_cells,
)
from bench.core.errors import UserError
from bench.records.columns import record_frame
from bench.records.schema import Record
from bench.reporting.tables.regression import regression_tables, tally_moved

SETS = count()
GOOD, BAD = [0.80, 0.81, 0.82, 0.83], [0.60, 0.61, 0.62, 0.64]


def cell(values: Sequence[float], method: str = "dm", ipc: int = 1, **fields: Any) -> list[Record]:
    """Seeds of a method, each with a distilled set of its own."""
    return [
        make(method, ipc, (value,), **{"seed": seed, "artifact": f"set{next(SETS)}"} | fields)
        for seed, value in enumerate(values)
    ]


def verdicts(a: list[Record], b: list[Record]) -> dict[tuple[str, int], str]:
    table, _ = compare_records(a, b)
    return {(row["method"], row["ipc"]): row["verdict"] for row in table.to_dict("records")}


# --- the numbers --------------------------------------------------------------------------------------------


def test_difference_interval_and_test() -> None:
    """Means 0.815 and 0.6175, so -0.1975; two cells, so the smaller p counts twice."""
    a, b = cell(GOOD) + cell(GOOD, ipc=10), cell(BAD) + cell(GOOD, ipc=10)
    table, notes = compare_records(a, b)
    first, second = table.to_dict("records")
    assert (first["mean_a"], first["mean_b"]) == pytest.approx((0.815, 0.6175))
    assert first["difference"] == pytest.approx(-0.1975)
    variance = (
        np.var(GOOD, ddof=1) * 3 + np.var(BAD, ddof=1) * 3 + np.var(GOOD, ddof=1) * 6
    ) / 12  # of all cells
    error = math.sqrt(variance / 2)  # four seeds on both sides
    assert first["p"] == pytest.approx(2 * stats.t.sf(0.1975 / error, 12))
    assert first["p_holm"] == pytest.approx(2 * first["p"])
    assert first["ci_low"] == pytest.approx(-0.1975 - stats.t.ppf(0.975, 12) * error)
    assert second["difference"] == 0
    assert second["ci_low"] < 0 < second["ci_high"]  # the same seeds are not the same noise
    assert second["p_holm"] == 1
    assert notes == []
    assert (first["n_seeds_a"], first["n_seeds_b"], first["seconds_a"], first["stored_bytes_b"]) == (
        4,
        4,
        2,
        2560,
    )


def test_verdicts() -> None:
    a = [*cell(GOOD), *cell(BAD, ipc=2), *cell(GOOD, ipc=3), *cell([0.9], ipc=4), *cell(GOOD, ipc=5)]
    b = [
        *cell(BAD),
        *cell(GOOD, ipc=2),
        *cell(GOOD, ipc=3),
        *cell([0.1, 0.1, 0.1], ipc=4),
        *cell(GOOD, ipc=6),
    ]
    assert verdicts(a, b) == {
        ("dm", 1): "regressed",
        ("dm", 2): "improved",
        ("dm", 3): "",
        ("dm", 4): "too few seeds",
        ("dm", 5): "only in A",
        ("dm", 6): "only in B",
    }
    table, _ = compare_records(a, b)
    assert any_regressed(table)
    counts = "4 cells in both: 1 regressed, 1 improved, 1 within noise, 1 with too few seeds"
    assert tally_moved(table) == f"{counts}; 1 only in A; 1 only in B"
    few = table.set_index("ipc").loc[4]
    assert math.isnan(few["p_holm"])
    assert few["difference"] == pytest.approx(-0.8)


def test_one_certain_cell_among_many_needs_more() -> None:
    """p of about 0.04 is significant in a single cell, and one of about 0.02 not among six."""
    a, b = [0.50, 0.52, 0.54], [0.55, 0.57, 0.59]
    assert 0.02 < stats.ttest_ind(a, b).pvalue < 0.05
    assert verdicts(cell(a), cell(b)) == {("dm", 1): "improved"}
    a, b = [0.50, 0.52, 0.54], [0.54, 0.56, 0.58]
    before, after = ([r for ipc in range(2, 7) for r in cell(a, ipc=ipc)] for _ in "ab")
    table = compare_records(cell(a) + before, cell(b) + after)[0]
    assert 0.01 < table["p"].min() < 0.05
    assert not table["verdict"].any()


def test_one_distilled_set_scored_twice_is_paired_by_seed() -> None:
    """Three sets of different quality, each scored 0.01 lower in B: hidden between sets, plain within."""
    quality, noise = [0.5, 0.6, 0.7], [0.0, 0.001, -0.001]
    a = [make("dm", 1, (q,), seed=s, artifact=f"set{s}") for s, q in enumerate(quality)]
    b = [
        make("dm", 1, (q - 0.01 + n,), seed=s, artifact=f"set{s}")
        for s, (q, n) in enumerate(zip(quality, noise, strict=True))
    ]
    (row,) = compare_records(a, b)[0].to_dict("records")
    assert (row["paired"], row["verdict"]) == (True, "regressed")
    assert row["p"] == pytest.approx(
        stats.ttest_rel([r.accuracies[0] for r in a], [r.accuracies[0] for r in b]).pvalue
    )
    others = [r.model_copy(update={"artifact": f"other{r.seed}"}) for r in b]
    (row,) = compare_records(a, others)[0].to_dict("records")
    assert (row["paired"], row["verdict"]) == (False, "")


def test_what_could_have_been_detected_is_detected_in_four_of_five_cases() -> None:
    """Ten cells of three seeds, sd 1 point; one of them drops by what the table calls detectable."""
    rng, flagged, wrong = np.random.default_rng(0), 0, 0
    before, after = (record_frame([r for i in range(10) for r in cell([0.6] * 3, ipc=i + 1)]) for _ in "ab")
    first = (after["ipc"] == 1).to_numpy()
    for _ in range(60):
        a, b = (side.assign(accuracy=rng.normal(0.6, 0.01, 30)) for side in (before, after))
        found = moved_cells(a, b)
        wrong += found["verdict"].ne("").any()
        drop = found.loc[found["ipc"] == 1, "detectable"].item()
        found = moved_cells(a, b.assign(accuracy=b["accuracy"] - drop * first))
        flagged += found.loc[found["ipc"] == 1, "verdict"].item() == "regressed"
    assert 0.65 <= flagged / 60 <= 0.95
    assert wrong / 60 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 60)


def test_seeds_without_spread() -> None:
    assert verdicts(cell([0.5] * 3), cell([0.5] * 3)) == {("dm", 1): ""}
    assert verdicts(cell([0.5] * 3), cell([0.4] * 3)) == {("dm", 1): "regressed"}


def test_more_storage_is_a_regression_and_less_is_not() -> None:
    before, after = cell(GOOD), cell(GOOD, floats=700)
    table, _ = compare_records(before, after)
    assert list(table["storage"]) == ["stores more"]
    assert list(table["verdict"]) == [""]
    assert any_regressed(table)
    assert not any_regressed(compare_records(after, before)[0])


def test_swapping_the_sides_swaps_the_signs() -> None:
    there, back = (
        compare_records(cell(GOOD), cell(BAD))[0].iloc[0],
        compare_records(cell(BAD), cell(GOOD))[0].iloc[0],
    )
    assert there["difference"] == pytest.approx(-back["difference"])
    assert there["p"] == pytest.approx(back["p"])
    assert (there["verdict"], back["verdict"]) == ("regressed", "improved")


# --- what is matched with what ------------------------------------------------------------------------------


def test_a_new_version_is_compared_with_the_old_and_said() -> None:
    a = cell(GOOD, hyperparameters={"steps": 1})
    b = cell(BAD, hyperparameters={"steps": 1, "ema": True}, method_version=2, protocol_version=3)
    _, notes = compare_records(a, b)
    assert verdicts(a, b) == {("dm", 1): "regressed"}
    assert notes == [
        "Matched by name: dm v1 in A, dm v2 in B.", "Matched by name: quick v1 in A, quick v3 in B."
    ]  # fmt: skip


def test_another_setting_and_other_data_are_compared_and_said() -> None:
    a = cell(GOOD, hyperparameters={"steps": 1})
    b = cell(BAD, hyperparameters={"steps": 2}, dataset_fingerprint="ffff0000")
    _, notes = compare_records(a, b)
    assert verdicts(a, b) == {("dm", 1): "regressed"}
    assert notes == ["Matched by name: digits#ab12cd in A, digits#ffff00 in B."]
    _, notes = compare_records(a, cell(BAD, hyperparameters={"steps": 2}))
    assert notes == ["Matched by name: dm[steps=1] in A, dm[steps=2] in B."]


def test_variants_are_matched_with_themselves() -> None:
    one, two = cell(GOOD, hyperparameters={"steps": 1}), cell(BAD, hyperparameters={"steps": 2})
    assert verdicts(one + two, one + two) == {("dm[steps=1]", 1): "", ("dm[steps=2]", 1): ""}
    assert verdicts(one + two, two) == {("dm[steps=1]", 1): "only in A", ("dm[steps=2]", 1): ""}


def test_frames_keep_their_sides() -> None:
    a, b, _ = label_alike(record_frame(cell(GOOD)), record_frame(cell(BAD, "dsa")))
    assert list(a["method"].unique()) == ["dm"]
    assert list(b["method"].unique()) == ["dsa"]
    assert moved_cells(a, b)["verdict"].tolist() == ["only in A", "only in B"]
    with pytest.raises(
        UserError, match=r"^no cell in common: A has dm, digits, 1, .* B has dsa, digits, 1, "
    ):
        compare_records(cell(GOOD), cell(BAD, "dsa"))


def test_frames_are_compared_as_their_records() -> None:
    a = cell(GOOD, hyperparameters={"steps": 1}) + cell(GOOD, "dsa")
    b = cell(BAD, hyperparameters={"steps": 2}, protocol_version=2) + cell(GOOD, "dsa", protocol_version=2)
    expected, notes = compare_records(a, b)
    table, same_notes = compare_frames(record_frame(a), record_frame(b))
    pd.testing.assert_frame_equal(table, expected)
    assert same_notes == notes


def test_two_variants_of_one_frame_are_compared() -> None:
    """Labels are made again: parts of one frame would not have the same ones."""
    both = [cell(values, hyperparameters={"steps": i}) for i, values in enumerate((GOOD, BAD))]
    whole = record_frame([record for records in both for record in records])
    a, b = (whole[whole["method"] == f"dm[steps={steps}]"] for steps in (0, 1))
    table, notes = compare_frames(a, b)
    assert table["verdict"].tolist() == ["regressed"]
    assert notes == ["Matched by name: dm[steps=0] in A, dm[steps=1] in B."]


# --- shown --------------------------------------------------------------------------------------------------


def test_the_table() -> None:
    full = [make("full", None, (0.9,), seed=s) for s in range(3)]
    a = [*full, *cell(GOOD), *cell([0.5], "dsa")]
    b = [*full, *cell(BAD, cost={"distill_s": 9.0}), *cell([0.5], "mtt", floats=1280)]
    (shown,) = regression_tables(*compare_records(a, b))
    rows = {row[1].text: [cell.text for cell in row[2:]] for group in shown.groups for row in group}
    assert [column.header for column in shown.columns][2:] == [
        "A", "B", "B − A", "p", "verdict", "seconds", "stored KiB"  # noqa: RUF001
    ]  # fmt: skip
    assert rows["full †"] == ["90.0", "90.0", "+0.0", "1.0", "", "2.0", "2.5"]
    assert rows["dm"][:2] == ["81.5", "61.8"]
    assert rows["dm"][2].startswith("-19.8 [-2")
    assert rows["dm"][4:] == ["regressed", "2.0 → 9.0", "2.5"]
    assert rows["dsa"] == ["50.0", "—", "—", "—", "only in A", "2.0 → —", "2.5 → —"]
    assert any("over all 2 cells" in note for note in shown.notes)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "a", cell(GOOD)), write(tmp_path / "b", cell(BAD))


def test_the_command(folders: tuple[Path, Path]) -> None:
    worse, better = ddbench("compare", *folders), ddbench("compare", *folders[::-1])
    assert (worse.code, better.code, ddbench("compare", folders[0], folders[0]).code) == (1, 0, 0)
    assert worse.out.splitlines()[-1] == "1 cell in both: 1 regressed, 0 improved, 0 within noise"
    assert "B against A: digits, protocol quick, distilled on convnet" in worse.text
    assert not list(folders[0].glob("tables"))
    drawn = ddbench("compare", "--markdown", *folders)
    assert drawn.code == 1
    assert "| 1 | dm | 81.5 | 61.8 | **-19.8 [" in drawn.out


def test_bad_input(folders: tuple[Path, Path], tmp_path: Path) -> None:
    missing = ddbench("compare", folders[0], tmp_path / "no")
    assert missing.code == 2
    assert missing.err.startswith(f"error: no records in {tmp_path / 'no'}: ")
    other = write(tmp_path / "other", cell(GOOD, "dsa"))
    apart = ddbench("compare", folders[0], other)
    assert (apart.code, apart.err.count("\n")) == (2, 1)
    assert "no cell in common" in apart.err
    (folders[1] / "records" / "half.json").write_text("{")
    partial = ddbench("compare", *folders)
    assert partial.code == 1
    assert "records/half.json is not readable as JSON" in partial.text
    (folders[0] / "records" / "half.json").write_text("{")
    assert ddbench("compare", folders[0], folders[0]).code == 2  # an unreadable record may have regressed
