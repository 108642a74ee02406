"""What moved between two result sets, as tables."""

# ruff: noqa: RUF001  (a table is set with real dashes and multiplication signs)

import pandas as pd

from bench.compare import FEW, IMPROVED, MORE, REGRESSED
from bench.report import layout
from bench.report.layout import MISSING, Cell, Column, Comparison, Reader, Row, number, points
from bench.statistics import ALPHA

NOTES = (
    "Accuracy in percent, students averaged first; B − A in points with its 95 % bootstrap interval over "
    "distillation seeds, those of A and B drawn independently.",
    "p: Welch's t-test, Holm's correction over all {tested} cells with at least 3 seeds on both sides. "
    f"Regressed, improved: the interval leaves 0 out and p is under {ALPHA}.",
    "Seconds to prepare and distil; KiB at fp32. Storing more is a regression too; seconds are only shown.",
)


def _percent(name: str) -> Reader:
    return lambda row: Cell(MISSING if pd.isna(row[name]) else f"{100 * row[name]:.1f}")


def _difference(row: Row) -> Cell:
    text = points(row["difference"], row["ci_low"], row["ci_high"], signed=True)
    return Cell(text, row["verdict"] in (REGRESSED, IMPROVED))


def _change(name: str, scale: float) -> Reader:
    """`12 → 14`, or one number where they look alike."""

    def read(row: Row) -> Cell:
        before, after = (number(row[f"{name}_{side}"] / scale) for side in ("a", "b"))
        return Cell(before if before == after else f"{before} → {after}")

    return read


def _verdict(row: Row) -> Cell:
    found = [text for text in (row["verdict"], row["storage"]) if text]
    return Cell(", ".join(found), row["verdict"] == REGRESSED or row["storage"] == MORE)


def tables(table: pd.DataFrame, notes: list[str]) -> list[Comparison]:
    """A table for every data set and protocol of what `compare.moved` found."""
    tested = int(table["p_holm"].notna().sum())
    found = []
    for dataset, protocol, part, rows in layout.sections(table):
        distilled = layout.distilled_on(rows)
        archs = part["eval_arch"].nunique() > 1
        evaluated = (Column("evaluated on", left=True), lambda row: Cell(row["eval_arch"]))
        columns = [
            *layout.who(distilled),
            *([evaluated] if archs else []),
            (Column("A"), _percent("mean_a")),
            (Column("B"), _percent("mean_b")),
            (Column("B − A", left=True), _difference),
            (Column("p", rank=1), lambda row: Cell(number(row["p_holm"]))),
            (Column("verdict", left=True), _verdict),
            (Column("seconds", rank=3), _change("seconds", 1)),
            (Column("stored KiB", rank=2), _change("stored_bytes", 1024)),
        ]
        said = [note.format(tested=tested) for note in NOTES] + notes + layout.mark_notes(rows)
        title = f"B against A: {layout.title(dataset, protocol, distilled)}"
        found.append(layout.lay_out(title, columns, rows, said))
    return found


def tally(table: pd.DataFrame) -> str:
    """`12 cells in both: 1 regressed, 0 improved, 11 within noise; 2 only in A`."""
    count = table["verdict"].value_counts()
    both = int(table["difference"].notna().sum())
    parts = [f"{count.get(name, 0)} {name}" for name in (REGRESSED, IMPROVED)]
    parts.append(f"{count.get('', 0)} within noise")
    parts += [f"{count[FEW]} with too few seeds"] if FEW in count else []
    more = int((table["storage"] == MORE).sum())
    parts += [f"{more} storing more"] if more else []
    missing = [f"; {count[name]} {name}" for name in ("only in A", "only in B") if name in count]
    return f"{both} cell{'s' * (both != 1)} in both: {', '.join(parts)}{''.join(missing)}"
