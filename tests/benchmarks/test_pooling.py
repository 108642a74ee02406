"""A ConvNet's training step and embedding with our pooling and with torch's, whose numbers are the same.

A group a size; read the ratio. On a CPU the time is that of the processor.
"""

import time
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.meter import DEVICE
from torch import nn

from bench.core import random
from bench.core.networks.architecture import parse_architecture
from bench.core.networks.second_order import AvgPool2d
from bench.core.timing import synchronize
from bench.core.training import in_pieces

TIMER = time.process_time if DEVICE.type == "cpu" else time.perf_counter


@pytest.mark.benchmark(timer=TIMER)
@pytest.mark.parametrize("pool", ["torch", "ours"])
@pytest.mark.parametrize("work", ["step", "embedding"])
@pytest.mark.parametrize("images", [10, 256])
@pytest.mark.parametrize("architecture", ["convnet-w32", "convnet"])
def test_pooling(benchmark: Any, architecture: str, images: int, work: str, pool: str) -> None:
    net = parse_architecture(architecture).build((3, 32, 32), 10, random.generator(0)).to(DEVICE)
    if pool == "torch":
        for i, layer in enumerate(net.features):
            if isinstance(layer, AvgPool2d):
                net.features[i] = nn.AvgPool2d(2)
    x = torch.randn(images, 3, 32, 32, generator=random.generator(1)).to(DEVICE)
    y = torch.arange(images, device=DEVICE) % 10
    benchmark.group = f"{architecture}, {images} images, {work}"

    @torch.inference_mode()
    def embedding() -> None:
        in_pieces(net.embed, x)
        synchronize(DEVICE)

    def step() -> None:
        net.zero_grad()
        F.cross_entropy(net(x), y).backward()
        synchronize(DEVICE)

    benchmark.pedantic(step if work == "step" else embedding, rounds=7, warmup_rounds=1)
    assert all(p.isfinite().all() for p in net.parameters())
