"""The steps that a sweep spends its time in. Run by `make benchmark`; a plain test run skips them.

Every generator is made once, outside of what is timed; a call is one step of a long walk.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.core import random
from bench.core.augment import dsa
from bench.core.networks.architecture import parse_architecture
from bench.core.preprocess import Preprocess
from bench.core.sampling import ClassIndex, ClassSampler
from bench.core.training import Recipe, train
from bench.data.dataset import Dataset
from bench.planning.graph import plan_sweep
from bench.planning.protocols import load_protocol
from bench.planning.sweep import load_sweep
from bench.planning.yaml_schema import CONFIGS
from methods.blocks.objectives import distribution_matching
from methods.blocks.parameterise.pixels import Pixels

DSA = "color_crop_cutout_flip_scale_rotate"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def timed(benchmark: Any, step: Any) -> Any:
    """Time `step()`, and on a GPU wait for what it started."""

    def whole() -> Any:
        result = step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize(DEVICE)
        return result

    return benchmark(whole)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=random.generator(0)).to(DEVICE)


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (32, 3)])
def test_one_training_step_of_the_convnet(benchmark: Any, side: int, channels: int) -> None:
    shape = (channels, side, side)
    net = parse_architecture("convnet").build(shape, 10, random.generator(0)).to(DEVICE)
    images, labels = noise(64, *shape), torch.arange(64, device=DEVICE) % 10
    recipe, order = Recipe(batch_size=64, lr=0.01, steps=1), random.generator(1)
    timed(benchmark, lambda: train(net, images, labels, recipe, order))
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_one_step_of_distribution_matching_on_digits(benchmark: Any, digits: Dataset) -> None:
    """What DM does 20,000 times: a network, a real batch, a siamese draw, a gradient to the pixels."""
    train_set, preprocess = digits.train.to(DEVICE), Preprocess(digits.mean, digits.std)
    real = ClassSampler(ClassIndex.of(train_set.labels, 10), 64, random.generator(0))
    synthetic = noise(100, *digits.image_shape).requires_grad_()
    optimiser = torch.optim.SGD([synthetic], lr=0.1, momentum=0.5)
    networks, draws, architecture = (
        random.generator(1),
        random.generator(2),
        parse_architecture("convnet-d2-w64"),
    )

    def step() -> None:
        net = architecture.build(digits.image_shape, 10, networks).to(DEVICE).requires_grad_(False)
        omega = dsa.draw(DSA, 10, draws)
        with torch.no_grad():
            x = preprocess(train_set.images[real.next().flatten()])
            target = net.embed(dsa.apply(x, omega))
        loss = distribution_matching(target, net.embed(dsa.apply(synthetic, omega)), 10)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    timed(benchmark, step)
    assert torch.isfinite(synthetic).all()


def test_augmenting_256_images_one_by_one(benchmark: Any) -> None:
    images, draws = noise(256, 3, 32, 32), random.generator(0)
    y = timed(benchmark, lambda: dsa.apply(images, dsa.draw(DSA, 256, draws)))
    assert y.shape == images.shape


@pytest.mark.parametrize("per_class", [1, 256])
def test_drawing_from_50000_images_by_class(benchmark: Any, per_class: int) -> None:
    labels = torch.arange(50_000, device=DEVICE) % 10
    sampler = ClassSampler(ClassIndex.of(labels, 10), per_class, random.generator(0))
    drawn = timed(benchmark, sampler.next)
    assert torch.equal(labels[drawn], torch.arange(10, device=DEVICE)[:, None].expand(10, per_class))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_decoding_stored_pixels(benchmark: Any, dtype: torch.dtype) -> None:
    """50 images per class of CIFAR-10's size."""
    images = (noise(500, 3, 32, 32) * 50 + 128).clamp(0, 255).to(dtype)
    pixels = Pixels(images, [50] * 10, Preprocess((0.5,) * 3, (0.25,) * 3))
    decoded, labels = timed(benchmark, pixels.decode)
    assert decoded.shape == images.shape
    assert labels.bincount().tolist() == [50] * 10


def test_planning_the_quickstart(benchmark: Any, digits: Dataset) -> None:
    sweep = load_sweep(CONFIGS / "sweeps" / "quickstart.yaml")
    protocol = load_protocol(*sweep.evaluate.protocol)
    jobs = benchmark(lambda: plan_sweep(sweep, {"digits": digits}, [protocol]))
    assert {job.kind for job in jobs.values()} == {"prepare", "distill", "evaluate"}
