"""What the sets look like, where the folders of the records hold their artifacts."""

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from bench.report.exhibit import Exhibit, View
from bench.report.layout import distinct

OF = ["dataset", "method", "ipc"]


def chosen(view: View) -> pd.DataFrame:
    """The artifact, its `folder` beside it, of the lowest seed that is there, for each row of `OF`."""
    found = {
        path.name: folder
        for folder in reversed(view.folders)
        for path in (folder / "artifacts").glob("[!.]*")  # a hidden name is not finished
    }
    rows = view.flat[~view.flat["exempt"] & view.flat["artifact"].isin(list(found))]
    rows = rows.sort_values([*OF, "seed", "distill_arch", "artifact"]).drop_duplicates(OF)
    return rows[[*OF, "artifact"]].assign(folder=rows["artifact"].map(found)).reset_index(drop=True)


def stem(*words: object) -> str:
    """A file's name from labels, which may hold anything."""
    return "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", str(word)).strip("-") for word in words)


def _pictures(rows: pd.DataFrame) -> Iterator[tuple[dict[str, object], Callable[[Path], Path]]]:
    """What a picture shows, and how it is written."""
    from bench.errors import UserError
    from bench.gallery import grid, verified  # torch takes two seconds to import
    from bench.gallery.sheets import sheets
    from bench.store import Store

    of_sets = [stem("pictures", row.dataset, row.method, f"ipc{row.ipc}") for row in rows.itertuples()]
    for row, first in zip(rows.to_dict("records"), distinct(of_sets), strict=True):
        store, key = Store(row["folder"]), row["artifact"]
        with contextlib.suppress(UserError):  # damaged, or of a plug-in that is not here; `show` tells
            for kind, sheet in sheets(store.artifact(key), verified(store, key)):
                name = first if kind == "images" else f"{first}_{kind}"
                shown = {**{of: row[of] for of in OF}, "artifact": key, "kind": kind, "picture": name}
                yield shown, partial(grid.save, sheet)


def exhibit(view: View) -> Exhibit | None:
    """One artifact for each data set, method and ipc; the table says which picture shows which."""
    rows = chosen(view)
    found = list(_pictures(rows)) if len(rows) else []
    if not found:
        return None
    table = pd.DataFrame([shown for shown, _ in found])
    return Exhibit("pictures", table, pictures={str(shown["picture"]): write for shown, write in found})
