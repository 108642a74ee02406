"""The batches of an inner run: balanced or shuffled, drawn from their generator alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.core.augment import dsa
from bench.core.batches import batches_per_epoch
from bench.core.errors import UserError
from bench.core.random import generator
from methods.blocks.inner_batches import InnerBatch, balanced_batches, shuffled_batches


def same(one: list[InnerBatch], two: list[InnerBatch]) -> bool:
    x = torch.linspace(-1, 1, 3 * 8 * 8).view(1, 3, 8, 8)
    return len(one) == len(two) and all(
        torch.equal(a.items, b.items)
        and torch.equal(*(dsa.apply(x.repeat(len(a.items), 1, 1, 1), c.draw) for c in (a, b)))
        for a, b in zip(one, two, strict=True)
    )


@given(
    n_classes=st.integers(1, 6),
    per_class=st.integers(1, 6),
    take=st.integers(1, 8),
    steps=st.integers(0, 5),
    data=st.data(),
)
def test_a_balanced_batch_takes_the_same_of_every_class(
    n_classes: int, per_class: int, take: int, steps: int, data: st.DataObject
) -> None:
    task = data.draw(st.none() | st.lists(st.integers(0, n_classes - 1), min_size=1, unique=True))
    classes = None if task is None else torch.tensor(task)
    found = balanced_batches(n_classes, per_class, take, steps, generator(0, "b"), "none", classes=classes)
    assert len(found) == steps
    wanted = list(range(n_classes)) if task is None else task
    for batch in found:
        rows = batch.items.view(len(wanted), min(take, per_class))
        assert (rows // per_class).tolist() == [[c] * rows.shape[1] for c in wanted], "class after class"
        assert len(batch.items.unique()) == len(batch.items), "without replacement"


def test_every_image_of_a_class_is_as_likely() -> None:
    items = torch.cat([b.items for b in balanced_batches(2, 5, 2, 2000, generator(0, "b"), "none")])
    counts = items.bincount(minlength=10)
    assert ((counts - 800).abs() < 4 * (2000 * 0.4 * 0.6) ** 0.5).all()


@given(n=st.integers(1, 12), size=st.integers(1, 14), epochs=st.integers(1, 3))
def test_a_shuffled_list_is_used_up_before_the_next(n: int, size: int, epochs: int) -> None:
    per_epoch = batches_per_epoch(n, size)
    found = shuffled_batches(n, size, epochs * per_epoch, generator(0, "b"), "none")
    for e in range(epochs):
        chunks = [b.items for b in found[e * per_epoch : (e + 1) * per_epoch]]
        assert sorted(torch.cat(chunks).tolist()) == list(range(n))
        assert [len(c) for c in chunks[:-1]] == [size] * (per_epoch - 1)
        assert len(chunks[-1]) > 1 or 1 in (n, size)


def draws(kind: str, seed: int, strategy: str = "color_crop_flip", **options: bool) -> list[InnerBatch]:
    g = generator(seed, "b")
    if kind == "balanced":
        return balanced_batches(3, 6, 2, 4, g, strategy, **options)
    return shuffled_batches(18, 6, 4, g, strategy, **options)


@pytest.mark.parametrize("kind", ["balanced", "shuffled"])
def test_draws_come_from_the_generator_alone(kind: str) -> None:
    before = torch.get_rng_state()
    one = draws(kind, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(one, draws(kind, 0))
    assert not same(one, draws(kind, 1))
    assert not torch.equal(one[0].items, one[1].items)


@pytest.mark.parametrize("kind", ["balanced", "shuffled"])
def test_augmentation_is_an_images_own_or_shared_by_all(kind: str) -> None:
    x = torch.linspace(-1, 1, 3 * 8 * 8).view(1, 3, 8, 8).repeat(6, 1, 1, 1)
    own = [dsa.apply(x, b.draw) for b in draws(kind, 0, "rotate")]
    shared = [dsa.apply(x, b.draw) for b in draws(kind, 0, "rotate", siamese=True)]
    for images in own:
        assert not torch.equal(images[0], images[1])
    assert all(torch.equal(image, shared[0][0]) for images in shared for image in images)


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="cannot take 0 images"):
        balanced_batches(3, 6, 0, 4, generator(0, "b"), "none")
    with pytest.raises(UserError, match="cannot take 0 images"):
        shuffled_batches(6, 0, 4, generator(0, "b"), "none")
