"""What jobs get: CPU cores and GPUs, of all jobs or by kind."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from bench.core.errors import UserError
from bench.core.strict import Strict
from bench.planning.yaml_schema import Positive

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Needs:
    """What one job gets."""

    cpus: int
    gpus: float
    accelerator: str | None = None  # of its GPUs; None: any

    def __str__(self) -> str:
        gpus = f"{self.gpus:g} {self.accelerator or ''} gpus".replace("  ", " ")
        return f"{self.cpus} cpus and {gpus}"


class KindResources(Strict):
    """What the jobs of one kind get; what is not given is that of all jobs."""

    cpus: Positive | None = Field(default=None, description="CPU cores for each of these jobs")
    gpus: Share | None = Field(default=None, description="GPUs for each of these jobs")


class Resources(Strict):
    """What each job gets."""

    cpus: Positive = Field(default=1, description="CPU cores for each job")
    gpus: Share = Field(default=0, description="GPUs for each job; a fraction lets several jobs share one")
    accelerator: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)] | None = (
        Field(
            default=None,
            description="the make of the GPUs, by Ray's name (`H100`, `A100`, `RTX-PRO-6000`), so that the "
            "seconds of a sweep are one device's; by default any",
        )
    )
    prepare: KindResources = Field(default=KindResources(), description="what prerequisites get")
    distill: KindResources = Field(default=KindResources(), description="what distillations get")
    tune: KindResources = Field(default=KindResources(), description="what the choice of a rate gets")
    evaluate: KindResources = Field(default=KindResources(), description="what evaluations get")

    def of(self, kind: str) -> Needs:
        """What a job of this kind gets."""
        own: KindResources = getattr(self, kind)
        gpus = self.gpus if own.gpus is None else own.gpus
        return Needs(own.cpus or self.cpus, gpus, self.accelerator if gpus else None)

    @model_validator(mode="after")
    def _accelerated(self) -> "Resources":
        if self.accelerator and not any(self.of(kind).gpus for kind in self.kinds()):
            raise UserError(
                f"accelerator: {self.accelerator}, but no job gets a GPU: give gpus, or leave it out"
            )
        return self

    @classmethod
    def kinds(cls) -> list[str]:
        """The kinds of jobs."""
        return [name for name, field in cls.model_fields.items() if field.annotation is KindResources]
