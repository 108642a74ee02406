"""DD-Ranking's scores: the published formulas on fractions, and the records that they are computed from."""

import math
from typing import Any

import numpy as np
import pytest
from helpers.record import make, trained
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.dd_ranking import FORMULAS, ars, dd_ranking_scores, dd_score, hlr, ior, lrs
from bench.analysis.intervals import score_interval
from bench.records.columns import record_frame
from bench.records.schema import Record

FRACTION = st.floats(0, 1)
SEEDS = {"full": (0.90, 0.92, 0.91), "random_real": (0.40, 0.44, 0.45), "dm": (0.60, 0.61, 0.65)}
AUGMENTED = trained(augment="flip")
ESTIMATES = ["hlr", "ior", "lrs", "ars"]


# --- formulas -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alpha", "value"),
    [(-1, 0), (-0.35, 0.143), (-0.2, 0.192), (0, 0.269), (0.2, 0.363), (0.5, 0.545), (1, 1)],
)
def test_scores_of_the_published_table(alpha: float, value: float) -> None:
    assert dd_score(alpha) == pytest.approx(value, abs=5e-4)
    assert lrs(2 * alpha, 0) == ars(alpha, alpha) == dd_score(alpha)


def test_a_published_example_on_fractions() -> None:
    """MTT, CIFAR-10, ipc 50: 71.6, random 50.6, full 84.8; hard labels throughout."""
    assert lrs(ior(0.716, 0.506), hlr(0.848, 0.716)) == pytest.approx(0.286, abs=1e-3)


@given(st.tuples(FRACTION, FRACTION, FRACTION, FRACTION), FRACTION)
def test_two_accuracies_of_a_seed_may_be_mixed_first(accuracies: tuple[float, ...], weight: float) -> None:
    """The intervals rely on it: both scores are linear in the accuracies before `dd_score`."""
    own, hard, random, full = accuracies
    mixed = weight * own + (1 - weight) * hard
    alpha = weight * ior(own, random) - (1 - weight) * hlr(full, hard)
    assert lrs(ior(mixed, random), hlr(full, mixed), weight) == pytest.approx(dd_score(alpha))
    gain = mixed - (weight * random + (1 - weight) * full)
    assert ars(ior(own, random), ior(hard, full), weight) == pytest.approx(ars(gain, gain))


def test_seeds_of_different_methods_are_independent() -> None:
    """The same noise in both groups would cancel if seeds were paired."""
    low, high = score_interval(FORMULAS["ior"], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert low < -0.05 < 0.05 < high


# --- from records -------------------------------------------------------------------------------------------


def cell(method: str, *, gain: float = 0.0, **fields: Any) -> list[Record]:
    """Three seeds of a method; `gain` is added to its SEEDS."""
    ipc = None if method == "full" else 1
    given: dict[str, Any] = {"ipc": ipc, "training": AUGMENTED} | fields
    return [make(method, accuracies=(a + gain,), seed=s, **given) for s, a in enumerate(SEEDS[method])]


def found(records: list[Record]) -> dict[tuple[str, str], dict[str, Any]]:
    rows = dd_ranking_scores(record_frame(records)).to_dict("records")
    return {(row["method"], row["protocol"]): {str(k): v for k, v in row.items()} for row in rows}


def known(row: dict[str, Any]) -> list[str]:
    return [name for name in ESTIMATES if not math.isnan(row[name])]


def test_hard_labels_under_one_protocol_give_all_but_robustness() -> None:
    rows = found(cell("full") + cell("random_real") + cell("dm"))
    full, random, dm = (float(np.mean(SEEDS[name])) for name in ("full", "random_real", "dm"))
    row = rows["dm", "quick"]
    assert known(row) == ["hlr", "ior", "lrs"]
    assert row["hlr"] == pytest.approx(full - dm)
    assert row["ior"] == pytest.approx(dm - random)
    assert row["lrs"] == pytest.approx(lrs(dm - random, full - dm))
    assert row["hlr_protocol"] == "quick"
    for name in known(row):
        assert row[f"{name}_ci_low"] < row[name] < row[f"{name}_ci_high"]
    assert rows["random_real", "quick"]["hlr"] == pytest.approx(full - random)
    assert known(rows["random_real", "quick"]) == ["hlr"]
    assert ("full", "quick") not in rows


def test_two_seeds_claim_no_interval() -> None:
    row = found([r for r in cell("full") + cell("random_real") + cell("dm") if r.seed < 2])["dm", "quick"]
    assert known(row) == ["hlr", "ior", "lrs"]
    assert all(math.isnan(row[f"{name}_ci_low"]) for name in ESTIMATES)


def test_soft_labels_take_their_hard_half_from_the_protocol_that_differs_in_them_only() -> None:
    soft, hard = trained(augment="flip", soft=True), trained("hard", augment="flip")
    other = trained("hard", augment="none")
    records = [*cell("random_real"), *cell("dm", training=soft)]
    assert known(found(records + cell("full"))["dm", "quick"]) == ["ior"]
    for name, gain, training in (("hard", -0.1, hard), ("plain", -0.3, other)):
        records += cell("full", protocol=name, training=training, gain=gain)
        records += cell("dm", protocol=name, training=training, gain=gain)
    row = found(records)["dm", "quick"]
    full, random, dm = (float(np.mean(SEEDS[name])) for name in ("full", "random_real", "dm"))
    assert row["hlr_protocol"] == "hard"
    assert row["hlr"] == pytest.approx(full - dm)
    assert row["lrs"] == pytest.approx(dd_score(0.5 * (dm - random) - 0.5 * (full - dm)))


def test_robustness_pairs_a_protocol_with_augmentation_and_one_without() -> None:
    plain = trained(steps=30)
    records = cell("dm") + cell("random_real")
    records += cell("dm", protocol="plain", training=plain, gain=-0.1)
    without = found(records)
    assert known(without["dm", "quick"]) == ["ior"]
    records += cell("random_real", protocol="plain", training=plain, gain=0.05)
    row = found(records)["dm", "quick"]
    gain = float(np.mean(SEEDS["dm"]) - np.mean(SEEDS["random_real"]))
    assert row["ars"] == pytest.approx(ars(gain, gain - 0.15))
    assert row["ars_protocol"] == "plain"
    assert known(found(records)["dm", "plain"]) == ["ior"]
    mixed = trained(cutmix=0.5)
    assert known(found([r.model_copy(update={"training": mixed}) for r in records])["dm", "quick"]) == ["ior"]


def test_of_several_partners_the_one_with_as_many_steps_is_taken() -> None:
    def without(steps: int) -> list[Record]:
        training = trained(steps=steps)
        return [r for m in ("dm", "random_real") for r in cell(m, protocol=f"s{steps}", training=training)]

    both = cell("dm") + cell("random_real")
    assert found(both + without(30) + without(100))["dm", "quick"]["ars_protocol"] == "s100"
    assert known(found(both + without(30) + without(40))["dm", "quick"]) == ["ior"]


@pytest.mark.parametrize(
    ("fields", "left"),
    [({"eval_arch": "mlp"}, ["hlr"]), ({"dataset": "other"}, ["hlr"]), ({"ipc": 10}, ["hlr"])],
)
def test_random_images_of_another_cell_are_not_taken(fields: dict[str, Any], left: list[str]) -> None:
    assert known(found(cell("full") + cell("random_real", **fields) + cell("dm"))["dm", "quick"]) == left


def test_a_soft_whole_set_is_no_ceiling_and_two_baselines_are_none() -> None:
    teacher = trained("teacher", augment="flip", soft=True)
    records = cell("full", training=teacher) + cell("random_real") + cell("dm")
    assert known(found(records)["dm", "quick"]) == ["ior"]
    twice = cell("full") + cell("random_real") + cell("random_real", method_version=2) + cell("dm")
    assert known(found(twice)["dm", "quick"]) == ["hlr"]


def test_a_cell_whose_students_were_not_trained_alike_has_no_score() -> None:
    one, *others = cell("dm")
    records = [*cell("full"), *cell("random_real"), one.model_copy(update={"training": trained()}), *others]
    assert list(found(records)) == [("random_real", "quick")]


def test_a_method_alone_has_no_score() -> None:
    assert dd_ranking_scores(record_frame([make()])).empty
