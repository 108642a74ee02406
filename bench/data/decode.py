"""Image files decoded to one uint8 array.

Imports no torch, so that decoding processes start in a fraction of a second.
"""

import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Generator
from contextlib import closing
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from joblib.externals.loky import get_reusable_executor
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import Progress

from bench.core.errors import UserError, first_line, worker_deaths_told

DECODING = 2  # raise it when the same file becomes other pixels
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")  # PIL would hand PostScript to Ghostscript
_CHUNK = 64  # files per task
# Files from which a pool of processes is used; fewer are decoded before it has started. Not threads: on small
# images two threads were slower than one (275 against 230 microseconds for a 32x32 JPEG), because they share
# the interpreter lock.
_POOL_FROM = 4000
_GREY = {"1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N"}
_TOO_DEEP = {"I", "F"}  # 32 bits per pixel: the value of white is not known
_BITS = 8  # that 16-bit values lose to become 8-bit ones
_LOST = 2**14  # if no 16-bit colour is as large, its high byte does not hold the picture

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it prints why it cannot read a file


class Decoded(NamedTuple):
    """A decoded image file."""

    pixels: npt.NDArray[np.uint8]  # [H,W,3]
    grey: bool  # the file has no colours
    size: tuple[int, int]  # (width, height) of the file
    deep_grey: int | None  # the largest value, of a 16-bit grey file
    deep_colour: int | None  # the largest value less its low byte, of a file with 16 bits a channel


def decode_images(files: list[Path], image_size: int | None) -> npt.NDArray[np.uint8]:
    """Decode image files; shows a progress bar if stderr is a terminal.

    Greys of 16 bits are scaled by one power of two, to the bits that the largest of them has.

    Args:
        files: at least one.
        image_size: S, to which images are resized and cropped; None requires equal, square images.

    Returns:
        uint8 [N,1,S,S] if every image is grey, else RGB [N,3,S,S].

    Raises:
        UserError: names a file that cannot be decoded or has another size.
    """
    images, largest = _read(files, image_size, _BITS)
    bits = max(largest.bit_length() - 8, 0) if largest is not None else _BITS
    if bits == _BITS:
        return images
    print(f"16-bit images hold values to {largest:,}: read as {8 + bits} bits", file=sys.stderr)
    return _read(files, image_size, bits)[0]


def _read(files: list[Path], image_size: int | None, bits: int) -> tuple[npt.NDArray[np.uint8], int | None]:
    """The images, and the largest value of 16-bit greys, which lose their low `bits`; None without one."""
    first = decode(files[0], image_size)
    _check_size(files[0], first.size, files[0], first.size, image_size)
    images = _room(len(files), first.pixels.shape[:2])
    all_grey = True
    greys: list[int] = []
    colours: list[tuple[int, Path]] = []
    with closing(_decoded(files, image_size, bits)) as decoded:
        for row, (file, image) in enumerate(zip(files, decoded, strict=True)):
            _check_size(file, image.size, files[0], first.size, image_size)
            images[row] = image.pixels.transpose(2, 0, 1)
            all_grey &= image.grey
            greys += [] if image.deep_grey is None else [image.deep_grey]
            colours += [] if image.deep_colour is None else [(image.deep_colour, file)]
    if colours and max(colours)[0] < _LOST:
        raise UserError(
            f"{max(colours)[1]} has 16 bits a channel, and no such file has values of {_LOST:,} or more: "
            "convert them to 8 bits a channel"
        )
    return np.ascontiguousarray(images[:, :1]) if all_grey else images, max(greys, default=None)


def _room(count: int, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    try:
        return np.empty((count, 3, *shape), dtype=np.uint8)
    except MemoryError:
        raise UserError(
            f"{count:,} images of {shape[1]}x{shape[0]} do not fit in memory: "
            "set a small image_size in the dataset entry"
        ) from None


def decode(file: Path, image_size: int | None, bits: int = _BITS) -> Decoded:
    """Decode one file as 8-bit RGB, turned upright and on white.

    Args:
        file: the image file.
        image_size: to which its shorter side is resized and its centre cropped; None leaves it as it is.
        bits: low bits that 16-bit greys lose.

    Raises:
        UserError: for a file that cannot be decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged file gets one line, and a sound one none
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as opened:
                return _decode(opened, image_size, bits)
    except _Refused as refused:
        raise UserError(f"{file} {refused}") from None
    except Exception as error:  # PIL's readers raise anything from IndexError to MemoryError
        raise UserError(f"{file} cannot be decoded ({first_line(error)}): replace or remove it") from error


class _Refused(Exception):
    """Why a whole file is not used."""


def _decode(opened: Image.Image, image_size: int | None, bits: int) -> Decoded:
    mode = opened.mode
    if mode in _TOO_DEEP:
        raise _Refused(f"has 32-bit pixels (mode {mode}): convert it to 8-bit grey or RGB")
    deep = _has_deep_channels(opened)
    image = _upright(opened)
    deep_colour = _largest(image) << 8 if deep and not mode.startswith("I;16") else None
    deep_grey = None
    if mode.startswith("I;16"):
        values = np.asarray(image)
        deep_grey = int(values.max())
        image = Image.fromarray((values >> bits).astype(np.uint8))
    image = _on_white(image)
    size = image.size
    if image_size is not None:
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
    return Decoded(np.asarray(image), mode in _GREY, size, deep_grey, deep_colour)


def _has_deep_channels(opened: Image.Image) -> bool:
    """Whether the file has 16 bits a channel, of which PIL reads the high byte alone where it has colours."""
    tile = getattr(opened, "tile", [])
    if opened.format == "PPM":
        largest = tile[0][3][-1]  # of (mode, largest value), or a mode alone
        return opened.mode == "RGB" and isinstance(largest, int) and largest > 255
    return opened.format in ("PNG", "TIFF") and ";16" in str(tile)


def _largest(image: Image.Image) -> int:
    """The largest value of any channel but the transparency."""
    return max(int(np.asarray(image.getchannel(band)).max()) for band in image.getbands() if band != "A")


def _upright(opened: Image.Image) -> Image.Image:
    """The image turned as its EXIF data say; as it is if they are damaged."""
    opened.load()
    try:
        return ImageOps.exif_transpose(opened)
    except Exception:  # damaged EXIF data raise anything, as in `decode`; the pixels are whole
        return opened


def _on_white(image: Image.Image) -> Image.Image:
    """The image as RGB, on white where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    drawn = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")


def _decoded(files: list[Path], image_size: int | None, bits: int) -> Generator[Decoded, None, None]:
    """Decode the files, in order."""
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    progress = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    pool = _pool() if len(files) >= _POOL_FROM else None
    run = pool.map if pool else map
    try:
        with progress, worker_deaths_told("decodes images"):
            task = progress.add_task("decoding", total=len(files))
            for images in run(_decode_chunk, chunks, repeat(image_size), repeat(bits)):
                yield from images
                progress.advance(task, len(images))
    finally:
        if pool:
            pool.shutdown(kill_workers=True)


def _pool() -> Any:
    return get_reusable_executor(os.cpu_count(), initializer=_end_with, initargs=(os.getpid(),))


def _end_with(parent: int) -> None:
    """End this process soon after its parent, which may be killed without a chance to stop it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _decode_chunk(files: list[Path], image_size: int | None, bits: int) -> list[Decoded]:
    return [decode(file, image_size, bits) for file in files]


def _check_size(
    file: Path, size: tuple[int, int], first: Path, expected: tuple[int, int], image_size: int | None
) -> None:
    """Without an image_size, refuse an image that is not square or not of the first file's size."""
    if image_size is not None:
        return
    if size != expected:
        raise UserError(
            f"{file} is {size[0]}x{size[1]} but {first} is {expected[0]}x{expected[1]}: set "
            "image_size in the dataset entry to resize them all"
        )
    if size[0] != size[1]:
        raise UserError(
            f"{file} is {size[0]}x{size[1]}, not square: set image_size in the dataset entry "
            "to resize and crop all images"
        )
