"""configs/README.md and the schemas are those of the code, and every committed sweep fits its schema."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from bench.planning.reference import MODELS, pages, protocol_schema, sweep_schema
from bench.planning.yaml_schema import CONFIGS

SWEEPS = sorted((CONFIGS / "sweeps").rglob("*.yaml"))


@pytest.mark.parametrize("path", pages(), ids=str)
def test_what_is_generated_is_current(path: Path) -> None:
    assert (CONFIGS / path).read_text() == pages()[path], "run `python -m bench.planning.reference`"


@pytest.mark.parametrize("model", MODELS)
def test_every_key_says_what_it_means(model: Any) -> None:
    fields = getattr(model, "model_fields", None) or model.__pydantic_fields__
    assert all(field.description for field in fields.values())


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_an_editor_accepts_the_committed_sweeps(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), sweep_schema())


@pytest.mark.parametrize("path", sorted((CONFIGS / "protocols").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_editor_accepts_the_protocols(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), protocol_schema())


def test_an_editor_refuses_an_unknown_key() -> None:
    schema = json.loads((CONFIGS / "schema" / "sweep.schema.json").read_text())
    with pytest.raises(jsonschema.ValidationError, match="ipcs"):
        jsonschema.validate({"datasets": ["digits"], "methods": ["dm"], "ipc": [1], "ipcs": [1]}, schema)
