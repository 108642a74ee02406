"""The store: artifacts and records by key, each whole or not there."""

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.io import read_json, remove_leftovers, sync, temporary, write_atomic, writing
from bench.core.loop import CHECKPOINT, PROGRESS
from bench.core.words import plain_text
from bench.records.artifact import META, STORE_SCHEMA, read_meta, read_set_meta
from bench.records.schema import Record, content_digest, load_record

WEIGHTS = "data.safetensors"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(folder: Path) -> None:
    """Raises ValueError with the reason when an artifact is not whole."""
    for name, checksum in read_meta(folder)["files"].items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise ValueError(f"lacks {plain_text(name)}")
        if _sha256(path) != checksum:
            raise ValueError(f"does not match the checksum of {plain_text(name)}")


class Store:
    """The artifacts and records under one result folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts = root / "artifacts"
        self.records = root / "records"
        self.logs = root / "logs"
        self.checkpoints = root / "checkpoints"

    def artifact(self, key: str) -> Path:
        """The folder of an artifact."""
        return self.artifacts / key

    def record(self, key: str) -> Path:
        """The file of a record."""
        return self.records / f"{key}.json"

    def log(self, key: str) -> Path:
        """The traceback of a job that failed."""
        return self.logs / f"{key}.log"

    def checkpoint(self, key: str) -> Path:
        """Where the loop of a distillation is kept until it is published."""
        return self.checkpoints / key

    def held_keys(self) -> set[str]:
        """The keys by which there is anything, whole or damaged."""
        return {path.name for path in self.artifacts.glob("*")} | {
            path.stem for path in self.records.glob("*")
        }

    def publish(self, key: str, meta: Mapping[str, Any], write: Callable[[Path], None]) -> None:
        """Make the folder of `key`: `write(folder)` fills it, meta.json gets the checksums.

        Publishing a key that is there already changes nothing: the content is the same by construction.
        """
        with writing(self.artifact(key)):
            self._publish(key, meta, write)

    def _publish(self, key: str, meta: Mapping[str, Any], write: Callable[[Path], None]) -> None:
        self.artifacts.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.artifacts, prefix=temporary(key)))
        try:
            write(folder)
            checksums = {p.name: _sha256(p) for p in sorted(folder.iterdir())}
            content = {"schema": STORE_SCHEMA, **meta, "files": checksums}
            content["sha256"] = content_digest(content)
            (folder / META).write_text(json.dumps(content, indent=1))
            self._put(folder, key)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _put(self, folder: Path, key: str) -> None:
        """Flush what is whole in a folder on this disk, and rename it, unless the key is there already."""
        for path in sorted(folder.iterdir(), key=lambda path: path.name == META):
            path.chmod(0o644)
            sync(path)
        folder.chmod(0o755)
        sync(folder)
        self.artifacts.mkdir(parents=True, exist_ok=True)
        try:
            folder.rename(self.artifact(key))
        except OSError:
            if not self.artifact(key).exists():
                raise
        else:
            sync(self.artifacts)

    def receive(self, kind: str, key: str, folder: Path) -> None:
        """Publish what was made elsewhere, copied into a folder on this disk, as it is.

        Raises ValueError with the reason when it is not whole, UserError when it cannot be written.
        """
        if kind == "evaluate":
            path = folder / self.record(key).name
            load_record(path)
            write_atomic(self.record(key), path.read_text(encoding="utf-8"))
        else:
            _verify(folder)
            with writing(self.artifact(key)):
                self._put(folder, key)

    def meta(self, key: str) -> dict[str, Any]:
        """The meta.json of an artifact. Raises ValueError with the reason when it is damaged."""
        return read_meta(self.artifact(key))

    def verify(self, key: str) -> None:
        """Raises ValueError with the reason when the artifact is not whole."""
        _verify(self.artifact(key))

    def load_record(self, key: str) -> Record:
        """Read a record. Raises ValueError with the reason when it is damaged."""
        return load_record(self.record(key))

    def versions(self, kind: str, key: str) -> dict[str, str]:
        """What a finished job says that it was made by; empty where it says nothing."""
        path = self.record(key) if kind == "evaluate" else self.artifact(key) / META
        found: dict[str, str] = read_json(path).get("versions", {})
        return found

    def state(self, kind: str, key: str) -> str | None:
        """None when the job is done, else why not: "" when nothing is there, or what is wrong with it."""
        path = self.record(key) if kind == "evaluate" else self.artifact(key)
        if not path.exists():
            return ""
        try:
            if kind == "evaluate":
                self.load_record(key)
            else:
                self.verify(key)
        except ValueError as error:
            return f"{path.relative_to(self.root)} {error}"
        return None

    def discard(self, kind: str, key: str) -> None:
        """Remove what is damaged, so that the job can run again."""
        path = self.record(key) if kind == "evaluate" else self.artifact(key)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def adopt(self, kind: str, key: str, lender: "Store") -> None:
        """Copy a finished job of another result folder: the same key is the same result everywhere."""
        if kind == "evaluate":
            write_atomic(self.record(key), lender.record(key).read_text())
        else:
            meta = {k: v for k, v in lender.meta(key).items() if k not in ("schema", "files")}
            self.publish(key, meta, lambda folder: _copy_files(lender.artifact(key), folder))

    def sweep_up(self, keys: Container[str] | None = None) -> None:
        """Remove what killed processes of this machine left half-written, and what is a day old.

        Checkpoints stay, so that their distillations can go on, until their artifacts are there. `keys`: of
        the jobs that nobody else runs; None: of all.
        """
        for folder in (self.root, *self.root.glob("*/"), *self.checkpoints.glob("*/")):
            remove_leftovers(folder)
        for path in self.checkpoints.glob("*/"):
            if keys is None or path.name in keys:
                self._sweep_up_checkpoint(path)
        if keys is None:
            with contextlib.suppress(OSError):  # not empty, or not there
                self.checkpoints.rmdir()

    def _sweep_up_checkpoint(self, path: Path) -> None:
        (path / PROGRESS).unlink(missing_ok=True)  # nothing runs here now
        if self.artifact(path.name).exists() or not (path / CHECKPOINT).exists():
            shutil.rmtree(path, ignore_errors=True)

    def find(self, prefix: str) -> str:
        """The full key of an artifact from its first characters. Raises UserError unless one fits."""
        names = sorted(p.name for p in self.artifacts.glob("*"))
        keys = [name for name in names if name.startswith(prefix) and not name.startswith(".")]
        if len(keys) != 1:
            what = "several artifacts begin" if keys else "no artifact begins"
            raise UserError(f"{what} with {prefix!r} in {self.artifacts}; `ddbench show DIR` lists them")
        return keys[0]


def verified_meta(store: Store, key: str) -> dict[str, Any]:
    """The meta.json of a distilled set. Raises UserError if the artifact is damaged, or of another kind."""
    try:
        store.verify(key)
        if (kind := store.meta(key).get("kind")) == "distill":
            return read_set_meta(store.artifact(key))
    except ValueError as error:
        raise UserError(f"{store.artifact(key)} {error}; `ddbench run` makes it again") from None
    raise UserError(f"{key} is a {kind} artifact: it holds no images")


def _copy_files(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.name != META:
            shutil.copyfile(path, target / path.name)
