"""What counts: labels of each kind, numbers, headers; and what is no part of the budget."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.parameterise import make
from safetensors.torch import save_file
from torch import Tensor

from bench.core import random
from bench.core.distilled import DistilledDataset
from bench.core.errors import UserError
from bench.core.method import Problem
from bench.core.networks.architecture import parse_architecture
from bench.data.dataset import Dataset, Split
from bench.evaluation.storage import check_header, measure_storage
from bench.records.schema import Storage
from methods.blocks.parameterise.base import LABEL_KINDS
from methods.blocks.parameterise.hallucinators import Hallucinators
from methods.blocks.parameterise.linear_bases import LinearBases
from methods.blocks.parameterise.multi_formation import MultiFormation
from methods.blocks.parameterise.pixels import Pixels

CLASSES, IPC = 3, 2


@pytest.fixture
def problem() -> Problem:
    return make(n_classes=CLASSES, ipc=IPC)


def taken(problem: Problem, distilled: DistilledDataset, **more: Any) -> Storage:
    split = Split(problem.images, problem.labels)
    classes = tuple(map(str, range(CLASSES)))
    mean, std = problem.preprocess.mean, problem.preprocess.std
    data = Dataset("x", "x", split, split, classes, mean, std, "f")
    return measure_storage(distilled, data, problem.ipc, **more)


def full(problem: Problem, **learned: Tensor) -> Pixels:
    """As many plain images as the budget holds."""
    shape = (CLASSES * IPC, *problem.image_shape)
    return Pixels(torch.zeros(shape), [IPC] * CLASSES, problem.preprocess, **learned)


# --- labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "rows"), [("hard", 0), ("class", CLASSES), ("image", CLASSES * IPC)])
def test_labels_of_every_kind_count(kind: str, rows: int, problem: Problem) -> None:
    assert kind in LABEL_KINDS
    logits = {"label_logits": torch.zeros(rows, CLASSES)} if rows else {}
    took = taken(problem, full(problem, **logits))
    assert took.floats == problem.budget + rows * CLASSES
    assert took.bytes == 4 * took.floats
    assert took.within_budget == (kind == "hard"), "the images fill the budget"


@pytest.mark.parametrize("kind", LABEL_KINDS)
@pytest.mark.parametrize("block", [Pixels, MultiFormation, LinearBases, Hallucinators])
def test_what_is_counted_is_what_the_file_holds(
    block: Any, kind: str, problem: Problem, tmp_path: Path
) -> None:
    rooms = {"hallucinators": 1, "basis_channels": 3} if block is Hallucinators else {}
    larger = make(n_classes=CLASSES, ipc=10)
    distilled = block.start(larger, random.generator(0), labels=kind, **rooms)
    distilled.save(tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    assert 4 * taken(larger, distilled).floats == len(content) - header
    assert ("label_logits" in distilled.state_dict()) == (kind != "hard")


def test_a_teacher_is_a_figure_of_its_own(problem: Problem) -> None:
    net = parse_architecture("convnet-d1-w4-batch").build((3, 8, 8), CLASSES, random.generator(0))
    state = net.state_dict()
    plain, taught = taken(problem, full(problem)), taken(problem, full(problem), teacher=state)
    assert taught.teacher_bytes == sum(t.numel() * t.element_size() for t in state.values()) > 1000
    assert taught == plain.model_copy(update={"teacher_bytes": taught.teacher_bytes})
    assert plain.teacher_bytes == 0


# --- one byte a value -------------------------------------------------------------------------------------


def test_bytes_of_images_that_are_kept_as_bytes_only(problem: Problem) -> None:
    real = Pixels(problem.images[: CLASSES * IPC], [IPC] * CLASSES, problem.preprocess)
    assert taken(problem, real).bytes_uint8 == problem.budget
    assert taken(problem, full(problem)).bytes_uint8 is None
    soft = Pixels(
        problem.images[: CLASSES * IPC],
        [IPC] * CLASSES,
        problem.preprocess,
        label_logits=torch.zeros(CLASSES, CLASSES),
    )
    assert taken(problem, soft).bytes_uint8 == problem.budget + 4 * CLASSES * CLASSES


# --- numbers ----------------------------------------------------------------------------------------------


def test_the_learned_step_does_not_break_the_budget(problem: Problem) -> None:
    numbers = {"inner_lr": torch.tensor(0.01), "inner_momentum": torch.tensor(0.9)}
    took = taken(problem, full(problem, **numbers))
    assert took.floats == problem.budget + 2
    assert took.within_budget
    assert taken(problem, full(problem, **{k: t.double() for k, t in numbers.items()})).within_budget


@pytest.mark.parametrize("count", [1, 2000])
def test_other_single_numbers_do(count: int, problem: Problem) -> None:
    distilled = full(problem)
    for i in range(count):
        distilled.register_buffer(f"number_{i}", torch.tensor(0.5))
    took = taken(problem, distilled)
    assert took.floats == problem.budget + count
    assert not took.within_budget


# --- headers ----------------------------------------------------------------------------------------------


class WithList(Pixels):
    """Pixels in the config, as whole numbers."""

    def config(self) -> dict[str, Any]:
        return {**super().config(), "pixels": [7] * 32_000}


def test_pixels_in_the_config_are_refused(problem: Problem, tmp_path: Path) -> None:
    distilled = WithList(full(problem).images.detach(), [IPC] * CLASSES, problem.preprocess)
    distilled.save(tmp_path / "x")
    with pytest.raises(UserError, match=r"^the header of x takes \d\d,\d+ bytes, of which 2,.* are allowed"):
        check_header(tmp_path / "x", distilled, CLASSES)


def test_pixels_in_names_and_in_other_metadata_are_refused(problem: Problem, tmp_path: Path) -> None:
    distilled = full(problem)
    names = {f"{'x' * 100}{i}": torch.zeros(0) for i in range(100)}
    save_file({**distilled.state_dict(), **names}, tmp_path / "names", metadata={"ddbench": "{}"})
    more = {"ddbench": json.dumps({}), "more": "x" * 10_000}
    save_file(distilled.state_dict(), tmp_path / "more", metadata=more)
    for name in ("names", "more"):
        with pytest.raises(UserError, match="are allowed: put what is stored into tensors"):
            check_header(tmp_path / name, distilled, CLASSES)


def test_the_sizes_of_a_thousand_classes_fit(tmp_path: Path) -> None:
    problem = make(side=4, n_classes=2)
    distilled = Pixels(
        torch.zeros(1300, 3, 2, 2).expand(1300, 3, 2, 2), [1] * 700 + [2] * 300, problem.preprocess
    )
    distilled.save(tmp_path / "x")
    check_header(tmp_path / "x", distilled, 1000)
