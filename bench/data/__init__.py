"""Data sets: what a config may ask for, decoded once into a cache file, loaded by mapping that file."""

from bench.data.cache import load, prepare
from bench.data.classes import ClassIndex, ClassSampler
from bench.data.dataset import Dataset, Split
from bench.data.spec import DATASETS, DatasetSpec

__all__ = ["DATASETS", "ClassIndex", "ClassSampler", "Dataset", "DatasetSpec", "Split", "load", "prepare"]
