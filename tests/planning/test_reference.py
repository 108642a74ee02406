"""configs/README.md and the JSON schemas agree with the models and with the files beside them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.data.spec import DatasetSpec
from bench.planning.reference import page, protocol_schema, reference_files, sweep_schema
from bench.planning.sweep import MethodEntry
from bench.planning.yaml_schema import CONFIGS

SWEEPS = sorted((CONFIGS / "sweeps").rglob("*.yaml"))
PROTOCOLS = sorted((CONFIGS / "protocols").glob("*.yaml"))
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"ipcs": [1]}, "ipcs"),
    ({"ipc": [0]}, "0 is less than or equal"),
    ({"evaluate": {"student": 1}}, "student"),
    ({"datasets": [{"name": "digits", "lable": "x"}]}, "lable"),
]


@pytest.mark.parametrize("name", ["README.md", "schema/sweep.schema.json", "schema/protocol.schema.json"])
def test_generated_files_are_current(name: str) -> None:
    current = (CONFIGS / name).read_text() == reference_files()[name]
    assert current, f"configs/{name} is out of date: run python -m bench.planning.reference"


def test_examples_on_the_page_are_valid() -> None:
    examples = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page(), re.DOTALL)]
    datasets = [
        entry for e in examples if isinstance(e, dict) and e.keys() == {"datasets"} for entry in e["datasets"]
    ]
    methods = [
        entry for e in examples if isinstance(e, dict) and e.keys() == {"methods"} for entry in e["methods"]
    ]
    assert [DatasetSpec.model_validate(entry).name for entry in datasets][:2] == ["digits", "image_folder"]
    assert [MethodEntry.model_validate(entry).name for entry in methods] == ["random_real", "dm", "dm"]


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_sweep_files_fit_the_schema(file: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(yaml.safe_load(file.read_text()), sweep_schema())


@pytest.mark.parametrize("file", PROTOCOLS, ids=lambda path: path.stem)
def test_protocol_files_fit_the_schema(file: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(yaml.safe_load(file.read_text()), protocol_schema())


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_the_schema_refuses_what_the_program_refuses(changes: dict[str, Any], words: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    content = yaml.safe_load((CONFIGS / "sweeps/quickstart.yaml").read_text()) | changes
    with pytest.raises(jsonschema.ValidationError, match=words):
        jsonschema.validate(content, sweep_schema())
