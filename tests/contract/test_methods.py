"""The contract that every method keeps, and what the parts of the papers compute."""

import dataclasses
import importlib
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import MakeProblem
from helpers.method import same, small, state
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.core import random as rng
from bench.core.distilled import DistilledDataset
from bench.core.method import IPC, SEED, Problem
from bench.core.networks.architecture import parse_architecture
from bench.core.registry import block_class, method_class, method_names
from bench.core.sampling import ClassIndex, ClassSampler
from bench.planning.presets import preset
from bench.planning.sweep import build_method
from bench.planning.yaml_schema import CONFIGS
from bench.testing.contract import (
    TINY,
    check_budget,
    check_declaration,
    check_dependence,
    check_draws,
    check_storage,
    own_classes,
)
from methods.blocks.objectives import distribution_matching
from methods.blocks.parameterise.pixels import Pixels
from methods.dm import DM
from methods.herding import herd
from methods.k_center import farthest_first
from methods.k_means import nearest_to_centres

METHODS = sorted(method_names())
PREREQUISITES = sorted({p for name in METHODS for p in small(name).requires().values()}, key=str)
CASES = [(name, ipc) for name in METHODS for ipc in (1, 2)]


# --- the contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_is(name: str) -> None:
    cls, built = method_class(name), small(name)
    check_declaration(built)
    with pytest.raises(dataclasses.FrozenInstanceError):
        cls().version = 2
    assert len({built, small(name)}) == 1
    for prepare in built.requires().values():
        assert block_class(type(prepare).__name__) is type(prepare)


@pytest.mark.parametrize(("name", "ipc"), CASES)
def test_a_method_gives_a_balanced_set_within_its_budget(name: str, ipc: int) -> None:
    check_budget(small(name), ipc)


@pytest.mark.parametrize(("name", "ipc"), CASES)
def test_plain_images_are_ipc_and_others_are_more(name: str, ipc: int, make_problem: MakeProblem) -> None:
    method = small(name)
    distilled = method.distill(make_problem(method, ipc=ipc, architecture=TINY))
    counts = own_classes(distilled).bincount(minlength=10)
    if isinstance(distilled, Pixels) or getattr(distilled, "decoder", None) == "stored":
        wanted = torch.full((10,), ipc) if IPC in method.depends_on else make_problem().labels.bincount()
        assert torch.equal(counts, wanted)
    else:  # several training images from what one takes
        assert counts.min() == counts.max() > ipc


@pytest.mark.parametrize("name", METHODS)
def test_a_method_draws_from_its_seed_alone(name: str) -> None:
    check_draws(small(name))


@pytest.mark.parametrize("prepare", PREREQUISITES, ids=str)
def test_a_prerequisite_draws_from_its_seed_alone(prepare: Any, make_problem: MakeProblem) -> None:
    def build(**values: int) -> dict[str, Tensor]:
        return prepare.build(make_problem(prepare, architecture=TINY, **values))

    torch.manual_seed(987_654_321)
    before = torch.get_rng_state()
    one = build(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert same(one, build(seed=1))
    assert same(one, build(seed=2)) != (SEED in prepare.depends_on)
    assert same(one, build(seed=1, ipc=2)) != (IPC in prepare.depends_on)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_depends_on_what_it_says(name: str) -> None:
    check_dependence(small(name))


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_gives_can_be_stored(name: str) -> None:
    check_storage(small(name))


@pytest.mark.parametrize("name", METHODS)
def test_every_preset_builds_its_method(name: str) -> None:
    """Each row names parameters and values that the method takes, also together with the rows before it."""
    path = CONFIGS / "methods" / f"{name}.yaml"
    rows = yaml.safe_load(path.read_text()) if path.exists() else []
    datasets = {d for row in rows for d in row.get("datasets") or ()} | {"any other"}
    for row in rows:
        build_method(name, row.get("values", {}))
    for dataset, ipc in itertools.product(datasets, (1, 10, 50)):
        values = preset(name, dataset, ipc)
        built = build_method(name, values)
        own = {key: value for key, value in values.items() if key != "preprocess"}  # that is of any method
        assert {key: getattr(built, key) for key in own} == own
        assert len(built.requires()) < 1000


def test_no_method_can_see_the_test_split() -> None:
    assert not any("test" in field.name for field in dataclasses.fields(Problem))
    assert not any("test" in name for name in vars(Problem))
    for path in Path(importlib.import_module("methods").__path__[0]).rglob("*.py"):
        assert not re.search(r"\btest\b", path.read_text()), path


# --- coresets -------------------------------------------------------------------------------------


def features(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=rng.generator(seed, "features"))


@given(n=st.integers(1, 9), d=st.integers(1, 4), seed=st.integers(0, 999), data=st.data())
def test_herding_is_greedy(n: int, d: int, seed: int, data: st.DataObject) -> None:
    """Each next image brings the mean of the chosen ones nearest to the class mean, of all that are left."""
    x, k = features(n, d, seed), data.draw(st.integers(1, n))
    chosen = herd(x, k).tolist()
    assert len(set(chosen)) == k
    for m in range(k):
        left = [i for i in range(n) if i not in chosen[:m]]
        gaps = {i: float((x[[*chosen[:m], i]].mean(0) - x.mean(0)).norm()) for i in left}
        assert gaps[chosen[m]] == pytest.approx(min(gaps.values()), rel=1e-12, abs=1e-12)


def test_herding_by_hand() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0], [9.0]])  # mean 3: first 2, then 9 would be too far: 2, 1 -> 1.5
    assert herd(x, 4).tolist() == [2, 1, 3, 0]


@given(n=st.integers(1, 9), d=st.integers(1, 4), seed=st.integers(0, 999), data=st.data())
def test_k_center_takes_the_farthest(n: int, d: int, seed: int, data: st.DataObject) -> None:
    x, k = features(n, d, seed), data.draw(st.integers(1, n))
    chosen = farthest_first(x, k).tolist()
    from_mean = (x - x.mean(0)).norm(dim=1)
    assert float(from_mean[chosen[0]]) == pytest.approx(float(from_mean.min()), rel=1e-12, abs=1e-12)
    assert len(set(chosen)) == k
    distance = torch.cdist(x, x)
    for m in range(1, k):
        nearest = distance[:, chosen[:m]].min(dim=1).values
        assert float(nearest[chosen[m]]) == pytest.approx(float(nearest.max()), rel=1e-12)


@given(n=st.integers(3, 12), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_k_means_takes_different_images(n: int, seed: int) -> None:
    x, k = features(n, 3, seed), n // 2 + 1
    chosen = nearest_to_centres(x, k, seed)
    assert len(set(chosen.tolist())) == k
    assert torch.equal(chosen, nearest_to_centres(x, k, seed))


def test_k_means_finds_separate_clusters() -> None:
    centres = 100 * torch.eye(4)
    x = (centres[:, None] + torch.linspace(-1, 1, 5)[:, None]).flatten(
        0, 1
    )  # five a cluster, third is its mean
    assert sorted(nearest_to_centres(x, 4, 0).tolist()) == [2, 7, 12, 17]


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("pick", [herd, farthest_first, lambda x, k: nearest_to_centres(x, k, 0)])
def test_identical_images_are_not_taken_twice(pick: Any) -> None:
    x = torch.ones(6, 2)
    for k in range(1, 7):
        assert len(set(pick(x, k).tolist())) == k


# --- distribution matching ------------------------------------------------------------------------


def test_distribution_matching_in_closed_form() -> None:
    real, synthetic = features(12, 5, 0), features(6, 5, 1)
    means = zip(real.split(4), synthetic.split(2), strict=True)
    expected = sum((r.mean(0) - s.mean(0)).square().sum() for r, s in means)
    torch.testing.assert_close(distribution_matching(real, synthetic, 3), expected, rtol=0, atol=1e-12)
    assert distribution_matching(real, real.repeat_interleave(2, 0), 3) < 1e-28
    torch.testing.assert_close(
        distribution_matching(3 * real, 3 * synthetic, 3), 9 * expected, rtol=1e-14, atol=0
    )


@pytest.mark.parametrize("norm", ["instance", "group", "layer", "none"])
def test_all_classes_at_once_have_the_gradient_of_the_papers_loop(norm: str) -> None:
    net = (
        parse_architecture(f"convnet-d2-w4-{norm}")
        .build((1, 8, 8), 3, rng.generator(0))
        .double()
        .requires_grad_(False)
    )
    real, synthetic = features(12, 64, 0).view(12, 1, 8, 8), features(6, 64, 1).view(6, 1, 8, 8)
    synthetic.requires_grad_()
    batched = distribution_matching(net.embed(real), net.embed(synthetic), 3)
    looped = sum(
        (net.embed(r).mean(0) - net.embed(s).mean(0)).square().sum()
        for r, s in zip(real.split(4), synthetic.split(2), strict=True)
    )
    torch.testing.assert_close(batched, looped, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(loss, synthetic)[0] for loss in (batched, looped)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-12)


def test_gradient_of_distribution_matching_to_the_pixels() -> None:
    net = (
        parse_architecture("convnet-d1-w2")
        .build((1, 4, 4), 2, rng.generator(0))
        .double()
        .requires_grad_(False)
    )
    target = net.embed(features(6, 16, 0).view(6, 1, 4, 4))
    images = features(4, 16, 1).view(4, 1, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: distribution_matching(target, net.embed(x), 2), images)


def test_dm_draws_a_fresh_network_each_step_and_trains_none(make_problem: MakeProblem) -> None:
    nets, starts = [], []
    for seed in (0, 1):
        problem = make_problem(seed=seed)

        def spy(generator: torch.Generator, problem: Problem = problem) -> Any:
            nets.append(problem.make_net(generator))
            starts.append(state(nets[-1]))
            return nets[-1]

        distilled = DM(steps=3, batch_real=8).distill(dataclasses.replace(problem, make_net=spy))
        assert distilled.images.requires_grad
    assert len(nets) == 2 * 3
    assert not any(same(one, two) for one, two in itertools.combinations(starts, 2))
    for net, start in zip(nets, starts, strict=True):
        assert same(state(net), start)
        assert all(p.grad is None and not p.requires_grad for p in net.parameters())


def held_out_loss(problem: Problem, distilled: DistilledDataset) -> float:
    """Mean matching loss under networks that the method has not seen, against whole classes."""
    index = ClassIndex.of(problem.labels, 10)
    images, _ = distilled.decode()
    losses = []
    with torch.no_grad():
        for i in range(5):
            net = problem.make_net(rng.generator(99, "held out", i))
            real = net.embed(problem.preprocess(problem.images))
            gaps = [
                real[index.members(c)].mean(0) - synthetic.mean(0)
                for c, synthetic in enumerate(net.embed(images).split(problem.ipc))
            ]
            losses.append(sum(float(gap.square().sum()) for gap in gaps))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("init", "factor"), [("real", 2), ("noise", 2)])
def test_dm_lowers_the_loss_under_unseen_networks(init: str, factor: int, make_problem: MakeProblem) -> None:
    problem = make_problem(ipc=2)
    values = {"batch_real": 32, "init": init, "augment": "none"}
    start = DM(steps=1, lr=1e-9, **values).distill(problem)
    end = DM(steps=50, lr=1.0, **values).distill(problem)
    assert held_out_loss(problem, end) < held_out_loss(problem, start) / factor


def test_dm_starts_from_real_images_or_noise(make_problem: MakeProblem) -> None:
    problem = make_problem(ipc=3)
    real, labels = DM(steps=1, lr=1e-12, momentum=0.0).distill(problem).decode()
    everything = problem.preprocess(problem.images)
    distance = (real.flatten(1)[:, None] - everything.flatten(1)).abs().amax(dim=2)
    assert torch.all(distance.min(dim=1).values < 1e-6)
    assert torch.equal(problem.labels[distance.argmin(dim=1)], labels)
    noise = DM(steps=1, lr=1e-12, momentum=0.0, init="noise").distill(make_problem(ipc=10)).images.detach()
    n = noise.numel()
    assert abs(float(noise.mean())) < 4 / n**0.5
    assert abs(float(noise.var()) - 1) < 4 * (2 / n) ** 0.5


def test_a_real_batch_is_never_larger_than_the_smallest_class(
    make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, sizes = make_problem(), []
    draw = ClassSampler.next

    def spy(self: ClassSampler) -> Tensor:
        sizes.append(draw(self).shape[1])
        return draw(self)

    monkeypatch.setattr(ClassSampler, "next", spy)
    DM(steps=1, batch_real=100_000).distill(problem)
    assert sizes == [1, int(problem.labels.bincount().min())]
