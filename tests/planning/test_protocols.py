"""Protocols: the files, their variants, and what the choice of a learning rate does."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.core.errors import UserError
from bench.core.training import Recipe
from bench.planning import protocols
from bench.planning.protocols import (
    LabelKind,
    Protocol,
    in_regimes,
    load_protocol,
    load_protocols,
    protocol_names,
)
from bench.planning.yaml_schema import CONFIGS

QUICK: dict[str, Any] = yaml.safe_load((CONFIGS / "protocols/quick.yaml").read_text())
NAMES = protocol_names()


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the only protocol file is to be written."""
    monkeypatch.setattr(protocols, "CONFIGS", tmp_path)
    (tmp_path / "protocols").mkdir()
    return tmp_path / "protocols/mine.yaml"


@pytest.mark.parametrize("name", NAMES)
def test_every_protocol_loads(name: str) -> None:
    found = load_protocols(name)
    assert all(p.name == name or p.name.startswith(f"{name}.") for p in found)
    assert all(len(p.about) > 10 for p in found)
    for protocol in found:  # what a job's identity holds gives the protocol back
        dumped = protocol.model_dump(mode="json", exclude={"about"})
        assert Protocol(about=protocol.about, **dumped) == protocol


def test_the_issue_s_protocols_are_there() -> None:
    assert {"standard", "dc300", "dsa1000", "mtt", "haba", "idc", "rtp", "dc_bench", "quick"} <= set(NAMES)


def test_dc_bench_is_a_row_for_each_augmentation() -> None:
    found = {p.name: p.recipe for p in load_protocols("dc_bench")}
    assert {name: (r.augment, r.epochs) for name, r in found.items()} == {
        "dc_bench.none": ("none", 301),
        "dc_bench.dsa": ("color_crop_cutout_flip_scale_rotate", 1001),
        "dc_bench.autoaugment": ("autoaugment", 1001),
        "dc_bench.randaugment": ("randaugment", 1001),
    }
    assert load_protocols("dc_bench.dsa") == [p for p in load_protocols("dc_bench") if "dsa" in p.name]
    with pytest.raises(UserError, match=r"only `run` and `evaluate` train its teacher"):
        load_protocol("standard.teacher", taught=False)
    with pytest.raises(UserError, match=r"dc_bench stands for several: name one of dc_bench\.none, "):
        load_protocol("dc_bench")


def test_a_variant_changes_what_it_names_and_nothing_else() -> None:
    standard = load_protocol("standard")
    hard, plain, teacher = (load_protocol(f"standard.{v}") for v in ("hard", "plain", "teacher"))
    assert hard == standard.model_copy(update={"name": hard.name, "about": hard.about, "labels": "hard"})
    assert plain.recipe.augment == "none"
    assert (plain.recipe.steps, plain.rates) == (standard.recipe.steps, standard.rates)
    assert teacher.teacher is not None
    assert teacher.recipe == standard.recipe


@pytest.mark.parametrize("name", ["standard", "quick", "decoupled"])
def test_regimes_are_variants_that_differ_in_their_labels_only(name: str) -> None:
    kinds: list[LabelKind] = ["stored", "hard", "soft", "teacher"]
    found = [load_protocol(named) for named in in_regimes(name, kinds)]
    assert [p.labels for p in found] == kinds
    assert len({(p.recipe, p.rates, p.version) for p in found}) == 1
    assert found[2].teacher == found[3].teacher, "one training serves both"
    assert [p.trials - len(p.rates) for p in found] == [0, 0, len(found[2].label_candidates), 0]
    base = load_protocol(name)
    assert in_regimes(name, [base.labels]) == [name]


def test_a_protocol_without_a_regime_says_so() -> None:
    with pytest.raises(UserError, match="labels: protocol dc300 has no variant for `soft`"):
        in_regimes("dc300", ["stored", "soft"])
    with pytest.raises(UserError, match=r"labels: protocol dc_bench\.none has no variant for `stored`"):
        in_regimes("dc_bench", ["hard", "stored"])


def test_students_of_decoupled_sets_train_as_rded_s() -> None:
    decoupled = load_protocol("decoupled")
    recipe, teacher = decoupled.recipe, decoupled.teacher
    assert (recipe.optimiser, recipe.lr, recipe.momentum, recipe.weight_decay) == ("adamw", 1e-3, 0.9, 0.01)
    assert (recipe.augment, recipe.cutmix, recipe.steps) == ("tiles+flip", 1.0, 1000)
    assert recipe.rate_factor(0, 300) == 1
    assert recipe.rate_factor(300, 300) == pytest.approx(0.5)
    assert teacher is not None
    assert teacher.temperature == 20
    assert (teacher.recipe.lr, teacher.recipe.epochs, teacher.recipe.schedule) == (0.1, 200, "cosine")


def test_a_job_s_identity_has_every_option() -> None:
    """Also those at their default, so that a new default in the code is a new key; but for later fields."""
    dumped = load_protocol("quick").model_dump(mode="json", exclude={"about"})
    assert set(dumped) == set(Protocol.model_fields) - {"about", "epoch_over", "precision", "rules"}
    later = {"optimiser", "schedule", "loss", "fresh_at_drops"}
    assert set(dumped["recipe"]) == {field.name for field in dataclasses.fields(Recipe)} - later


def test_an_option_of_later_versions_is_in_the_identity_where_it_changes_something() -> None:
    assert load_protocol("haba").model_dump()["epoch_over"] == "items"
    assert "epoch_over" not in load_protocol("mtt").model_dump()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"version": 0}, "version: "),
        ({"versoin": 1}, "did you mean version?"),
        ({"recipe": {**QUICK["recipe"], "epochs": 3}}, "give steps or epochs"),
        ({"recipe": 7}, "a protocol is a mapping"),
        ({"recipe": {}}, "recipe"),
        ({"labels": "softer"}, "labels: "),
        ({"labels": "soft"}, "teacher: `labels: soft` and `labels: teacher` need it"),
        ({"teacher": {"recipe": QUICK["recipe"], "stops": [1.5]}, "labels": "soft"}, "teacher.stops"),
        ({"teacher": {"recipe": QUICK["recipe"], "temperatures": [0]}, "labels": "soft"}, "temperatures"),
        (
            {"teacher": {"recipe": QUICK["recipe"], "architecture": "resnet19"}, "labels": "teacher"},
            "did you mean resnet18?",
        ),
        ({"labels": "teacher"}, "teacher: `labels: soft` and `labels: teacher` need it"),
        ({"teacher": {"recipe": QUICK["recipe"]}}, "teacher: `labels: soft` and `labels: teacher` need it"),
        ({"rates": [0.1]}, "rates: must contain recipe.lr"),
        ({"rates": [0.03, 0.03]}, "rates: 0.03 is given twice"),
        ({"rates": [0.03], "learned_lr": True}, "give one of them"),
        ({"rates": [0.03], "epoch_over": "items"}, "rates and epoch_over: items: give one of them"),
        ({"epoch_over": "bases"}, "epoch_over: "),
        ({"variants": {"x": {"lables": "hard"}}, "recipe": {"lr": 1}}, "did you mean labels?"),
        ({"variants": ["hard"]}, "variants: must be a mapping of names to changed keys"),
        ({"variants": {"hard": None}}, "variants: must be a mapping of names to changed keys"),
        ({"variants": {"hard": {"recipe": 3}}}, "variants: must be a mapping of names to changed keys"),
    ],
)
def test_bad_protocols_name_their_file(mine: Path, changes: dict[str, Any], complaint: str) -> None:
    mine.write_text(yaml.safe_dump({**QUICK, **changes}))
    with pytest.raises(UserError) as caught:
        load_protocol("mine")
    assert str(caught.value).startswith(f"{mine}: ")
    assert complaint in str(caught.value)


def test_a_variant_without_about_names_its_file(mine: Path) -> None:
    content = {key: value for key, value in QUICK.items() if key != "about"}
    mine.write_text(yaml.safe_dump({**content, "variants": {"hard": {"labels": "hard"}}}))
    with pytest.raises(UserError, match=r"mine\.yaml: about: is missing"):
        load_protocol("mine.hard")


def test_an_unknown_protocol_gets_suggestions(mine: Path) -> None:
    mine.write_text(yaml.safe_dump({**QUICK, "variants": {"hard": {"labels": "hard"}}}))
    assert load_protocol("mine.hard").labels == "hard"
    with pytest.raises(UserError, match=r"no protocol named 'mien' \(did you mean mine\?\)"):
        load_protocol("mien")
    with pytest.raises(UserError, match=r"choose from: mine, mine\.hard"):
        load_protocol("mine.soft")
