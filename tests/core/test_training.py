"""Training: SGD against a loop by hand, and draws from one generator alone."""

import math
from itertools import islice
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.core import random
from bench.core.augment import dsa
from bench.core.augment.cutmix import apply_cutmix, draw_cutmix
from bench.core.batches import BatchOrder
from bench.core.errors import UserError
from bench.core.networks.architecture import parse_architecture
from bench.core.preprocess import Preprocess
from bench.core.training import Recipe, accuracy, augmented_loss, teacher_loss, train, training
from bench.data.dataset import Dataset

CPU = torch.device("cpu")


def blobs(n: int = 60, dtype: torch.dtype = torch.float64, side: int = 2) -> tuple[Tensor, Tensor]:
    """Three classes of images of four squares that a linear model separates."""
    labels = torch.arange(n) % 3
    centres = 3 * torch.eye(4, dtype=dtype)[:3]
    images = centres[labels] + 0.3 * torch.randn(n, 4, dtype=dtype, generator=random.generator(0, "blobs"))
    return F.interpolate(images.view(n, 1, 2, 2), side), labels


def linear(seed: int = 0, side: int = 2) -> nn.Module:
    layer = nn.Linear(side**2, 3, dtype=torch.float64)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, dtype=torch.float64, generator=random.generator(seed, "linear")))
    return nn.Sequential(nn.Flatten(), layer)


def weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


# --- batches that leave one image over --------------------------------------------------------------


class Watched(nn.Module):
    """A network whose last maps are single pixels; it notes how many images each pass sees."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 2), norm, nn.Flatten(), nn.Linear(4, 3)).double()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return self.layers(x)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.Identity()], ids=["batch", "none"])
@pytest.mark.parametrize(
    ("n", "size", "sizes"),
    [(51, 50, [51]), (11, 5, [5, 6]), (3, 2, [3]), (10, 5, [5, 5]), (12, 5, [5, 5, 2]), (4, 5, [4])],
)
def test_a_last_image_joins_the_batch_before_it_whatever_the_norm(
    norm: nn.Module, n: int, size: int, sizes: list[int]
) -> None:
    (x, y), net = blobs(n), Watched(norm)
    recipe = Recipe(batch_size=size, lr=0.01, epochs=2)
    train(net, x, y, recipe, random.generator(7))
    assert net.seen == 2 * sizes
    assert recipe.n_steps(n) == len(net.seen)
    assert weights(net).isfinite().all()


@pytest.mark.parametrize(("n", "size"), [(1, 50), (12, 1), (1, 1)])
def test_batch_norm_on_single_images_is_refused_in_one_line(n: int, size: int) -> None:
    (x, y), recipe = blobs(n), Recipe(batch_size=size, lr=0.01, epochs=1)
    with pytest.raises(
        UserError, match="batch norm cannot be trained on batches of one image: take ano"
    ) as e:
        train(Watched(nn.BatchNorm2d(4)), x, y, recipe, random.generator(7))
    assert "\n" not in str(e.value)
    train(plain := Watched(nn.Identity()), x, y, recipe, random.generator(7))
    assert plain.seen == [1] * n


def test_no_images_are_refused() -> None:
    with pytest.raises(UserError, match="no images to train on"):
        train(linear(), *blobs(0), Recipe(batch_size=5, lr=0.01, steps=1), random.generator(7))


# --- training -------------------------------------------------------------------------------------


def sgd_by_hand(
    net: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, rates: list[float], g: torch.Generator
) -> None:
    """v <- momentum v + grad + decay w;  w <- w - rate v."""
    parameters = list(net.parameters())
    velocity = [torch.zeros_like(p) for p in parameters]
    order = BatchOrder(len(x), recipe.batch_size, g, CPU)
    for rate in rates:
        index = next(order)
        drawn = dsa.draw(recipe.augment, len(index), g)
        loss = F.cross_entropy(net(dsa.apply(x[index], drawn)), y[index])
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for p, v, grad in zip(parameters, velocity, gradients, strict=True):
                v.mul_(recipe.momentum).add_(grad + recipe.weight_decay * p)
                p.sub_(rate * v)


@pytest.mark.parametrize("strategy", ["none", "color_crop_cutout_flip_scale_rotate"])
@pytest.mark.parametrize(
    ("milestones", "rates"),
    [
        ((), [0.1] * 10),
        ((0.5,), [0.1] * 5 + [0.02] * 5),
        ((0.3, 0.8), [0.1] * 3 + [0.02] * 5 + [0.004] * 2),
    ],
)
def test_train_is_sgd_with_momentum(milestones: tuple[float, ...], rates: list[float], strategy: str) -> None:
    """The rate falls exactly after its share of the steps; the last batch of an epoch is a small one."""
    recipe = Recipe(
        batch_size=25, lr=0.1, weight_decay=0.01, steps=10, milestones=milestones, gamma=0.2, augment=strategy
    )
    (x, y), net, expected = blobs(), linear(), linear()
    train(net, x, y, recipe, random.generator(7))
    sgd_by_hand(expected, x, y, recipe, rates, random.generator(7))
    torch.testing.assert_close(weights(net), weights(expected), rtol=0, atol=1e-12)


def adamw_by_hand(
    net: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, rates: list[float], g: torch.Generator
) -> None:
    """Loshchilov & Hutter, 2019, algorithm 2; weights of one axis do not decay."""
    parameters = list(net.parameters())
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    order = BatchOrder(len(x), recipe.batch_size, g, CPU)
    for t, rate in enumerate(rates, start=1):
        index = next(order)
        dsa.draw(recipe.augment, len(index), g)
        gradients = torch.autograd.grad(F.cross_entropy(net(x[index]), y[index]), parameters)
        with torch.no_grad():
            for p, m, v, grad in zip(parameters, first, second, gradients, strict=True):
                m.mul_(recipe.momentum).add_((1 - recipe.momentum) * grad)
                v.mul_(0.999).add_(0.001 * grad**2)
                decay = recipe.weight_decay if p.dim() > 1 else 0.0
                step = m / (1 - recipe.momentum**t) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
                p.sub_(rate * (step + decay * p))


@pytest.mark.parametrize("momentum", [0.9, 0.5])
@pytest.mark.parametrize(("schedule", "periods"), [("cosine", 1), ("half_cosine", 2)])
def test_train_is_adamw_with_a_cosine(schedule: Any, periods: int, momentum: float) -> None:
    recipe = Recipe(
        batch_size=25, lr=0.1, momentum=momentum, weight_decay=0.3, steps=8, optimiser="adamw",
        schedule=schedule,
    )  # fmt: skip
    rates = [0.1 * 0.5 * (1 + math.cos(math.pi * e / (periods * 8))) for e in range(8)]
    (x, y), net, expected = blobs(), linear(), linear()
    train(net, x, y, recipe, random.generator(7))
    adamw_by_hand(expected, x, y, recipe, rates, random.generator(7))
    torch.testing.assert_close(weights(net), weights(expected), rtol=0, atol=1e-12)


def as_records_were_made(
    net: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, steps: int, g: torch.Generator
) -> None:
    """The loop behind the committed records, written out."""
    optimiser = torch.optim.SGD(
        net.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    drops = [round(m * steps) for m in recipe.milestones]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, drops, recipe.gamma)
    order = BatchOrder(len(x), recipe.batch_size, g, CPU)
    for index in islice(order, steps):
        images, targets = x[index], y[index]
        images = dsa.apply(images, dsa.draw(recipe.augment, len(images), g))
        mixed = recipe.cutmix > 0 and float(torch.rand((), generator=g)) < recipe.cutmix
        drawn = draw_cutmix(images.shape, g) if mixed else None
        logits = net(images if drawn is None else apply_cutmix(images, drawn))
        loss = F.cross_entropy(logits, targets)
        if drawn is not None:
            pasted = F.cross_entropy(logits, targets[drawn.partner])
            loss = drawn.weight * loss + (1 - drawn.weight) * pasted
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


@pytest.mark.parametrize("name", ["convnet-d2-w8", "convnet-d2-w8-batch", "mlp"])
@pytest.mark.parametrize(("strategy", "cutmix"), [("none", 0.0), ("color+flip+crop_scale_rotate", 0.5)])
def test_no_bit_of_a_record_moves(digits: Dataset, name: str, strategy: str, cutmix: float) -> None:
    x, y = Preprocess(digits.mean, digits.std)(digits.train.images[:30]), digits.train.labels[:30]
    recipe = Recipe(batch_size=20, lr=0.03, epochs=4, milestones=(0.5, 0.8), augment=strategy, cutmix=cutmix)
    net, expected = (
        parse_architecture(name).build(digits.image_shape, 10, random.generator(0)) for _ in range(2)
    )
    train(net, x, y, recipe, random.generator(1))
    as_records_were_made(expected, x, y, recipe, 8, random.generator(1))
    assert torch.equal(weights(net), weights(expected))


def test_training_counts_its_steps() -> None:
    """It can be left at any of them: what was trained so far is a shorter training."""
    (x, y), net, shorter = blobs(), linear(), linear()
    walk = training(net, x, y, Recipe(batch_size=25, lr=0.1, steps=9), random.generator(7))
    assert [next(walk) for _ in range(4)] == [1, 2, 3, 4]
    train(shorter, x, y, Recipe(batch_size=25, lr=0.1, steps=4), random.generator(7))
    assert torch.equal(weights(net), weights(shorter))
    assert list(walk) == [5, 6, 7, 8, 9]


# --- a teacher ------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_gradient_of_a_teacher_in_closed_form(temperature: float) -> None:
    """d/dz of T^2 CE(z / T, p) is T (softmax(z / T) - p) / N: of order 1 at any temperature."""
    x, teacher = blobs(12)[0], linear(1)
    logits = torch.randn(12, 3, dtype=torch.float64, generator=random.generator(2)).requires_grad_()
    (gradient,) = torch.autograd.grad(teacher_loss(logits, x, teacher, temperature), logits)
    p, q = ((z / temperature).softmax(1) for z in (teacher(x), logits))
    torch.testing.assert_close(gradient, temperature * (q - p) / 12, rtol=0, atol=1e-12)
    assert all(w.grad is None for w in teacher.parameters())


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_the_loss_of_a_teacher_is_the_divergence_from_it(temperature: float) -> None:
    """T^2 sum_k p log(p / q), the mean over the batch, up to the entropy of p, which no student moves."""
    x, teacher, students = blobs(12)[0], linear(1), [linear(seed) for seed in (2, 3)]
    p = (teacher(x) / temperature).exp()
    p = p / p.sum(1, keepdim=True)
    found, direct = [], []
    for student in students:
        q = (student(x) / temperature).exp()
        q = q / q.sum(1, keepdim=True)
        direct.append(temperature**2 * (p * (p / q).log()).sum(1).mean())
        found.append(teacher_loss(student(x), x, teacher, temperature))
    entropy = -(temperature**2) * (p * p.log()).sum(1).mean()
    torch.testing.assert_close(torch.stack(found) - entropy, torch.stack(direct), rtol=0, atol=1e-9)


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_a_teacher_labels_what_the_student_sees(cutmix: float) -> None:
    """The mixed batch: a student that is its own teacher is at the optimum, whatever the targets."""
    (x, y), net, teacher = blobs(12, side=8), linear(side=8), linear(side=8)
    for targets in (y, torch.rand(12, 3, generator=random.generator(4), dtype=torch.float64)):
        loss = augmented_loss(
            net, x, targets, "color+flip", cutmix, random.generator(3), None, teacher, temperature=2.0
        )
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        assert all(g.abs().max() < 1e-12 for g in gradients)


def test_epochs_are_steps() -> None:
    (x, y), one, two = blobs(), linear(), linear()
    train(one, x, y, Recipe(batch_size=25, lr=0.1, epochs=4, milestones=(0.5,)), random.generator(7))
    train(two, x, y, Recipe(batch_size=25, lr=0.1, steps=12, milestones=(0.5,)), random.generator(7))
    assert torch.equal(weights(one), weights(two))


def test_training_separates_what_is_separable() -> None:
    (x, y), net = blobs(), linear()
    before = F.cross_entropy(net(x), y)
    train(net, x, y, Recipe(batch_size=20, lr=0.1, epochs=30), random.generator(0))
    assert F.cross_entropy(net(x), y) < before / 10
    assert torch.equal(net(x).argmax(1), y)


def test_one_hot_targets_are_hard_targets() -> None:
    (x, y), hard, soft = blobs(), linear(), linear()
    recipe = Recipe(batch_size=20, lr=0.1, steps=20)
    train(hard, x, y, recipe, random.generator(0))
    train(soft, x, F.one_hot(y, 3).double(), recipe, random.generator(0))
    torch.testing.assert_close(weights(hard), weights(soft), rtol=0, atol=1e-12)


def test_training_with_cutmix_mixes_images_and_losses() -> None:
    """One step, by hand: the draws come after those of the augmentation, from the same generator."""
    (x, y), g = blobs(10, side=8), random.generator(5)
    net, by_hand = linear(side=8), linear(side=8)
    recipe = Recipe(
        batch_size=10, lr=0.1, momentum=0.0, weight_decay=0.0, steps=1, augment="flip", cutmix=1.0
    )
    train(net, x, y, recipe, random.generator(5))
    index = next(BatchOrder(10, 10, g, CPU))
    images = dsa.apply(x[index], dsa.draw("flip", 10, g))
    torch.rand((), generator=g)  # the coin
    drawn = draw_cutmix(images.shape, g)
    box = torch.zeros(8, 8)
    box[drawn.rows, drawn.columns] = 1
    mixed = images * (1 - box) + images[drawn.partner] * box
    one_hot = F.one_hot(y[index], 3).double()
    share = 1 - float(box.mean())
    assert 0.1 < share < 0.9
    loss = F.cross_entropy(by_hand(mixed), share * one_hot + (1 - share) * one_hot[drawn.partner])
    loss.backward()
    expected = torch.cat([(p - 0.1 * p.grad).flatten() for p in by_hand.parameters()])
    torch.testing.assert_close(weights(net), expected.detach(), rtol=0, atol=1e-12)


def test_cutmix_comes_with_its_probability() -> None:
    """0 is a no-op, draws included; 0.5 is half of the batches; soft targets are mixed as hard ones are."""
    (x, y), net = blobs(12, side=8), linear(side=8)
    generators = random.generator(2), random.generator(2)
    plain = F.cross_entropy(net(dsa.apply(x, dsa.draw("flip", 12, generators[0]))), y)
    assert torch.equal(augmented_loss(net, x, y, "flip", 0.0, generators[1]), plain)
    assert torch.equal(generators[0].get_state(), generators[1].get_state())
    draws, plain = random.generator(3), F.cross_entropy(net(x), y)
    mixed = sum(not torch.equal(augmented_loss(net, x, y, "none", 0.5, draws), plain) for _ in range(400))
    assert 140 < mixed < 220  # half of them, less the one box in sixteen that is smaller than two pixels
    hard, soft = (
        augmented_loss(net, x, t, "flip", 1.0, random.generator(4)) for t in (y, F.one_hot(y, 3).double())
    )
    torch.testing.assert_close(hard, soft, rtol=0, atol=1e-12)


def trained(digits: Dataset, seed: int, name: str = "convnet-d2-w8", strategy: str = "color_crop") -> Tensor:
    net = parse_architecture(name).build(digits.image_shape, 10, random.generator(0, "init"))
    recipe = Recipe(batch_size=32, lr=0.01, steps=5, augment=strategy)
    preprocess = Preprocess(digits.mean, digits.std)
    train(net, digits.train.images, digits.train.labels, recipe, random.generator(seed), preprocess)
    return weights(net)


@pytest.mark.parametrize("name", ["convnet-d2-w8", "convnet-d2-w8-batch", "mlp-w8"])
def test_draws_come_from_the_generator_alone(digits: Dataset, name: str) -> None:
    torch.manual_seed(987_654_321)
    before = torch.get_rng_state()
    one = trained(digits, 1, name)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)  # another global state
    assert torch.equal(one, trained(digits, 1, name))
    assert not torch.equal(one, trained(digits, 2, name))


def test_bytes_with_preprocess_are_normalised_floats(digits: Dataset) -> None:
    preprocess = Preprocess(digits.mean, digits.std)
    nets = [
        parse_architecture("convnet-d2-w8").build(digits.image_shape, 10, random.generator(0))
        for _ in range(2)
    ]
    recipe = Recipe(batch_size=32, lr=0.01, steps=5)
    images, labels = digits.train.images, digits.train.labels
    train(nets[0], images, labels, recipe, random.generator(1), preprocess)
    train(nets[1], preprocess(images), labels, recipe, random.generator(1))
    assert torch.equal(weights(nets[0]), weights(nets[1]))


def test_training_is_in_training_mode_and_accuracy_is_not() -> None:
    net = parse_architecture("convnet-d1-w4-batch").build((1, 8, 8), 2, random.generator(0))
    images = torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8, generator=random.generator(0))
    labels, preprocess = torch.arange(6) % 2, Preprocess((0.0,), (1.0,))
    count = net.features[1].num_batches_tracked
    train(net, images, labels, Recipe(batch_size=3, lr=0.1, steps=2), random.generator(0), preprocess)
    assert int(count) == 2
    accuracy(net, images, labels, preprocess)
    assert int(count) == 2


# --- accuracy -------------------------------------------------------------------------------------


class Brightest(nn.Module):
    """Says which of the first three pixels is brightest."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3]


@pytest.mark.parametrize("times", [1, 5, 13])
def test_accuracy_is_the_fraction_that_is_right(times: int) -> None:
    """Also of more images than go through the network at a time, and of a number that does not divide."""
    images = torch.zeros(10, 1, 2, 2, dtype=torch.uint8)
    bright = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    images.flatten(1)[torch.arange(10), bright] = 255
    labels = torch.where(torch.arange(10) < 7, bright, (bright + 1) % 3)
    images, labels = images.repeat(times, 1, 1, 1), labels.repeat(times)
    assert accuracy(Brightest(), images, labels, Preprocess((0.5,), (0.5,))) == 0.7


def test_accuracy_uses_the_preprocess_of_the_artifact() -> None:
    """A negative standard deviation turns bright into dark."""
    images = torch.tensor([[255, 0, 10, 0], [0, 255, 10, 0]], dtype=torch.uint8).view(2, 1, 2, 2)
    labels = torch.tensor([0, 1])
    assert accuracy(Brightest(), images, labels, Preprocess((0.0,), (1.0,))) == 1.0
    assert accuracy(Brightest(), images, labels, Preprocess((0.0,), (-1.0,))) == 0.0
