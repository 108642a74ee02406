"""The report: the content of its files, that they depend on the records only, and that they are readable."""

# ruff: noqa: RUF001  (a table is set with real dashes and multiplication signs)

import csv
import io
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.record import make, measured, sweep, write
from helpers.report import COLUMNS, CROSS, FILES, SEVERAL_IPC, TWO
from rich.console import Console

from bench.analysis.aggregate import summary_frame
from bench.core.errors import UserError
from bench.core.io import write_atomic
from bench.records.columns import record_frame
from bench.records.schema import Record, Storage
from bench.reporting.build import Report, build_report, print_tables
from bench.reporting.html.write import write_page
from bench.reporting.plots.accuracy_vs_ipc import accuracy_vs_ipc
from bench.reporting.plots.style import accuracy_floor, make_panels, method_looks
from bench.reporting.sections import RecordsView
from bench.reporting.tables import render
from bench.reporting.tables.summary import summary_section, summary_tables
from bench.reporting.tables.table import Comparison, TableCell, TableColumn, percent_cell, short_number


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A sweep with one missing cell, one unreadable record and a method over budget."""
    directory = tmp_path_factory.mktemp("results")
    records = [r for r in sweep(("full", "random_real", "herding", "dm", "haba")) if not _missing(r)]
    write(directory, records)
    (directory / "records" / "half.json").write_text("{")
    return directory, build_report(directory)


def _missing(record: Record) -> bool:
    return (record.method, record.eval_arch, record.ipc) == ("herding", "mlp", 10)


def _seeds(method: str, accuracies: list[float], **fields: Any) -> list[Record]:
    return [make(method, 1, (value,), seed=seed, **fields) for seed, value in enumerate(accuracies)]


def _comparisons(records: list[Record]) -> list[Comparison]:
    return summary_tables(summary_frame(record_frame(records)))


def _texts(comparison: Comparison) -> dict[str, list[str]]:
    """The cells of each row by `ipc method`."""
    rows = [[cell.text for cell in row] for group in comparison.groups for row in group]
    return {f"{row[0]} {row[1]}": row[2:] for row in rows}


def _bold(comparison: Comparison) -> set[tuple[str, int]]:
    rows = [row for group in comparison.groups for row in group]
    return {(row[1].text, i) for row in rows for i, cell in enumerate(row) if cell.bold}


# --- build --------------------------------------------------------------------------------------------------


def test_build_writes_everything_and_names_what_it_could_not_read(built: tuple[Path, Report]) -> None:
    directory, report = built
    assert {str(path.relative_to(directory)) for path in report.written} == FILES | SEVERAL_IPC | CROSS | TWO
    found = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert {
        name for name in found if not name.startswith("records/")
    } == FILES | SEVERAL_IPC | CROSS | TWO  # and no temporary file
    expected = ["records/half.json is not readable as JSON; `ddbench run` makes it again"]
    assert report.problems == expected


def test_rebuilding_gives_the_same_bytes(built: tuple[Path, Report]) -> None:
    directory, report = built
    before = {path: path.read_bytes() for path in report.written}
    shutil.rmtree(directory / "plots")
    (directory / "tables" / "summary.md").write_text("stale")
    build_report(directory)
    assert {path: path.read_bytes() for path in before} == before
    assert all(b"Matplotlib v" not in text[:2000] for path, text in before.items() if path.suffix == ".png")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "a.txt", "old\n")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


# --- the three tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tables", "plots"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    directory = write(tmp_path, [make()])
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=rf"/{name}: cannot be written: .*; choose another with --out"):
        build_report(directory)
    build_report(directory, out=tmp_path / "else")


def test_csv_has_fractions_in_the_documented_columns(built: tuple[Path, Report]) -> None:
    directory, report = built
    rows = list(csv.DictReader((directory / "tables" / "summary.csv").open()))
    assert list(rows[0]) == COLUMNS
    assert len(rows) == len(report.view.summary) == 2 + 4 * 4 - 1
    assert all(0 < float(row["accuracy_mean"]) < 1 for row in rows)
    assert {row["ipc"] for row in rows} == {"1", "10", ""}
    for row, mean in zip(rows, report.view.summary["accuracy_mean"], strict=True):
        assert float(row["accuracy_mean"]) == pytest.approx(mean, rel=1e-5)


def test_layout_groups_ranks_marks_and_missing_cells(built: tuple[Path, Report]) -> None:
    (table,) = summary_tables(built[1].view.summary)
    assert table.title == "digits, protocol quick, distilled on convnet"
    headers = [column.header for column in table.columns]
    assert headers[:4] == ["ipc", "method", "convnet", "mlp"]  # the architecture it was distilled on first
    methods = [[row[1].text for row in group] for group in table.groups]
    assert methods == [["full †"], *[["haba ‡", "dm", "herding", "random_real"]] * 2]
    assert [group[0][0].text for group in table.groups] == ["all", "1", "10"]
    texts = _texts(table)
    assert texts["10 herding"][1] == "—"
    assert re.fullmatch(r"\d\d\.\d ± \d\.\d \[\d\d\.\d, \d\d\.\d\]", texts["10 herding"][0])
    assert texts["1 haba ‡"][2:5] == ["3×2", "2", "5.0"]
    assert texts["1 dm"][2:5] == ["3×2", "1", "2.5"]
    assert any(note.startswith("† the whole training set: the ceiling, exempt") for note in table.notes)
    assert any(note.startswith("‡ stores more") for note in table.notes)
    assert "95 % interval of their mean (Student's t)" in table.notes[0]


def test_one_table_per_dataset_and_protocol_and_a_column_for_several_sources() -> None:
    records = [make(), make(dataset="other"), make(protocol="long"), make(distill_arch="mlp")]
    records.append(make("herding"))
    found = _comparisons(records)
    titles = [table.title for table in found]
    assert titles[0] == "digits, protocol long, distilled on convnet"
    assert titles[1:] == ["digits, protocol quick", "other, protocol quick, distilled on convnet"]
    assert found[1].columns[2].header == "distilled on"
    assert sorted(row[2].text for row in found[1].groups[0]) == ["convnet", "mlp", "–"]


def test_accuracy_with_one_two_and_three_seeds() -> None:
    records = [
        *_seeds("one", [0.934]), *_seeds("two", [0.93, 0.94]), *_seeds("three", [0.5, 0.5, 0.5]),
    ]  # fmt: skip
    (table,) = _comparisons(records)
    shown = {name: cells[0] for name, cells in _texts(table).items()}
    assert shown == {"1 two": "93.5 ± 0.7", "1 one": "93.4", "1 three": "50.0 ± 0.0"}
    assert "from 3 seeds on" in table.notes[0]


def test_bold_is_what_is_not_told_apart_from_the_best_but_never_the_exempt() -> None:
    records = [
        *_seeds("best", [0.70, 0.72, 0.74]),
        *_seeds("tied", [0.69, 0.71, 0.73]),
        *_seeds("worse", [0.50, 0.51, 0.52]),
        *_seeds("bare", [0.7199]),
        make("full", None, (0.99,)),
    ]
    assert _bold(_comparisons(records)[0]) == {("best", 2), ("tied", 2), ("bare", 2)}
    bare = _comparisons([*_seeds("a", [0.70]), *_seeds("b", [0.60])])[0]
    assert not _bold(bare)
    assert bare.notes[1] == "One seed each: nothing is told apart, nothing is bold."


def test_the_notes_say_which_differences_can_be_told() -> None:
    """Two methods of sd 1 point: about what Student's t of 4, 8 and 18 degrees of freedom tells."""
    (table,) = _comparisons([*_seeds("a", [0.69, 0.70, 0.71]), *_seeds("b", [0.70, 0.71, 0.72])])
    found = re.findall(r"(\d+\.\d)(?: points| with (\d+))", table.notes[2])
    points = {int(seeds or 3): float(value) for value, seeds in found}
    assert list(points) == [3, 5, 10]
    assert points[3] == pytest.approx(2.78 * math.sqrt(2 / 3), abs=0.3)  # t of 0.975
    assert points[5] == pytest.approx(2.31 * math.sqrt(2 / 5), abs=0.2)
    assert points[10] == pytest.approx(2.10 * math.sqrt(2 / 10), abs=0.1)


def test_seconds_on_a_shared_device_are_noted() -> None:
    (alone,) = _comparisons([make(), make("herding")])
    (shared,) = _comparisons([make(), make("herding", exclusive=False)])
    assert not any("side by side" in note for note in alone.notes)
    assert shared.notes[-1].startswith("Jobs ran side by side")


def test_costs_that_no_row_has_get_no_column() -> None:
    rare = {"labels KiB", "teacher KiB", "teacher s", "bookkeeping s", "tune s", "diverged"}
    elsewhere = make(cost={"distill_s": None, "bookkeeping_s": None})
    for record in (make(), elsewhere):
        (table,) = _comparisons([record])
        assert not rare & {column.header for column in table.columns}
    spent = {"teacher_s": 1.0, "bookkeeping_s": 2.0, "tune_s": 4.0}
    full = make("dc", cost=spent, metrics=measured(calibration_errors=[None], diverged=1))
    taught = full.storage.model_copy(update={"teacher_bytes": 2048, "label_floats": 256})
    (table,) = _comparisons([elsewhere, full.model_copy(update={"storage": taught})])
    shown = {
        column.header: [row[i].text for row in table.groups[0]] for i, column in enumerate(table.columns)
    }
    assert shown["method"] == ["dc", "dm"]
    assert {name: shown[name] for name in rare} == {
        "labels KiB": ["1.0", "—"],
        "teacher KiB": ["2.0", "0"],
        "teacher s": ["1.0", "0"],
        "bookkeeping s": ["2.0", "—"],
        "tune s": ["4.0", "0"],
        "diverged": ["1", "0"],
    }
    assert any(note.startswith("Diverged: students of all seeds") for note in table.notes)


def test_seconds_of_cold_jobs_only_are_marked() -> None:
    first = make(cost={"cold": ["distill"], "prepare_s": 1.0})
    (table,) = _comparisons([first])
    shown = {column.header: table.groups[0][0][i].text for i, column in enumerate(table.columns)}
    assert (shown["prepare s"], shown["distill s"], shown["evaluate s"]) == ("1.0", "2.0 *", "3.0")
    assert table.notes[-1].startswith("* of first jobs of a process only")
    assert "2.0 *" not in render.latex([table]), "the mark stands beside an aligned number"
    (table,) = _comparisons([first, make(seed=1, cost={"cold": []})])
    assert not any("*" in cell.text for cell in table.groups[0][0])
    assert not any(note.startswith("*") for note in table.notes)


def test_what_is_over_budget_does_not_compete_for_bold() -> None:
    over = [make("haba", 1, (0.9,), seed=s, within_budget=False) for s in range(3)]
    assert _bold(_comparisons([*over, *_seeds("dm", [0.5, 0.5, 0.5])])[0]) == {("dm", 2)}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1e-5, "<0.001"), (0.0123, "0.012"), (0.999, "1.0"), (99.97, "100"), (4500, "4,500")],
)
def test_numbers(value: float, text: str) -> None:
    assert short_number(value) == text


def test_markdown_has_no_bold_nothing() -> None:
    table = Comparison("t", [TableColumn("a")], [[[TableCell("", True)], [TableCell("b", True)]]], [])
    assert render.markdown([table]).splitlines()[-3:] == ["|  |", "| **b** |", ""]


def test_markdown_rows_have_the_same_number_of_cells(built: tuple[Path, Report]) -> None:
    text = (built[0] / "tables" / "summary.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(lines[0].split("|")) - 1}
    assert "| **" in text
    assert r"random\_real" in text
    assert "| — |" in text
    assert "- † the whole" in text
    (table,) = _comparisons([make("a|b")])
    assert r"a\|b" in render.markdown([table])


def test_latex_is_balanced_and_escaped(built: tuple[Path, Report]) -> None:
    text = (built[0] / "tables" / "summary.tex").read_text()
    inside: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            inside.append(name)
        else:
            assert inside.pop() == name
    assert not inside
    body = re.sub(r"(?m)(?<!\\)%.*$", "", text)
    assert body.count("{") == body.count("}")
    assert r"random\_real" in text
    assert not re.search(r"(?<!\\)_", re.sub(r"\\label\{.*?\}", "", text))
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\cmidrule(lr){3-6}"):
        assert rule in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.count("&") for line in rows} == {12}
    assert len(rows) == 9
    assert text.isascii()
    assert render.latex_text("a\\b~100%#") == r"a\textbackslash{}b\textasciitilde{}100\%\#"


# --- terminal -----------------------------------------------------------------------------------------------


def _printed(report: Report, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_tables(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [50, 80, 140])
def test_terminal_keeps_accuracies_whole(built: tuple[Path, Report], width: int) -> None:
    text = _printed(built[1], width)
    assert max(map(len, text.splitlines())) <= width
    for row in built[1].view.summary.to_dict("records"):
        assert percent_cell({str(name): value for name, value in row.items()}, "accuracy") in text
    assert "—" in text
    assert "random_real" in text
    assert ("peak" in text.split("Accuracy in percent")[0]) == (width == 140)
    assert ("The terminal is too narrow for" in text) == (width < 140)
    assert ("distill" in text.split("Accuracy in percent")[0].split("\n", 1)[1]) == (width >= 80)


def test_names_are_broken_before_numbers_are_cut() -> None:
    names = ["method", "distilled on", "evaluated on"]
    columns = [TableColumn("ipc"), *(TableColumn(name, left=True) for name in names)]
    columns += [TableColumn("A"), TableColumn("B"), TableColumn("B − A", left=True)]
    cells = ["10", "random_real", "convnet-d2-w64", "resnet10-w16", "93.0", "92.9", "-0.1 [-1.5, 1.5]"]
    table = Comparison("t", columns, [[[TableCell(text) for text in cells]]], [])
    text = io.StringIO()
    render.print_table(table, Console(file=text, width=70))
    first, second = text.getvalue().splitlines()[4:6]
    broken, whole = first.split()[:4], first.split()[4:]
    minus = "\N{MINUS SIGN}"
    assert whole == ["93.0", "92.9", f"{minus}0.1", f"[{minus}1.5,", "1.5]"]
    assert [a + b for a, b in zip(broken[1:], second.split(), strict=True)] == cells[1:4]


def test_labels_are_not_read_as_markup() -> None:
    records = [make(hyperparameters={"steps": steps}) for steps in (1, 2)]
    view = RecordsView(record_frame(records), ())
    report = Report(view, [summary_section(view)], [], [])
    assert "dm[steps=1]" in _printed(report, 80)


def test_tables_of_tiny_images_say_that_they_are_a_smoke_test(tmp_path: Path) -> None:
    records = [*sweep(ipcs=(1,), seeds=1), make("dm", dataset="larger", image_shape=(3, 32, 32))]
    report = build_report(write(tmp_path, records))
    note = "digits has images of 8 × 8 pixels: at ipc 1 it is a smoke test, not evidence."
    tables = [table for section in report.sections for table in section.comparisons]
    assert {"digits" in table.title for table in tables} == {True, False}
    for table in tables:
        assert table.notes.count(note) == ("digits" in table.title)
    assert note in " ".join(_printed(report, 140).split())
    assert note in (tmp_path / "tables" / "summary.md").read_text()
    assert f"<li>{note}</li>" in write_page(report, tmp_path).read_text()


# --- pictures -----------------------------------------------------------------------------------------------


def test_a_method_looks_the_same_everywhere_and_unlike_the_others() -> None:
    table = summary_frame(record_frame([make(f"m{i}") for i in range(25)]))
    look = method_looks(table)
    assert list(look) == [f"m{i}" for i in range(25)]
    assert len({(style.colour, style.marker, style.hollow) for style in look.values()}) == 25


def test_panels_show_methods_without_network_beside_every_distillation_architecture() -> None:
    records = [make(), make(distill_arch="mlp"), make("herding"), make("herding", eval_arch="mlp")]
    found = make_panels(summary_frame(record_frame(records)))
    assert [(p.row, p.column, list(p.rows["method"])) for p in found] == [
        (0, 0, ["herding", "dm"]), (0, 1, ["herding"]), (1, 0, ["herding", "dm"]), (1, 1, ["herding"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("records", "files"),
    [
        ([make()], FILES),
        ([make("full", None)], FILES),
        (sweep(seeds=1, ipcs=(10,)), FILES | CROSS | TWO),
    ],
)
def test_little_is_plotted_too(tmp_path: Path, records: list[Record], files: set[str]) -> None:
    report = build_report(write(tmp_path, records))
    assert {str(path.relative_to(tmp_path)) for path in report.written} == files


def test_each_ipc_is_a_panel_with_the_best_method_on_top_and_baselines_as_lines() -> None:
    scores = {"dm": 0.7, "herding": 0.5, "mtt": 0.6, "haba": 0.8}
    records = [r for name, a in scores.items() for r in _seeds(name, [a - 0.01, a, a + 0.01])]
    records += [make("dm", 10, (0.9,)), make("random_real", 1, (0.4,)), make("full", None, (0.99,))]
    records = [r.model_copy(update={"storage": over(r)}) if r.method == "haba" else r for r in records]
    one, ten = accuracy_vs_ipc(summary_frame(record_frame(records))).axes
    assert ["ipc 1" in one.get_title(), "ipc 10" in ten.get_title()] == [True, True]
    assert [label.get_text() for label in one.get_yticklabels()] == ["haba ‡", "dm", "mtt", "herding"]
    assert [label.get_text() for label in ten.get_yticklabels()] == ["dm"]
    assert one.yaxis_inverted()
    drawn = [(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in one.lines]
    assert [x[0] for x, _ in drawn if len(x) == 1] == pytest.approx([80, 70, 60, 50])
    upright = [x[0] for x, y in drawn if y.tolist() == [0, 1]]
    assert upright == pytest.approx([40, 99])


def over(record: Record) -> Storage:
    return record.storage.model_copy(update={"within_budget": False})


def test_what_is_far_below_all_others_is_written_at_the_edge() -> None:
    scores = {"noise": 0.1, "dm": 0.80, "dc": 0.81, "mtt": 0.82, "herding": 0.83}
    records = [make(name, ipc, (a,)) for name, a in scores.items() for ipc in (1, 10)]
    axes = accuracy_vs_ipc(summary_frame(record_frame(records))).axes[0]
    assert [text.get_text() for text in axes.texts] == ["← 10.0"]
    assert axes.get_xlim()[0] > 75
    frame = summary_frame(record_frame(records[2:]))
    assert accuracy_floor(frame) == 0
