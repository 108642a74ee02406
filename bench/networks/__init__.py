"""Architectures by name: `convnet`, `convnet-d4-w64-batch`, or {name: convnet, depth: 4, width: 64}."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bench import rng
from bench.errors import UserError
from bench.networks.convnet import NORMS, ConvNet
from bench.networks.small import MLP, LeNet, Network
from bench.plugins import choose

__all__ = ["FAMILIES", "Architecture", "Network", "parameters", "parse"]

FAMILIES: dict[str, type[Network]] = {"convnet": ConvNet, "mlp": MLP, "lenet": LeNet}
_LETTERS = {"d": "depth", "w": "width"}


def parameters(family: str) -> dict[str, Any]:
    """{parameter: default} of a family."""
    signature = inspect.signature(FAMILIES[family])
    return {p.name: p.default for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}


@dataclass(frozen=True)
class Architecture:
    """A family with its parameters; `label` is the canonical name, the same for every way to write it."""

    family: str
    params: tuple[tuple[str, Any], ...]  # all of them, in the family's order

    @property
    def label(self) -> str:
        defaults, letters = parameters(self.family), {v: k for k, v in _LETTERS.items()}
        parts = [f"{letters.get(k, '')}{v}" for k, v in self.params if v != defaults[k]]
        return "-".join([self.family, *parts])

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Raises UserError when the images are too small for the network."""
        FAMILIES[self.family].check(image_shape, **dict(self.params))

    def build(self, image_shape: tuple[int, int, int], n_classes: int, generator: torch.Generator) -> Network:
        """A network on the CPU whose initial weights come from `generator` alone."""
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):  # constructors draw from the global state: put it back
            torch.default_generator.manual_seed(rng.derive(seed, "network"))
            return FAMILIES[self.family](image_shape, n_classes, **dict(self.params))


def parse(entry: str | Mapping[str, Any]) -> Architecture:
    """Read a name or a mapping. Raises UserError that names the valid choices."""
    mapping = {"name": entry} if isinstance(entry, str) else entry
    name = str(mapping.get("name"))
    family, *tokens = name.split("-")
    choose("architecture", family, FAMILIES)
    defaults = parameters(family)
    given = {k: v for k, v in mapping.items() if k != "name"}
    for key, value in (_token(name, t) for t in tokens):
        if key in given:
            raise UserError(f"architecture {name!r}: {key} is given twice")
        given[key] = value
    for key, value in given.items():
        if key not in defaults:
            takes = ", ".join(defaults) or "no parameters"
            raise UserError(f"architecture {family} takes {takes}, not {key!r}")
        if type(value) is not type(defaults[key]) or (isinstance(value, int) and value < 1):
            raise UserError(f"architecture {family}: {key} cannot be {value!r} (default {defaults[key]!r})")
        if key == "norm":
            choose("norm", value, NORMS)
    return Architecture(family, tuple((k, given.get(k, v)) for k, v in defaults.items()))


def _token(name: str, token: str) -> tuple[str, Any]:
    """One part of a name: d4 (depth), w64 (width) or a norm."""
    if match := re.fullmatch(r"([dw])(\d+)", token):
        return _LETTERS[match[1]], int(match[2])
    if token in NORMS:
        return "norm", token
    raise UserError(
        f"architecture {name!r}: cannot read {token!r}; parts are d<depth>, w<width> and "
        f"a norm ({', '.join(NORMS)})"
    )
