"""All parts of a self-test, one after the other; what is done is written at once."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.core import timing
from bench.core.precision import DEFAULT, computing
from bench.execution.provenance import source_commit, versions
from bench.tools.selftest.correctness import accuracies_part, gradients_part, syncs_part
from bench.tools.selftest.items import DeviceLost
from bench.tools.selftest.result import Item, Part, write_results
from bench.tools.selftest.setting import Clock, Setting
from bench.tools.selftest.speed import methods_part, rates_part, students_part
from bench.tools.selftest.variants import variants_part

# each part, and the fraction of what is then left of the time that it may take; the methods take the rest
PARTS: tuple[tuple[Callable[[Setting, Clock], Part], float], ...] = (
    (gradients_part, 0.2),
    (syncs_part, 0.2),
    (accuracies_part, 0.3),
    (students_part, 0.15),
    (variants_part, 0.25),
)


def selftest_parts(setting: Setting) -> Iterator[Part]:
    """Each part as it ends. A device that fails ends them with an item that says so."""
    try:
        rates = rates_part(setting, setting.clock)
        yield rates
        for make, fraction in PARTS:
            yield make(setting, setting.clock.part(fraction))
        (rate,) = (item.figures.get("TFLOP/s", math.nan) for item in rates.items if item.name == DEFAULT)
        yield methods_part(setting, setting.clock.part(1), rate * 1e12)
    except DeviceLost as fault:
        yield Part("the device failed", [Item("stopped", passed=False, note=str(fault))], [])


def run_selftest(setting: Setting, folder: Path, tell: Callable[[Part], None]) -> bool:
    """Run and write all parts; whether nothing failed.

    Args:
        setting: device and sizes.
        folder: where the tables go, again after each part.
        tell: hears each part as it ends.
    """
    with computing(DEFAULT):
        place = {"device": timing.device_name(setting.device), "commit": source_commit()}
        made_by = place | versions(setting.device)
    parts: list[Part] = []
    for part in selftest_parts(setting):
        parts.append(part)
        write_results(parts, made_by, folder)
        tell(part)
    return all(item.passed is not False for part in parts for item in part.items)
