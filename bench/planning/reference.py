"""configs/README.md and the JSON schemas for editors, made from the models of the files.

python -m bench.planning.reference
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from bench.core.networks.architecture import FAMILIES, PARAMETER_CHOICES, family_parameters
from bench.core.registry import method_class, own_method_names
from bench.data.spec import DATASETS
from bench.planning.presets import Preset
from bench.planning.protocols import Protocol, load_protocols, protocol_names
from bench.planning.sweep import Sweep
from bench.planning.yaml_schema import CONFIGS

Schema = dict[str, Any]
_ONES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
_MANY = {"integer": "whole numbers", "number": "numbers", "string": "texts"}
_BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
_NO_BOUND = 2**63  # the largest seed has to fit in 64 bits; no reader needs that number
_SECTIONS = {  # of the page, by the name of the model
    "Architecture": "architecture",
    "DatasetSpec": "data set",
    "MethodEntry": "method",
    "DistillConfig": "distill",
    "EvaluateConfig": "evaluate",
    "Resources": "resources",
    "KindResources": "kind of job",
    "Budget": "budget",
    "Recipe": "recipe",
    "TeacherConfig": "teacher",
    "Rule": "rule",
}


# --- JSON schemas -------------------------------------------------------------------------------------------


def sweep_schema() -> Schema:
    """The JSON schema of a sweep file."""
    schema: Schema = _plain(Sweep.model_json_schema())
    schema["required"].remove("name")
    defs = schema["$defs"]
    entry = {"type": "object", "required": ["name"]}
    defs["Architecture"] = _name_or_mapping(
        FAMILIES,
        "a name like convnet-d2-w64, or a mapping",
        {**entry, "properties": {"name": _named(FAMILIES)}},
    )
    methods = own_method_names()
    properties = {
        "name": _named(methods),
        "seeds": {"type": "integer", "minimum": 1},
        "presets": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    }
    defs["MethodEntry"] = _name_or_mapping(
        methods,
        "a name, or a mapping of name and hyper-parameters",
        {**entry, "properties": properties},
    )
    spec = defs["DatasetSpec"]
    spec["properties"]["name"] |= _named(DATASETS)
    defs["DatasetSpec"] = _name_or_mapping(
        DATASETS, "a name, the path of a folder of images, or a mapping", spec
    )
    evaluate = defs["EvaluateConfig"]["properties"]
    del evaluate["architectures"]["default"]
    protocols = evaluate["protocol"]
    protocols["items"] = _named(protocol_names())
    list_of = {key: protocols.pop(key) for key in ("items", "minItems", "type")}
    protocols["anyOf"] = [*_named(protocol_names())["anyOf"], list_of]
    protocols["default"] = "standard"
    return schema


def protocol_schema() -> Schema:
    """The JSON schema of a protocol file, which has no name but may have variants."""
    schema: Schema = _plain(Protocol.model_json_schema())
    del schema["properties"]["name"]
    schema["required"].remove("name")
    recipe = {key: value for key, value in schema["$defs"]["Recipe"].items() if key != "required"}
    changed = schema["$defs"]["Rule"]["properties"]
    changed["recipe"] = recipe | {"description": changed["recipe"]["description"], "minProperties": 1}
    changes = schema["properties"] | {"recipe": recipe}
    schema["properties"] = schema["properties"] | {
        "variants": {
            "type": "object",
            "additionalProperties": {"type": "object", "properties": changes, "additionalProperties": False},
            "description": "by name, the keys that differ from those above; the protocol FILE.VARIANT",
        }
    }
    return schema


def _named(names: Iterable[str]) -> Schema:
    """A text for which an editor suggests these names."""
    return {"anyOf": [{"enum": list(names)}, {"type": "string"}]}


def _name_or_mapping(names: Iterable[str], description: str, mapping: Schema) -> Schema:
    return {"description": description, "anyOf": [*_named(names)["anyOf"], mapping]}


def _plain(node: Any) -> Any:
    """The schema without titles, which repeat the keys, and without defaults that say nothing."""
    if isinstance(node, list):
        return [_plain(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    empty = {"default"} if "$ref" in node or node.get("default", 0) is None else set()
    titled = {"title"} if isinstance(node.get("title"), str) else set()
    return {key: _plain(value) for key, value in node.items() if key not in empty | titled}


# --- the page -----------------------------------------------------------------------------------------------


def table(schema: Schema) -> str:
    """A Markdown table of a mapping's keys: name, type, default, meaning."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, node in schema["properties"].items():
        default = "required" if key in schema.get("required", ()) else _default(node)
        cells = [f"`{key}`", _type(node), default, node.get("description", "")]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _default(node: Schema) -> str:
    return f"`{json.dumps(node['default'])}`" if node.get("default") not in (None, "", []) else ""


def _type(node: Schema, words: Mapping[str, str] = _ONES) -> str:
    """The type of a value in words, with its bounds."""
    if "$ref" in node:
        name = _SECTIONS[node["$ref"].rpartition("/")[2]]
        many = "s" if words is _MANY else ""
        return f"[{name}{many}](#{name.replace(' ', '-')})"
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"])
    if "anyOf" in node:
        kinds = [
            _type(kind, words) for kind in node["anyOf"] if "enum" not in kind and kind.get("type") != "null"
        ]
        return " or ".join(kinds)
    if node["type"] == "array":
        return f"list of {_type(node['items'], _MANY)}"
    if node["type"] == "object":
        return "mapping"
    if node.get("format") == "path":
        return "path"
    bounds = [f"{sign} {node[key]}" for key, sign in _BOUNDS.items() if node.get(key, _NO_BOUND) != _NO_BOUND]
    return " ".join([words[node["type"]], ", ".join(bounds)]).strip()


def _hyperparameters(method: str) -> str:
    values = [f"`{f.name}: {json.dumps(f.default)}`" for f in dataclasses.fields(method_class(method))]
    return ", ".join(values) or "none"


def _family(family: str) -> str:
    return ", ".join(f"`{key}: {value}`" for key, value in family_parameters(family).items()) or "none"


def page() -> str:
    """The text of configs/README.md."""
    sweep, protocol = sweep_schema(), protocol_schema()
    template = Path(__file__).with_name("reference.md.jinja").read_text()
    rendered = (
        Environment(undefined=StrictUndefined, keep_trailing_newline=True)
        .from_string(template)
        .render(
            table=table,
            sweep=sweep,
            protocol=protocol,
            preset=_plain(Preset.model_json_schema()),
            dataset=sweep["$defs"]["DatasetSpec"]["anyOf"][-1],
            datasets=DATASETS,
            methods={name: _hyperparameters(name) for name in own_method_names()},
            families={name: _family(name) for name in FAMILIES},
            choices=PARAMETER_CHOICES,
            protocols=[
                p for path in sorted((CONFIGS / "protocols").glob("*.yaml")) for p in _of_file(path.stem)
            ],
            sweep_file=(CONFIGS / "sweeps/quickstart.yaml").read_text(),
            protocol_file=(CONFIGS / "protocols/standard.yaml").read_text(),
            preset_file=(CONFIGS / "methods/dm.yaml").read_text(),
        )
    )
    return rendered


def _of_file(stem: str) -> list[Protocol]:
    names = [name for name in protocol_names() if name.partition(".")[0] == stem]
    found = {protocol.name: protocol for name in names for protocol in load_protocols(name)}
    return list(found.values())


def reference_files() -> dict[str, str]:
    """{path in configs/: text} of all generated files."""
    schemas = {"sweep": sweep_schema(), "protocol": protocol_schema()}
    return {"README.md": page()} | {
        f"schema/{name}.schema.json": json.dumps(
            {"$schema": "http://json-schema.org/draft-07/schema#", "title": f"ddbench {name}", **schema},
            indent=1,
        )
        + "\n"
        for name, schema in schemas.items()
    }


if __name__ == "__main__":
    for name, text in reference_files().items():
        (CONFIGS / name).parent.mkdir(exist_ok=True)
        (CONFIGS / name).write_text(text)
        print(f"wrote {CONFIGS / name}")
