"""Epochs over stored items: one variant of each, drawn anew, as in HaBa's evaluation."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.core import random
from bench.core.batches import BatchOrder, batches_per_epoch
from bench.core.networks.architecture import parse_architecture
from bench.core.preprocess import Preprocess
from bench.core.training import Recipe
from bench.data.dataset import Dataset
from bench.evaluation.scoring import EvaluationSetting, train_and_score
from bench.evaluation.students import TrainingSet, train_students
from bench.interop.diagnose import TrialSetup, _Reread
from bench.planning.protocols import Protocol, load_protocol
from bench.testing.contract import tiny_problem
from methods.blocks.parameterise.hallucinators import Hallucinators
from methods.blocks.parameterise.multi_formation import MultiFormation

CPU = torch.device("cpu")
SHAPE, CLASSES = (1, 8, 8), 10


def hallucinators(digits: Dataset, bases: int) -> Hallucinators:
    problem = tiny_problem(data=digits)
    return Hallucinators.start(problem, random.generator(0), hallucinators=5, bases_per_class=bases)


def setting(digits: Dataset, protocol: Protocol) -> EvaluationSetting:
    return EvaluationSetting(digits, parse_architecture("mlp-w8"), protocol, 2, 0, CPU)


def short(name: str, **changes: int | None) -> Protocol:
    """A protocol of so many epochs and so large batches."""
    protocol = load_protocol(name)
    return protocol.model_copy(update={"recipe": replace(protocol.recipe, **changes)})


def test_the_variants_of_a_basis_are_its_images_under_each_hallucinator(digits: Dataset) -> None:
    distilled = hallucinators(digits, 3)
    found = distilled.variants()
    basis, hallucinator = torch.arange(30)[:, None].expand(30, 5), torch.arange(5).expand(30, 5)
    assert torch.equal(found, distilled.pair(basis.flatten(), hallucinator.flatten()).view(30, 5))
    assert torch.equal(found.flatten().sort().values, torch.arange(150))
    assert torch.equal(distilled.decode()[1][found], (torch.arange(30) // 3)[:, None].expand(30, 5))


def test_other_parameterisations_have_none(digits: Dataset) -> None:
    stored = MultiFormation.start(tiny_problem(data=digits, ipc=2), random.generator(0))
    assert stored.variants() is None  # its tiles are images of their own


@given(n=st.integers(1, 20), variants=st.integers(1, 4), size=st.integers(1, 25))
def test_an_epoch_takes_one_variant_of_each_item(n: int, variants: int, size: int) -> None:
    rows = torch.randperm(n * variants, generator=random.generator(1)).view(n, variants)
    order, per_epoch = BatchOrder(n, size, random.generator(2), CPU, rows), batches_per_epoch(n, size)
    for _ in range(3):
        taken = torch.cat(list(islice(order, per_epoch)))
        assert ((rows[..., None] == taken).any(2).sum(1) == 1).all()
        assert len(taken) == n


def test_each_item_s_variant_is_drawn_for_itself_and_uniformly() -> None:
    rows = torch.arange(3000).view(1000, 3)
    order = BatchOrder(1000, 1000, random.generator(0), CPU, rows)
    first, second = (next(order).sort().values % 3 for _ in range(2))
    for drawn in (first, second):
        assert torch.allclose(drawn.bincount() / 1000, torch.full((3,), 1 / 3), atol=0.06)
    assert 0.25 < (first == second).double().mean() < 0.42


def test_a_stopped_order_of_variants_goes_on() -> None:
    rows = torch.arange(14).view(7, 2)
    order = BatchOrder(7, 3, random.generator(3), CPU, rows)
    next(order)
    other = BatchOrder(7, 3, random.generator(4), CPU, rows)
    other.load_state_dict(order.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(islice(order, 9), islice(other, 9), strict=True))


def test_students_trained_together_draw_the_same_variants() -> None:
    recipe = Recipe(batch_size=4, lr=0.05, epochs=3, augment="flip", cutmix=0.5)
    noise = torch.randn(18, *SHAPE, dtype=torch.float64, generator=random.generator(0))
    rows = torch.arange(18).view(6, 3)
    what = TrainingSet(noise, torch.arange(18) // 3, recipe, Preprocess((0.5,), (0.5,)), variants=rows)

    def weights(together: bool) -> torch.Tensor:
        (taught,) = train_students(
            lambda i: parse_architecture("mlp-w8").build(SHAPE, CLASSES, random.generator(i)).double(),
            what,
            [random.generator(0, "order", i) for i in range(2)],
            together=together,
        ).values()
        return torch.cat([p.flatten() for net in taught.nets for p in net.parameters()])

    torch.testing.assert_close(weights(True), weights(False), rtol=0, atol=1e-9)


def test_haba_s_epochs_go_over_the_bases(digits: Dataset) -> None:
    """2,002 steps at 50 bases per class, and not the 10,010 of all hallucinations."""
    distilled = hallucinators(digits, 50)
    steps = {
        name: setting(digits, load_protocol(name)).training_set(distilled).n_steps for name in ("haba", "mtt")
    }
    assert steps == {"haba": 1001 * 2, "mtt": 1001 * 10}
    recipe = load_protocol("haba").recipe
    assert recipe.drops(2002) == [502 * 2]  # after the epoch of index 501


@pytest.mark.parametrize("curve", [(), (0.5,)])
def test_records_have_the_steps_over_the_items(digits: Dataset, curve: tuple[float, ...]) -> None:
    found = train_and_score(
        hallucinators(digits, 2), setting(digits, short("haba", epochs=3, batch_size=8)), curve=curve
    )
    assert found.training.steps == 3 * 3  # 20 bases in batches of 8
    assert [point.step for point in found.curve] == [4 for _ in curve]


def test_sets_without_variants_are_unaffected(digits: Dataset) -> None:
    stored = MultiFormation.start(tiny_problem(data=digits, ipc=1), random.generator(0))
    over_items = short("haba", epochs=2)
    over_images = over_items.model_copy(update={"epoch_over": "images"})
    one, two = (train_and_score(stored, setting(digits, p)) for p in (over_items, over_images))
    assert one == two


def test_a_set_with_its_classes_renumbered_keeps_its_variants(digits: Dataset) -> None:
    """`verify` scores it under another class order."""
    distilled = hallucinators(digits, 2)
    setup = TrialSetup("as stored", tuple(range(CLASSES)), parse_architecture("mlp"), load_protocol("haba"))
    again = _Reread(distilled, setup).variants()
    assert again is not None
    assert torch.equal(again, distilled.variants())
