"""configs/README.md and JSON schemas, made from the models of the files.

`python -m bench.planning.reference` writes them.
"""

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from bench.core.io import write_atomic
from bench.core.training import Recipe
from bench.data.spec import DatasetSpec
from bench.planning.presets import Preset
from bench.planning.protocols import Protocol, TeacherConfig
from bench.planning.sweep import DistillConfig, EvaluateConfig, Resources, Sweep
from bench.planning.yaml_schema import CONFIGS

MODELS: tuple[type[Any], ...] = (
    Sweep,
    DatasetSpec,
    DistillConfig,
    EvaluateConfig,
    Resources,
    Preset,
    Protocol,
    Recipe,
    TeacherConfig,
)


def _default(field: FieldInfo | dataclasses.Field[Any]) -> str:
    value = field.get_default(call_default_factory=False) if isinstance(field, FieldInfo) else field.default
    if (isinstance(field, FieldInfo) and field.is_required()) or value is dataclasses.MISSING:
        return "required"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, tuple):
        return f"`[{', '.join(getattr(one, 'label', str(one)) for one in value)}]`"
    if value is None or value == "":
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _type(definitions[name], definitions) if "enum" in definitions[name] else "mapping"
    if "anyOf" in schema:
        kinds = [_type(one, definitions) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        of = _type(schema["items"], definitions) if schema.get("items") else "text"
        return f"list of {of}"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    return words.get(schema.get("type", "object"), "mapping") + _range(schema)


def _range(schema: dict[str, Any]) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    limits = {sign: schema[key] for key, sign in signs.items() if schema.get(key, 2**63) < 2**63}
    parts = [f"{sign} {limit:g}" for sign, limit in limits.items()]
    return f" {', '.join(parts)}" if parts else ""


def _table(model: type[Any]) -> str:
    """A Markdown table of the keys of a model."""
    schema = TypeAdapter(model).json_schema(mode="validation")
    fields = getattr(model, "model_fields", None) or model.__pydantic_fields__
    rows = ["| key | type | default | meaning |", "| :-- | :-- | :-- | :-- |"]
    for name, field in fields.items():
        kind = _type(schema["properties"][name], schema.get("$defs", {}))
        rows.append(f"| `{name}` | {kind} | {_default(field)} | {field.description} |")
    return "\n".join(rows)


def _about(model: type[Any]) -> str:
    return re.sub(r"\s+", " ", inspect.getdoc(model) or "")


def sweep_schema() -> dict[str, Any]:
    """What an editor needs to complete and check a sweep file."""
    schema = TypeAdapter(Sweep).json_schema(mode="validation")
    schema["required"].remove("name")  # the file's own, where it is not given
    return schema


def protocol_schema() -> dict[str, Any]:
    """The same for a protocol file, which is named by its file and whose variants change some keys."""
    schema = TypeAdapter(Protocol).json_schema(mode="validation")
    del schema["properties"]["name"]
    schema["properties"]["variants"] = {"type": "object", "additionalProperties": {"type": "object"}}
    schema["required"] = ["version", "about"]
    return schema


def pages() -> dict[Path, str]:
    """{path below configs/: text} of all that is generated."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)
    models = {model.__name__: model for model in MODELS}
    text = environment.get_template("reference.md.jinja").render(table=_table, about=_about, **models)
    return {
        Path("README.md"): text,
        Path("schema/sweep.schema.json"): json.dumps(sweep_schema(), indent=1) + "\n",
        Path("schema/protocol.schema.json"): json.dumps(protocol_schema(), indent=1) + "\n",
    }


if __name__ == "__main__":
    for path, text in pages().items():
        print(write_atomic(CONFIGS / path, text))
