"""Problems on torch's meta device, and loops whose steps may not wait for it."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from bench.core.dry import META, DryRun
from bench.core.loop import Loop, Steps
from bench.core.method import Problem
from bench.core.transfer import net_to_device


class StrictLoop(Loop):
    """A loop whose steps are steps of a dry run, which may read values if `reads`."""

    def __init__(self, dry: DryRun, reads: bool = False) -> None:
        super().__init__()
        self.dry, self.reads = dry, reads

    def steps(self, *args: Any, **kwargs: Any) -> Steps:
        return StrictSteps(self, super().steps(*args, **kwargs))


class StrictSteps(Steps):
    strict: StrictLoop

    def __init__(self, loop: StrictLoop, steps: Steps) -> None:
        vars(self).update(vars(steps), strict=loop)

    def __iter__(self) -> Iterator[int]:
        for step in super().__iter__():
            with self.strict.dry.step(self.strict.reads):
                yield step


def on_meta(problem: Problem) -> Problem:
    """The same problem on the meta device; what was prepared stays on the host, as in a job."""

    def make_net(generator: Any) -> Any:
        return net_to_device(problem.make_net(generator), META)

    return dataclasses.replace(
        problem,
        images=problem.images.to(META),
        labels=problem.labels.to(META),
        host_labels=problem.read_labels(),
        make_net=make_net,
    )
