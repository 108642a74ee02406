"""The `dataset` entry of a config."""

import difflib
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationInfo, field_validator

DATASETS: dict[str, str] = {
    "digits": "scikit-learn's digits: 8x8 grey, 10 classes, 1,437 train / 360 test; needs no files",
    "mnist": "MNIST: 28x28 grey, 10 classes, 60,000 train / 10,000 test (torchvision)",
    "fashion_mnist": "Fashion-MNIST: 28x28 grey, 10 classes, 60,000 train / 10,000 test (torchvision)",
    "kmnist": "Kuzushiji-MNIST: 28x28 grey, 10 classes, 60,000 train / 10,000 test (torchvision)",
    "svhn": "Street View House Numbers: 32x32 RGB, 10 classes, 73,257 train / 26,032 test (torchvision)",
    "cifar10": "CIFAR-10: 32x32 RGB, 10 classes, 50,000 train / 10,000 test (torchvision)",
    "cifar100": "CIFAR-100: 32x32 RGB, 100 classes, 50,000 train / 10,000 test (torchvision)",
    "stl10": "STL-10, labelled part: 96x96 RGB, 10 classes, 5,000 train / 8,000 test (torchvision)",
    "image_folder": "your own images: path/train/<class>/*.png and path/test/<class>/*.png (or val/)",
}
_LOCAL = {"digits", "image_folder"}
_APPLIES: dict[str, set[str]] = {
    "path": {"image_folder"},
    "image_size": {"image_folder"},
    "data_dir": set(DATASETS) - _LOCAL,
    "download": set(DATASETS) - _LOCAL,
}
_HOLDOUT = "-holdout"  # at the end of the label, so that no table shows a hold-out as the test split
_REQUIRED = {"path": "the folder that holds train/ and test/", "data_dir": "the folder that holds its files"}


class DatasetSpec(BaseModel):
    """Which data set, where its files are, and which of its classes, relabelled in the order given.

    With `holdout` the test split is that fraction of the training set, a fixed one with all classes in
    proportion; the training set is the rest, and nothing reads the data set's own test split.
    Paths are made absolute against the working folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description=f"one of {', '.join(DATASETS)}")
    path: Path | None = Field(
        default=None,
        validate_default=True,
        description="image_folder: the folder of train/ and test/ (or val/), with a folder for each class",
    )
    image_size: int | None = Field(
        default=None,
        gt=0,
        description="image_folder: pixels a side; the shorter side is resized, the centre cropped",
    )
    data_dir: Path | None = Field(
        default=None, validate_default=True, description="data sets of torchvision: the folder of their files"
    )
    download: bool = Field(default=False, description="data sets of torchvision: fetch the files if absent")
    classes: tuple[StrictInt | StrictStr, ...] | None = Field(
        default=None, description="only these classes, by name or position, in their new order"
    )
    holdout: float | None = Field(
        default=None,
        gt=0,
        le=0.5,
        description="score on this fraction of the training set, and not on the test set; to choose settings",
    )
    label: str = Field(
        default="", validate_default=True, description="the name in tables; by default that of set or folder"
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return _canonical(name)

    @field_validator("path", "image_size", "data_dir", "download")
    @classmethod
    def _applies(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a key that the data set does not have, and the absence of one that it must have."""
        key, name = info.field_name, info.data.get("name")
        if key is None or name is None:  # the name's own error is reported instead
            return value
        # The default is let through, so that a dumped spec validates again.
        if value not in (None, False) and name not in _APPLIES[key]:
            owners = ", ".join(sorted(_APPLIES[key]))
            raise ValueError(f"{key} does not apply to {name}, only to {owners}: remove it")
        if value is None and key in _REQUIRED and name in _APPLIES[key]:
            raise ValueError(f"{name} needs {key}, {_REQUIRED[key]}: add it")
        return value.expanduser().absolute() if isinstance(value, Path) else value

    @field_validator("classes")
    @classmethod
    def _several(cls, classes: tuple[int | str, ...] | None) -> tuple[int | str, ...] | None:
        if classes is not None and len(classes) < 2:
            raise ValueError(
                "fewer than two leave nothing to tell apart: name at least two, or leave the key out"
            )
        return classes

    @field_validator("label")
    @classmethod
    def _labelled(cls, label: str, info: ValidationInfo) -> str:
        path, classes = info.data.get("path"), info.data.get("classes")
        base = (path.name if path else "") or info.data.get("name", "")
        label = label or (f"{base}-{len(classes)}-classes" if classes else base)
        return label.removesuffix(_HOLDOUT) + _HOLDOUT if info.data.get("holdout") else label

    @property
    def preset_name(self) -> str:
        """Whose presets it gets: a folder is what its label says, so that one may get those of cifar10."""
        return self.label.removesuffix(_HOLDOUT) if self.name == "image_folder" else self.name

    @property
    def whole(self) -> "DatasetSpec":
        """The same data set with all of its classes, under its own name, and with the same hold-out."""
        return self._without("classes") if self.classes else self

    @property
    def published(self) -> "DatasetSpec":
        """The same data set with its own test split."""
        return self._without("holdout")

    def _without(self, key: str) -> "DatasetSpec":
        return DatasetSpec(**self.model_dump(exclude={key, "label"}))


def read_entry(value: Any) -> Any:
    """The mapping of an entry of `datasets` that may be a name, a folder of images, or a mapping already."""
    if not isinstance(value, str):
        return value
    known = value.lower().replace("_", "").replace("-", "") in {key.replace("_", "") for key in DATASETS}
    if not known and (os.sep in value or Path(value).expanduser().is_dir()):
        return {"name": "image_folder", "path": value}
    return {"name": value}


def _canonical(name: str) -> str:
    """The key of DATASETS that `name` spells in any case, with "-", "_" or nothing between words.

    Raises ValueError for an unknown name, with the valid ones.
    """
    plain = {key.replace("_", ""): key for key in DATASETS}
    wanted = name.lower().replace("_", "").replace("-", "")
    if wanted in plain:
        return plain[wanted]
    close = difflib.get_close_matches(wanted, plain, n=1)
    hint = f" (did you mean {plain[close[0]]}?)" if close else ""
    raise ValueError(f"unknown data set {name!r}{hint}: choose one of {', '.join(DATASETS)}")
