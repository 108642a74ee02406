"""The distilled data set: the parameterisation is what is optimised, counted, saved and decoded."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.core.errors import UserError
from bench.core.preprocess import Preprocess, restore_preprocess
from bench.core.registry import choose, registered_blocks

ARTIFACT_SCHEMA = 1
PREPROCESS_PREFIX = "preprocess."  # of the tensors of a whitening, beside those of the set
NUMBERS = {
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
}  # types with which torch computes everything
MOST_ENTRIES, MOST_CHARACTERS = 16, 64  # of a config and of a list in it, and of a text


class DistilledDataset(nn.Module):
    """Base of every parameterisation.

    A subclass is built as `cls(**tensors, **config, preprocess=...)`, where `tensors` is its state dict and
    `config` is what `config()` returns. So a file of tensors and a JSON header restores it, and loading runs
    no code from the file. A parameterisation does not depend on any network.

    Args:
        preprocess: how pixels become what networks see; test images get the same treatment.
    """

    tiles: int = 1  # decoded images show tiles x tiles crops, which protocols may shuffle

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.preprocess = preprocess

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, less the tensors: see `check_config` for what they may be."""
        raise NotImplementedError

    def decode(self, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The images that networks are trained on; differentiable in the parameters.

        Args:
            items: positions of the images to decode, int64 [n]; by default all images.

        Returns:
            Images as networks see them (normalised or whitened) float [n,C,H,W], and their targets: classes
            int64 [n], or probabilities [n,K], times the weight of each image where images have weights.
        """
        raise NotImplementedError

    def variants(self) -> Tensor | None:
        """Which images are variants of one stored item: int64 [items,V], the images' positions in `decode()`.

        A protocol with `epoch_over: items` trains an epoch on one of each row. None: no image is.
        """
        return None

    @property
    def n_stored(self) -> int:
        """Stored floats: every tensor of the set counts, see `stored_floats`."""
        return sum(map(stored_floats, self.state_dict().values()))

    @property
    def bytes_uint8(self) -> int | None:
        """Bytes with one a value for what is kept as uint8, the rest at fp32; None where all are floats."""
        single = sum(t.numel() for t in self.state_dict().values() if t.dtype == torch.uint8)
        return 4 * self.n_stored - 3 * single if single else None

    @property
    def transform_floats(self) -> int:
        """How many numbers of the file belong to the preprocessing, which is the same for all methods."""
        return sum(t.numel() for t in self.preprocess.tensors().values())

    def save(self, path: str | Path) -> None:
        """Write the tensors and a JSON header as one safetensors file. Raises UserError as `check_config`."""
        check_config(self.config())
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


def stored_floats(tensor: Tensor) -> int:
    """How many floats a tensor counts as: one a number, two a number of 8 bytes."""
    return tensor.numel() * max(1, tensor.element_size() // 4)


def not_plain(tensor: Tensor) -> str | None:
    """Why a tensor from a file cannot be computed with, and how to mend it; None if it can."""
    if tensor.is_meta:
        return "a tensor without its numbers (of the device meta): save it with them"
    if tensor.layout != torch.strided or tensor.is_nested:
        return "a sparse or nested tensor: save it as a dense one"
    if tensor.dtype not in NUMBERS:
        return (
            f"numbers of the type {str(tensor.dtype).removeprefix('torch.')}: save them as float32 or int64"
        )
    return None


def check_config(config: Mapping[str, Any]) -> None:
    """Check that a config holds nothing that belongs into tensors, which count.

    Args:
        config: at most 16 entries: None, true or false, numbers, texts of at most 64 characters, and lists of
            at most 16 of them, or of whole numbers, one for each class.

    Raises:
        UserError: for anything else.
    """
    if len(config) > MOST_ENTRIES:
        raise UserError(f"config() has {len(config)} entries, of which {MOST_ENTRIES} are allowed")
    for name, value in config.items():
        values = value if isinstance(value, list | tuple) else [value]
        short = len(values) <= MOST_ENTRIES or all(type(v) is int for v in values)
        if not short or not all(map(_is_small, (name, *values))):
            raise UserError(
                f"config() must not hold {name[:MOST_CHARACTERS]}, but numbers, texts of {MOST_CHARACTERS} "
                f"characters, lists of {MOST_ENTRIES} of them, and a whole number for each class: put what "
                "is stored into tensors, which count"
            )


def _is_small(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MOST_CHARACTERS
    return value is None or (isinstance(value, int | float) and abs(value) < 2**63)  # false for NaN


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
        if faults := {f"{name} has {why}" for name, tensor in tensors.items() if (why := not_plain(tensor))}:
            raise UserError(min(faults))
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
        check_config(header["config"])
        artifact: DistilledDataset = cls(**tensors, **header["config"], preprocess=preprocess)
    # a RuntimeError is torch's, of tensors that do not fit; or a header's nesting, which is a RecursionError
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError,
            MemoryError, RuntimeError) as error:  # fmt: skip
        why = " ".join(str(error).split())
        raise UserError(f"{path} is not a readable ddbench artifact: {why}") from None
    return artifact.to(device)
