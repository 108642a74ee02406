"""Which steps of the inner training run are differentiated: the windows of truncated unrolling."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from bench.core.errors import UserError
from methods.blocks.hypergradient import State

Window = Literal["full", "end", "random", "online"]


class Unroll:
    """Where the inner run of each outer step starts, and which of its steps are differentiated.

    "full": all `unroll` (T) steps from a fresh start. "end": the last `length` (S) of T steps. "random": S
    steps after n ~ U{0..T-S} (RaT-BPTT, Feng et al., ICLR 2024). "online": S steps that go on from where an
    earlier outer step left one of a pool of `pool` runs, so that the steps before a window need not be taken
    again; a run with no room for another window gives way to a fresh one. The first visits are staggered by
    0, S, 2S, .. plain steps, so that the ages spread over the T steps from the beginning.

    `make_start` draws a fresh start, of age 0, from the CPU `generator`, as everything else here. An outer
    step:

        state, plain, steps = unroll.next()
        batches = balanced_batches(..., steps=plain + steps, ...)
        found = hypergradient(..., batches, state, outer, window=steps)
        unroll.done(found.end, found.loss)

    Raises UserError for a length that does not fit into the unroll, and for an empty pool.
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
        if window != "full" and not 1 <= length <= unroll:
            raise UserError(
                f"a window of {length} steps does not fit an unroll of {unroll}: take 1 to {unroll}"
            )
        if window == "online" and pool < 1:
            raise UserError(f"an online window needs a pool of at least 1 run, not {pool}")
        self._window, self._unroll, self._length = window, unroll, unroll if window == "full" else length
        self._make_start, self._generator = make_start, generator
        places = unroll // self._length  # windows that fit into a run
        size = pool if window == "online" else 0
        self._plain = [self._length * (j % places) for j in range(size)]  # before the next window of member j
        self._members: list[State | None] = [None] * size  # None: to be started
        self._spare = make_start(generator) if size else None
        self._visited = 0

    def next(self) -> tuple[State, int, int]:
        """The state to start from, the plain steps to take first, and the differentiated steps after them."""
        room = self._unroll - self._length
        if self._window == "online":
            self._visited = self._draw(len(self._members))
            member = self._members[self._visited]
            start = self._make_start(self._generator) if member is None else member
            return start, self._plain[self._visited], self._length
        plain = self._draw(room + 1) if self._window == "random" else room
        return self._make_start(self._generator), plain, self._length

    def done(self, end: State, loss: Tensor) -> None:
        """Keep the end of the run for a later window, unless it is too old; nothing to do if not online.

        A run whose loss is not finite goes on from a spare start (with the age, which the host knows without
        waiting for the device).
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
        """The pool and the generator's state, as tensors and numbers."""
        return {
            "plain": list(self._plain),
            "members": [None if m is None else _packed(m) for m in self._members],
            "spare": None if self._spare is None else _packed(self._spare),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict()` was taken, between two outer steps."""
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
