"""Sheets of the artifacts of a result folder, written to files."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from bench.core.errors import UserError
from bench.core.io import check_writable
from bench.execution.store import Store, verified_meta
from bench.records.artifact import read_meta, read_set_meta
from bench.records.naming import CELL, method_labels
from bench.reporting.images.contact_sheet import save_sheet
from bench.reporting.images.sheets import artifact_sheets


def draw_artifacts(directory: Path, identity: str | None) -> Iterator[tuple[str, Path]]:
    """Write the sheets of one artifact, or of one artifact for each data set, method, ipc and architecture.

    Args:
        directory: A result folder; sheets are written to its `grids`.
        identity: The key of an artifact, or its beginning; None: one artifact for each combination.

    Yields:
        The title of a sheet, and its path.

    Raises:
        UserError: The folder has no artifacts, or one is damaged.
    """
    store = Store(directory)
    if not store.artifacts.is_dir():
        raise UserError(f"no artifacts in {directory}: run `ddbench run SWEEP.yaml --out {directory}` first")
    check_writable(directory / "grids", "copy the result folder to where you may write")
    found = _identities(store)
    labels = _labels(found)
    for key in [store.find(identity)] if identity else _one_of_each(found):
        meta = verified_meta(store, key)
        for kind, sheet in artifact_sheets(store.artifact(key), meta, labels.get(key, "")):
            name = key if kind == "images" else f"{key}-{kind}"
            yield sheet.title, save_sheet(sheet, directory / "grids" / f"{name}.png")


def _identities(store: Store) -> dict[str, dict[str, Any]]:
    """The identity of each distilled set, by its key."""
    found = {}
    for path in sorted(p for p in store.artifacts.iterdir() if not p.name.startswith(".")):
        with contextlib.suppress(ValueError):  # damaged; `ddbench run` names it
            if read_meta(path).get("kind") == "distill":
                found[path.name] = read_set_meta(path)["identity"]
    return found


def _labels(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The label of the method of each set, as in a report of all of them."""
    rows = [
        {
            **dict.fromkeys(CELL, ""),
            **{name: i[name] for name in ("method", "dataset", "ipc")},
            "distill_arch": i["architecture"],
            "hyperparameters": json.dumps(i["hyperparameters"], sort_keys=True),
        }
        for i in found.values()
    ]
    return dict(zip(found, method_labels(pd.DataFrame(rows)), strict=True)) if rows else {}


def _one_of_each(identities: dict[str, dict[str, Any]]) -> list[str]:
    """The keys of the lowest seed of each data set, method, ipc and architecture."""
    found: dict[tuple[object, ...], tuple[int, str]] = {}
    for key, i in identities.items():
        group = (i["dataset"], i["method"], str(i["hyperparameters"]), i["ipc"] or 0, i["architecture"])
        found[group] = min(found.get(group, (i["seed"], key)), (i["seed"], key))
    return [key for _, (_, key) in sorted(found.items())]
