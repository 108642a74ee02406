"""A small set, a fast protocol and how it is to be examined, for the tests of evaluation."""

from typing import Any

import torch

from bench.core.networks.architecture import parse_architecture
from bench.core.preprocess import Preprocess
from bench.core.training import Recipe
from bench.data.dataset import Dataset
from bench.evaluation.scoring import EvaluationSetting
from bench.planning.protocols import Protocol
from methods.blocks.parameterise.pixels import Pixels

FAST = Recipe(batch_size=20, lr=0.05, steps=12)


def protocol(**changes: Any) -> Protocol:
    return Protocol(name="mine", version=1, about="of this file", **{"recipe": FAST, **changes})


def pixels(digits: Dataset, per_class: int = 2, **learned: torch.Tensor) -> Pixels:
    """The first training images of each class, as a distilled set."""
    members = torch.cat([(digits.train.labels == c).nonzero()[:per_class, 0] for c in range(10)])
    preprocess = Preprocess(digits.mean, digits.std)
    return Pixels(preprocess(digits.train.images[members]), [per_class] * 10, preprocess, **learned)


def setting(digits: Dataset, wanted: Protocol, students: int = 2, **changes: Any) -> EvaluationSetting:
    return EvaluationSetting(
        digits, parse_architecture("mlp"), wanted, students, 0, torch.device("cpu"), **changes
    )
