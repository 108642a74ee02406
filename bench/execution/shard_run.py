"""One shard of a sweep as a session of its own."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path

from bench.core.errors import UserError
from bench.core.io import read_json, sync, temporary, writing
from bench.execution.folder_lock import ShardPlace
from bench.execution.session import Session
from bench.planning.graph import Job
from bench.planning.shards import Shard, plan_digest, split_plan


def take_shard(session: Session, shard: Shard, keep: bool) -> Session:
    """The session of the jobs of one shard.

    Without neighbouring folders shards have like numbers of jobs, wherever they run. With neighbours, whose
    finished jobs tell what others will cost, the first shard writes the split into the result folder and the
    others read it there: what is finished meanwhile would give them another.

    Args:
        session: of the whole sweep.
        shard: which one.
        keep: write the split, as a run does and a plan does not.

    Raises:
        UserError: the folder cannot be written, or holds a split that is none.
    """
    digest = plan_digest(session.jobs)
    kept = session.store.root / "shards" / f"{digest}-{shard.number}.json"
    if kept.exists():
        places = _read(kept, session.jobs, shard.number)
    else:
        places = _split(session, shard.number)
        if keep and session.lenders:
            _write_once(kept, json.dumps([places[key] for key in _ours(session.jobs)]))
            places = _read(kept, session.jobs, shard.number)  # another shard may have been first
    chosen = {key for key, place in places.items() if place == shard.index - 1}
    for key, job in reversed(session.jobs.items()):  # inputs come first
        if key in chosen:
            chosen.update(job.inputs.values())
    jobs = {key: job for key, job in session.jobs.items() if key in chosen}
    part = ShardPlace(f"{digest}of{shard.number}", str(shard.index))
    return dataclasses.replace(session, jobs=jobs, part=part)


def _split(session: Session, number: int) -> dict[str, int]:
    """The place of each job that is no prerequisite."""
    known = session.costs.seconds if session.lenders else lambda key: None
    shards = split_plan(session.jobs, number, known)
    found = {key: place for place, keys in enumerate(shards) for key in keys}
    return {key: found[key] for key in _ours(session.jobs)}


def _ours(jobs: dict[str, Job]) -> list[str]:
    """The jobs that only one shard has, in the order of the plan."""
    return [key for key, job in jobs.items() if job.kind != "prepare"]


def _write_once(path: Path, text: str) -> None:
    """Of several that write at once the first one stays."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(temporary(path.name))
        try:
            unfinished.write_text(text)
            sync(unfinished)
            with contextlib.suppress(FileExistsError):
                os.link(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


def _read(path: Path, jobs: dict[str, Job], number: int) -> dict[str, int]:
    try:
        places = read_json(path)
        if not all(type(place) is int and 0 <= place < number for place in places):
            raise ValueError("holds no numbers of shards")
        return dict(zip(_ours(jobs), places, strict=True))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: no split of this sweep ({error}): delete it while no shard runs") from None
