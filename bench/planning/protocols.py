"""Protocols: how a distilled set is scored, from the files of configs/protocols."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from bench.core.errors import UserError
from bench.core.networks.architecture import parse_architecture
from bench.core.registry import choose
from bench.core.strict import Distinct, Strict
from bench.core.training import Recipe
from bench.planning.yaml_schema import CONFIGS, Positive, describe_faults, list_faults, read_yaml

LabelKind = Literal["stored", "hard", "soft", "teacher"]


def _network(name: str) -> str:
    parse_architecture(name)
    return name


def _left_out(default: Any) -> Any:
    """For a field that came after the first records: not written at its default, so that keys stay."""
    return lambda value: value == default


class TeacherConfig(Strict):
    """A network trained on the real training set, which labels each batch or, once, each image of a set."""

    recipe: Recipe = Field(description="how the teacher is trained")
    temperature: float = Field(default=1.0, gt=0, description="divides the logits of teacher and student")
    architecture: Annotated[str, AfterValidator(_network)] | None = Field(
        default=None, exclude_if=_left_out(None), description="of the teacher; by default the students'"
    )
    stops: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Distinct] = Field(
        default=(),
        exclude_if=_left_out(()),
        description="for `labels: soft`: fractions of the teacher's training, after one of which it labels; "
        "by default its end",
    )
    temperatures: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Distinct] = Field(
        default=(),
        exclude_if=_left_out(()),
        description="for `labels: soft`: what may divide the logits of its labels; by default `temperature`",
    )


class Protocol(Strict):
    """How a distilled set is scored."""

    name: str = Field(description="from the file's name: FILE or FILE.VARIANT")
    version: Positive = Field(description="raised when the numbers may change; part of every record")
    about: str = Field(description="what it is, in one line")
    recipe: Recipe = Field(description="how each student is trained")
    labels: LabelKind = Field(
        default="stored",
        description="what students learn: the set's own labels; the class alone; `soft`, a teacher's "
        "probabilities for each image, given once and stored; or `teacher`, those for each augmented batch",
    )
    teacher: TeacherConfig | None = Field(
        default=None, description="for `labels: soft` and `labels: teacher` only, which need it"
    )
    learned_lr: bool = Field(
        default=False,
        description="train with the learning rate that the set itself stores, if it does",
    )
    rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Distinct] = Field(
        default=(),
        description="learning rates, of which a hold-out of the training set chooses one for each method",
    )

    @model_validator(mode="after")
    def _check(self) -> "Protocol":
        if (self.labels in ("soft", "teacher")) == (self.teacher is None):
            raise UserError(
                "teacher: `labels: soft` and `labels: teacher` need it, and nothing else may have it"
            )
        if self.rates and self.recipe.lr not in self.rates:
            raise UserError("rates: must contain recipe.lr, which is taken if several are equally good")
        if self.rates and self.learned_lr:
            raise UserError("rates and learned_lr: give one of them")
        return self

    @property
    def label_candidates(self) -> list[tuple[float, float]]:
        """(stop, temperature) of the soft labels of which a hold-out chooses; empty for other labels."""
        if self.labels != "soft" or self.teacher is None:
            return []
        taught = self.teacher
        return list(product(taught.stops or (1.0,), taught.temperatures or (taught.temperature,)))

    @property
    def trials(self) -> int:
        """With how many settings students are trained on a hold-out, to choose among them."""
        labels = len(self.label_candidates)
        return len(self.rates) + (labels if labels > 1 else 0)


def protocol_names() -> list[str]:
    """All names that a sweep may give: FILE and FILE.VARIANT."""
    names = []
    for path in sorted((CONFIGS / "protocols").glob("*.yaml")):
        names += [path.stem, *(f"{path.stem}.{variant}" for variant in _file(path)[1])]
    return names


def _file(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The content of a file without its variants, and {variant: changed keys}."""
    content = read_yaml(path)
    if not isinstance(content, dict) or not _has_recipe_mapping(content):
        raise UserError(f"{path}: a protocol is a mapping with {', '.join(Protocol.model_fields)}")
    variants = content.pop("variants", {})
    if not isinstance(variants, dict) or not all(map(_has_recipe_mapping, variants.values())):
        raise UserError(f"{path}: variants: must be a mapping of names to changed keys, not {variants!r}")
    return content, variants


def _has_recipe_mapping(content: Any) -> bool:
    """Whether this is a mapping whose recipe, if it has one, is a mapping too."""
    return isinstance(content, Mapping) and isinstance(content.get("recipe", {}), Mapping)


def load_protocols(name: str) -> list[Protocol]:
    """Load the protocols that a name stands for.

    Args:
        name: FILE, or FILE.VARIANT for the file's protocol with some keys changed.

    Returns:
        One protocol; all variants for a FILE whose own recipe has neither steps nor epochs (`dc_bench`).

    Raises:
        UserError: for an unknown name and a bad file.
    """
    stem, _, wanted = choose("protocol", name, protocol_names()).partition(".")
    path = CONFIGS / "protocols" / f"{stem}.yaml"
    content, variants = _file(path)
    if wanted:
        variants = {wanted: variants[wanted]}
    elif not variants or {"steps", "epochs"} & content.get("recipe", {}).keys():
        variants = {"": {}}
    try:
        return [Protocol.model_validate(_varied(content, stem, v, change)) for v, change in variants.items()]
    except ValidationError as error:
        raise UserError(f"{path}: {describe_faults(list_faults(error))}") from None


def _varied(content: dict[str, Any], stem: str, variant: str, changes: dict[str, Any]) -> dict[str, Any]:
    varied = content | changes
    varied["recipe"] = content.get("recipe", {}) | changes.get("recipe", {})
    if variant and "about" in content:
        varied["about"] = f"{content['about']}; {variant}"
    return {"name": f"{stem}.{variant}" if variant else stem, **varied}


def in_regimes(name: str, labels: Sequence[LabelKind]) -> list[str]:
    """The protocols that score a set with each of these labels instead of a protocol's own.

    Args:
        name: FILE or FILE.VARIANT.
        labels: what students are to learn.

    Returns:
        Names: that of the protocol for its own labels, NAME.LABELS for others.

    Raises:
        UserError: the file has no such variant, or it has other labels.
    """
    found = []
    for protocol in load_protocols(name):
        for kind in labels:
            named = protocol.name if protocol.labels == kind else f"{protocol.name}.{kind}"
            if named not in protocol_names() or load_protocol(named).labels != kind:
                raise UserError(f"labels: protocol {protocol.name} has no variant for `{kind}`")
            found.append(named)
    return found


def load_protocol(name: str, *, taught: bool = True) -> Protocol:
    """Load one protocol.

    Args:
        name: FILE or FILE.VARIANT.
        taught: whether a protocol with a teacher is allowed.

    Raises:
        UserError: for an unknown name, for one that stands for several protocols, and for a teacher that is
            not allowed.
    """
    found = load_protocols(name)
    if len(found) > 1:
        raise UserError(f"protocol {name} stands for several: name one of {', '.join(p.name for p in found)}")
    if found[0].teacher is not None and not taught:
        raise UserError(f"protocol {name}: only `run` and `evaluate` train its teacher; name another")
    return found[0]
