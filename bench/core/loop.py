"""The loop of a distillation: progress, snapshots, checkpoints, and a stop when it diverges."""

import copy
import dataclasses
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from bench.core.distilled import DistilledDataset
from bench.core.io import replacing, temporary
from bench.core.timing import synchronize

if TYPE_CHECKING:
    from bench.core.operations import JobOperations

# of the steps, after which a snapshot is taken that may be scored; the artifact itself is the last
SNAPSHOT_FRACTIONS = (0.1, 0.2, 0.5)
LOOK_S = 1.0  # between looks at the losses: each waits for the device
CHECKPOINT, PROGRESS = "checkpoint", "progress.json"


class Diverged(FloatingPointError):
    """A loss or a set is not finite; the message names the hyper-parameter to lower."""


class Stateful(Protocol):
    """What a checkpoint can hold: its state is tensors, numbers, text, and lists and dictionaries of them."""

    def state_dict(self) -> dict[str, Any]:
        """The state, to be saved."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Continue from a state that was saved."""
        ...


@dataclass(frozen=True)
class StepReport:
    """How far a running job is; written about once a second."""

    step: int
    total: int
    loss: float | None  # mean since the last report; None where the method names none
    speed: float  # steps per second
    left_s: float


def read_step_report(folder: Path) -> StepReport | None:
    """The latest report of the job that works in `folder`; None if there is none."""
    try:
        return StepReport(**json.loads((folder / PROGRESS).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_step_report(folder: Path, report: StepReport) -> None:
    """Replace the report in `folder`, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / temporary(PROGRESS)
    try:  # not flushed to the disk: it is worth nothing after a second
        unfinished.write_text(json.dumps(dataclasses.asdict(report)))
        os.replace(unfinished, folder / PROGRESS)
    finally:
        unfinished.unlink(missing_ok=True)


class Loop:
    """The loop of a distillation: it writes progress, snapshots and checkpoints, and checks the losses.

    A checkpoint is written when `every_s` seconds have passed since the last one, after the step that runs.
    What reports, snapshots and checkpoints take is bookkeeping, and no part of the method's seconds.
    """

    def __init__(
        self,
        folder: Path | None = None,
        every_s: float = 30.0,
        operations: "JobOperations | None" = None,
        on_snapshot: "Callable[[Loop], None] | None" = None,
    ) -> None:
        """Without a folder nothing is written; only the losses are checked.

        Args:
            folder: where the files go.
            every_s: seconds between two checkpoints.
            operations: counts those of some steps.
            on_snapshot: called after each snapshot, the last one of `snapshots`; what it raises ends the
                distillation.
        """
        self.folder, self.every_s, self.operations = folder, every_s, operations
        self.on_snapshot = on_snapshot
        self.total: int | None = None  # steps, once the method has named them
        # {"step", "fraction", "seconds", "file"} of each snapshot; the file is in `folder`
        self.snapshots: list[dict[str, Any]] = []
        # what killed processes spent on the steps that this one need not repeat, and on keeping them
        self.earlier_s = self.earlier_bookkeeping_s = 0.0
        self._bookkeeping_s = 0.0  # of this process
        self._start = time.perf_counter()

    def method_seconds(self, elapsed: float) -> float:
        """The method's own seconds when `elapsed` have passed in this process.

        Those of killed processes that need not be repeated are included, bookkeeping is not.
        """
        return elapsed - self._bookkeeping_s + self.earlier_s

    @property
    def seconds(self) -> float:
        """The method's own seconds so far."""
        return self.method_seconds(time.perf_counter() - self._start)

    @property
    def bookkeeping_s(self) -> float:
        """Seconds of reports, snapshots and checkpoints, those of killed processes included.

        What a checkpoint took is known once it is written: one that a killed process left is without its own.
        """
        return self._bookkeeping_s + self.earlier_bookkeeping_s

    @contextmanager
    def bookkeeping(self, device: torch.device) -> Iterator[None]:
        """Count what runs inside as bookkeeping, after the steps that the device still has to do."""
        synchronize(device)
        start = time.perf_counter()
        try:
            yield
        finally:
            self._bookkeeping_s += time.perf_counter() - start

    def steps(
        self, total: int, synthetic: DistilledDataset, blame: str, **state: Stateful | torch.Generator
    ) -> "Steps":
        """Iterate over the steps of a method, from 0 or from the last checkpoint.

        Args:
            total: number of steps.
            synthetic: the set that is optimised.
            blame: the hyper-parameter to name when a loss is not finite.
            state: everything else that one step passes on to the next (optimiser, generators, pools), so
                that a resumed run repeats the same steps bit for bit.

        Returns:
            `for step in steps` runs the loop; `steps.loss(value)` notes a loss.

        Raises:
            ValueError: the loop has a folder, and this is its second call.
            Diverged: while iterating, if a loss is not finite.
        """
        if self.folder and self.total is not None:
            raise ValueError("a distillation has one loop of steps: name all of them at once")
        self.total = total
        return Steps(self, total, blame, {"synthetic": synthetic, **state})


class Steps:
    """The steps of one distillation; reports, snapshots and checkpoints are written between two of them."""

    def __init__(
        self, loop: Loop, total: int, blame: str, things: dict[str, Stateful | torch.Generator]
    ) -> None:
        self.loop, self.total, self.blame, self._things = loop, total, blame, things
        self._done = 0
        self._losses: list[tuple[int, Tensor]] = []

    def loss(self, value: Tensor) -> None:
        """Record a loss of this step, a scalar on any device; losses are read about once a second."""
        self._losses.append((self._done + 1, value.detach()))

    def __iter__(self) -> Iterator[int]:
        folder = self.loop.folder
        snapshots = {max(1, round(f * self.total)): f for f in SNAPSHOT_FRACTIONS} if folder else {}
        snapshots.pop(self.total, None)
        counted = self._resume(folder) if folder else []
        if operations := self.loop.operations:
            operations.begin_loop(self.total, counted)
        if folder and not self._done and self.total:  # the set to start from: shown, never scored
            with self.loop.bookkeeping(self._device):
                self._snapshot(folder, 0.0)
        self._first, self._begin = self._done, time.perf_counter()
        looked = kept = self._begin
        for step in range(self._first, self.total):
            counts = operations is not None and operations.begin_step(step)
            if operations and operations.cut and not counts:
                continue
            yield step
            if operations and counts:
                operations.end_step()
            self._done = step + 1
            now = time.perf_counter()
            fraction = snapshots.get(self._done)
            keep = folder is not None and now - kept >= self.loop.every_s
            if fraction or keep or now - looked >= LOOK_S or self._done == self.total:
                self._look()
                looked = now
            if folder and fraction:
                with self.loop.bookkeeping(self._device):
                    self._snapshot(folder, fraction)
                    if self.loop.on_snapshot:
                        self.loop.on_snapshot(self.loop)
            if folder and keep:
                with self.loop.bookkeeping(self._device):
                    self._keep(folder)
                kept = time.perf_counter()
        if operations:
            operations.end_loop()

    def _look(self) -> None:
        """Read the losses noted since the last time and report their mean. Raises Diverged."""
        loss = None
        if self._losses and self._losses[0][1].is_meta:  # a dry run: there are no numbers
            self._losses.clear()
        if self._losses:
            steps, values = zip(*self._losses, strict=True)
            losses = torch.stack(values).tolist()
            for step, value in zip(steps, losses, strict=True):
                if not math.isfinite(value):
                    where = f"at step {step} of {self.total}"
                    raise Diverged(f"the loss is not finite {where}: lower {self.blame}")
            loss = sum(losses) / len(losses)
            self._losses.clear()
        if self.loop.folder:
            with self.loop.bookkeeping(self._device):
                self._report(self.loop.folder, loss)

    def _report(self, folder: Path, loss: float | None) -> None:
        speed = (self._done - self._first) / (time.perf_counter() - self._begin)
        left = (self.total - self._done) / speed
        write_step_report(folder, StepReport(self._done, self.total, loss, speed, left))

    def _snapshot(self, folder: Path, fraction: float) -> None:
        name, seconds = f"snapshot-{self._done}.safetensors", self.loop.seconds
        with replacing(folder / name) as path:
            self._synthetic.save(path)
        taken = {"step": self._done, "fraction": fraction, "seconds": seconds, "file": name}
        self.loop.snapshots.append(taken)

    def _keep(self, folder: Path) -> None:
        """Write a checkpoint: a SHA-256 digest, then the bytes that it was computed from."""
        buffer = io.BytesIO()
        content = {
            "total": self.total,
            "done": self._done,
            "seconds": self.loop.seconds,
            "bookkeeping_s": self.loop.bookkeeping_s,
            "snapshots": self.loop.snapshots,
            "operations": self.loop.operations.steps if self.loop.operations else [],
            "state": self._state(),
        }
        torch.save(content, buffer)
        payload = buffer.getvalue()
        with replacing(folder / CHECKPOINT) as path:
            path.write_bytes(hashlib.sha256(payload).digest() + payload)

    def _resume(self, folder: Path) -> list[float]:
        """Restore the checkpoint, if there is one that is whole and fits; the operations of counted steps."""
        with self.loop.bookkeeping(self._device):
            found = self._restored(folder) if (folder / CHECKPOINT).exists() else None
        if found is None:
            return []
        self._done = found["done"]
        self.loop.snapshots = found["snapshots"]
        self.loop.earlier_s += found["seconds"] - self.loop.seconds
        self.loop.earlier_bookkeeping_s = found["bookkeeping_s"]
        return list(found.get("operations", []))  # an earlier ddbench counted none

    def _restored(self, folder: Path) -> dict[str, Any] | None:
        """The checkpoint, all things set to it; None, and they are as before, where it does not fit."""
        start = copy.deepcopy(self._state())
        try:
            found = _read_checkpoint(folder)
            if found["total"] != self.total:
                raise ValueError(f"it is of {found['total']} steps")
            self._restore(found["state"])
        except Exception:  # damaged, or of other code: a thing may raise anything for what is not its own
            self._restore(start)
            return None
        return found

    @property
    def _device(self) -> torch.device:
        return next((t.device for t in self._synthetic.state_dict().values()), torch.device("cpu"))

    @property
    def _synthetic(self) -> DistilledDataset:
        synthetic = self._things["synthetic"]
        assert isinstance(synthetic, DistilledDataset)
        return synthetic

    def _state(self) -> dict[str, Any]:
        return {
            name: thing.get_state() if isinstance(thing, torch.Generator) else thing.state_dict()
            for name, thing in self._things.items()
        }

    def _restore(self, state: dict[str, Any]) -> None:
        """Load a state. Raises KeyError, or what a `load_state_dict` raises, if it does not fit."""
        if state.keys() != self._things.keys():
            raise KeyError(f"{sorted(state)} for {sorted(self._things)}")
        for name, thing in self._things.items():
            if isinstance(thing, torch.Generator):
                thing.set_state(state[name])
            else:
                thing.load_state_dict(state[name])


def _read_checkpoint(folder: Path) -> dict[str, Any]:
    """The content of a checkpoint; no code from the file runs.

    Raises ValueError when the file is damaged or one of its snapshots is missing.
    """
    content = (folder / CHECKPOINT).read_bytes()
    size = hashlib.sha256().digest_size
    digest, payload = content[:size], content[size:]
    if hashlib.sha256(payload).digest() != digest:
        raise ValueError("it does not match its checksum")
    found: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    if "bookkeeping_s" not in found:
        raise ValueError("its seconds are not the method's own")
    gone = [taken["file"] for taken in found["snapshots"] if not (folder / taken["file"]).is_file()]
    if gone:
        raise ValueError(f"it lacks {gone[0]}")
    return found
