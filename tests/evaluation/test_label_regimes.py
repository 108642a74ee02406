"""Labels that a teacher gives once: whose they are, what they count, and how they are chosen."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MakeProblem, WriteProtocol
from helpers.cli import ONE_METHOD, ddbench, run_inline, stable_records, sweep_file
from helpers.evaluation import FAST, pixels, protocol, setting
from torch import Tensor

from bench.core import random
from bench.core.distilled import DistilledDataset
from bench.core.networks.architecture import parse_architecture
from bench.core.networks.base import Network
from bench.core.preprocess import Preprocess, Zca
from bench.core.teachers import teacher_state
from bench.core.training import Recipe, train
from bench.data.dataset import Dataset, Split
from bench.evaluation.labels import LabelChoice, label_choice
from bench.evaluation.scoring import rates_on_holdout, train_and_score, tune_on_holdout
from bench.evaluation.storage import measure_storage, weight_bytes
from bench.planning.protocols import TeacherConfig
from bench.records.schema import Record, SoftLabels, dump_record
from methods.blocks.parameterise.multi_formation import MultiFormation
from methods.blocks.parameterise.pixels import Pixels
from methods.blocks.parameterise.weighted_pixels import WeightedPixels
from methods.blocks.teacher import Teacher

TEACHER = Recipe(batch_size=50, lr=0.05, steps=12)
STOPS = (0.25, 0.5, 1.0)
SINGLE = SoftLabels(stop=1.0, temperature=1.0, holdout_scores=None)
HALF = SINGLE.model_copy(update={"stored_as": "fp16"})


HALVED = {"stored_as": "fp16"}


def soft(**changes: Any) -> Any:
    config = {"recipe": TEACHER, "stops": STOPS, "temperatures": (1.0, 4.0), **changes}
    return protocol(labels="soft", teacher=TeacherConfig(**config))


@pytest.fixture(scope="module")
def teacher(make_problem: MakeProblem) -> dict[str, Tensor]:
    """Of an MLP: its weights at each stop."""
    block = Teacher(**dataclasses.asdict(TEACHER), stops=STOPS)
    return block.build(make_problem(architecture="mlp"))


def network(state: dict[str, Tensor], digits: Dataset) -> Network:
    net = parse_architecture("mlp").build(digits.image_shape, 10, random.generator(0))
    net.load_state_dict(state)
    return net.eval()


# --- the teacher ------------------------------------------------------------------------------------------


def test_a_stop_is_the_training_until_then(
    teacher: dict[str, Tensor], make_problem: MakeProblem, digits: Dataset
) -> None:
    problem = make_problem(architecture="mlp")
    for stop, steps in ((0.25, 3), (0.5, 6), (1.0, 12)):
        net = problem.make_net(problem.rng("teacher", "network"))
        recipe = dataclasses.replace(TEACHER, steps=steps)
        draws = problem.rng("teacher", "training")
        train(net, problem.images, problem.labels, recipe, draws, problem.preprocess)
        state = teacher_state(teacher, stop)
        assert state.keys() == net.state_dict().keys()
        assert all(torch.equal(state[name], t) for name, t in net.state_dict().items())
    plain = Teacher(**dataclasses.asdict(TEACHER)).build(problem)
    assert plain.keys() == teacher_state(teacher).keys()
    assert all(torch.equal(teacher[name], t) for name, t in plain.items())


# --- its labels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stop", "temperature"), [(0.25, 1.0), (1.0, 4.0)])
def test_soft_labels_are_the_teacher_s_on_the_decoded_images(
    teacher: dict[str, Tensor], digits: Dataset, stop: float, temperature: float
) -> None:
    distilled = pixels(digits, label_logits=torch.eye(10))  # labels of its own, which give way
    found = setting(digits, soft(), teacher=teacher).training_set(distilled, LabelChoice(stop, temperature))
    net = network(teacher_state(teacher, stop), digits).double()
    logits = net(distilled.decode()[0].double()) / temperature
    expected = logits.exp() / logits.exp().sum(1, keepdim=True)
    torch.testing.assert_close(found.targets.double(), expected.detach(), rtol=0, atol=1e-6)
    assert found.teacher is None, "nobody asks it again"
    assert not found.targets.requires_grad


def test_labels_that_are_stored_at_fp16_are_rounded_to_it(
    teacher: dict[str, Tensor], digits: Dataset
) -> None:
    one, two = (
        setting(digits, soft(stops=(), temperatures=(), **more), teacher=teacher) for more in ({}, HALVED)
    )
    exact, rounded = (exam.training_set(pixels(digits)).targets for exam in (one, two))
    assert torch.equal(rounded, exact.half().float())
    assert not torch.equal(rounded, exact)
    assert train_and_score(pixels(digits), two).training.soft_labels == HALF
    assert "stored_as" not in one.protocol.model_dump()["teacher"]


def test_weights_of_images_multiply_what_a_teacher_says(teacher: dict[str, Tensor], digits: Dataset) -> None:
    plain, weights = pixels(digits), torch.linspace(0.5, 1.5, 20)
    weighted = WeightedPixels(plain.images.detach(), weights, plain.counts, plain.preprocess)
    one, two = (setting(digits, soft(), teacher=teacher).training_set(s) for s in (plain, weighted))
    torch.testing.assert_close(two.targets, one.targets * weights[:, None])


@pytest.mark.parametrize("kind", ["other", "zca"])
def test_a_teacher_sees_images_as_it_was_trained(
    teacher: dict[str, Tensor], digits: Dataset, kind: str
) -> None:
    """A set that is normalised otherwise, or whitened, gets the labels of its pixels."""
    images = digits.train.images[:30]
    given = Preprocess((0.3,), (0.5,)) if kind == "other" else Zca.fit(digits.train.images, eps=1e-4)
    own = Preprocess(digits.mean, digits.std)
    whitened, plain = (Pixels(p(images), [3] * 10, p) for p in (given, own))
    one, two = (
        setting(digits, soft(), teacher=teacher).training_set(one).targets for one in (whitened, plain)
    )
    torch.testing.assert_close(one, two, rtol=0, atol=1e-4)


def test_a_teacher_of_another_network_labels(make_problem: MakeProblem, digits: Dataset) -> None:
    name = "convnet-d1-w4"
    other = Teacher(**dataclasses.asdict(TEACHER)).build(make_problem(architecture=name))
    wanted = soft(architecture=name, stops=(), temperatures=())
    exam = setting(digits, wanted, teacher=other)
    net = parse_architecture(name).build(digits.image_shape, 10, random.generator(0))
    net.load_state_dict(other)
    images = pixels(digits).decode()[0]
    expected = net.eval()(images).softmax(1).detach()
    torch.testing.assert_close(exam.training_set(pixels(digits)).targets, expected)
    assert wanted.trials == 0
    told = train_and_score(pixels(digits), exam).training
    assert (told.labels, told.soft) == ("soft", True)
    assert told.soft_labels is not None
    assert told.soft_labels == SINGLE


# --- what counts ------------------------------------------------------------------------------------------


def images_of(distilled: DistilledDataset) -> int:
    return len(distilled.decode()[0])


@pytest.mark.parametrize("learned", [False, True])
def test_soft_labels_count_and_do_not_break_the_budget(
    teacher: dict[str, Tensor], digits: Dataset, make_problem: MakeProblem, learned: bool
) -> None:
    own = {"label_logits": torch.zeros(10, 10)} if learned else {}
    for distilled in (pixels(digits, **own), MultiFormation.start(make_problem(ipc=2), random.generator(0))):
        n = images_of(distilled)
        before = measure_storage(distilled, digits, 2)
        hard, given, half = (
            measure_storage(distilled, digits, 2, teacher, labels) for labels in (None, SINGLE, HALF)
        )
        assert half == given.model_copy(update={"bytes": given.bytes - 2 * 10 * n})
        assert given.floats == before.floats + 10 * n
        assert given.bytes == 4 * given.floats
        assert given.label_floats == (before.label_floats or 0) + 10 * n
        assert given.ipc_equivalent == given.floats / 640
        assert given.within_budget == before.within_budget
        assert (given.teacher_bytes, hard.teacher_bytes) == (0, weight_bytes(teacher_state(teacher)))
        assert hard == before.model_copy(update={"teacher_bytes": hard.teacher_bytes})
    assert measure_storage(pixels(digits, **own), digits, 2).label_floats == (100 if learned else 0)
    kept = Pixels(digits.train.images[:20], [2] * 10, Preprocess(digits.mean, digits.std))
    assert measure_storage(kept, digits, 2, teacher, SINGLE).bytes_uint8 == 20 * 64 + 4 * 20 * 10
    assert measure_storage(kept, digits, 2, teacher, HALF).bytes_uint8 == 20 * 64 + 2 * 20 * 10


# --- the choice -------------------------------------------------------------------------------------------


def test_labels_are_chosen_without_the_test_split(teacher: dict[str, Tensor], digits: Dataset) -> None:
    poisoned = dataclasses.replace(digits, test=Split(digits.test.images[:0], digits.test.labels[:0]))
    wanted = soft().model_copy(update={"rates": (1e-6, 0.05)})
    clean, blind = (
        tune_on_holdout(pixels(d), setting(d, wanted, teacher=teacher), 0.1) for d in (digits, poisoned)
    )
    assert clean.keys() == blind.keys() == {"label_accuracies", "rates", "accuracies"}
    assert all(torch.equal(clean[name], blind[name]) for name in clean)
    assert clean["label_accuracies"].shape == (6, 2)
    assert clean["accuracies"].shape == (2, 2)
    chosen = label_choice(wanted, clean)
    assert chosen == label_choice(wanted, blind)
    at_best = rates_on_holdout(pixels(digits), setting(digits, wanted, teacher=teacher), 0.1, chosen)
    assert torch.equal(at_best["accuracies"], clean["accuracies"]), "the labels first"


def test_the_best_labels_are_trained_on(teacher: dict[str, Tensor], digits: Dataset) -> None:
    wanted, means = soft(), [0.1, 0.2, 0.1, 0.7, 0.7, 0.3]
    tuned = {"label_accuracies": torch.tensor([[m, m] for m in means], dtype=torch.float64)}
    assert label_choice(wanted, tuned) == LabelChoice(0.5, 4.0), "of equals the first"
    assert label_choice(protocol(), None) is None
    exam = setting(digits, wanted, teacher=teacher)
    result = train_and_score(pixels(digits), exam, tuned)
    told = result.training.soft_labels
    assert told is not None
    assert (told.stop, told.temperature) == (0.5, 4.0)
    assert told.holdout_scores == pytest.approx(
        {"0.25/1": 0.1, "0.25/4": 0.2, "0.5/1": 0.1, "0.5/4": 0.7, "1/1": 0.7, "1/4": 0.3}
    )
    only = setting(digits, soft(stops=(0.5,), temperatures=(4.0,)), teacher=teacher)
    assert result.scores == train_and_score(pixels(digits), only).scores
    assert result.scores != train_and_score(pixels(digits), exam).scores


def test_tiles_are_shuffled_where_a_set_has_them(digits: Dataset) -> None:
    wanted = protocol(recipe=dataclasses.replace(FAST, augment="tiles+flip"))
    whole, tiled = pixels(digits), pixels(digits)
    tiled.tiles = 2
    told = [train_and_score(one, setting(digits, wanted)).training.augment for one in (whole, tiled)]
    assert told == ["flip", "tiles2+flip"]


# --- through the command line -----------------------------------------------------------------------------


def test_regimes_are_cells_of_their_own(tmp_path: Path, write_protocol: WriteProtocol) -> None:
    recipe = {"batch_size": 50, "lr": 0.05, "steps": 8}
    taught = {"recipe": recipe, "stops": [0.5, 1.0], "stored_as": "fp16"}
    regimes = {kind: {"labels": kind, "teacher": taught} for kind in ("soft", "teacher")}
    write_protocol("mine", variants={"hard": {"labels": "hard"}, **regimes})
    evaluate = {
        "architectures": ["mlp"], "students": 1, "protocol": "mine",
        "labels": ["stored", "hard", "soft", "teacher"],
    }  # fmt: skip
    sweep = sweep_file(tmp_path, **{**ONE_METHOD, "evaluate": evaluate})
    ended = run_inline(sweep, tmp_path / "out")
    assert ended.code == 0, ended.err
    found = {(r["protocol"], r["seed"]): r for r in stable_records(tmp_path / "out").values()}
    assert len(found) == 6  # two seeds; what is stored are hard labels
    names = {"mine.hard": "hard", "mine.soft": "soft", "mine.teacher": "teacher"}
    assert {r["protocol"]: r["training"]["labels"] for r in found.values()} == names
    assert {name: found[name, 0]["storage"]["label_floats"] for name in names} == {
        "mine.hard": 0, "mine.soft": 100, "mine.teacher": 0
    }  # fmt: skip
    assert [name for name in names if found[name, 0]["storage"]["teacher_bytes"]] == ["mine.teacher"]
    choices = [found["mine.soft", seed]["training"]["soft_labels"] for seed in (0, 1)]
    assert choices[0] == choices[1], "chosen once for all seeds"
    assert choices[0]["holdout_scores"].keys() == {"0.5/1", "1/1"}
    built = [p.read_text() for p in (tmp_path / "out/artifacts").glob("*/meta.json")]
    assert sum('"block": "Teacher"' in text for text in built) == 1
    assert "protocol mine.soft" in ended.text
    assert "labels KiB" in ended.text
    again = run_inline(sweep, tmp_path / "out")
    assert "Every cell has its record" in again.text
    checked = ddbench("submit-check", tmp_path / "out", "--sample", 6)
    assert checked.code == 0, checked.out


def test_a_forged_choice_of_labels_is_found(tmp_path: Path, write_protocol: WriteProtocol) -> None:
    taught = {"recipe": {"batch_size": 50, "lr": 0.05, "steps": 8}, "stops": [0.25, 1.0]}
    write_protocol("mine", labels="soft", teacher=taught)
    sweep = sweep_file(
        tmp_path,
        **{**ONE_METHOD, "evaluate": {"architectures": ["mlp"], "students": 1, "protocol": "mine"}},
    )
    assert run_inline(sweep, tmp_path / "out").code == 0
    for path in (tmp_path / "out/records").glob("*.json"):
        content = json.loads(path.read_text())
        del content["sha256"]
        told = content["training"]["soft_labels"]
        told["stop"] = 0.25 if told["stop"] == 1.0 else 1.0
        path.write_text(dump_record(Record.model_validate(content)))
    checked = ddbench("submit-check", tmp_path / "out", "--sample", 2)
    assert checked.code != 0
    assert "training.soft_labels are not those of mine that scored best" in checked.out


def test_a_regime_that_a_protocol_lacks_is_named(tmp_path: Path) -> None:
    evaluate = {"architectures": ["mlp"], "protocol": "dc300", "labels": ["soft"]}
    ended = ddbench("plan", sweep_file(tmp_path, evaluate=evaluate), "--out", tmp_path / "out")
    assert ended.code == 2
    assert "labels: protocol dc300 has no variant for `soft`" in ended.err
    assert not (tmp_path / "out").exists()
