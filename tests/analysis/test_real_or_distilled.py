"""Distilled against real sets, by label regime: who is compared, and how often a verdict is wrong."""

import numpy as np
import pandas as pd
import pytest
from helpers.record import make, regime_records

from bench.analysis.aggregate import summary_frame
from bench.analysis.real_or_distilled import KIND_OF, kind_of, sets_by_regime, verdict_of
from bench.core.registry import method_names
from bench.records.columns import record_frame
from bench.records.schema import Record, Storage


def sets(found: list[Record]) -> pd.DataFrame:
    flat = record_frame(found)
    return sets_by_regime(flat, summary_frame(flat))


def verdicts(found: list[Record]) -> dict[str, str]:
    under = sets(found)
    return dict(zip(under[under["labels"] == "hard"]["method"], under["verdict"], strict=False))


def test_every_method_has_a_kind_and_others_are_distilled() -> None:
    assert set(KIND_OF) <= set(method_names())
    assert {kind_of(name) for name in ("dm", "idc", "mtt", "sre2l", "of_somebody")} == {"distilled"}
    assert (kind_of("random_real"), kind_of("el2n"), kind_of("rded")) == ("random", "chosen", "patched")


def test_a_set_is_compared_with_every_real_one() -> None:
    found = regime_records(
        {"random_real": 0.5, "herding": 0.6, "dm": 0.7, "idc": 0.6, "mtt": 0.55, "rded": 0.7}
    )
    assert verdicts(found) == {
        "dm": "better", "rded": "better", "herding": "", "idc": "not told apart", "mtt": "worse",
        "random_real": "",
    }  # fmt: skip
    under = sets(found)
    assert set(under["best_real"]) == {"herding"}
    assert under[under["method"] == "dm"]["difference"].tolist() == pytest.approx([0.1] * 3)
    assert under.groupby("labels")["method"].count().tolist() == [6, 6, 6]
    assert set(under["protocol"]) == {"short"}


@pytest.mark.parametrize(
    ("distilled", "said"),
    [(0.7, "distilled better"), (0.5, "real better"), (0.6, "not told apart"), (None, "")],
)
def test_the_verdict_of_a_place(distilled: float | None, said: str) -> None:
    more = {} if distilled is None else {"dm": distilled, "idc": min(distilled, 0.55)}
    under = sets(regime_records({"random_real": 0.5, "herding": 0.6, "rded": 0.9, "class_mean": 0.9, **more}))
    assert {verdict_of(part) for _, part in under.groupby("labels")} == {said}


def test_what_stores_more_is_not_compared() -> None:
    """Over its budget, or with labels for more images than a plain set has."""
    base = regime_records({"random_real": 0.5, "dm": 0.6})
    over = regime_records({"label_only": 0.9}, within_budget=False)
    many = [
        r.model_copy(update={"storage": labels_of(r, 400 if r.training.labels == "soft" else 0)})
        for r in regime_records({"idc": 0.7})
    ]
    under = sets(base + over + many).set_index(["method", "labels"])
    assert not under.loc["label_only", "equal_storage"].any()
    assert under.loc["idc", "equal_storage"].to_dict() == {"hard": True, "soft": False, "teacher": True}
    assert under.loc[("idc", "soft"), "verdict"] == ""
    assert set(under["best_real"]) == {"random_real"}


def labels_of(record: Record, floats: int) -> Storage:
    return record.storage.model_copy(update={"label_floats": floats})


def test_only_protocols_with_several_regimes() -> None:
    assert sets(regime_records({"random_real": 0.5, "dm": 0.6}, regimes=("hard",))).empty
    both = [*regime_records({"random_real": 0.5, "dm": 0.6}), make("dm", protocol="quick")]
    assert set(sets(both)["protocol"]) == {"short"}


@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_sets_get_a_wrong_verdict_in_one_of_twenty_at_most(seeds: int) -> None:
    """All means are equal: of 300 places at most 7 % (five, and what chance adds) say anything."""
    rng, wrong = np.random.default_rng(seeds), 0
    deviation = np.array([0.01, 0.01, 0.02, 0.03, 0.015] * 4)
    kinds = ["random", *["chosen"] * 9, *["distilled"] * 10]
    for _ in range(300):
        drawn = 0.5 + deviation[:, None] * rng.standard_normal((20, seeds))
        place = pd.DataFrame(
            {
                "kind": kinds,
                "equal_storage": True,
                "accuracy_mean": drawn.mean(axis=1),
                "accuracy_std": drawn.std(axis=1, ddof=1),
                "n_seeds": seeds,
            }
        )
        wrong += verdict_of(place) != "not told apart"
    assert wrong <= 21
