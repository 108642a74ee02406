"""Pictures of artifacts that are small enough to travel inside a page."""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from bench.core.errors import UserError
from bench.report.html.page import Picture

MOST_PIXELS = (640, 960)  # of width and height
MOST_COLOURS = 128


def thumbnails_of(folders: Sequence[Path]) -> Picture:
    """Draws an artifact of these result folders, from the first that has it whole."""

    def picture(key: str) -> bytes | None:
        there = (folder for folder in folders if (folder / "artifacts" / key).is_dir())
        return next((drawn for folder in there if (drawn := _images(folder, key)) is not None), None)

    return picture


def _images(folder: Path, key: str) -> bytes | None:
    """Of one artifact; None where it is damaged."""
    from bench.execution.store import (
        Store,
        verified_meta,  # with torch: most reports are made of records alone
    )
    from bench.report.images import contact_sheet
    from bench.report.images.sheets import artifact_sheets

    store = Store(folder)
    try:
        _, sheet = next(artifact_sheets(store.artifact(key), verified_meta(store, key)))
    except UserError:
        return None
    with tempfile.TemporaryDirectory() as aside:
        return _small(contact_sheet.save_sheet(sheet, Path(aside) / "images.png"))


def _small(path: Path) -> bytes:
    """The picture, made smaller where it is large, with few colours."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    image.thumbnail(MOST_PIXELS)
    held = io.BytesIO()
    image.quantize(MOST_COLOURS).save(held, "PNG", optimize=True)
    return held.getvalue()
