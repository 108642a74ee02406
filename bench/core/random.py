"""Randomness: every draw comes from a generator derived from (seed, purpose)."""

import hashlib

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose; different purposes give independent streams."""
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A generator for one purpose; always a CPU one, so that a GPU job makes the same draws as a CPU job."""
    return torch.Generator().manual_seed(derive(seed, *purpose))
