"""The meta.json of an artifact, which somebody else may have made: what it must hold. No torch."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bench.core.io import read_json
from bench.core.words import plain_text
from bench.records.schema import content_digest

STORE_SCHEMA = 1
META = "meta.json"


class _Meta(BaseModel):
    """What a meta.json holds, beside others."""

    files: dict[str, str]
    kind: str = ""
    label: str = ""
    identity: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    cost: dict[str, Any] = {}
    versions: dict[str, str] = {}


class _Identity(BaseModel):
    """What tells a distilled set from others."""

    dataset: str
    method: str
    hyperparameters: dict[str, Any]
    ipc: int | None
    architecture: str
    seed: int


class _Snapshot(BaseModel):
    """The set after some steps."""

    step: int
    fraction: float
    file: str


class _SetMeta(BaseModel):
    """What the meta.json of a distilled set holds in addition, for those who show it."""

    label: str
    identity: _Identity
    classes: list[str]
    snapshots: list[_Snapshot] = []
    dataset_spec: dict[str, Any] = {}


def read_meta(folder: Path) -> dict[str, Any]:
    """The meta.json of an artifact. Raises ValueError with the reason when it is damaged."""
    try:
        meta: dict[str, Any] = read_json(folder / META)
        schema, checksum = meta["schema"], meta.pop("sha256", None)
        _Meta.model_validate(meta)
        digest = content_digest(meta)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"has no readable {META}") from None
    if schema != STORE_SCHEMA:
        raise ValueError(f"has store schema {plain_text(str(schema))}, this ddbench writes {STORE_SCHEMA}")
    if digest != checksum:
        raise ValueError(f"does not match the checksum of {META}")
    return meta


def read_set_meta(folder: Path) -> dict[str, Any]:
    """The meta.json of a distilled set. Raises ValueError with the reason when it does not describe one."""
    meta = read_meta(folder)
    try:
        found = _SetMeta.model_validate(meta)
    except ValidationError as error:
        where = plain_text(".".join(map(str, error.errors()[0]["loc"])))
        raise ValueError(f"has no usable {where} in {META}") from None
    if strange := {one.file for one in found.snapshots} - meta["files"].keys():
        raise ValueError(f"has no checksum of {plain_text(min(strange))}")
    return meta
