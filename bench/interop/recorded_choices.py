"""What a record says of the choices made on a hold-out, to train its students again without making them."""

from dataclasses import replace
from typing import Any

from bench.core.errors import UserError
from bench.evaluation.labels import LabelChoice, label_candidates
from bench.planning.protocols import Protocol
from bench.records.schema import Record, StudentTraining


def as_chosen(protocol: Protocol, record: Record) -> Protocol:
    """The protocol with the rate and the soft labels that a record says were chosen on a hold-out.

    Raises UserError if they are not those of the protocol that scored best.
    """
    changes: dict[str, Any] = {}
    lr, scores = record.training.lr, record.training.holdout_scores or {}
    if protocol.rates:
        if lr not in protocol.rates or scores.get(f"{lr:g}") != max(scores.values(), default=None):
            raise UserError(f"training.lr {lr:g} is not the one of {protocol.name}'s rates that scored best")
        changes |= {"recipe": replace(protocol.recipe, lr=lr), "rates": ()}
    if len(label_candidates(protocol)) > 1 and protocol.teacher is not None:
        told = record.training.soft_labels
        scores = told.holdout_scores or {} if told else {}
        known = {str(candidate): candidate for candidate in label_candidates(protocol)}
        best = max(known, key=lambda name: scores.get(name, -1.0))
        if (
            told is None
            or scores.keys() != known.keys()
            or str(LabelChoice(told.stop, told.temperature)) != best
        ):
            raise UserError(f"training.soft_labels are not those of {protocol.name} that scored best")
        only = {"stops": (told.stop,), "temperatures": (told.temperature,)}
        changes["teacher"] = protocol.teacher.model_copy(update=only)
    return protocol.model_copy(update=changes)


def otherwise(record: Record, again: StudentTraining) -> list[str]:
    """Where the record differs from how the students were trained; how they were chosen is not checked."""
    choices: dict[str, Any] = {"lr_from": True, "holdout_scores": True, "soft_labels": {"holdout_scores"}}
    said, found = (t.model_dump(exclude=choices) for t in (record.training, again))
    return [f"training.{n} {said[n]}, measured {found[n]}" for n in said if said[n] != found[n]]
