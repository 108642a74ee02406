"""The distilled data set: optimised, counted, saved, decoded. The parameterisation IS the artifact."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench import plugins
from bench.errors import UserError

SCHEMA = 1


@dataclass(frozen=True)
class Preprocess:
    """What stands between stored pixels and a network: (x - mean) / std per channel, x in [0, 1].

    It travels inside the artifact, so that the test images get the treatment that the distilled ones had.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def _stats(self, like: Tensor) -> tuple[Tensor, Tensor]:
        stats = torch.tensor([self.mean, self.std], dtype=like.dtype).view(2, 1, -1, 1, 1)
        mean, std = stats.to(like.device, non_blocking=True)  # a plain copy would wait for the device
        return mean, std

    def __call__(self, images: Tensor) -> Tensor:
        """[N,C,H,W], uint8 or float in [0, 1] -> float, normalised."""
        x = images.float().div_(255) if images.dtype == torch.uint8 else images
        mean, std = self._stats(x)
        return (x - mean) / std

    def invert(self, images: Tensor) -> Tensor:
        """Normalised -> [0, 1] (not clamped)."""
        mean, std = self._stats(images)
        return images * std + mean


class DistilledDataset(nn.Module):
    """Base of every parameterisation.

    A subclass is built as `cls(**tensors, **config, preprocess=...)`, where `tensors` is its state dict and
    `config` what `config()` returns; so a file of tensors and a JSON header restore it, and loading runs no
    code from the file. It knows no network.
    """

    images_as_bytes: ClassVar[frozenset[str]] = (
        frozenset()
    )  # tensors that hold pixels: 1 byte a value as uint8

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.preprocess = preprocess

    def config(self) -> dict[str, Any]:
        """The constructor's JSON-able arguments, less the tensors."""
        raise NotImplementedError

    def decode(self, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The images as networks see them (normalised) [n,C,H,W], and their targets [n] or [n,K].

        Differentiable in the parameters. `items` picks among the decoded images, by default all.
        """
        raise NotImplementedError

    @property
    def n_stored(self) -> int:
        """Stored floats: every tensor in the file counts."""
        return sum(t.numel() for t in self.state_dict().values())

    @property
    def bytes_uint8(self) -> int:
        """Bytes with stored images as one byte a value and everything else at fp32."""
        return sum(
            t.numel() * (1 if name in self.images_as_bytes else 4) for name, t in self.state_dict().items()
        )

    def save(self, path: Path) -> None:
        """Write the tensors and a JSON header as one safetensors file."""
        header = {
            "schema": SCHEMA,
            "parameterisation": type(self).__name__,
            "config": self.config(),
            "preprocess": {"mean": self.preprocess.mean, "std": self.preprocess.std},
        }
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        save_file(tensors, path, metadata={"ddbench": json.dumps(header)})


def load(path: Path, device: torch.device | str = "cpu") -> DistilledDataset:
    """Read an artifact. Raises UserError for a file that is not one, is damaged or of another schema."""
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header: Mapping[str, Any] = json.loads((file.metadata() or {})["ddbench"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if header.get("schema") != SCHEMA:
            raise UserError(f"it has schema {header.get('schema')}, this ddbench reads {SCHEMA}")
        known = {name: c for name, c in plugins.blocks().items() if issubclass(c, DistilledDataset)}
        cls = known[plugins.choose("parameterisation", header["parameterisation"], known)]
        preprocess = Preprocess(*(tuple(header["preprocess"][k]) for k in ("mean", "std")))
        artifact: DistilledDataset = cls(**tensors, **header["config"], preprocess=preprocess)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path} is not a readable ddbench artifact: {why}") from None
    return artifact.to(device)
