"""The record of one trial of a tuning: one JSON file, replaced as the trial goes on."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.core.io import read_json
from bench.core.words import plain_text
from bench.records.schema import Amount, Count, Flop, Fraction, Name, Whole

TRIALS: Final = "trials"  # the folder of these records in a result folder
WHOLE: Final = 100  # percent of a distillation
Percent = Annotated[int, Field(gt=0, le=WHOLE)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Rung(_Part):
    """What a trial had reached after a part of its distillation, and had cost by then."""

    percent: Percent
    accuracy: Fraction  # on the hold-out, mean of all students
    accuracies: list[Fraction] = Field(min_length=1)
    operations: Flop | None  # of the distillation so far; None: not counted
    distill_s: Amount
    score_s: Amount  # of the students of this rung


class TrialRecord(_Part):
    """A trial: some values of a method's hyper-parameters, and what they scored on the hold-out."""

    trial_schema: Literal[1] = 1
    key: str  # of values and setting; also the file's name
    cell: str  # key of the first trial of the same method, data set and ipc
    number: Count  # 0: the values that the sweep has without tuning
    method: Name
    fixed: dict[str, Any]  # hyper-parameters that the sweep sets
    dataset: Name  # as the sweep names it, without its hold-out
    presets: Name  # the data set in files of presets
    holdout: Fraction  # of its training set
    ipc: Whole
    architecture: Name
    protocols: list[Name]
    students: Count
    seed: Count
    sampler: Name
    values: dict[str, float | str]  # of the search space
    hyperparameters: dict[str, Any]  # all of them
    # running: reports are still to come; stopped: worse than others at its last rung
    state: Literal["running", "finished", "stopped", "failed"]
    error: str | None = None
    rungs: list[Rung] = []
    prepare_operations: Flop | None = None
    prepare_s: Amount = 0.0
    device: Name = ""
    versions: dict[str, str] = {}

    @property
    def final(self) -> float | None:
        """The accuracy of the whole distillation; None where it did not get so far."""
        return self.rungs[-1].accuracy if self.state == "finished" and self.rungs else None


def dump_trial(trial: TrialRecord) -> str:
    """The text of the trial's file."""
    return json.dumps(trial.model_dump(mode="json"), indent=1) + "\n"


def load_trials(folder: Path) -> tuple[list[TrialRecord], list[str]]:
    """The trials of a result folder by number, and a line for each file that holds none."""
    found, problems = [], []
    for path in sorted(folder.glob(f"{TRIALS}/[!.]*.json")):
        try:
            trial = TrialRecord.model_validate(read_json(path))
            if trial.key != path.stem:
                raise ValueError(f"holds the trial {plain_text(trial.key)}")
        except (OSError, ValueError) as error:
            why = _first_fault(error) if isinstance(error, ValidationError) else str(error)
            problems.append(f"{TRIALS}/{path.name} {why}: delete it to have it made again")
        else:
            found.append(trial)
    return sorted(found, key=lambda trial: (trial.method, trial.dataset, trial.ipc, trial.number)), problems


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"is no trial: {plain_text('.'.join(map(str, first['loc'])))}: {first['msg']}"


def best_trial(trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """The trial with the best accuracy of a whole distillation; of equals the first."""
    finished = [trial for trial in trials if trial.final is not None]
    return max(finished, key=lambda trial: (trial.final, -trial.number), default=None)


def by_cell(trials: Iterable[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """The trials with a result of each cell, by number, under the key of the cell."""
    found: dict[str, list[TrialRecord]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.state != "running":
            found.setdefault(trial.cell, []).append(trial)
    return found
