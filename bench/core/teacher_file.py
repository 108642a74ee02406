"""A trained teacher in a file of its own: a safetensors file with its architecture and what it cost."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.core.errors import UserError
from bench.core.io import replacing
from bench.core.networks.architecture import parse_architecture

_TOLD = "teacher"  # the metadata of the file


@dataclass(frozen=True)
class TeacherFile:
    """A trained network that was kept.

    Args:
        architecture: its name.
        seconds: what its training took, which is charged to every set that it labels.
        state: its `state_dict`.
    """

    architecture: str
    seconds: float
    state: Mapping[str, Tensor]

    @property
    def digest(self) -> str:
        """32 hexadecimal digits of the weights: of their names, types, shapes and numbers."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.state.items()):
            found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            found.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()[:32]

    def check(self, image_shape: tuple[int, int, int], n_classes: int) -> None:
        """Raises UserError where its architecture, for these images and classes, has other weights."""
        architecture = parse_architecture(self.architecture)
        architecture.check(image_shape)
        wanted = architecture.outline(image_shape, n_classes).state_dict()
        for name in sorted(wanted.keys() | self.state.keys()):
            ours, theirs = (list(s[name].shape) if name in s else None for s in (wanted, self.state))
            if ours != theirs:
                said = ["missing" if shape is None else f"{shape}" for shape in (theirs, ours)]
                raise UserError(
                    f"{name} of the teacher is {said[0]}, of {self.architecture} for such images and "
                    f"classes {said[1]}: name its own architecture and data set"
                )
        if bad := [name for name, tensor in self.state.items() if not torch.isfinite(tensor).all()]:
            raise UserError(f"{bad[0]} of the teacher is not finite")

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        told = {_TOLD: json.dumps({"architecture": self.architecture, "seconds": self.seconds})}
        with replacing(path) as unfinished:
            save_file({name: tensor.contiguous() for name, tensor in self.state.items()}, unfinished, told)


def read_teacher(path: Path) -> TeacherFile:
    """Read what `TeacherFile.save` wrote. Raises UserError for a file that is missing, or another one."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {})[_TOLD])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return TeacherFile(str(told["architecture"]), float(told["seconds"]), state)
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError, OSError):
        raise UserError(
            f"{path} is no teacher's file: `ddbench teacher` makes one of a network's weights"
        ) from None
