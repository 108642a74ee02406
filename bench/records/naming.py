"""Labels of methods, data sets and protocols: records share labels only if they may be averaged."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

LABELS = ("stored", "hard", "soft", "teacher")  # what students learn, by label regime
GIVEN = "@"  # in the name of a protocol, before the first digits of a given teacher, and before a precision
CELL = ["method", "dataset", "ipc", "distill_arch", "eval_arch", "protocol"]


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `method`, `dataset` and `protocol`: labels that are the same only for what may be averaged.

    A label depends on all rows (`dm[steps=100]` if another row has other steps), so rows of several folders
    have to be labelled together.

    Args:
        rows: as `columns.record_rows` makes them.
    """
    methods = _pairs(rows, "method_name", "method_version")
    datasets = _pairs(rows, "dataset_name", "dataset_fingerprint")
    protocols = _pairs(rows, "protocol_name", "protocol_version")
    method, dataset, protocol = _versions(methods), _fingerprints(datasets), _versions(protocols)
    table = rows.assign(
        method=[method[pair] for pair in methods],
        dataset=[dataset[pair] for pair in datasets],
        protocol=[protocol[pair] for pair in protocols],
    )
    return table.assign(method=method_labels(table))


def without_regime(protocol: str) -> str:
    """What protocols that differ in their labels only have in common: `standard` of `standard.soft`."""
    name, given, teacher = protocol.partition(GIVEN)
    stem, _, last = name.rpartition(".")
    return f"{stem if stem and last in LABELS else name}{given}{teacher}"


def _pairs(table: pd.DataFrame, one: str, other: str) -> list[tuple[Any, Any]]:
    return list(zip(table[one].tolist(), table[other].tolist(), strict=True))


def _versions(pairs: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Labels by (name, version): `quick`, or `quick v2` if the records have several versions of the name."""
    known = set(pairs)
    names = [name for name, _ in known]
    return {(name, v): f"{name} v{v}" if names.count(name) > 1 else name for name, v in known}


def _fingerprints(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Labels by (name, fingerprint): `cifar10`, or `cifar10#ab12cd` if the name has several fingerprints."""
    by_name: dict[str, set[str]] = {}
    for name, fingerprint in pairs:
        by_name.setdefault(name, set()).add(fingerprint)
    labels: dict[tuple[str, str], str] = {}
    for name, prints in by_name.items():
        longest = max(map(len, prints))
        digits = next((n for n in range(6, longest) if len({p[:n] for p in prints}) == len(prints)), longest)
        labels |= {(name, p): f"{name}#{p[:digits]}" if len(prints) > 1 else name for p in prints}
    return labels


def _flat(hyperparameters: str) -> dict[str, str]:
    """The values of a JSON object as text, so that values of any type can be compared."""
    values: dict[str, Any] = json.loads(hyperparameters)
    return {
        name: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for name, value in values.items()
    }


def _varying(variants: Sequence[dict[str, str]]) -> set[str]:
    """The fields whose value is not the same in all variants; missing is a value of its own."""
    names = {name for variant in variants for name in variant}
    return {name for name in names if len({variant.get(name) for variant in variants}) > 1}


def method_labels(table: pd.DataFrame) -> list[str]:
    """Labels like `dm[steps=1000]`: the method and those hyper-parameters that differ within some cell.

    Hyper-parameters that differ between cells only (a learning rate that depends on ipc) are not shown. The
    seed is not part of a cell: seeds with different hyper-parameters must not be averaged.

    Args:
        table: the columns of `CELL`, and `hyperparameters`, JSON.

    Returns:
        The label of each row.
    """
    chosen = table["hyperparameters"]
    cell = table.groupby(CELL, dropna=False).ngroup()
    variants = pd.DataFrame({"method": table["method"], "cell": cell, "chosen": chosen}).drop_duplicates()
    several = variants[variants.duplicated("cell", keep=False)]
    flat = {text: _flat(text) for text in variants["chosen"].unique()}
    varying: dict[str, set[str]] = {}
    for (method, _), found in several.groupby(["method", "cell"])["chosen"]:
        varying.setdefault(str(method), set()).update(_varying([flat[text] for text in found]))

    def label(method: str, values: dict[str, str]) -> str:
        telling = varying.get(method, set()) | {"precision"}  # another precision than fp32 is always told
        shown = [f"{name}={values[name]}" for name in sorted(telling) if name in values]
        return f"{method}[{', '.join(shown)}]" if shown else method

    pairs = variants[["method", "chosen"]].drop_duplicates().itertuples(index=False)
    labels = {(method, text): label(method, flat[text]) for method, text in pairs}
    return [labels[pair] for pair in _pairs(table, "method", "hyperparameters")]
