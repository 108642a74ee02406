"""Pictures of what artifacts decode to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.gallery.grid import save
from bench.gallery.sheets import sheets
from bench.store import Store


def draw(directory: Path, identity: str | None) -> Iterator[tuple[str, Path]]:
    """Write the sheets of one artifact, or of one for each method, ipc and network; yields (label, path)."""
    store = Store(directory)
    if not store.artifacts.is_dir():
        raise UserError(f"no artifacts in {directory}: run `ddbench run SWEEP.yaml --out {directory}` first")
    for key in [store.find(identity)] if identity else _one_of_each(store):
        meta = verified(store, key)
        for kind, sheet in sheets(store.artifact(key), meta):
            name = key if kind == "images" else f"{key}-{kind}"
            yield sheet.title, save(sheet, directory / "grids" / f"{name}.png")


def verified(store: Store, key: str) -> dict[str, Any]:
    """The meta.json of a distilled set. Raises UserError if the artifact is damaged, or of another kind."""
    try:
        store.verify(key)
    except ValueError as error:
        raise UserError(f"{store.artifact(key)} {error}; `ddbench run` makes it again") from None
    meta = store.meta(key)
    if meta["kind"] != "distill":
        raise UserError(f"{key} is a {meta['kind']} artifact ({meta['label']}): it holds no images")
    return meta


def _one_of_each(store: Store) -> list[str]:
    """Distilled sets, the lowest seed of each method, data set, ipc and architecture."""
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
