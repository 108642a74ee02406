"""Pictures of artifacts that are small enough to travel inside a page."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from bench.errors import UserError
from bench.report.html import Picture

MOST_PIXELS = (640, 960)  # of width and height
MOST_COLOURS = 128


def of(folders: Sequence[Path]) -> Picture:
    """Draws an artifact of these result folders, from the first that has it whole."""

    def picture(key: str) -> bytes | None:
        path = next((drawn for folder in folders if (drawn := _grid(folder, key)) is not None), None)
        return None if path is None else _small(path)

    return picture


def _grid(folder: Path, key: str) -> Path | None:
    """The grid of one artifact; None where it is not there, or damaged."""
    if not (folder / "artifacts" / key).is_dir():
        return None
    from bench.gallery import draw  # with torch: most reports are made of records alone

    try:
        ((_, path),) = draw(folder, key)
    except UserError:
        return None
    return path


def _small(path: Path) -> bytes:
    """The picture, made smaller where it is large, with few colours."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    image.thumbnail(MOST_PIXELS)
    held = io.BytesIO()
    image.quantize(MOST_COLOURS).save(held, "PNG", optimize=True)
    return held.getvalue()
