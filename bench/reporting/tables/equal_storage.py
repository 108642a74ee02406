"""Methods ranked at equal storage: only those that fit the budget of their ipc."""

from bench.records.columns import Row
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.table import (
    ACCURACY,
    BOLD,
    MISSING,
    RANK,
    Comparison,
    Reader,
    TableCell,
    TableColumn,
    by_dataset_and_protocol,
    distillation_architectures,
    familiar_first,
    method_columns,
    percent_cell,
    rank_cell,
    short_number,
    table_by_ipc,
    table_title,
)


def _lines(rows: list[Row], archs: list[str]) -> list[Row]:
    """A row per method, ipc and distillation architecture, the best on the first architecture first.

    `on`: its rows by evaluation architecture.
    """
    found: dict[tuple[int, str, str], Row] = {}
    for row in rows:
        line = found.setdefault((row["ipc"], row["method"], row["distill_arch"]), {**row, "on": {}})
        line["on"][row["eval_arch"]] = row

    def order(line: Row) -> tuple[float, str]:
        first = line["on"].get(archs[0])
        return -first["accuracy_mean"] if first else 1.0, line["method"]

    return sorted(found.values(), key=order)


def _accuracy(arch: str) -> Reader:
    def read(line: Row) -> TableCell:
        row = line["on"].get(arch)
        return TableCell(MISSING) if row is None else TableCell(percent_cell(row, "accuracy"), row["best"])

    return read


def _rank(arch: str) -> Reader:
    return lambda line: rank_cell(line["on"][arch]) if arch in line["on"] else TableCell(MISSING)


def _left_out(rows: list[Row]) -> list[str]:
    """A note that names the methods over their budget, with what they store."""
    stored: dict[str, dict[int, float]] = {}
    for row in rows:
        if not row["exempt"] and not row["within_budget"]:
            stored.setdefault(row["method"], {})[row["ipc"]] = row["ipc_equivalent"]
    texts = []
    for method, by_ipc in stored.items():
        amounts = [f"{short_number(much)} at ipc {ipc}" for ipc, much in sorted(by_ipc.items())]
        texts.append(f"{method} ({', '.join(amounts)})")
    return [f"Left out, with the ipc that it stores: {', '.join(texts)}."] if texts else []


def ranked_table(
    title: str,
    place: tuple[str, str],
    rows: list[Row],
    costs: list[tuple[TableColumn, Reader]],
    what: str,
    notes: list[str],
) -> Comparison:
    """A table of methods that compete at equal something, the best of each ipc first.

    Args:
        title: What is equal.
        place: Data set and protocol.
        rows: Of a summary, those that compete.
        costs: The columns behind the accuracies.
        what: A sentence that says what competes.
        notes: The last ones.
    """
    distilled = distillation_architectures(rows)
    archs = familiar_first({row["eval_arch"] for row in rows}, distilled)
    columns = [
        (TableColumn("rank"), _rank(archs[0])),
        *method_columns(distilled),
        *((TableColumn(arch, left=True, accuracy=True), _accuracy(arch)) for arch in archs),
        *costs,
    ]
    ranks = RANK + (f" On {archs[0]}." if len(archs) > 1 else "")
    notes = [f"{what} {ACCURACY} {BOLD}", ranks, *notes]
    return table_by_ipc(f"{title}: {table_title(*place, distilled)}", columns, _lines(rows, archs), notes)


def _stored(line: Row) -> TableCell:
    return TableCell(short_number(line["ipc_equivalent"]).removesuffix(".0"))


STORED: tuple[TableColumn, Reader] = (TableColumn("stored ipc", rank=1), _stored)


def _comparison(dataset: str, protocol: str, rows: list[Row], all_rows: list[Row]) -> Comparison:
    what = "Only what fits the budget of its ipc."
    return ranked_table("Equal storage", (dataset, protocol), rows, [STORED], what, _left_out(all_rows))


def equal_storage_section(view: RecordsView) -> Section | None:
    """A table for each data set and protocol under which several methods fit their budget."""
    fair = view.summary[view.summary["competes"]].drop(columns="competes").reset_index(drop=True)
    everything = {(d, p): rows for d, p, _, rows in by_dataset_and_protocol(view.summary)}
    found = [
        _comparison(dataset, protocol, rows, everything[dataset, protocol])
        for dataset, protocol, part, rows in by_dataset_and_protocol(fair)
        if part["method"].nunique() > 1
    ]
    return Section("equal_storage", fair, found) if found else None
