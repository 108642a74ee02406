"""What students are trained on, how a learning rate is chosen, and who reads the test split when."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import WriteProtocol
from helpers.cli import ONE_METHOD, Ended, ddbench, run_inline, stable_records, sweep_file
from helpers.evaluation import FAST, pixels, protocol, setting
from safetensors.torch import load_file

from bench.core import random
from bench.core.networks.architecture import parse_architecture
from bench.core.preprocess import Preprocess
from bench.core.training import accuracy, train
from bench.data.dataset import Dataset, Split
from bench.evaluation import scoring
from bench.evaluation.labels import Seeing
from bench.evaluation.metrics import score_students
from bench.evaluation.scoring import learning_rate, rates_on_holdout, train_and_score
from bench.evaluation.students import train_students
from bench.planning.protocols import load_protocol
from methods.blocks.parameterise.weighted_pixels import WeightedPixels


def test_students_are_those_of_plain_training(digits: Dataset) -> None:
    distilled = pixels(digits)
    found = train_and_score(distilled, setting(digits, protocol())).scores.accuracies
    images, targets = (t.detach() for t in distilled.decode())
    for i, value in enumerate(found):
        init, order = (random.generator(0, "student", i, purpose) for purpose in ("init", "order"))
        net = parse_architecture("mlp").build(digits.image_shape, 10, init)
        train(net, images, targets, FAST, order)
        assert value == accuracy(net, digits.test.images, digits.test.labels, distilled.preprocess)


def test_weights_are_no_soft_labels_and_count_under_hard_ones(digits: Dataset) -> None:
    plain = pixels(digits)
    weighted = WeightedPixels(
        plain.images.detach(), torch.linspace(0.5, 1.5, 20), plain.counts, plain.preprocess
    )
    stored, hard = (
        train_and_score(weighted, setting(digits, protocol(labels=k))) for k in ("stored", "hard")
    )
    alike = train_and_score(plain, setting(digits, protocol()))
    assert not stored.training.soft
    assert hard.scores.accuracies == stored.scores.accuracies != alike.scores.accuracies


def test_hard_labels_replace_what_is_stored(digits: Dataset) -> None:
    soft = pixels(digits, label_logits=torch.eye(10) * 2)
    stored, hard = (setting(digits, protocol(labels=kind)).training_set(soft) for kind in ("stored", "hard"))
    assert stored.targets.shape == (20, 10)
    assert torch.equal(hard.targets, stored.targets.argmax(1))
    assert train_and_score(soft, setting(digits, protocol())).training.soft
    assert not train_and_score(soft, setting(digits, protocol(labels="hard"))).training.soft


def test_the_learned_step_size_is_used_where_asked_for(digits: Dataset) -> None:
    learned = pixels(digits, inner_lr=torch.tensor(0.02))
    assert learning_rate(learned, protocol(learned_lr=True), None)[:2] == (pytest.approx(0.02), "artifact")
    assert learning_rate(learned, protocol(), None)[:2] == (0.05, "protocol")
    assert learning_rate(pixels(digits), protocol(learned_lr=True), None)[:2] == (0.05, "protocol")
    trained = train_and_score(learned, setting(digits, protocol(learned_lr=True)))
    by_hand = protocol(recipe=dataclasses.replace(FAST, lr=float(learned.inner_lr.detach())))
    assert trained.scores == train_and_score(learned, setting(digits, by_hand)).scores


def test_ties_of_rates_go_to_the_protocol_s_own() -> None:
    wanted = protocol(rates=(0.01, 0.05, 0.1))

    def chosen(*means: float) -> tuple[float, str, dict[str, float] | None]:
        tensors = {"rates": torch.tensor(wanted.rates, dtype=torch.float64)}
        tensors["accuracies"] = torch.tensor([[m, m] for m in means], dtype=torch.float64)
        return learning_rate(torch.nn.Identity(), wanted, tensors)

    assert chosen(0.5, 0.5, 0.5)[0] == 0.05
    assert chosen(0.5, 0.4, 0.5)[0] in (0.01, 0.1)
    assert chosen(0.1, 0.2, 0.3) == (0.1, "holdout", {"0.01": 0.1, "0.05": 0.2, "0.1": 0.3})


def test_a_rate_is_chosen_without_the_test_split(digits: Dataset) -> None:
    poisoned = dataclasses.replace(digits, test=Split(digits.test.images[:0], digits.test.labels[:0]))
    wanted = protocol(rates=(1e-6, 0.05))
    clean, blind = (rates_on_holdout(pixels(d), setting(d, wanted), 0.1) for d in (digits, poisoned))
    assert torch.equal(clean["accuracies"], blind["accuracies"])
    assert clean["accuracies"].shape == (2, 2)
    assert clean["accuracies"][1].mean() > clean["accuracies"][0].mean() + 0.1  # 1e-6 learns nothing


def test_no_image_is_both_learned_and_judged() -> None:
    images = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1)
    floats = images.float() / 255
    # a coreset keeps its images, and the hold-out goes without them
    learn, judge = scoring._apart(floats[[0, 1]], images[[1, 2, 3]])
    assert learn.all()
    assert judge.tolist() == [False, True, True]
    # the whole training set goes without the hold-out
    learn, judge = scoring._apart(floats, images[[1, 2, 3]])
    assert learn.tolist() == [i not in (1, 2, 3) for i in range(12)]
    assert judge.all()
    # and distilled images are nobody's
    learn, judge = scoring._apart(floats + 0.3, images[[1, 2]])
    assert learn.all()
    assert judge.all()


def test_a_teacher_sees_its_own_normalisation(digits: Dataset) -> None:
    own, given = Preprocess((0.5,), (0.25,)), Preprocess((0.1,), (0.7,))
    x = torch.rand(3, 1, 8, 8)
    seen = Seeing(torch.nn.Identity(), own, given)(given(x))
    torch.testing.assert_close(seen, own(x))
    assert Seeing(torch.nn.Identity(), own, own)(x) is x


def test_the_curve_is_told_after_the_training(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    teach, judge = train_students, score_students

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            events.append(name)
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(scoring, "train_students", watched("teach", teach))
    monkeypatch.setattr(scoring, "score_students", watched("judge", judge))
    wanted = setting(digits, protocol())
    result = train_and_score(pixels(digits), wanted, curve=[0.5, 0.25])
    assert events == ["teach", "judge", "judge", "judge"]
    assert [(p.fraction, p.step) for p in result.curve] == [(0.25, 3), (0.5, 6)]
    half = protocol(recipe=dataclasses.replace(FAST, steps=6))
    assert (
        result.curve[1].accuracies == train_and_score(pixels(digits), setting(digits, half)).scores.accuracies
    )
    assert result.scores == train_and_score(pixels(digits), wanted).scores


# --- through the command line -------------------------------------------------------------------------------


def swept(tmp_path: Path, **changes: Any) -> Ended:
    evaluate = {"architectures": ["mlp"], "students": 2, **changes.pop("evaluate")}
    sweep = sweep_file(tmp_path, **{**ONE_METHOD, "evaluate": evaluate, **changes})
    return run_inline(sweep, tmp_path / "out")


def test_the_rate_is_chosen_once_for_all_seeds(tmp_path: Path, write_protocol: WriteProtocol) -> None:
    write_protocol("grid", rates=[0.003, 0.03])
    ended = swept(tmp_path, evaluate={"protocol": "grid"})
    assert ended.code == 0, ended.err
    found = list(stable_records(tmp_path / "out").values())
    assert len(found) == 2  # two seeds
    assert len({str(r["training"]["holdout_scores"]) for r in found}) == 1
    assert {r["training"]["lr_from"] for r in found} == {"holdout"}
    assert all(set(r["training"]["holdout_scores"]) == {"0.003", "0.03"} for r in found)
    metas = [
        p for p in (tmp_path / "out/artifacts").iterdir() if '"kind": "tune"' in (p / "meta.json").read_text()
    ]
    assert len(metas) == 1
    assert load_file(metas[0] / "data.safetensors")["accuracies"].shape == (2, 2)
    again = swept(tmp_path, evaluate={"protocol": "grid"})
    assert "Every cell has its record" in again.text


def test_several_protocols_are_tables_of_their_own(tmp_path: Path, write_protocol: WriteProtocol) -> None:
    write_protocol("one")
    write_protocol("two", labels="hard", variants={"long": {"recipe": {"steps": 20}}})
    ended = swept(tmp_path, evaluate={"protocol": ["one", "two.long"], "curve": [0.5]})
    assert ended.code == 0, ended.err
    found = list(stable_records(tmp_path / "out").values())
    assert {(r["protocol"], r["training"]["steps"]) for r in found} == {("one", 10), ("two.long", 20)}
    assert all(r["metrics"]["curve"][0]["step"] == r["training"]["steps"] // 2 for r in found)
    assert all(len(r["metrics"]["class_accuracies"]) == 2 for r in found)
    assert "protocol one" in ended.text
    assert "protocol two.long" in ended.text


def test_a_teacher_is_trained_once_and_labels(tmp_path: Path, write_protocol: WriteProtocol) -> None:
    teacher = {"recipe": {"batch_size": 50, "lr": 0.05, "epochs": 1}, "temperature": 2.0}
    write_protocol("taught", labels="teacher", teacher=teacher)
    ended = swept(
        tmp_path, evaluate={"protocol": "taught"}, methods=["random_real", {"name": "dm", "steps": 2}]
    )
    assert ended.code == 0, ended.err
    found = list(stable_records(tmp_path / "out").values())
    assert len(found) == 4
    assert all(r["training"]["soft"] and r["training"]["labels"] == "teacher" for r in found)
    built = [p.read_text() for p in (tmp_path / "out/artifacts").glob("*/meta.json")]
    assert sum('"block": "Teacher"' in text for text in built) == 1


def test_a_full_set_is_tuned_without_the_hold_out(tmp_path: Path, write_protocol: WriteProtocol) -> None:
    write_protocol("grid", rates=[0.003, 0.03])
    ended = swept(
        tmp_path,
        evaluate={"protocol": "grid"},
        methods=["full"],
        distill={"architectures": ["mlp"], "seeds": [0]},
    )
    assert ended.code == 0, ended.err
    (record,) = stable_records(tmp_path / "out").values()
    assert record["training"]["lr_from"] == "holdout"


def test_unknown_protocols_are_named(tmp_path: Path) -> None:
    ended = swept(tmp_path, evaluate={"protocol": ["quick", "standrad"]})
    assert ended.code == 2
    assert "did you mean standard?" in ended.err
    assert load_protocol("standard").rates
    evaluate = {"architectures": ["mlp"], "students": 1, "protocol": "standard"}
    plan = ddbench("plan", sweep_file(tmp_path, evaluate=evaluate), "--out", tmp_path / "out")
    assert "5 tune" in plan.text  # full, and two methods at two budgets
