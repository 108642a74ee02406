"""Trials made by hand, for the tests of tunings."""

from typing import Any

from bench.records.trial import Rung, TrialRecord

PERCENT = (10, 20, 50, 100)


def trial(number: int = 0, *scores: float, **changes: Any) -> TrialRecord:
    """With a rung for each score; finished if there are four."""
    rungs = [
        Rung(percent=p, accuracy=s, accuracies=[s], operations=1.0, distill_s=1, score_s=1)
        for p, s in zip(PERCENT, scores, strict=False)
    ]
    content: dict[str, Any] = {
        **{"key": f"{number:016x}", "cell": "c", "number": number, "method": "dm", "fixed": {}},
        **{"dataset": "digits", "presets": "digits", "holdout": 0.2, "ipc": 1, "architecture": "mlp"},
        **{"protocols": ["quick"], "students": 1, "seed": 3, "hyperparameters": {}, "rungs": rungs},
        "state": "finished" if len(rungs) == len(PERCENT) else "stopped",
        "sampler": "random",
        "values": {"lr": 1.0, "momentum": 0.5, "init": "real"},
    }
    return TrialRecord.model_validate(content | changes)
