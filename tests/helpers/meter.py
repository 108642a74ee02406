"""What one step of a method costs: seconds, floating-point operations, bytes; and the table of it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from bench.core import timing
from bench.core.distilled import DistilledDataset
from bench.core.loop import Loop
from bench.core.operations import OperationCounter
from bench.tools.profile.counters import matrix_rate

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class MemoryCounter(OperationCounter):
    """Also the most bytes alive at once of the tensors made while it watches, and the operations that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.peak, self.operations = 0, set[str]()
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        self.operations.add(func.name())
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                reference = StorageWeakRef(x.untyped_storage())
                self._alive[reference.cdata] = (reference, x.untyped_storage().nbytes())
        self._alive = {k: v for k, v in self._alive.items() if not v[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return out


@dataclass
class OperationCost:
    """Operations of convolutions and matrix products (a multiply-add is two), and the growth of memory."""

    flops: int = 0
    peak_bytes: int = 0


@contextmanager
def count_operations(cost: OperationCost, device: torch.device) -> Iterator[None]:
    """Fill in the cost of what runs inside, backward passes of any order included.

    Memory is that of the tensors made inside, at its highest; on a GPU what its allocator gave out.
    """
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    with MemoryCounter() as watch:
        yield
    cost.flops = watch.flops
    cost.peak_bytes = torch.cuda.max_memory_allocated(device) - before if on_gpu else watch.peak


class StepClock:
    """Runs only inside of `running()`: a benchmark that reads it sees a step, and not what leads up to it."""

    def __init__(self, device: torch.device) -> None:
        self.seconds, self._device = 0.0, device

    @contextmanager
    def running(self) -> Iterator[None]:
        timing.synchronize(self._device)
        start = time.perf_counter()
        yield
        timing.synchronize(self._device)
        self.seconds += time.perf_counter() - start


class Probe(Loop):
    """The loop of a method whose step is looked at: one to warm up, one to be timed.

    The first time that the method runs, a step between the two is counted: `cost`.
    `part` "step" is the whole body of the loop; "matching" the same without the training of the pool's
    network; "network" that training alone; "decode" the set's images, and a gradient back to what
    is stored.
    """

    def __init__(self, part: str, clock: StepClock) -> None:
        super().__init__()
        self._part, self._clock = part, clock
        self.cost: OperationCost | None = None

    def steps(self, total: int, synthetic: DistilledDataset, blame: str, **state: Any) -> "Probe":
        pool = state.get("pool")
        self._act: Callable[[], None] | None = None
        if self._part == "decode":
            self._act = lambda: decode(synthetic)
        elif self._part == "network":
            pool.restart()
            self._act = lambda: pool.advance(synthetic, followed=True)
        elif self._part == "matching":
            pool.advance = lambda synthetic, followed: None
        return self

    def loss(self, value: torch.Tensor) -> None:
        pass

    def __iter__(self) -> Iterator[int]:
        yield from self._once(0)
        if self.cost is None:
            self.cost = OperationCost()
            with count_operations(self.cost, DEVICE):
                yield from self._once(1)
        with self._clock.running():
            yield from self._once(2)

    def _once(self, step: int) -> Iterator[int]:
        if self._act is None:
            yield step
        else:
            self._act()


def decode(synthetic: DistilledDataset) -> None:
    images, _ = synthetic.decode()
    images.backward(torch.ones_like(images))
    synthetic.zero_grad()


# --- the table ------------------------------------------------------------------------------------

HEAD = ("method", "step", "size", "ms", "ms/inner", "GFLOP", "% of rate", "peak MiB", "less than the paper's")
TEXT = {0, 1, 2, len(HEAD) - 1}  # the columns that hold no numbers


class Summary:
    """A plugin of pytest: what every entry notes down, and the table of it at the end of the run."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._rate = 0.0

    def note(
        self,
        benchmark: Any,
        cost: OperationCost,
        *,
        inner_steps: int | None = None,
        cut: str = "",
        **labels: str,
    ) -> None:
        """Into the table and the entry's `extra_info`, after the timing; `labels`: method, step and size."""
        if benchmark.disabled:
            return
        self._rate = max(
            self._rate, matrix_rate(DEVICE)
        )  # the best yet: others may use the machine meanwhile
        seconds = benchmark.stats["min"]
        row = {
            **labels,
            "inner_steps": inner_steps,
            "cut": cut,
            "seconds": seconds,
            "flops": cost.flops,
            "matrix_rate": self._rate,
            "fraction": cost.flops / seconds / self._rate,
            "peak_memory_bytes": cost.peak_bytes,
        }
        benchmark.extra_info |= row
        self._rows.append(row)

    @pytest.hookimpl(trylast=True)  # below the table of pytest-benchmark
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("the steps of the methods")
        for line in table(self._rows):
            terminalreporter.write_line(line)
        terminalreporter.write_line(
            "ms: the fastest round. GFLOP: convolutions and matrix products. Peak: what a step makes.\n"
            f"rate: the best large float32 matrix product on {DEVICE.type}, {self._rate / 1e9:,.0f} GFLOP/s"
        )


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of text, a row an entry."""
    cells = [HEAD, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(_aligned, range(len(HEAD)), row, widths)).rstrip() for row in cells]


def _aligned(column: int, cell: str, width: int) -> str:
    return cell.ljust(width) if column in TEXT else cell.rjust(width)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    ms, inner = 1000 * row["seconds"], row["inner_steps"]
    return (
        row["method"],
        row["step"],
        row["size"],
        _figures(ms),
        _figures(ms / inner) if inner else "",
        _figures(row["flops"] / 1e9),
        f"{100 * row['fraction']:.0f}",
        _figures(row["peak_memory_bytes"] / 2**20),
        row["cut"],
    )


def _figures(x: float) -> str:
    """Three significant figures, and all digits before the point."""
    return f"{x:,.0f}" if x >= 100 else f"{x:#.3g}".rstrip(".")
