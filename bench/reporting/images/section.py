"""The section of pictures: what the sets look like, where the result folders hold their artifacts."""

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from bench.core.errors import UserError
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.table import distinct_names

PICTURES_OF = ["dataset", "method", "ipc"]


def chosen_artifacts(view: RecordsView) -> pd.DataFrame:
    """Choose the artifact of the lowest seed for each data set, method and ipc.

    Returns:
        A row per artifact that exists: the columns `PICTURES_OF`, its key `artifact` and its result `folder`.
    """
    found = {
        path.name: folder
        for folder in reversed(view.folders)
        for path in (folder / "artifacts").glob("[!.]*")  # a hidden name is not finished
    }
    rows = view.flat[~view.flat["exempt"] & view.flat["artifact"].isin(list(found))]
    rows = rows.sort_values([*PICTURES_OF, "seed", "distill_arch", "artifact"]).drop_duplicates(PICTURES_OF)
    return rows[[*PICTURES_OF, "artifact"]].assign(folder=rows["artifact"].map(found)).reset_index(drop=True)


def picture_stem(*words: object) -> str:
    """A file name from labels with any characters."""
    return "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", str(word)).strip("-") for word in words)


def _pictures(rows: pd.DataFrame) -> Iterator[tuple[dict[str, object], Callable[[Path], Path]]]:
    """Yield what a picture shows, a row of the table, and a function that writes it."""
    # imported here: torch takes two seconds, and most reports have no pictures
    from bench.execution.store import Store, verified_meta
    from bench.reporting.images import contact_sheet
    from bench.reporting.images.sheets import artifact_sheets

    of_sets = [
        picture_stem("pictures", row.dataset, row.method, f"ipc{row.ipc}") for row in rows.itertuples()
    ]
    for row, first in zip(rows.to_dict("records"), distinct_names(of_sets), strict=True):
        store, key = Store(row["folder"]), row["artifact"]
        with contextlib.suppress(UserError):  # damaged, or of a missing plug-in; `ddbench show` says so
            for kind, sheet in artifact_sheets(store.artifact(key), verified_meta(store, key), row["method"]):
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
