"""The note below tables with methods whose distillations share one bank of experts."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.reporting.sections import Section

FOLLOW_EXPERTS = ("datm", "haba", "mtt", "tesla")  # and compositions and pools that draw on experts
SHARED_BANK = (
    "{methods}: all seeds share one bank of experts, as in the papers, so an interval leaves out how banks "
    "differ; `distill.experts_per_seed` trains one for each seed."
)


def uses_experts(method: str, hyperparameters: Mapping[str, Any]) -> bool:
    """Whether the distillation reads networks trained on the real set, epoch by epoch."""
    pool, objective = hyperparameters.get("pool"), hyperparameters.get("objective")
    from_pool = pool == "experts" or (isinstance(pool, int) and pool > 0)
    return method in FOLLOW_EXPERTS or from_pool or (pool == "own" and objective == "trajectory_matching")


def with_expert_note(section: Section, flat: pd.DataFrame) -> Section:
    """The section with a note below each of its tables where such methods stand.

    Args:
        section: of the report.
        flat: the records' frame, with labels.
    """
    kinds = flat[["method", "method_name", "hyperparameters"]].drop_duplicates()
    labels = set()
    for label, name, text in kinds.itertuples(index=False):
        values = json.loads(text)
        if uses_experts(name, values) and not values.get("experts_per_seed"):
            labels.add(label)
    tables = []
    for table in section.comparisons:
        cells = {cell.text for group in table.groups for row in group for cell in row}
        found = sorted(label for label in labels if cells & {label, f"{label} ‡"})
        notes = [SHARED_BANK.format(methods=", ".join(found))] if found else []
        tables.append(dataclasses.replace(table, notes=[*table.notes, *notes]))
    return dataclasses.replace(section, comparisons=tables)
