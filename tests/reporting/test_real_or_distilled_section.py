"""The section on real and distilled sets: its tables, its figure, and a run from the sweep to the files."""

from pathlib import Path

import pandas as pd
from helpers.cli import ddbench, run_inline, sweep_file
from helpers.record import make, regime_records

from bench.records.columns import record_frame
from bench.records.schema import Record
from bench.reporting.plots.real_or_distilled import draw_regimes
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.real_or_distilled import real_or_distilled_section, verdicts_section
from bench.reporting.tables.table import Comparison

MEANS = {"random_real": 0.5, "herding": 0.6, "dm": 0.7, "mtt": 0.55, "rded": 0.6}


def section(records: list[Record]) -> Section:
    found = real_or_distilled_section(RecordsView(record_frame(records), ()))
    assert found is not None
    return found


def lines(table: Comparison) -> list[list[str]]:
    return [[cell.text for cell in row] for group in table.groups for row in group]


def test_a_verdict_for_each_regime_and_a_line_for_each_set() -> None:
    own = regime_records({"label_only": 0.58}, regimes=("stored", "hard"), within_budget=False)
    records = [*regime_records(MEANS), *own]
    told_first = verdicts_section(RecordsView(record_frame(records), ()))
    assert told_first is not None
    (verdicts,), (sets,) = told_first.comparisons, section(records).comparisons
    told = "distilled better: dm +10.0 over herding"
    assert lines(verdicts) == [["1", "digits", "short", "convnet", told, told, told]]
    assert [column.header for column in sets.columns] == [
        "ipc", "images", "method", "hard labels", "soft labels", "teacher labels", "stored labels", "KiB",
        "soft KiB", "s", "labels s", "seeds",
    ]  # fmt: skip
    by_method = {line[2]: line for line in lines(sets)}
    assert list(by_method) == ["dm", "herding", "rded", "label_only", "mtt", "random_real"]
    assert by_method["dm"][1:4] == ["distilled", "dm", "70.0 [69.2, 70.8] >"]
    assert by_method["mtt"][3] == "55.0 [54.2, 55.8] <"
    assert by_method["rded"][1:4] == ["patched", "rded", "60.0 [59.2, 60.8]"]
    assert by_method["label_only"][3:7] == ["58.0 [57.2, 58.8] ‡", "—", "—", "58.0 [57.2, 58.8] ‡"]
    assert by_method["dm"][7:] == ["2.5", "2.5", "2.0", "0", "4"]


def test_other_reports_have_no_such_section() -> None:
    for records in ([make("dm"), make("random_real")], regime_records({"random_real": 0.5, "herding": 0.6})):
        view = RecordsView(record_frame(records), ())
        assert real_or_distilled_section(view) is verdicts_section(view) is None


def test_the_figure_has_a_panel_for_each_regime_and_a_dot_for_each_set() -> None:
    found = section([*regime_records(MEANS), *regime_records({"idc": 0.4}, within_budget=False)])
    assert list(found.plots) == ["real_or_distilled_digits-protocol-short-convnet_ipc1"]
    assert isinstance(found.frame, pd.DataFrame)
    figure = draw_regimes("title", found.frame)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["hard labels", "soft labels", "teacher labels"]
    dots = [line for line in panels[0].lines if line.get_marker() == "o"]
    assert len(dots) == 6
    assert sum(line.get_markerfacecolor() == "white" for line in dots) == 1, "over its budget"
    (best,) = [line for line in panels[0].lines if line.get_linestyle() == "--"]
    assert best.get_xdata()[0] == 60


def test_from_the_sweep_to_the_files(tmp_path: Path) -> None:
    evaluate = {
        "architectures": ["convnet-d1-w4"], "students": 1, "protocol": "quick",
        "labels": ["stored", "hard", "soft", "teacher"],
    }  # fmt: skip
    methods = ["random_real", {"name": "el2n", "network_epochs": 1}, {"name": "dm", "steps": 2}]
    sweep = sweep_file(
        tmp_path,
        methods=methods,
        ipc=[1],
        distill={"architectures": ["convnet-d1-w4"], "seeds": [0, 1]},
        evaluate=evaluate,
    )
    ended = run_inline(sweep, tmp_path / "out")
    assert ended.code == 0, ended.err
    assert "Distilled or well-chosen real images" in ended.text
    table = pd.read_csv(tmp_path / "out/tables/real_or_distilled.csv")
    assert sorted(zip(table["method"], table["labels"], strict=True)) == [
        (method, labels) for method in ("dm", "el2n", "random_real") for labels in ("hard", "soft", "teacher")
    ]
    assert set(table["kind"]) == {"random", "chosen", "distilled"}
    assert (table[table["labels"] != "hard"]["teacher_s"] > 0).all()
    made = ddbench("report", tmp_path / "out", "--html")
    assert made.code == 0, made.err
    assert "Distilled or well-chosen real images" in (tmp_path / "out/index.html").read_text()
