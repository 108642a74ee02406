"""LaTeX: every table compiles under the preamble that it names, and has as many cells as columns."""

# ruff: noqa: RUF001  (a table is set with real dashes and multiplication signs)

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.record import make
from helpers.report import rich_sweep

from bench.records.columns import record_frame
from bench.records.schema import Record
from bench.reporting.build import make_sections
from bench.reporting.sections import RecordsView
from bench.reporting.tables import render
from bench.reporting.tables.table import Comparison, TableCell, TableColumn

ODD = r"100% of a&b_{c}^2~$x$ \#1 ‡ “quoted” é 方法"


def records() -> list[Record]:
    """Every kind of table: long names, odd letters, long tables, published figures, compositions."""
    found = rich_sweep(methods=("full", "random_real", "herding", "dm", "haba"))
    found += [make("dm", 1, (0.4 + s / 100,), seed=s, dataset=ODD) for s in range(3)]
    for s in range(2):
        found += [make(f"m{i:02}", 1, (0.3 + i / 100,), seed=s, dataset=ODD) for i in range(45)]
        found += [
            make("dc", 10, (0.3,), seed=s, dataset="cifar10"),
            make("dsa", 10, (0.6,), dataset="cifar10"),
        ]
    blocks = [
        ("pixels", "distribution_matching"),
        ("linear_bases", "distribution_matching"),
        ("pixels", "unrolled"),
    ]
    for parameterisation, objective in blocks:
        values = {"parameterisation": parameterisation, "objective": objective}
        found.append(make("compose", 10, (0.5,), hyperparameters=values, dataset="cifar10"))
    return found


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """The LaTeX of every section that has tables, by stem."""
    view = RecordsView(record_frame(records()), ())
    return {shown.stem: render.latex(shown.comparisons) for shown in make_sections(view) if shown.comparisons}


def document(texts: dict[str, str]) -> str:
    """A minimal document under the preamble that all files name."""
    (head,) = {text.split("\n", 1)[0] for text in texts.values()}
    inputs = "\n".join(rf"\input{{{stem}}}" for stem in texts)
    preamble = head.removeprefix("% Preamble: ")
    return f"\\documentclass{{article}}\n{preamble}\n\\begin{{document}}\n{inputs}\n\\end{{document}}\n"


def test_every_kind_of_table_is_there(texts: dict[str, str]) -> None:
    assert set(texts) >= {
        "summary",
        "cross_architecture",
        "metrics",
        "standings",
        "pairs",
        "composition",
        "equal_storage",
        "published",
    }


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_every_table_compiles_as_it_is(texts: dict[str, str], tmp_path: Path) -> None:
    for stem, text in texts.items():
        (tmp_path / f"{stem}.tex").write_text(text)
    (tmp_path / "all.tex").write_text(document(texts))
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert ended.returncode == 0, ended.stdout[-2000:]
    assert "Overfull \\hbox" not in ended.stdout
    assert "Float too large" not in ended.stdout
    assert "multiply defined" not in ended.stdout
    assert re.search(r"Output written on all\.pdf \((\d+) pages", ended.stdout)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_labels_of_any_characters_compile(tmp_path: Path) -> None:
    """Characters in and beyond the fonts' encoding, and those read as an argument of the row's end."""
    rows = [[TableCell(f"{start}] {chr(code)}"), TableCell("x")] for code in range(0x180) for start in "[*"]
    table = Comparison(
        "t", [TableColumn("first", left=True), TableColumn("x")], [rows], ["«note»"], grouped=False
    )
    (tmp_path / "odd.tex").write_text(text := render.latex([table]))
    (tmp_path / "all.tex").write_text(document({"odd": text}))
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert ended.returncode == 0, ended.stdout[-2000:]
    assert r"\textbar" in text


def test_rows_have_as_many_cells_as_columns(texts: dict[str, str]) -> None:
    for stem, text in texts.items():
        for spec, body in re.findall(r"\\begin\{tabular\}\{([^\n]*)\}\n(.*?)\\end\{tabular\}", text, re.S):
            plain = re.sub(r"\[[^]]*\]|[@>p]\{[^}]*\}", lambda m: "l" if m[0][0] == "p" else "", spec)
            columns = len(re.sub(r"[^lrS]", "", plain))
            rows = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
            assert rows
            assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {columns}, stem


def texts_of(*cells: str, bold: bool = False, **column: bool) -> list[str]:
    """The lines of a table with one column beside the first."""
    groups = [[[TableCell("1"), TableCell(text, bold)] for text in cells]]
    table = Comparison("t", [TableColumn("ipc"), TableColumn("x", **column)], groups, [])
    return render.latex([table]).splitlines()


def test_numbers_are_aligned_and_their_intervals_beside_them() -> None:
    lines = texts_of("93.4 [92.6, 93.5]", "-5.0 [-6.0, 1.0]", "1,246", "—", left=True)
    assert r"\begin{tabular}{rS[table-format=+4.1]@{\,}l}" in lines
    assert r"ipc & \multicolumn{2}{c}{x} \\" in lines
    assert lines[lines.index(r"\midrule") + 1 :][:4] == [
        r"1 & 93.4 & [92.6, 93.5] \\", r" & -5.0 & [$-$6.0, 1.0] \\", r" & 1246 &  \\", r" & {---} &  \\",
    ]  # fmt: skip


def test_bold_numbers_and_what_is_no_number() -> None:
    lines = texts_of("0.02", "<0.001", bold=True)
    assert r"1 & \bfseries 0.02 \\" in lines
    assert r" & {\bfseries $<$0.001} \\" in lines
    assert r"\begin{tabular}{rS[table-format=1.2]}" in lines
    words = texts_of("3×2", "a-b")
    assert r"\begin{tabular}{rr}" in words
    assert r" & a-b \\" in words


def test_a_long_table_comes_in_parts_with_one_set_of_notes() -> None:
    groups = [[[TableCell(str(i)), TableCell("x")] for _ in range(n)] for i, n in enumerate((30, 20, 50))]
    text = render.latex([Comparison("t", [TableColumn("ipc"), TableColumn("y")], groups, ["the note"])])
    sizes = [part.count("& x") for part in text.split(r"\begin{table}")[1:]]
    assert sizes == [30, 20, 40, 10]
    assert [f"({i} of 4)" in text for i in range(1, 5)] == [True] * 4
    assert text.count("the note") == 1
    assert len(set(re.findall(r"\\label\{(.*?)\}", text))) == 4


def test_letters_that_latex_lacks_do_not_stop_it() -> None:
    assert render.latex_text("a→b ≥ é 方") == r"a$\to$b $\geq$ é ?"
