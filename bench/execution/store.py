"""The store: artifacts and records by key, each whole or not there."""

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from bench.core.errors import UserError
from bench.core.io import remove_leftovers, sync, temporary, write_atomic
from bench.core.loop import CHECKPOINT, PROGRESS
from bench.records.schema import Record, content_digest, load_record

STORE_SCHEMA = 1
META, WEIGHTS = "meta.json", "data.safetensors"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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

    def publish(self, key: str, meta: Mapping[str, Any], write: Callable[[Path], None]) -> None:
        """Make the folder of `key`: `write(folder)` fills it, meta.json gets the checksums.

        Publishing a key that is there already changes nothing: the content is the same by construction.
        """
        self.artifacts.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.artifacts, prefix=temporary(key)))
        try:
            write(folder)
            files = sorted(p for p in folder.iterdir())
            for path in files:
                path.chmod(0o644)
                sync(path)
            checksums = {p.name: _sha256(p) for p in files}
            content = {"schema": STORE_SCHEMA, **meta, "files": checksums}
            content["sha256"] = content_digest(content)
            write_atomic(folder / META, json.dumps(content, indent=1))
            folder.chmod(0o755)
            sync(folder)
            try:
                folder.rename(self.artifact(key))
            except OSError:
                if not self.artifact(key).exists():
                    raise
            else:
                sync(self.artifacts)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def meta(self, key: str) -> dict[str, Any]:
        """The meta.json of an artifact. Raises ValueError with the reason when it is damaged."""
        try:
            meta: dict[str, Any] = json.loads((self.artifact(key) / META).read_text())
            schema, _, checksum = meta["schema"], meta["files"], meta.pop("sha256", None)
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise ValueError("has no readable meta.json") from None
        if schema != STORE_SCHEMA:
            raise ValueError(f"has store schema {schema}, this ddbench writes {STORE_SCHEMA}")
        if content_digest(meta) != checksum:
            raise ValueError("does not match the checksum of meta.json")
        return meta

    def verify(self, key: str) -> None:
        """Raises ValueError with the reason when the artifact is not whole."""
        for name, checksum in self.meta(key)["files"].items():
            path = self.artifact(key) / name
            if not path.is_file():
                raise ValueError(f"lacks {name}")
            if _sha256(path) != checksum:
                raise ValueError(f"does not match the checksum of {name}")

    def load_record(self, key: str) -> Record:
        """Read a record. Raises ValueError with the reason when it is damaged."""
        return load_record(self.record(key))

    def versions(self, kind: str, key: str) -> dict[str, str]:
        """What a finished job says that it was made by; empty where it says nothing."""
        path = self.record(key) if kind == "evaluate" else self.artifact(key) / META
        found: dict[str, str] = from_json(path.read_bytes()).get("versions", {})
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
        if kind == "evaluate":
            self.record(key).unlink(missing_ok=True)
        else:
            shutil.rmtree(self.artifact(key), ignore_errors=True)

    def adopt(self, kind: str, key: str, lender: "Store") -> None:
        """Copy a finished job of another result folder: the same key is the same result everywhere."""
        if kind == "evaluate":
            write_atomic(self.record(key), lender.record(key).read_text())
        else:
            meta = {k: v for k, v in lender.meta(key).items() if k not in ("schema", "files")}
            self.publish(key, meta, lambda folder: _copy_files(lender.artifact(key), folder))

    def sweep_up(self) -> None:
        """Remove what killed processes of this machine left half-written, and what is a day old.

        Checkpoints stay, so that their distillations can go on, until their artifacts are there.
        """
        for folder in (self.root, *self.root.glob("*/"), *self.checkpoints.glob("*/")):
            remove_leftovers(folder)
        self._sweep_up_checkpoints()

    def _sweep_up_checkpoints(self) -> None:
        for path in self.checkpoints.glob("*/"):
            (path / PROGRESS).unlink(missing_ok=True)  # nothing runs here now
            if self.artifact(path.name).exists() or not (path / CHECKPOINT).exists():
                shutil.rmtree(path, ignore_errors=True)
        for path in (*self.checkpoints.glob("*/"), self.checkpoints):
            with contextlib.suppress(OSError):  # not empty, or not there
                path.rmdir()

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
    except ValueError as error:
        raise UserError(f"{store.artifact(key)} {error}; `ddbench run` makes it again") from None
    meta = store.meta(key)
    if meta["kind"] != "distill":
        raise UserError(f"{key} is a {meta['kind']} artifact ({meta['label']}): it holds no images")
    return meta


def _copy_files(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.name != META:
            shutil.copyfile(path, target / path.name)
