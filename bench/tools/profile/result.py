"""A profile: what was measured, and the projection to all steps of the preset."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench.core.timing import OPERATIONS, Operation
from bench.tools.profile.scaling import ScalingAxis

PROFILE_SCHEMA = 1


@dataclass(frozen=True)
class ProfiledPhase:
    """Seconds and memory of one phase, as measured and as projected to the whole phase."""

    name: str  # prepare, distill, evaluate
    seconds: float  # measured
    projected_s: float  # of the whole phase
    peak_bytes: int
    spent: dict[Operation, int]  # nanoseconds of what was watched, by operation
    note: str

    @property
    def total(self) -> int:
        """Nanoseconds that were watched."""
        return sum(self.spent.values())

    def operations(self) -> list[tuple[Operation, int]]:
        """(operation, nanoseconds) for those that took time, in a fixed order."""
        return [(name, self.spent[name]) for name in OPERATIONS if self.spent.get(name)]


@dataclass(frozen=True)
class ProfiledStep:
    """A step of the distillation."""

    total: int  # steps of the whole distillation
    timed: int
    median_s: float
    mean_s: float
    flops: float | None  # mean of the counted ones
    watched_s: float | None  # mean of the watched steps, which shows what watching costs
    joules: float | None

    @property
    def per_second(self) -> float:
        """Steps per second, from the median."""
        return 1 / self.median_s


@dataclass(frozen=True)
class Profile:
    """What `ddbench profile` measured of one method, and the projection to all of its steps."""

    method: str
    hyperparameters: dict[str, Any]
    dataset: str
    image_shape: tuple[int, int, int]
    n_classes: int
    ipc: int | None  # None: the method has no budget
    architecture: str
    protocol: str
    device: str
    cpus: int
    gpus: float
    versions: dict[str, str]
    phases: tuple[ProfiledPhase, ...]
    step: ProfiledStep | None  # None: a method without steps
    matrix_rate: float  # FLOP/s
    scaling: tuple[ScalingAxis, ...]

    @property
    def title(self) -> str:
        """Method, data set, ipc and architecture."""
        budget = f", ipc {self.ipc}" if self.ipc else ""
        return f"{self.method} on {self.dataset}{budget}, {self.architecture}"

    @property
    def projected_s(self) -> float:
        """Seconds of all phases in full, with one student."""
        return sum(phase.projected_s for phase in self.phases)

    @property
    def device_hours(self) -> float:
        """Device-hours of all phases; a job with a part of a GPU counts that part."""
        return self.projected_s / 3600 * (self.gpus or 1)

    @property
    def share_of_rate(self) -> float | None:
        """FLOP of a step, as a fraction of what the best matrix product would reach in the same time."""
        if self.step is None or self.step.flops is None:
            return None
        return self.step.flops / self.step.mean_s / self.matrix_rate

    @property
    def projected_kwh(self) -> float | None:
        """Energy of all steps in kWh."""
        if self.step is None or self.step.joules is None:
            return None
        return self.step.total * self.step.joules / 3.6e6

    def to_json(self) -> dict[str, Any]:
        """Everything, including the derived figures, as JSON values."""
        values: Mapping[str, Any] = {"schema": PROFILE_SCHEMA, **asdict(self)}
        return {
            **values,
            "projected_s": self.projected_s,
            "device_hours": self.device_hours,
            "share_of_rate": self.share_of_rate,
            "projected_kwh": self.projected_kwh,
        }
