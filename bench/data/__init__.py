"""Data sets: what a config may ask for, decoded once into a cache file, loaded by mapping that file."""

from bench.data.cache import load, prepare, regrouped
from bench.data.classes import ClassIndex, ClassSampler
from bench.data.dataset import Dataset, Split
from bench.data.holdout import held_out
from bench.data.spec import DATASETS, DatasetSpec
from bench.data.subset import class_positions

__all__ = [
    "DATASETS",
    "ClassIndex",
    "ClassSampler",
    "Dataset",
    "DatasetSpec",
    "Split",
    "class_positions",
    "held_out",
    "load",
    "prepare",
    "regrouped",
]
