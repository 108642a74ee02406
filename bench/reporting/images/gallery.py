"""Sheets of the artifacts of a result folder, written to files."""

from collections.abc import Iterator
from pathlib import Path

from bench.core.errors import UserError
from bench.execution.store import Store, verified_meta
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
    for key in [store.find(identity)] if identity else _one_of_each(store):
        meta = verified_meta(store, key)
        for kind, sheet in artifact_sheets(store.artifact(key), meta):
            name = key if kind == "images" else f"{key}-{kind}"
            yield sheet.title, save_sheet(sheet, directory / "grids" / f"{name}.png")


def _one_of_each(store: Store) -> list[str]:
    """The keys of distilled sets: the lowest seed of each data set, method, ipc and architecture."""
    found: dict[tuple[object, ...], tuple[int, str]] = {}
    for path in sorted(p for p in store.artifacts.iterdir() if not p.name.startswith(".")):
        try:
            meta = store.meta(path.name)
        except ValueError:
            continue  # damaged; `ddbench run` names it
        if meta["kind"] == "distill":
            i = meta["identity"]
            group = (i["dataset"], i["method"], str(i["hyperparameters"]), i["ipc"] or 0, i["architecture"])
            found[group] = min(found.get(group, (i["seed"], path.name)), (i["seed"], path.name))
    return [key for _, (_, key) in sorted(found.items())]
