"""IDC, DC and DSA: when their networks are trained, on what, and what a training may move."""

from typing import Any

import pytest
import torch
from helpers.method import nameless, problem_for, same, small, state
from torch import Tensor, nn

from bench.core.operations import OperationCounter
from methods.blocks.network_pools import TrainedOnReal, TrainedOnSynthetic
from methods.blocks.parameterise.multi_formation import MultiFormation
from methods.blocks.students import InnerStudent

DSA_OPS = "color_crop_cutout_flip_scale_rotate"


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens to networks and pixels, in order."""
    found: list[str] = []

    def note(cls: type, name: str) -> None:
        original = getattr(cls, name)

        def spy(*arguments: Any, **named: Any) -> Any:
            found.append(name)
            return original(*arguments, **named)

        monkeypatch.setattr(cls, name, spy)

    for cls in (TrainedOnReal, TrainedOnSynthetic):
        note(cls, "restart")
        note(cls, "advance")
    note(InnerStudent, "step")
    note(InnerStudent, "skip")
    note(MultiFormation, "clamp")
    return found


@pytest.mark.parametrize("early", [0, 1])
def test_idc_clamps_where_a_network_begins_and_trains_it_between_matchings(
    early: int, events: list[str]
) -> None:
    problem = problem_for(members=6)  # 18 images
    small("idc", iterations=3, inner_steps=2, net_images=9, net_batch=4, early=early).distill(problem)
    begin = ["restart", *["step"] * (early * 5), "clamp"]
    assert events == 3 * [*begin, "advance", *["step"] * 3, "advance", *["skip"] * 3]


@pytest.mark.parametrize("name", ["dc", "dsa"])
def test_dc_trains_its_networks_on_the_synthetic_set_between_matchings(name: str, events: list[str]) -> None:
    """Not after the last one under a network, which would never be used."""
    method = small(name, iterations=2, inner_steps=3, net_epochs=2, net_batch=4)
    method.distill(problem_for(ipc=2))  # 6 images: 2 batches an epoch
    assert events == 2 * ["restart", *2 * ["advance", *["step"] * 4], "advance", *["skip"] * 4]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("dc", {"net_batch": 4}),
        ("dsa", {"net_batch": 4}),
        ("idc", {"train_on": "real", "cutmix": 0.5}),
        ("idc", {"train_on": "synthetic", "cutmix": 0.5, "net_batch": 5}),
        ("compose", {"objective": "gradient_matching", "pool": "trained_on_real"}),
        ("compose", {"objective": "gradient_matching", "pool": "trained_on_synthetic"}),
    ],
)
def test_a_training_that_no_matching_sees_is_left_out_and_nothing_moves(
    name: str, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit what came of training after every matching, whose draws the next networks depend on."""
    steps = {"steps": 5, "stretch": 2} if name == "compose" else {"iterations": 3, "inner_steps": 2}
    method, problem = small(name, **steps, **values), problem_for(ipc=2)
    found = method.distill(problem)
    taken = []
    for pool in (TrainedOnReal, TrainedOnSynthetic):

        def always(self: Any, synthetic: Any, followed: bool, advance: Any = pool.advance) -> None:
            taken.append(followed)
            advance(self, synthetic, followed=True)

        monkeypatch.setattr(pool, "advance", always)
    assert same(state(method.distill(problem)), state(found))
    assert taken == [True, False, True, False, *([False] if name == "compose" else [True, False])]


def test_the_operations_are_those_of_the_trainings_between_matchings() -> None:
    """An epoch more costs nothing under one matching, and twice as much under three as under two."""

    def flops(matchings: int, epochs: int) -> int:
        with OperationCounter() as counter:
            small("dc", iterations=1, inner_steps=matchings, net_epochs=epochs).distill(problem_for(ipc=2))
        return counter.flops

    more = {matchings: flops(matchings, 2) - flops(matchings, 1) for matchings in (1, 2, 3)}
    assert more[1] == 0
    assert more[2] > 0
    assert more[3] == 2 * more[2]


def test_idc_keeps_pixels_in_range_only_where_a_network_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    clamp, outside = MultiFormation.clamp, []

    def spy(self: MultiFormation) -> None:
        outside.append(bool(((self.images < 0) | (self.images > 1)).any()))
        clamp(self)
        assert self.images.min() >= 0
        assert self.images.max() <= 1

    monkeypatch.setattr(MultiFormation, "clamp", spy)
    found = small("idc", iterations=3, lr=100.0).distill(problem_for())
    assert outside == [False, True, True]
    assert found.images.min() < 0 or found.images.max() > 1


@pytest.mark.parametrize("train_on", ["real", "synthetic"])
def test_synthetic_pixels_reach_a_network_only_where_it_learns_from_them(
    train_on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = TrainedOnReal if train_on == "real" else TrainedOnSynthetic
    advance, finite = pool.advance, []

    def poisoned(self: Any, synthetic: MultiFormation, followed: bool) -> None:
        with torch.no_grad():
            synthetic.images.fill_(torch.nan)
        advance(self, synthetic, followed=True)
        finite.extend(bool(p.isfinite().all()) for p in self.net.parameters())

    monkeypatch.setattr(pool, "advance", poisoned)
    small("idc", train_on=train_on, iterations=1, inner_steps=1, cutmix=1.0).distill(problem_for())
    assert all(finite) == (train_on == "real")
    assert finite


@pytest.mark.parametrize(
    ("name", "train_on"), [("idc", "real"), ("idc", "synthetic"), ("dc", ""), ("dsa", "")]
)
def test_a_matching_moves_no_network_and_its_training_no_pixel(
    name: str, train_on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit, the optimiser's momentum included; each does move its own."""
    left: dict[str, Any] = {}
    moved = []

    def snapshot(student: InnerStudent) -> dict[str, Tensor]:
        momenta = enumerate(student.optimiser.state.values())
        kept = {f"momentum {i}": s["momentum_buffer"].clone() for i, s in momenta if "momentum_buffer" in s}
        return state(student.net) | kept

    for pool in (TrainedOnReal, TrainedOnSynthetic):

        def restart(self: Any, restart: Any = pool.restart) -> None:
            restart(self)
            left["net"] = snapshot(self.student)

        def advance(self: Any, synthetic: Any, followed: bool, advance: Any = pool.advance) -> None:
            assert same(snapshot(self.student), left["net"])
            assert all(p.grad is None for p in self.net.parameters())
            before = state(synthetic)
            if "synthetic" in left:
                moved.append(not same(before, left["synthetic"]))
            advance(self, synthetic, followed)
            assert same(state(synthetic), before)
            moved.append(same(snapshot(self.student), left["net"]) is not followed)
            left.update(net=snapshot(self.student), synthetic=before)

        monkeypatch.setattr(pool, "restart", restart)
        monkeypatch.setattr(pool, "advance", advance)
    values = {"train_on": train_on} if train_on else {}
    small(name, iterations=2, inner_steps=3, **values).distill(problem_for(ipc=2))
    assert len(moved) == 11
    assert all(moved)


def test_dsa_without_augmentation_is_dc() -> None:
    problem = nameless(problem_for(ipc=2))
    values = {"iterations": 2, "inner_steps": 3, "batch_real": 4}
    one, two = small("dsa", augment="none", **values), small("dc", **values)
    assert same(state(one.distill(problem)), state(two.distill(problem)))
    assert not same(state(small("dsa", **values).distill(problem)), state(two.distill(problem)))


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("dc", {}, "none"),
        ("dsa", {"augment": "flip"}, "flip"),
        ("idc", {"augment": "flip", "net_augment": "crop"}, "crop"),
    ],
)
def test_networks_train_under_the_augmentation_of_the_paper(
    name: str, values: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategies = []
    make = InnerStudent.__init__

    def spy(self: InnerStudent, net: nn.Module, recipe: Any, draws: torch.Generator) -> None:
        strategies.append(recipe.augment)
        make(self, net, recipe, draws)

    monkeypatch.setattr(InnerStudent, "__init__", spy)
    small(name, **values).distill(problem_for())
    assert strategies == [expected] * 2


def test_idc_may_start_its_networks_from_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    method = small("idc", pool=2, pool_from=1, pool_epochs=2, inner_steps=1, iterations=6)
    assert len(method.requires()) == 3, "epochs 0 to 2 of one block"
    problem = problem_for(method)
    banks = [problem.prepared[f"experts/0/{epoch}"]["weights"] for epoch in (1, 2)]
    known = {tuple(w.tolist()) for bank in banks for w in bank}
    restart, starts = TrainedOnReal.restart, []

    def spy(self: TrainedOnReal) -> None:
        restart(self)
        starts.append(tuple(nn.utils.parameters_to_vector(self.net.parameters()).tolist()))

    monkeypatch.setattr(TrainedOnReal, "restart", spy)
    method.distill(problem)
    assert len(known) == 4
    assert set(starts) <= known
    assert len(set(starts)) > 1
