"""The memory of RTP: its budget, its linear algebra, its queries, its two starts."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.parameterise import decoded, make, noise, some_items, stir
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.core import random
from bench.core.errors import UserError
from bench.core.preprocess import Preprocess
from methods.blocks.parameterise.base import kappa
from methods.blocks.parameterise.linear_bases import LinearBases, _images_per_class
from methods.blocks.parameterise.pca import principal_directions, small_images
from methods.blocks.parameterise.pixels import Pixels

PLAIN = Preprocess((0.0,), (1.0,))


def memory(
    k: int = 3, r: int = 2, d: int = 4, *, side: int = 4, downsample: int = 2, queries: Tensor | None = None
) -> LinearBases:
    return LinearBases(noise(k, 1, side, side), noise(r, d, k), downsample, PLAIN, queries=queries)


def literal(memory: LinearBases, query: Tensor, i: int) -> Tensor:
    """x_i(q) = U(q A_i M), as it is written."""
    small = torch.einsum("d,dk,kchw->chw", query, memory.addresses[i], memory.bases)
    h, w = (memory.downsample * n for n in small.shape[1:])
    return F.interpolate(small[None], (h, w), mode="bilinear", align_corners=False)[0].detach()


# --- budget ---------------------------------------------------------------------------------------

TABLE = [  # side, channels, classes, ipc, bases -> r, stored floats
    (32, 3, 10, 1, 8, 307, 6144 + 24560),
    (32, 3, 10, 1, 16, 115, 12288 + 18400),
    (32, 3, 10, 1, 32, 19, 24576 + 6080),
    (32, 3, 10, 10, 16, 1843, 12288 + 294880),
    (32, 3, 10, 10, 64, 403, 49152 + 257920),
    (32, 3, 10, 10, 160, 115, 122880 + 184000),
    (32, 3, 10, 50, 256, 523, 196608 + 1338880),
    (32, 3, 10, 50, 800, 115, 614400 + 920000),
    (32, 3, 100, 1, 16, 184, 12288 + 294400),
    (32, 3, 100, 1, 64, 40, 49152 + 256000),
    (32, 3, 100, 1, 128, 16, 98304 + 204800),
    (28, 1, 10, 1, 16, 29, 3136 + 4640),
    (64, 3, 200, 1, 64, 176, 196608 + 2252800),
    (64, 3, 200, 1, 256, 32, 786432 + 1638400),
]


@pytest.mark.parametrize(("side", "channels", "classes", "ipc", "bases", "r", "floats"), TABLE)
def test_images_per_class_by_the_papers_rule(
    side: int, channels: int, classes: int, ipc: int, bases: int, r: int, floats: int
) -> None:
    problem = make(side, channels, classes, ipc, members=1)
    distilled = LinearBases.start(problem, random.generator(0), bases=bases)
    assert distilled.per_class == r
    assert distilled.n_stored == floats
    assert 0 <= problem.budget - floats < classes * bases


def test_short_queries_buy_more_images() -> None:
    problem = make(32, 3, 100, 1, members=1)
    options = {"bases": 64, "queries": "learned", "query_dim": 16}
    distilled = LinearBases.start(problem, random.generator(0), **options)
    assert distilled.per_class == (307_200 - 49_152 - 1_600) // (16 * 64) == 250


@given(
    classes=st.integers(2, 6),
    ipc=st.integers(1, 5),
    bases=st.integers(1, 9),
    downsample=st.sampled_from([1, 2, 4]),
    dim=st.integers(1, 5),
    queries=st.sampled_from(["onehot", "learned", "centroid"]),
    labels=st.sampled_from(["hard", "class", "image", "joint"]),
)
@settings(max_examples=100)
def test_nothing_is_over_the_budget_and_no_further_image_fits(**case: Any) -> None:
    problem = make(8, 1, case.pop("classes"), case.pop("ipc"), members=2)
    c, k, dim, labels = problem.n_classes, case["bases"], case.pop("dim"), case["labels"]
    named = case["queries"] != "onehot"
    fixed = (
        k * (8 // case["downsample"]) ** 2 + named * c * dim + {"class": c * c, "joint": k * c}.get(labels, 0)
    )
    each = (dim if named else c) * k + (c * c if labels == "image" else 0)
    if named:
        case["query_dim"] = dim
    if fixed + each > problem.budget:
        with pytest.raises(UserError, match="with one address take"):
            LinearBases.start(problem, random.generator(0), **case)
    else:
        distilled = LinearBases.start(problem, random.generator(0), **case)
        assert distilled.n_stored == fixed + distilled.per_class * each
        assert distilled.n_stored <= problem.budget < distilled.n_stored + each


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"downsample": 3}, "take at least 1 base and one of 1, 2, 4, 8"),
        ({"downsample": 0}, "one of 1, 2, 4, 8"),
        ({"bases": 0}, "0 bases"),
        ({"bases": 12, "downsample": 1}, "at most 8 bases or downsample 2 or a larger ipc"),
        ({"bases": 60}, "at most 33 bases or downsample 4"),
        ({"query_dim": 4}, "leave query_dim out"),
        ({"queries": "text"}, "no kind of queries named 'text'"),
        ({"bases": 19, "init": "pca", "downsample": 4}, "no 19 principal directions of 18 images"),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        LinearBases.start(make(8, 3, 3, 3), random.generator(0), **options)
    assert "\n" not in str(caught.value)


def test_the_advice_that_is_given_fits() -> None:
    problem = make(8, 3, 3, 3)
    for options in ({"bases": 8, "downsample": 1}, {"bases": 12, "downsample": 2}, {"bases": 33}):
        assert LinearBases.start(problem, random.generator(0), **options).per_class >= 1
    with pytest.raises(UserError):
        LinearBases.start(problem, random.generator(0), bases=9, downsample=1)


# --- decode ---------------------------------------------------------------------------------------


@given(
    k=st.integers(1, 4),
    r=st.integers(1, 3),
    side=st.integers(1, 4),
    downsample=st.integers(1, 3),
    dim=st.sampled_from([None, 1, 2, 3]),
)
def test_decode_is_what_the_paper_writes(k: int, r: int, side: int, downsample: int, dim: int | None) -> None:
    """Class-major, and U(A M) = A U(M)."""
    queries = None if dim is None else noise(3, dim, seed=2)
    distilled = memory(k, r, dim or 3, side=side, downsample=downsample, queries=queries)
    q = torch.eye(3, dtype=torch.float64) if queries is None else queries
    images, labels = distilled.decode()
    assert labels.tolist() == [c for c in range(3) for _ in range(r)]
    for item, image in enumerate(images.detach()):
        expected = literal(distilled, q[item // r], item % r)
        torch.testing.assert_close(image, expected, rtol=0, atol=1e-12)


def test_one_hot_queries_are_an_identity_table() -> None:
    plain = memory()
    told = memory(queries=torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(decoded(told), decoded(plain), rtol=0, atol=1e-14)
    assert told.n_stored == plain.n_stored + 2 * 16  # numbers of 8 bytes count twice


def test_gradients_by_differences_and_where_the_rows_go() -> None:
    queries = noise(3, 2, seed=3)
    distilled = LinearBases(
        noise(2, 1, 2, 2), noise(2, 2, 2), 2, PLAIN, queries=queries, learned_queries=True
    )
    parameters = (distilled.bases, distilled.addresses, distilled.queries)
    assert torch.autograd.gradcheck(lambda *_: distilled.decode()[0], parameters)
    plain = memory()
    plain.decode(torch.tensor([5]))[0].sum().backward()  # class 2, image 1
    touched = plain.addresses.grad.abs().sum(2).nonzero().tolist()
    assert touched == [[1, 2]]


def test_a_selector_of_whole_images_is_plain_pixels() -> None:
    images = noise(6, 2, 4, 4)
    addresses = torch.eye(6, dtype=torch.float64).view(3, 2, 6).transpose(0, 1)  # class c, image i: c * 2 + i
    preprocess = Preprocess((0.0,) * 2, (1.0,) * 2)
    distilled = LinearBases(images, addresses, 1, preprocess)
    assert torch.equal(decoded(distilled), decoded(Pixels(images, [2] * 3, preprocess)))


@given(k=st.integers(1, 5), downsample=st.integers(1, 3))
def test_the_rank_is_at_most_the_number_of_bases(k: int, downsample: int) -> None:
    images = decoded(memory(k, 3, 4, downsample=downsample))
    assert int(torch.linalg.matrix_rank(images.flatten(1), rtol=1e-10)) == k


# --- queries --------------------------------------------------------------------------------------


@given(a=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_mixed_query_is_the_mixup_of_the_images(a: float, seed: int) -> None:
    distilled, one = memory(), torch.eye(4, dtype=torch.float64)
    c, e = torch.randperm(4, generator=random.generator(seed))[:2].tolist()
    mixed = distilled.recall((a * one[c] + (1 - a) * one[e])[None]).detach()
    images = decoded(distilled)
    expected = a * images[2 * c : 2 * c + 2] + (1 - a) * images[2 * e : 2 * e + 2]
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-12)


def test_recalling_the_stored_queries_decodes() -> None:
    queries = noise(5, 2, seed=4)
    distilled = memory(d=2, queries=queries)
    torch.testing.assert_close(distilled.recall(queries).detach(), decoded(distilled), rtol=0, atol=1e-14)
    assert len(distilled.recall(noise(7, 2))) == 7 * 2


def test_a_class_is_embedded_as_the_stored_ones_were() -> None:
    problem = make()
    options = {"bases": 3, "queries": "centroid", "query_dim": 5}
    distilled = LinearBases.start(problem, random.generator(0), **options)
    assert distilled.queries is not None
    assert "queries" not in dict(distilled.named_parameters())
    torch.testing.assert_close(distilled.queries.norm(dim=1), torch.ones(3))
    for c in range(3):
        own = distilled.embed(problem.preprocess(problem.images[problem.labels == c]))
        torch.testing.assert_close(own, distilled.queries[c], rtol=0, atol=1e-5)
    other = LinearBases.start(problem, random.generator(1), **options)
    assert torch.equal(distilled.queries, other.queries), "the projection is the same for every seed"
    with pytest.raises(UserError, match="one-hot queries know no new class"):
        memory().embed(noise(2, 1, 8, 8))


# --- coefficients of other images -----------------------------------------------------------------


def test_images_in_the_span_are_recovered() -> None:
    distilled, a = memory(), noise(6, 3)
    images = distilled.combine(a).detach()
    torch.testing.assert_close(distilled.fit(images, 0.0).detach(), a, rtol=0, atol=1e-10)
    with torch.no_grad():
        assert torch.equal(decoded(distilled), distilled.combine(distilled._coefficients(None)))


@given(ridge=st.floats(1e-3, 10))
def test_a_fit_is_the_minimum_of_the_ridge_objective(ridge: float) -> None:
    distilled, images = memory(), noise(4, 1, 8, 8, seed=1)
    a = distilled.fit(images, ridge).detach().requires_grad_()
    objective = (distilled.combine(a) - images).square().sum() + ridge * a.square().sum()
    (gradient,) = torch.autograd.grad(objective, a)
    assert float(gradient.abs().max()) < 1e-10


# --- starts ---------------------------------------------------------------------------------------


def test_xavier_has_the_bounds_of_two_embedding_tables() -> None:
    distilled = LinearBases.start(make(32, 3, 10, 1, members=1), random.generator(0))  # K 16, r 115
    for tensor, rows, columns, std in (
        (distilled.bases, 16, 768, 0.0505),
        (distilled.addresses, 1150, 16, 0.0414),
    ):
        bound = math.sqrt(6 / (rows + columns))
        x = tensor.detach()
        assert 0.99 * bound < float(x.max()) <= bound
        assert -bound <= float(x.min()) < -0.99 * bound
        assert float(x.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert float(x.std()) == pytest.approx(std, rel=0.02)
    assert float(decoded(distilled).std()) < 0.01  # almost black


@pytest.mark.parametrize("downsample", [1, 2])
def test_pca_with_every_direction_recalls_real_images(downsample: int) -> None:
    problem = make(4, 1, 3, 20, members=8)
    k = (4 // downsample) ** 2
    distilled = LinearBases.start(problem, random.generator(0), bases=k, downsample=downsample, init="pca")
    small = small_images(problem, 4 // downsample)
    real = F.interpolate(small, (4, 4), mode="bilinear", align_corners=False).flatten(1)
    images, labels = distilled.decode()
    gap = (images.detach().flatten(1)[:, None] - real).abs().amax(2)
    assert float(gap.amin(1).max()) < 1e-5
    assert torch.equal(problem.labels[gap.argmin(1)], labels)


def test_pca_through_queries_recalls_the_same_images() -> None:
    """Three queries in three dimensions can say everything that one-hot ones can."""
    problem = make(4, 1, 3, 20, members=8)
    options = {"bases": 4, "init": "pca", "labels": "hard"}
    told = LinearBases.start(problem, random.generator(0), queries="centroid", query_dim=3, **options)
    real = F.interpolate(small_images(problem, 2), (4, 4), mode="bilinear", align_corners=False).flatten(1)
    gap = (decoded(told).flatten(1)[:, None] - real).abs().amax(2)
    assert float(gap.amin(1).max()) < 1e-4


def test_principal_directions_are_the_leading_singular_vectors() -> None:
    n, d, k = 40, 12, 4
    left, right = (torch.linalg.qr(noise(m, d)).Q for m in (n, d))
    rows = left * 0.6 ** torch.arange(d) @ right.T
    found = principal_directions(rows, k, random.generator(0))
    torch.testing.assert_close(found @ found.T, torch.eye(k, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        (found @ right[:, :k]).abs(), torch.eye(k, dtype=torch.float64), rtol=0, atol=1e-8
    )
    every = principal_directions(noise(5, 3), 3, random.generator(0))
    torch.testing.assert_close(every @ every.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)


# --- labels that the bases carry ------------------------------------------------------------------


def test_joint_labels_add_what_each_basis_says() -> None:
    problem = make(ipc=3)
    distilled = stir(LinearBases.start(problem, random.generator(0), bases=3, labels="joint"))
    assert distilled.basis_labels.shape == (3, 3)
    items = some_items(distilled)
    coefficients = distilled._coefficients(items)
    own = F.one_hot(items // distilled.per_class, 3)
    expected = (kappa(3) * own + coefficients @ distilled.basis_labels).softmax(1)
    torch.testing.assert_close(distilled.decode(items)[1], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("labels", "cost"), [("hard", 0), ("class", 9), ("joint", 12)])
def test_what_labels_of_a_memory_cost(labels: str, cost: int) -> None:
    problem = make(8, 1, 3, 3)
    r = _images_per_class(problem, 4, 2, 3, "onehot", labels)
    distilled = LinearBases.start(problem, random.generator(0), bases=4, labels=labels)
    assert distilled.per_class == r == (3 * 3 * 64 - 4 * 16 - cost) // 12
    assert distilled.n_stored == 4 * 16 + 12 * r + cost
