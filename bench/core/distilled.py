"""The distilled data set: the parameterisation is what is optimised, counted, saved and decoded."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.core.errors import UserError
from bench.core.preprocess import Preprocess, restore_preprocess
from bench.core.registry import choose, registered_blocks

ARTIFACT_SCHEMA = 1
PREPROCESS_PREFIX = "preprocess."  # of the tensors of a whitening, beside those of the set


class DistilledDataset(nn.Module):
    """Base of every parameterisation.

    A subclass is built as `cls(**tensors, **config, preprocess=...)`, where `tensors` is its state dict and
    `config` is what `config()` returns. So a file of tensors and a JSON header restores it, and loading runs
    no code from the file. A parameterisation does not depend on any network.

    Args:
        preprocess: how pixels become what networks see; test images get the same treatment.
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
        """The images that networks are trained on; differentiable in the parameters.

        Args:
            items: positions of the images to decode, int64 [n]; by default all images.

        Returns:
            Images as networks see them (normalised or whitened) float [n,C,H,W], and their targets: classes
            int64 [n], or probabilities [n,K].
        """
        raise NotImplementedError

    @property
    def n_stored(self) -> int:
        """Stored floats: every tensor of the set counts."""
        return sum(t.numel() for t in self.state_dict().values())

    @property
    def bytes_uint8(self) -> int:
        """Bytes with stored images as one byte a value and everything else at fp32."""
        return sum(
            t.numel() * (1 if name in self.images_as_bytes else 4) for name, t in self.state_dict().items()
        )

    @property
    def transform_floats(self) -> int:
        """How many numbers of the file belong to the preprocessing, which is the same for all methods."""
        return sum(t.numel() for t in self.preprocess.tensors().values())

    def save(self, path: str | Path) -> None:
        """Write the tensors and a JSON header as one safetensors file."""
        header = {
            "schema": ARTIFACT_SCHEMA,
            "parameterisation": type(self).__name__,
            "config": self.config(),
            "preprocess": self.preprocess.header(),
        }
        transform = {PREPROCESS_PREFIX + name: t for name, t in self.preprocess.tensors().items()}
        held = {**self.state_dict(), **transform}
        tensors = {k: v.detach().cpu().contiguous() for k, v in held.items()}
        save_file(tensors, path, metadata={"ddbench": json.dumps(header)})


def load_distilled(path: str | Path, device: torch.device | str = "cpu") -> DistilledDataset:
    """Read a distilled set that `DistilledDataset.save` wrote; no code from the file runs.

    Args:
        path: the safetensors file.
        device: where its tensors go.

    Raises:
        UserError: the file is missing, damaged or of another schema, or its parameterisation is not
            installed.

    Example:
        >>> images, targets = dd.load("digits.safetensors").decode()
    """
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header: Mapping[str, Any] = json.loads((file.metadata() or {})["ddbench"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if header.get("schema") != ARTIFACT_SCHEMA:
            raise UserError(f"it has schema {header.get('schema')}, this ddbench reads {ARTIFACT_SCHEMA}")
        known = {name: c for name, c in registered_blocks().items() if issubclass(c, DistilledDataset)}
        cls = known[choose("parameterisation", header["parameterisation"], known)]
        transform = {
            k.removeprefix(PREPROCESS_PREFIX): tensors.pop(k)
            for k in list(tensors)
            if k.startswith(PREPROCESS_PREFIX)
        }
        preprocess = restore_preprocess(header["preprocess"], transform)
        artifact: DistilledDataset = cls(**tensors, **header["config"], preprocess=preprocess)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path} is not a readable ddbench artifact: {why}") from None
    return artifact.to(device)
