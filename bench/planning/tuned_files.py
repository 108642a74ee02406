"""What a tuning leaves: files of presets, and a sweep that compares them with the default values."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.core.words import count
from bench.planning.sweep import MethodEntry
from bench.records.trial import TrialRecord, best_trial, by_cell


def preset_files(trials: Sequence[TrialRecord]) -> dict[str, str]:
    """{method: text of its file of presets} from the best trials of each cell.

    Later rows win, so what holds for more of what a sweep fixes comes later.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for cell in sorted(by_cell(trials).values(), key=lambda cell: len(cell[0].fixed)):
        if (best := best_trial(cell)) is None:
            continue
        source = (
            f"tuned on {best.dataset} ipc {best.ipc}, {count(len(cell), 'trial')} ({best.sampler}), "
            f"{best.holdout:.0%} of the training set held out: {100 * (best.final or 0):.1f} there, trial "
            f"{best.number}"
        )
        row: dict[str, Any] = {"datasets": [best.presets], "ipc": [best.ipc]}
        row |= {"when": dict(best.fixed)} if best.fixed else {}
        rows.setdefault(best.method, []).append(row | {"values": dict(best.values), "source": source})
    return {method: _dump(found) for method, found in rows.items()}


def compared_sweep(content: Mapping[str, Any], name: str, presets: Mapping[str, Path]) -> str:
    """The text of a sweep with each tuned method twice: as the sweep has it, and with the tuned presets.

    Args:
        content: of the sweep that was tuned.
        name: of the new sweep.
        presets: the file of each tuned method.
    """
    methods = []
    for entry in content["methods"]:
        methods.append(entry)
        read = MethodEntry.model_validate(entry)
        if read.name in presets:
            mapping = entry if isinstance(entry, Mapping) else {"name": entry}
            files = [*read.presets, presets[read.name]]
            methods.append({**mapping, "presets": [str(path) for path in files]})
    return _dump({**content, "name": name, "methods": methods})


def _dump(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)
