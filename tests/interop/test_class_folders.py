"""Class folders of other people: how their names are matched to classes."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from helpers.importer import dataset, decoded, only, refused
from PIL import Image

CAFE = "caf\u00e9"


def pictures(root: Path, folders: list[str], mode: type[np.unsignedinteger] = np.uint8) -> Path:
    """A picture in each folder, of the value of the folder's place times ten."""
    for place, name in enumerate(folders):
        (root / name).mkdir(parents=True)
        Image.fromarray(np.full((4, 4), 10 * place, mode)).save(root / name / "0.png")
    return root


@pytest.mark.parametrize(
    ("classes", "folders", "order"),
    [
        (("+", "-", "="), ["=", "+", "-"], [1, 2, 0]),
        (("C", "C#", "C++"), ["C++", "C", "C#"], [1, 2, 0]),
        (("Cat", "cat", "dog"), ["dog", "cat", "Cat"], [2, 1, 0]),
        ((CAFE, "cafe", "tea"), ["tea", "cafe", unicodedata.normalize("NFD", CAFE)], [2, 1, 0]),
        (("cat", CAFE, "tea"), ["Tea", unicodedata.normalize("NFD", "Caf\u00e9"), "CAT"], [2, 1, 0]),
        (("C", "C#", "C++"), ["2_C++", "0_C", "1_C#"], [1, 2, 0]),
    ],
)
def test_folders_are_matched_to_classes(
    tmp_path: Path, classes: tuple[str, ...], folders: list[str], order: list[int]
) -> None:
    """`order` has the place of the folder of each class."""
    found = only(pictures(tmp_path, folders), dataset(names=classes))
    assert found.distilled.state_dict()["images"][:, 0, 0, 0].tolist() == [10 * place for place in order]
    assert decoded(found)[1].tolist() == [0, 1, 2]


def test_a_folder_too_many_is_refused(tmp_path: Path) -> None:
    assert "neither the names of the 3 classes" in refused(pictures(tmp_path, ["0", "1", "2", "extra"]))


def test_16_bit_pictures_of_8_bit_values_keep_them(tmp_path: Path) -> None:
    root = pictures(tmp_path, ["0", "1", "2"], np.uint16)
    assert only(root).distilled.state_dict()["images"][:, 0, 0, 0].tolist() == [0, 10, 20]
