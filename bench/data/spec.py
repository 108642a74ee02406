"""The entry of a data set in a sweep file."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from bench.core.registry import did_you_mean
from bench.core.strict import Strict
from bench.core.words import check_name

DATASETS: dict[str, str] = {
    "digits": "scikit-learn's digits: 8x8 grey, 10 classes, 1,437 train / 360 test; needs no files",
    "mnist": "MNIST: 28x28 grey, 10 classes, 60,000 train / 10,000 test (torchvision)",
    "fashion_mnist": "Fashion-MNIST: 28x28 grey, 10 classes, 60,000 train / 10,000 test (torchvision)",
    "kmnist": "Kuzushiji-MNIST: 28x28 grey, 10 classes, 60,000 train / 10,000 test (torchvision)",
    "svhn": "Street View House Numbers: 32x32 RGB, 10 classes, 73,257 train / 26,032 test (torchvision)",
    "cifar10": "CIFAR-10: 32x32 RGB, 10 classes, 50,000 train / 10,000 test (torchvision)",
    "cifar100": "CIFAR-100: 32x32 RGB, 100 classes, 50,000 train / 10,000 test (torchvision)",
    "stl10": "STL-10, labelled part: 96x96 RGB, 10 classes, 5,000 train / 8,000 test (torchvision)",
    "image_folder": "your own images: path/train/<class>/*.png and path/test/<class>/*.png (or val/), or "
    "path/<class>/*.png with split",
}
_LOCAL = {"digits", "image_folder"}
_APPLIES: dict[str, set[str]] = {
    "path": {"image_folder"},
    "image_size": {"image_folder"},
    "split": {"image_folder"},
    "data_dir": set(DATASETS) - _LOCAL,
    "download": set(DATASETS) - _LOCAL,
}
HOLDOUT = "-holdout"  # ends the label, so that no table shows results on a hold-out as test results
_REQUIRED = {"path": "the folder that holds train/ and test/", "data_dir": "the folder that holds its files"}


def _class_name(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"a class is a name or a position, not {value!r}")
    return value


ClassName = Annotated[int | str, BeforeValidator(_class_name)]


def read_entry(value: Any) -> Any:
    """The mapping that a text stands for: a data set's name, or the path of a folder of images.

    Anything but a text is returned as it is. A name of a data set wins over a folder of that name.
    """
    if not isinstance(value, str):
        return value
    known = _plain(value) in map(_plain, DATASETS)
    if not known and (os.sep in value or os.path.isdir(os.path.expanduser(value))):  # false for any text
        return {"name": "image_folder", "path": value}
    return {"name": value}


class DatasetSpec(Strict):
    """Which data set, where its files are, and which of its classes are used.

    Paths are made absolute against the working folder. A text alone is the name of a data set, or the path of
    a folder of images.
    """

    name: str = Field(description="a data set, in any spelling: CIFAR-10 is cifar10")
    path: Path | None = Field(
        default=None,
        validate_default=True,
        description="the folder that holds train/ and test/, or class folders alone (see split); required by "
        "image_folder, and only there",
    )
    image_size: int | None = Field(
        default=None,
        gt=0,
        description="image_folder only: side in pixels to which images are resized and cropped",
    )
    split: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="image_folder only: fraction of each class that becomes the test split, where path holds "
        "class folders alone; the same images each time",
    )
    data_dir: Path | None = Field(
        default=None,
        validate_default=True,
        description="the folder that holds the files; required by torchvision's data sets, and only there",
    )
    download: bool = Field(default=False, description="fetch missing files of torchvision into data_dir")
    classes: tuple[ClassName, ...] | None = Field(
        default=None,
        description="classes to use, by name or position from 0; relabelled in this order; by default all",
    )
    holdout: float | None = Field(
        default=None,
        gt=0,
        le=0.5,
        description="fraction of each class of the training set that takes the place of the test split, "
        "which is then not read",
    )
    label: str = Field(
        default="",
        validate_default=True,
        description="name in tables; by default made of name, path and classes",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return read_entry(value)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return _canonical(name)

    @field_validator("path", "image_size", "split", "data_dir", "download")
    @classmethod
    def _applies(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a key that does not apply to the data set, and the lack of one that it needs."""
        key, name = info.field_name, info.data.get("name")
        if key is None or name is None:  # the name is wrong, which is reported already
            return value
        # Defaults are allowed, so that a dumped spec is valid.
        if value not in (None, False) and name not in _APPLIES[key]:
            owners = ", ".join(sorted(_APPLIES[key]))
            raise ValueError(f"{key} does not apply to {name}, only to {owners}: remove it")
        if value is None and key in _REQUIRED and name in _APPLIES[key]:
            raise ValueError(f"{name} needs {key}, {_REQUIRED[key]}: add it")
        # (Path.expanduser stops at a user that is unknown)
        return Path(os.path.expanduser(value)).absolute() if isinstance(value, Path) else value

    @field_validator("classes")
    @classmethod
    def _several(cls, classes: tuple[int | str, ...] | None) -> tuple[int | str, ...] | None:
        if classes is not None and len(classes) < 2:
            raise ValueError("a classifier needs two: name at least two classes, or leave the key out")
        return classes

    @field_validator("label")
    @classmethod
    def _labelled(cls, label: str, info: ValidationInfo) -> str:
        path, classes = info.data.get("path"), info.data.get("classes")
        base = (path.name if path else "") or info.data.get("name", "")
        label = label or (f"{base}-{len(classes)}-classes" if classes else base)
        return check_name(label.removesuffix(HOLDOUT) + HOLDOUT if info.data.get("holdout") else label)

    @property
    def whole(self) -> "DatasetSpec":
        """The same data set with all of its classes, its default label, and the same hold-out."""
        return self._without("classes") if self.classes else self

    @property
    def published(self) -> "DatasetSpec":
        """The same data set with its own test split."""
        return self._without("holdout")

    def _without(self, key: str) -> "DatasetSpec":
        return DatasetSpec(**self.model_dump(exclude={key, "label"}))


def preset_name(name: str, label: str) -> str:
    """The data set whose presets hold; for a folder its label, so that one may have those of cifar10."""
    return label.removesuffix(HOLDOUT) if name == "image_folder" else name


def _plain(name: str) -> str:
    """The name without its case, and without "-" and "_" between words."""
    return name.lower().replace("_", "").replace("-", "")


def _canonical(name: str) -> str:
    """The key of DATASETS that `name` spells.

    Raises:
        ValueError: for an unknown name; the message lists the valid ones.
    """
    plain = {_plain(key): key for key in DATASETS}
    if _plain(name) in plain:
        return plain[_plain(name)]
    hint = did_you_mean(name, DATASETS)
    raise ValueError(f"unknown data set {name!r}{hint}: choose one of {', '.join(DATASETS)}")
