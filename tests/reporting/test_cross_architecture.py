"""Tables and plots across architectures, of metrics and scores, and of curves."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.record import make, measured, sweep, write
from helpers.report import CROSS, TWO, empty_plots, rich_sweep
from rich.console import Console

from bench.analysis.aggregate import metrics_summary, training_course, transfer
from bench.analysis.dd_ranking import dd_ranking_scores
from bench.records.columns import record_frame
from bench.records.schema import Record
from bench.reporting.build import Report, build_report, print_tables
from bench.reporting.plots import curves, heatmap, style
from bench.reporting.tables import cross_architecture
from bench.reporting.tables.metrics import metrics_frame, metrics_tables
from bench.reporting.tables.table import Comparison, with_interval

METRICS = {f"tables/metrics.{kind}" for kind in ("csv", "md", "tex")}
CURVE = {"tables/curve.csv", "plots/curve.png", "plots/curve.svg"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    directory = write(tmp_path_factory.mktemp("results"), rich_sweep(methods=("full", "random_real", "dm")))
    return directory, build_report(directory)


def new_files(report: Report, directory: Path) -> set[str]:
    names = {str(path.relative_to(directory)) for path in report.written}
    always = ("summary", "accuracy_vs", "breakdown")
    return {name for name in names if not any(word in name for word in always)}


def texts(table: Comparison) -> dict[str, dict[str, str]]:
    """The cells of each row by `ipc method` (and `distilled on`), by header."""
    headers = [column.header for column in table.columns]
    rows = [dict(zip(headers, (c.text for c in row), strict=True)) for group in table.groups for row in group]
    return {" ".join([row["ipc"], row["method"], row.get("distilled on", "")]).strip(): row for row in rows}


def test_every_table_and_plot_is_written_and_rebuilt_alike(built: tuple[Path, Report]) -> None:
    directory, report = built
    assert new_files(report, directory) == CROSS | METRICS | CURVE | TWO
    before = {path: path.read_bytes() for path in report.written}
    build_report(directory)
    assert {path: path.read_bytes() for path in before} == before


@empty_plots()
def test_what_the_records_do_not_hold_is_not_written(tmp_path: Path) -> None:
    several = write(tmp_path / "several", sweep(("dm",), ipcs=(1,), seeds=1))
    assert new_files(build_report(several), several) == CROSS | METRICS
    one = write(tmp_path / "one", sweep(("dm",), ("mlp",), ipcs=(1,), seeds=1))
    assert new_files(build_report(one), one) == METRICS


# --- across architectures -----------------------------------------------------------------------------------


def matrix(records: list[Record]) -> Comparison:
    (table,) = cross_architecture.cross_architecture_tables(transfer(record_frame(records)))
    return table


def pair(convnet: float, mlp: float, method: str = "dm", **fields: Any) -> list[Record]:
    values = {"convnet": convnet, "mlp": mlp}
    return [make(method, accuracies=(a,), eval_arch=arch, **fields) for arch, a in values.items()]


def test_the_matrix_of_distillation_and_evaluation_architectures() -> None:
    table = matrix(pair(0.8, 0.5) + pair(0.6, 0.7, distill_arch="mlp") + pair(0.4, 0.3, "herding"))
    rows = texts(table)
    assert [column.header for column in table.columns] == [
        "ipc",
        "method",
        "distilled on",
        "transfer",
        "gap",
        "convnet",
        "mlp",
    ]
    assert list(rows["1 dm convnet"].values())[3:] == ["50.0", "30.0", "80.0", "50.0"]
    assert list(rows["1 dm mlp"].values())[3:] == ["60.0", "10.0", "60.0", "70.0"]
    assert list(rows["1 herding –"].values())[3:] == ["—", "—", "40.0", "30.0"]  # noqa: RUF001
    bold = [(row[2].text, i) for row in table.groups[0] for i, cell in enumerate(row) if cell.bold]
    assert bold == [("convnet", 5), ("mlp", 6)]  # the diagonal
    assert "What needs no network has no transfer." in table.notes


def test_with_one_source_the_rest_is_taken_with_it() -> None:
    whole = pair(0.9, 0.8, "full", ipc=None)
    table = matrix(pair(0.8, 0.5, within_budget=False) + pair(0.4, 0.35, "herding") + whole)
    rows = texts(table)
    assert list(rows) == ["all full †", "1 dm ‡", "1 herding"]
    assert (rows["1 herding"]["transfer"], rows["1 herding"]["gap"]) == ("35.0", "5.0")
    assert "What needs no network is taken with convnet." in table.notes
    assert [note[0] for note in table.notes[-2:]] == ["†", "‡"]


def test_three_seeds_show_the_interval() -> None:
    records = [r for s, a in enumerate((0.6, 0.7, 0.8)) for r in pair(a, a - 0.1, seed=s)]
    row = texts(matrix(records))["1 dm"]
    assert row["transfer"] == "60.0 [35.2, 84.8]"  # 10 x 4.303 / sqrt(3)
    assert row["gap"] == "10.0"


def test_the_csv_holds_the_matrix_as_fractions(built: tuple[Path, Report]) -> None:
    rows = list(csv.DictReader((built[0] / "tables" / "cross_architecture.csv").open()))
    assert len(rows) == 2 * (1 + 2 * 2)
    for row in rows:
        assert row["own_arch"] == "convnet"
        assert float(row["accuracy_mlp"]) == pytest.approx(float(row["transfer_mean"]), rel=1e-4)
        gap = float(row["accuracy_convnet"]) - float(row["transfer_mean"])
        assert float(row["gap_mean"]) == pytest.approx(gap, abs=1e-5)


def test_latex_of_the_matrix_is_complete(built: tuple[Path, Report]) -> None:
    text = (built[0] / "tables" / "cross_architecture.tex").read_text()
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    assert text.isascii()
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.count("&") for line in rows} == {7}


@pytest.mark.parametrize("width", [50, 100])
def test_the_terminal_shows_the_matrix_last(built: tuple[Path, Report], width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_tables(built[1], console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    _, *crossed = text.split("Across architectures:")
    assert len(crossed) == 2
    assert all("transfer" in part and "protocol" in part for part in crossed)


def test_the_picture_has_a_cell_for_each_accuracy_and_frames_the_diagonal() -> None:
    records = pair(0.8, 0.5) + pair(0.6, 0.7, distill_arch="mlp") + pair(0.4, 0.3, "herding")
    records += [make("herding", 10, (0.44,)), *pair(0.9, 0.85, "full", ipc=None)]
    one, ten, *_ = heatmap.cross_architecture_heatmap(transfer(record_frame(records))).axes
    names = [label.get_text() for label in one.get_yticklabels()]
    assert names == ["dm (convnet)", "dm (mlp)", "herding", "full"]
    assert [text.get_text() for text in one.texts] == [
        "80.0",
        "50.0",
        "60.0",
        "70.0",
        "40.0",
        "30.0",
        "90.0",
        "85.0",
    ]
    assert [text.get_text() for text in ten.texts] == ["44.0", "90.0", "85.0"]
    frames = [(patch.get_x(), patch.get_y()) for patch in one.patches]  # type: ignore[attr-defined]
    assert frames == [(0, 0), (1, 1)]
    colours = {text.get_text(): text.get_color() for text in one.texts}
    assert (colours["30.0"], colours["90.0"]) == ("white", "0.1")


def test_boxes_are_points_above_random_images_of_the_same_cell() -> None:
    records = pair(0.8, 0.5) + pair(0.35, 0.3, "herding") + pair(0.4, 0.3, "random_real")
    records += pair(0.9, 0.85, ipc=10) + pair(0.6, 0.75, "random_real", ipc=10)
    frame = transfer(record_frame(records))
    one, ten, bar = heatmap.cross_architecture_heatmap(frame).axes
    names = [label.get_text() for label in one.get_yticklabels()]
    assert names == ["dm", "herding", "random_real (%)"]
    minus = "\N{MINUS SIGN}"
    assert [text.get_text() for text in one.texts] == [
        "+40.0",
        "+20.0",
        f"{minus}5.0",
        "+0.0",
        "40.0",
        "30.0",
    ]
    assert [text.get_text() for text in ten.texts] == ["+30.0", "+10.0", "60.0", "75.0"]
    assert bar.get_ylabel() == "points above random_real"


def test_one_failure_does_not_hide_other_differences() -> None:
    records = (
        pair(0.42, 0.32) + pair(0.41, 0.32, "dc") + pair(0.01, 0.31, "mtt") + pair(0.4, 0.3, "random_real")
    )
    frame = transfer(record_frame(records))
    drawn = heatmap.TransferMap(frame.assign(name=frame["method"]), ["convnet", "mlp"])
    assert drawn.range().vmax == pytest.approx(6)  # three times the median difference
    assert heatmap.cross_architecture_heatmap(frame).axes[-1].get_ylim() == pytest.approx((-6, 6))


# --- metrics and scores -------------------------------------------------------------------------------------


def gathered(records: list[Record]) -> list[Comparison]:
    flat = record_frame(records)
    return metrics_tables(metrics_frame(metrics_summary(flat), dd_ranking_scores(flat)))


def test_metrics_and_scores_stand_beside_the_accuracy() -> None:
    plain, quick = gathered([r for r in rich_sweep() if r.eval_arch == "mlp"])
    headers = [column.header for column in quick.columns]
    assert headers == [
        "ipc",
        "method",
        "evaluated on",
        "accuracy",
        "ECE",
        "agreement",
        "worst class",
        "diverged",
        "HLR",
        "IOR",
        "LRS",
        "ARS",
    ]
    assert "ARS" not in [column.header for column in plain.columns]
    row = texts(quick)["1 dm"]
    assert (row["ECE"], row["agreement"]) == ("15.0", "70.0")
    assert float(row["worst class"]) == pytest.approx(float(row["accuracy"].split()[0]) / 2, abs=0.06)
    assert re.fullmatch(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", row["LRS"])
    assert texts(quick)["all full †"]["HLR"] == texts(quick)["1 random_real"]["IOR"] == "—"
    assert "ARS: no augmentation under protocol plain." in quick.notes


def test_unknown_metrics_have_no_column() -> None:
    """One student agrees with nobody, and none is calibrated where all diverged."""
    (table,) = gathered(sweep(seeds=1, archs=("mlp",)))
    assert [column.header for column in table.columns][4:] == [
        "ECE", "worst class", "diverged", "HLR", "IOR", "LRS"
    ]  # fmt: skip
    (table,) = gathered([make(metrics=measured(calibration_errors=[None], diverged=1))])
    assert [column.header for column in table.columns][4:] == ["worst class", "diverged"]
    assert texts(table)["1 dm"]["diverged"] == "1"


def test_bounded_numbers() -> None:
    nan = float("nan")
    assert with_interval(nan, nan, nan, 1) == "—"
    assert with_interval(1.25, nan, nan, 1) == "1.2"
    assert with_interval(0.0, -0.04, 0.26, 1) == "0.0 [0.0, 0.3]"  # no minus before a zero


# --- curves -------------------------------------------------------------------------------------------------


def test_the_curve_is_drawn_on_the_own_architecture_by_ipc() -> None:
    panels = style.panel_by_ipc(training_course(record_frame(rich_sweep())))
    assert [(p.row, p.column) for p in panels] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for panel in panels:
        assert set(panel.rows["eval_arch"]) == {"convnet"}
        assert set(panel.rows["method"]) == {"full", "random_real", "herding", "dm"}
        assert panel.rows["ipc"].dropna().nunique() == 1
    other = style.panel_by_ipc(training_course(record_frame(rich_sweep(archs=("mlp", "vit")))))
    assert {arch for panel in other for arch in panel.rows["eval_arch"]} == {"mlp"}


def test_the_whole_set_alone_has_a_curve_too() -> None:
    (whole,) = [r for r in rich_sweep(methods=("full",), archs=("mlp",), seeds=1) if r.protocol == "quick"]
    ends = training_course(record_frame([whole]))
    figure = curves.accuracy_vs_training(ends, style.method_looks(ends))
    (line,) = figure.axes[0].lines
    assert np.asarray(line.get_xdata()).tolist() == [50.0, 100.0]
