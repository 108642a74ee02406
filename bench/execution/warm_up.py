"""What a process does before it times a job: lazy imports and first calls, which are no job's own cost."""

import functools
import importlib
import json
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from bench.core import random
from bench.core.augment.policies import POLICY_OPERATIONS
from bench.core.method import Method, Prerequisite, Problem
from bench.core.optional import import_torchvision
from bench.records.schema import ANY_ARCHITECTURE

_warm: set[str] = set()  # networks that this process has trained for a step


@functools.cache
def warm_up(device: torch.device) -> None:
    """First calls that all jobs make; once per process."""
    weight = torch.zeros(1, 1, 3, 3, device=device, requires_grad=True)
    optimiser = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    F.conv2d(torch.zeros(1, 1, 8, 8, device=device), weight).sum().backward()
    optimiser.step()


def warm_up_for(block: Method | Prerequisite, identity: Mapping[str, Any], problem: Problem) -> None:
    """Do what a method or a prerequisite would be the first to do: its imports, and calls of its network.

    Args:
        block: what is about to run. Modules that it imports as late as that are named in `lazy_imports`.
        identity: of the job.
        problem: of the job.
    """
    for module in getattr(block, "lazy_imports", ()):
        importlib.import_module(module)
    named = json.dumps(identity)
    if any(f'"{policy}"' in named for policy in POLICY_OPERATIONS):
        import_torchvision("transforms.v2.functional")
    if identity["architecture"] != ANY_ARCHITECTURE:
        what = [identity["architecture"], problem.image_shape, problem.n_classes, str(problem.device)]
        if (key := json.dumps(what)) not in _warm:
            _train_briefly(problem)
            _warm.add(key)


def _train_briefly(problem: Problem) -> None:
    """Two steps of a network on two images; the global generators stay as they are."""
    device = problem.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        net = problem.make_net(random.generator(0, "warm-up"))
        optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
        x, targets = problem.preprocess(problem.images[:2]), problem.labels[:2]
        for _ in range(2):
            F.cross_entropy(net(x), targets).backward()
            optimiser.step()
