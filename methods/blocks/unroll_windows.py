"""Which steps of an inner training run are differentiated: the windows of truncated unrolling."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from bench.core.errors import UserError
from methods.blocks.hypergradient import State

Window = Literal["full", "end", "random", "online"]


def check_window(window: Window, unroll: int, length: int) -> None:
    """Check that a window of `length` steps fits an unroll. Raises UserError if it does not."""
    if window != "full" and not 1 <= length <= unroll:
        raise UserError(f"a window of {length} steps does not fit an unroll of {unroll}: take 1 to {unroll}")


class Unroll:
    """Where the inner run of each outer step starts, and which of its steps are differentiated.

    An outer step:

        state, plain, steps = unroll.next()
        batches = balanced_batches(..., steps=plain + steps, ...)
        found = hypergradient(..., batches, state, outer, window=steps)
        unroll.done(found.end, found.loss)

    Args:
        window: "full": all T steps from a fresh start. "end": the last S of T steps. "random": S steps after
            n ~ U{0..T-S} plain ones (RaT-BPTT). "online": S steps that continue one of a pool of runs where
            an earlier outer step left it, so that the steps before the window need not be repeated. A run too
            close to T for another window is replaced by a fresh one. The first windows come after 0, S, 2S,
            ... plain steps, so that the ages of the runs are spread over the T steps from the beginning.
        unroll: T, steps of a run.
        length: S, steps that are differentiated.
        pool: number of runs of "online".
        make_start: draws a fresh run from the generator.
        generator: a CPU generator for all draws.

    Raises:
        UserError: S does not fit into T, or the pool is empty.

    References:
        Feng, Vedantam & Kempe (RaT-BPTT), ICLR 2024.
    """

    def __init__(
        self,
        window: Window,
        unroll: int,
        length: int,
        pool: int,
        make_start: Callable[[torch.Generator], State],
        generator: torch.Generator,
    ) -> None:
        check_window(window, unroll, length)
        if window == "online" and pool < 1:
            raise UserError(f"an online window needs a pool of at least 1 run, not {pool}")
        self._window, self._unroll, self._length = window, unroll, unroll if window == "full" else length
        self._make_start, self._generator = make_start, generator
        places = unroll // self._length  # number of windows that fit into a run
        size = pool if window == "online" else 0
        self._plain = [self._length * (j % places) for j in range(size)]  # before run j's next window
        self._members: list[State | None] = [None] * size  # None: to be started afresh
        self._spare = make_start(generator) if size else None
        self._visited = 0

    def next(self) -> tuple[State, int, int]:
        """The state to start from, the number of plain steps, and of differentiated steps after them."""
        room = self._unroll - self._length
        if self._window == "online":
            self._visited = self._draw(len(self._members))
            member = self._members[self._visited]
            start = self._make_start(self._generator) if member is None else member
            return start, self._plain[self._visited], self._length
        plain = self._draw(room + 1) if self._window == "random" else room
        return self._make_start(self._generator), plain, self._length

    def done(self, end: State, loss: Tensor) -> None:
        """Keep the end of the run for a later window, unless it is too old; only "online" needs this.

        If the loss is not finite, the run continues from a spare start. Its age stays the same, because the
        host must know the age without waiting for the device.

        Args:
            end: the run after its last step.
            loss: the outer loss, 0-dim.
        """
        if self._window != "online":
            return
        assert self._spare is not None
        sound, spare = loss.isfinite(), self._spare
        slots = tuple(torch.where(sound, x, y) for x, y in zip(end.slots, spare.slots, strict=True))
        kept = State(torch.where(sound, end.weights, spare.weights), slots, end.step)
        self._members[self._visited] = kept if end.step + self._length <= self._unroll else None
        self._plain[self._visited] = 0

    def _draw(self, n: int) -> int:
        return int(torch.randint(n, (), generator=self._generator))

    def state_dict(self) -> dict[str, Any]:
        """The runs of the pool and the generator's state, as tensors and numbers."""
        return {
            "plain": list(self._plain),
            "members": [None if m is None else _packed(m) for m in self._members],
            "spare": None if self._spare is None else _packed(self._spare),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict()` was taken, between two outer steps."""
        self._plain = list(state["plain"])
        if self._spare is not None:
            device = self._spare.weights.device
            self._members = [None if m is None else _unpacked(m, device) for m in state["members"]]
            self._spare = _unpacked(state["spare"], device)
        self._generator.set_state(state["generator"].cpu())


def _packed(state: State) -> dict[str, Any]:
    return {"weights": state.weights, "slots": list(state.slots), "step": state.step}


def _unpacked(state: Mapping[str, Any], device: torch.device) -> State:
    return State(state["weights"].to(device), tuple(s.to(device) for s in state["slots"]), state["step"])
