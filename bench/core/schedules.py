"""Schedules of learning rates that several trainings share."""

import math


def cosine(step: int, total: int, last: float = 0.0) -> float:
    """By what a rate is multiplied: from 1 at step 0 down to `last` at step `total`, by half a cosine "
    "wave."""
    return last + (1 - last) * (0.5 * (1 + math.cos(math.pi * step / total)))
