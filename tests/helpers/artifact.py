"""Artifacts of each parameterisation for small images, and files of them with any header."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from helpers.importer import PER, K, noise, smooth

STATS = {"mean": [0.5] * 3, "std": [0.5] * 3}
IMAGES = {"images": smooth()}
BASES = {"bases": noise(2, 3, 2, 2), "addresses": noise(2, K, 2)}


def hallucinators(count: int, bases: int) -> dict[str, Tensor]:
    """Of 1 x 1 kernels, for bases of 3 x 4 x 4."""
    maps = {"encoder_weight": noise(count, 3, 3, 1, 1), "encoder_bias": noise(count, 3)}
    maps |= {"decoder_weight": noise(count, 3, 3, 1, 1), "decoder_bias": noise(count, 3)}
    maps |= {"scale": noise(count, 3, 4, 4), "shift": noise(count, 3, 4, 4)}
    return {**maps, "bases": noise(bases, 3, 4, 4)}


def formation(**changes: Any) -> dict[str, Any]:
    return {"n_classes": K, "factor": 1, "decoder": "uniform"} | changes


GOOD: dict[str, tuple[dict[str, Any], dict[str, Tensor]]] = {  # class -> config, tensors
    "Pixels": ({"counts": [PER] * K}, IMAGES),
    "MultiFormation": (formation(factor=2), IMAGES),
    "LinearBases": ({"downsample": 2}, BASES),
    "Hallucinators": ({"n_classes": K, "padding": 0}, hallucinators(2, K)),
}


def written(
    path: Path, kind: Any, config: Any, tensors: dict[str, Tensor], preprocess: Any = STATS, schema: Any = 1
) -> Path:
    """A file with this header, whether it fits or not."""
    header = {"schema": schema, "parameterisation": kind, "config": config, "preprocess": preprocess}
    save_file(tensors, path, metadata={"ddbench": json.dumps(header)})
    return path
