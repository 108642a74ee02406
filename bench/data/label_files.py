"""The labels of a flat folder of images, as published with Tiny-ImageNet and with ILSVRC."""

import csv
from pathlib import Path

from bench.core.errors import UserError
from bench.data.image_files import ImageFile, class_name

ANNOTATIONS = "val_annotations.txt"  # Tiny-ImageNet, in val/: lines of file, class and a box, between tabs
SOLUTION = "LOC_val_solution.csv"  # ILSVRC at Kaggle, in val/ or beside it: lines `image,class box ...`
_MOST_BYTES = 2**26


def find_labels(folder: Path) -> Path | None:
    """The file that labels the images of a folder, if there is one."""
    beside = [folder.parent / SOLUTION] if folder.name == "val" else []
    return next((f for f in (folder / ANNOTATIONS, folder / SOLUTION, *beside) if f.is_file()), None)


def images_by_class(images: list[ImageFile], labels: Path) -> dict[str, list[ImageFile]]:
    """Sort images by the class that a file of labels gives them.

    Raises:
        UserError: the file cannot be read, or it labels other images than these.
    """
    class_of = _read(labels)
    names = {Path(image.path).name for image in images}
    differ = [f"{name} has no line" for name in sorted(names - class_of.keys())]
    differ += [f"{name} is not there" for name in sorted(class_of.keys() - names)]
    if differ:
        more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
        raise UserError(f"{labels} does not fit its images: {', '.join(differ[:3])}{more}")
    found: dict[str, list[ImageFile]] = {}
    for image in images:
        found.setdefault(class_of[Path(image.path).name], []).append(image)
    return found


def _read(labels: Path) -> dict[str, str]:
    """{file name: class}"""
    try:
        if (size := labels.stat().st_size) > _MOST_BYTES:
            raise UserError(f"{labels} has {size:,} bytes: a file of labels has at most {_MOST_BYTES:,}")
        lines = labels.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{labels} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{labels} is no text in UTF-8") from None
    solution = labels.name == SOLUTION
    rows = list(csv.reader(lines[1:] if solution else lines, delimiter="," if solution else "\t"))
    for number, row in enumerate(rows, 1 + solution):
        if row and (len(row) < 2 or not row[1].strip()):
            raise UserError(f"{labels}: line {number} names no class: expected {_FORM[labels.name]}")
    if solution:
        return {f"{row[0]}.JPEG": class_name(row[1].split()[0]) for row in rows if row}
    return {row[0]: class_name(row[1].strip()) for row in rows if row}


_FORM = {ANNOTATIONS: "a file name, a tab and a class", SOLUTION: "an image's name, a comma and a class"}
