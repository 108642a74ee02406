"""Pictures of artifacts, small enough to be embedded in the page."""

import io
import tempfile
from pathlib import Path

from PIL import Image

from bench.core.errors import UserError
from bench.reporting.html.page import Picture
from bench.reporting.sections import RecordsView

MOST_PIXELS = (640, 960)  # of width and height
MOST_COLOURS = 128


def thumbnails_of(view: RecordsView) -> Picture:
    """Make a function that draws an artifact by its key, from the first folder that has it undamaged."""
    labels = dict(zip(view.flat["artifact"], view.flat["method"], strict=True))

    def picture(key: str) -> bytes | None:
        for folder in view.folders:
            if (folder / "artifacts" / key).is_dir() and (
                drawn := _images(folder, key, labels[key])
            ) is not None:
                return drawn
        return None

    return picture


def _images(folder: Path, key: str, label: str) -> bytes | None:
    """A small PNG of one artifact, with the label of its method; None where it is damaged."""
    # imported here: they load torch, and most reports are made of records alone
    from bench.execution.store import Store, verified_meta
    from bench.reporting.images import contact_sheet
    from bench.reporting.images.sheets import artifact_sheets

    store = Store(folder)
    try:
        _, sheet = next(artifact_sheets(store.artifact(key), verified_meta(store, key), label))
    except UserError:
        return None
    with tempfile.TemporaryDirectory() as directory:
        return _small(contact_sheet.save_sheet(sheet, Path(directory) / "images.png"))


def _small(path: Path) -> bytes:
    """A picture as PNG with few colours, scaled down if it is large."""
    with Image.open(path, formats=("PNG",)) as opened:
        image = opened.convert("RGB")
    image.thumbnail(MOST_PIXELS)
    held = io.BytesIO()
    image.quantize(MOST_COLOURS).save(held, "PNG", optimize=True)
    return held.getvalue()
