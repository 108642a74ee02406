"""What the sets look like, where the folders of the records hold their artifacts."""

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from bench.report.sections import RecordsView, Section
from bench.report.tables.table import distinct_names

PICTURES_OF = ["dataset", "method", "ipc"]


def chosen_artifacts(view: RecordsView) -> pd.DataFrame:
    """The artifact, its `folder` beside it, of the lowest seed that is there, for each row of `OF`."""
    found = {
        path.name: folder
        for folder in reversed(view.folders)
        for path in (folder / "artifacts").glob("[!.]*")  # a hidden name is not finished
    }
    rows = view.flat[~view.flat["exempt"] & view.flat["artifact"].isin(list(found))]
    rows = rows.sort_values([*PICTURES_OF, "seed", "distill_arch", "artifact"]).drop_duplicates(PICTURES_OF)
    return rows[[*PICTURES_OF, "artifact"]].assign(folder=rows["artifact"].map(found)).reset_index(drop=True)


def picture_stem(*words: object) -> str:
    """A file's name from labels, which may hold anything."""
    return "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", str(word)).strip("-") for word in words)


def _pictures(rows: pd.DataFrame) -> Iterator[tuple[dict[str, object], Callable[[Path], Path]]]:
    """What a picture shows, and how it is written."""
    from bench.core.errors import UserError
    from bench.execution.store import (
        Store,
        verified_meta,  # torch takes two seconds to import
    )
    from bench.report.images import contact_sheet
    from bench.report.images.sheets import artifact_sheets

    of_sets = [
        picture_stem("pictures", row.dataset, row.method, f"ipc{row.ipc}") for row in rows.itertuples()
    ]
    for row, first in zip(rows.to_dict("records"), distinct_names(of_sets), strict=True):
        store, key = Store(row["folder"]), row["artifact"]
        with contextlib.suppress(UserError):  # damaged, or of a plug-in that is not here; `show` tells
            for kind, sheet in artifact_sheets(store.artifact(key), verified_meta(store, key)):
                name = first if kind == "images" else f"{first}_{kind}"
                shown = {
                    **{of: row[of] for of in PICTURES_OF},
                    "artifact": key,
                    "kind": kind,
                    "picture": name,
                }
                yield shown, partial(contact_sheet.save_sheet, sheet)


def pictures_section(view: RecordsView) -> Section | None:
    """One artifact for each data set, method and ipc; the table says which picture shows which."""
    rows = chosen_artifacts(view)
    found = list(_pictures(rows)) if len(rows) else []
    if not found:
        return None
    table = pd.DataFrame([shown for shown, _ in found])
    return Section("pictures", table, pictures={str(shown["picture"]): write for shown, write in found})
