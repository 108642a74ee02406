"""Teachers that were trained elsewhere, from files of weights; and those of result folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.core.errors import UserError
from bench.core.teacher_file import TeacherFile
from bench.core.teachers import teacher_state
from bench.execution.store import WEIGHTS, Store
from bench.interop.importers.contents import load

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # keys under which weights are often saved
PARALLEL = "module."  # begins all names where a network was saved inside torch's DataParallel


def find_teacher(source: Path, architecture: str | None, seconds: float | None) -> TeacherFile:
    """Read a teacher's weights.

    Args:
        source: a file of weights, or the folder of a teacher among the artifacts of a result folder.
        architecture: of the network; None: what the artifact says.
        seconds: what its training took; None: what the artifact says.

    Raises:
        UserError: no weights, or it is not known what they are of.
    """
    if source.is_dir():
        return _of_artifact(source, architecture, seconds)
    state = _weights(source)
    if architecture is None:
        raise UserError(f"{source} does not say its architecture: name it with --architecture")
    if seconds is None:
        raise UserError(f"{source} does not say what its training took: give --seconds")
    return TeacherFile(architecture, seconds, state)


def _of_artifact(folder: Path, architecture: str | None, seconds: float | None) -> TeacherFile:
    store, key = Store(folder.resolve().parents[1]), folder.resolve().name
    try:
        store.verify(key)
        meta = store.meta(key)
    except ValueError as error:
        raise UserError(f"{folder} {error}") from None
    identity = meta["identity"]
    if meta["kind"] != "prepare" or "Teacher" not in identity["block"]:
        raise UserError(f"{folder} is no teacher: its label is {meta['label']!r}")
    own = identity["values"].get("architecture") or identity["architecture"]
    state = teacher_state(_plain(folder, load(folder / WEIGHTS)))
    return TeacherFile(architecture or own, meta["cost"]["prepare_s"] if seconds is None else seconds, state)


def _weights(path: Path) -> dict[str, Tensor]:
    content = load(path)
    for name in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    state = _plain(path, content)
    parallel = all(name.startswith(PARALLEL) for name in state)
    return {name.removeprefix(PARALLEL) if parallel else name: tensor for name, tensor in state.items()}


def _plain(path: Path, content: Any) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and content and all(isinstance(t, Tensor) for t in content.values()):
        return {str(name): tensor for name, tensor in content.items()}
    raise UserError(f"{path} holds no weights: save a network's state_dict")
