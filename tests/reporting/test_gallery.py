"""Pictures of distilled sets: what is on a sheet, and the sheets of a result folder."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from conftest import MakeProblem
from helpers.cli import ddbench, run_inline, sweep_file
from helpers.report import empty_plots

from bench.core.distilled import DistilledDataset
from bench.execution.store import WEIGHTS
from bench.reporting.build import build_report
from bench.reporting.images.contact_sheet import (
    IMAGE_GAP,
    Sheet,
    around_zero,
    in_rows,
    into_range,
    save_sheet,
    sheet_canvas,
)
from bench.reporting.images.gallery import draw_artifacts
from bench.reporting.images.sheets import artifact_sheets
from methods.blocks.parameterise.hallucinators import Hallucinators
from methods.blocks.parameterise.linear_bases import LinearBases
from methods.blocks.parameterise.pixels import Pixels

# --- sheets of numbers --------------------------------------------------------------------------------------


def test_canvas_places_and_enlarges() -> None:
    images = np.zeros((3, 1, 8, 8))
    images[1] = 1
    images[2, 0, 0, 0] = 0.5
    sheet = sheet_canvas(in_rows(images, np.array([0, 0, 1]), 2, 2))
    assert sheet.shape == (2 * 48 + IMAGE_GAP, 2 * 48 + IMAGE_GAP, 3)
    assert sheet[0, 0].tolist() == [0, 0, 0]
    assert sheet[0, 52].tolist() == [1, 1, 1]
    assert sheet[52:58, :6].min() == sheet[52:58, :6].max() == 0.5
    assert sheet[58, 0, 0] == 0
    assert sheet[48:52].min() == 1  # the gap
    assert sheet[52:, 52:].min() == 1  # the second row has one image
    with pytest.raises(ValueError, match="not 2"):
        sheet_canvas(np.zeros((1, 1, 2, 8, 8)))


def test_colours_stay_colours() -> None:
    image = np.random.default_rng(0).random((1, 1, 3, 64, 32))
    assert np.array_equal(sheet_canvas(image)[::2, ::2], image[0, 0].transpose(1, 2, 0))


def test_rows_hold_the_first_of_each() -> None:
    images = np.arange(5.0).reshape(5, 1, 1, 1)
    found = in_rows(images, np.array([1, 0, 1, 1, 0]), 3, 2)[..., 0, 0, 0]
    assert np.array_equal(found, [[1, 4], [0, 2], [np.nan, np.nan]], equal_nan=True)


def test_what_leaves_the_range_is_scaled_into_it_and_nothing_else() -> None:
    ramp = np.linspace(0, 1, 101).reshape(1, 1, 101, 1)
    images = np.concatenate([ramp, 4 * ramp - 2, ramp + 1])
    shown, (note,) = into_range(images)
    assert np.array_equal(shown[0], images[0])
    assert (shown.min(), shown.max()) == (0, 1)
    assert shown[1, 0, 50, 0] == pytest.approx(0.5)  # between its 1st and 99th percentile, -1.96 and 1.96
    assert shown[1, 0, 99, 0] == pytest.approx(1)
    assert shown[2, 0, 0, 0] == pytest.approx(1 / 1.99)  # 0 stays black where nothing is below it
    assert note == "values from -2 to 2: 2 of 3 images scaled into [0, 1], each by itself"
    assert into_range(ramp)[1] == []


def test_grey_is_zero() -> None:
    shown, _ = around_zero(np.array([[-4.0, 0, 2], [0, 0, 0]]).reshape(2, 1, 1, 3))
    assert shown[:, 0, 0].tolist() == [[0, 0.5, 0.75], [0.5, 0.5, 0.5]]


def test_a_sheet_is_reproducible(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((3, 4, 3, 16, 16))
    for heads in ([], list("abcd"), ["aeroplane", "b", "c", "d"]):
        sheet = Sheet("a title", images, ["x", "y", "z"], heads, ["a note", "another"])
        one, two = (save_sheet(sheet, tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
        assert one == two
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_sheet_has_names_of_any_characters(tmp_path: Path) -> None:
    odd = ["$", "$x^{$", r"\frac{$ $"]
    save_sheet(
        Sheet("a $title^$", np.zeros((3, 1, 1, 8, 8)), odd, ["$_$"], ["a $note^^$"]), tmp_path / "odd.png"
    )
    assert (tmp_path / "odd.png").exists()


# --- sheets of sets -----------------------------------------------------------------------------------------


def stored(distilled: DistilledDataset, folder: Path, **meta: Any) -> dict[str, Sheet]:
    folder.mkdir(exist_ok=True)
    distilled.save(folder / WEIGHTS)
    return dict(artifact_sheets(folder, {"label": "a set", "classes": list("0123456789"), **meta}))


def test_few_images_stand_under_their_class_and_many_beside_it(
    make_problem: MakeProblem, tmp_path: Path
) -> None:
    problem = make_problem(ipc=1)
    pixels = torch.zeros(42, 1, 8, 8)
    sizes = [1] * 8 + [2, 32]
    many = stored(Pixels(pixels, sizes, problem.preprocess), tmp_path)["images"]
    assert many.images.shape == (10, 10, 1, 8, 8)
    assert (~np.isnan(many.images[..., 0, 0, 0])).sum(1).tolist() == [1] * 8 + [2, 10]
    assert many.notes == ["10 of up to 32 images per class"]
    few = stored(Pixels(pixels[:11], [1] * 9 + [2], problem.preprocess), tmp_path)["images"]
    assert few.images.shape == (2, 10, 1, 8, 8)
    assert few.heads == list("0123456789")
    assert np.isnan(few.images[1, :9]).all()
    assert not np.isnan(few.images[1, 9]).any()


def test_linear_bases_are_shown(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem(ipc=10)
    memory = LinearBases.start(problem, torch.Generator().manual_seed(0), bases=12, downsample=1)
    found = stored(memory, tmp_path)
    assert found.keys() == {"images", "bases"}
    assert found["bases"].images.shape == (2, 10, 1, 8, 8)
    assert found["bases"].names == ["1", "11"]
    basis = memory.bases.detach()[1].numpy()
    assert found["bases"].images[0, 1] == pytest.approx(0.5 + basis / (2 * abs(basis).max()))


def test_a_basis_stands_before_what_each_hallucinator_makes_of_it(
    make_problem: MakeProblem, tmp_path: Path
) -> None:
    problem = make_problem(ipc=10)
    haba = Hallucinators.start(problem, torch.Generator().manual_seed(0), hallucinators=3, bases_per_class=2)
    found = stored(haba, tmp_path)
    assert found.keys() == {"images", "bases", "variants"}
    sheet = found["variants"]
    assert sheet.images.shape == (10, 4, 1, 8, 8)
    assert sheet.heads == ["basis", "1", "2", "3"]
    for c, j in ((0, 0), (7, 2)):
        item = haba.pair(torch.tensor([2 * c]), torch.tensor([j]))
        pixels = haba.preprocess.invert(haba.decode(item)[0]).detach().numpy()
        assert sheet.images[c, 1 + j] == pytest.approx(into_range(pixels)[0][0])


def test_evolution_shows_the_same_images(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem(ipc=1)
    start, end = (Pixels(torch.full((20, 1, 8, 8), v), [2] * 10, problem.preprocess) for v in (0.0, 0.1))
    start.save(tmp_path / "first")
    taken = [
        {"fraction": 0.0, "step": 0, "file": "first"},
        {"fraction": 0.5, "step": 3, "file": "first"},
        {"fraction": 1.0, "step": 6, "file": WEIGHTS},
    ]
    sheet = stored(end, tmp_path, snapshots=taken)["evolution"]
    assert sheet.images.shape == (3, 10, 1, 8, 8)
    assert sheet.names == ["start, step 0", "50 %, step 3", "100 %, step 6"]
    assert (sheet.images[0] < sheet.images[-1]).all()


def test_titles_name_the_settings(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem(ipc=1)
    Pixels(torch.zeros(10, 1, 8, 8), [1] * 10, problem.preprocess).save(tmp_path / WEIGHTS)
    meta = {"label": "idc digits ipc 1 seed 0", "classes": list("0123456789"), "identity": {"method": "idc"}}

    def title(label: str) -> str:
        (_, sheet), *_ = artifact_sheets(tmp_path, meta, label)
        return sheet.title.removesuffix(tmp_path.name).strip()

    assert title("idc[factor=2, lr=0.1]") == "idc · factor 2 · lr 0.1, digits ipc 1 seed 0"
    assert title("idc") == title("") == "idc digits ipc 1 seed 0"


def test_show_names_the_settings_in_which_sets_of_a_folder_differ(tmp_path: Path) -> None:
    methods = [{"name": "dm", "steps": steps, "batch_real": 8} for steps in (1, 2)]
    sweep = sweep_file(
        tmp_path, methods=methods, ipc=[1], distill={"architectures": ["convnet-d1-w4"], "seeds": [0]}
    )
    assert run_inline(sweep, tmp_path / "out").code == 0
    titles = {title.partition(",")[0] for title, _ in draw_artifacts(tmp_path / "out", None)}
    assert {"dm · steps 1", "dm · steps 2", "evolution of dm · steps 2"} <= titles


# --- in a report --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run with its pictures. Its plots, and those of reports made from it, are empty files."""
    folder = tmp_path_factory.mktemp("pictures")
    methods = ["full", "random_real", {"name": "dm", "steps": 4, "batch_real": 8}]
    words = ("--out", folder / "out", "--executor", "inline")
    with empty_plots():
        ended = ddbench("run", sweep_file(folder, methods=methods), *words)
        assert ended.code == 0, ended.err
        yield folder / "out"


PICTURES = {
    f"pictures_digits_{method}_ipc{ipc}{kind}.png"
    for method, kind in (("random-real", ""), ("dm", ""), ("dm", "_evolution"))
    for ipc in (1, 2)
}


def test_a_report_has_pictures_of_each_method_and_ipc(out: Path) -> None:
    found = {path.name: path for path in (out / "plots").glob("pictures_*")}
    assert found.keys() == PICTURES
    assert all(matplotlib.image.imread(path).std() > 0 for path in found.values())
    table = (out / "tables/pictures.csv").read_text().splitlines()
    assert table[0] == "dataset,method,ipc,artifact,kind,picture"
    assert {f"{line.rpartition(',')[2]}.png" for line in table[1:]} == PICTURES
    for line in table[1:]:
        key = line.split(",")[3]
        assert json.loads((out / "artifacts" / key / "meta.json").read_text())["identity"]["seed"] == 0
    before = {name: path.read_bytes() for name, path in found.items()}
    shutil.rmtree(out / "plots")
    build_report(out)
    assert {path.name: path.read_bytes() for path in (out / "plots").glob("pictures_*")} == before


def test_a_missing_seed_leaves_its_place_and_a_damaged_set_has_no_picture(out: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(out, tmp_path / "copy")
    shutil.rmtree(copy / "plots")
    rows = [line.split(",") for line in (out / "tables/pictures.csv").read_text().splitlines()[1:]]
    first = {(row[1], row[2]): copy / "artifacts" / row[3] for row in rows}
    shutil.rmtree(first["random_real", "1"])
    (first["dm", "2"] / "meta.json").write_text("{")
    assert ddbench("report", copy).code == 0
    left = {name for name in PICTURES if "dm_ipc2" not in name}
    assert {path.name for path in (copy / "plots").glob("pictures_*")} == left
    assert first["random_real", "1"].name not in (copy / "tables/pictures.csv").read_text()
