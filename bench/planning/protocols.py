"""Protocols: how a distilled set is scored, from the files of configs/protocols."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from bench.core.errors import UserError
from bench.core.networks.architecture import Architecture, parse_architecture
from bench.core.precision import DEFAULT, Precision
from bench.core.registry import choose
from bench.core.strict import Distinct, Strict
from bench.core.training import RECIPE, Recipe
from bench.planning.yaml_schema import CONFIGS, Positive, describe_faults, list_faults, read_yaml
from bench.records.naming import GIVEN

LabelKind = Literal["stored", "hard", "soft", "teacher"]
LabelPrecision = Literal["fp32", "fp16"]


def _network(name: str) -> str:
    parse_architecture(name)
    return name


NetworkName = Annotated[str, AfterValidator(_network)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


def _left_out(default: Any) -> Any:
    """For a field that came after the first records: not written at its default, so that keys stay."""
    return lambda value: value == default


class TeacherConfig(Strict):
    """A network trained on the real training set, which labels each batch or, once, each image of a set."""

    recipe: Recipe | None = Field(
        default=None, exclude_if=_left_out(None), description="how the teacher is trained"
    )
    weights: Digest | None = Field(
        default=None,
        exclude_if=_left_out(None),
        description="of a teacher that was trained elsewhere, in the place of `recipe`: set by "
        "`evaluate.teacher` of a sweep",
    )
    temperature: float = Field(default=1.0, gt=0, description="divides the logits of teacher and student")
    architecture: NetworkName | None = Field(
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
    stored_as: LabelPrecision = Field(
        default="fp32",
        exclude_if=_left_out("fp32"),
        description="for `labels: soft`: the precision of the labels, which students get rounded to it",
    )


class TeacherEntry(Strict):
    """A teacher that was trained elsewhere, by the digest of its weights."""

    architecture: NetworkName = Field(description="of the teacher")
    weights: Digest = Field(description="digest of its weights")
    file: str | None = Field(default=None, description="where they are; only until they are in the results")


class Rule(Strict):
    """Fields of the recipe that hold where all of the conditions do; the last rule that sets one wins."""

    datasets: tuple[str, ...] | None = Field(
        default=None, description="data sets it holds for, named as in presets; by default all"
    )
    architectures: tuple[NetworkName, ...] | None = Field(
        default=None,
        description="students it holds for; `convnet-batch` are all ConvNets with batch norm; by default all",
    )
    least_ipc: Positive | None = Field(default=None, description="images per class from which on it holds")
    most_ipc: Positive | None = Field(default=None, description="images per class up to which it holds")
    multi_formation: bool | None = Field(
        default=None,
        description="it holds for sets whose stored images are cut into several (IDC's `factor` above 1), or "
        "only for the others; by default for both",
    )
    recipe: dict[str, Any] = Field(min_length=1, description="the fields of the recipe that it sets")

    def holds(self, dataset: str, student: Architecture, ipc: int | None, factor: int) -> bool:
        """Whether it holds, see `Protocol.resolve`."""
        by_ipc = ipc is not None and (self.least_ipc or 1) <= ipc <= (self.most_ipc or ipc)
        return (
            (self.datasets is None or dataset in self.datasets)
            and (self.architectures is None or any(_is_a(student, name) for name in self.architectures))
            and (by_ipc or self.least_ipc is self.most_ipc is None)
            and self.multi_formation in (None, factor > 1)
        )


def _is_a(architecture: Architecture, name: str) -> bool:
    """Whether it is of the named family, and has the parameters that the name gives."""
    named = parse_architecture(name)
    plain = dict(parse_architecture(named.family).params)
    given = {key: value for key, value in named.params if value != plain[key]}
    return architecture.family == named.family and given.items() <= dict(architecture.params).items()


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
    epoch_over: Literal["images", "items"] = Field(
        default="images",
        description="what an epoch of students goes over: all images that a set decodes to, or its stored "
        "items, where it decodes each to variants of which one is drawn: HaBa's bases under a hallucinator",
    )
    rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Distinct] = Field(
        default=(),
        description="learning rates, of which a hold-out of the training set chooses one for each method",
    )
    precision: Precision = Field(
        default=DEFAULT, description="of students and teacher: set by `evaluate.precision` of a sweep"
    )
    rules: tuple[Rule, ...] = Field(
        default=(),
        description="what the recipe is for some data sets, networks or budgets; the plan applies them, so "
        "that keys and records hold what was run",
    )

    @model_validator(mode="after")
    def _check(self) -> "Protocol":
        if (self.labels in ("soft", "teacher")) == (self.teacher is None):
            raise UserError(
                "teacher: `labels: soft` and `labels: teacher` need it, and nothing else may have it"
            )
        if self.labels == "teacher" and self.recipe.loss != "cross_entropy":
            raise UserError(
                "recipe.loss: students of an online teacher learn by its distillation loss: leave it out, or "
                "take other labels"
            )
        taught = None if self.teacher is None else self.teacher.recipe
        if taught is not None and taught.loss != "cross_entropy":
            raise UserError(
                "teacher.recipe.loss: its answers are taken for log-probabilities, which squared error "
                "does not teach: leave it out"
            )
        if self.rates and self.recipe.lr not in self.rates:
            raise UserError("rates: must contain recipe.lr, which is taken if several are equally good")
        if self.rates and self.learned_lr:
            raise UserError("rates and learned_lr: give one of them")
        if self.rates and self.epoch_over != "images":
            raise UserError("rates and epoch_over: items: give one of them")
        if self.teacher is not None and (self.teacher.recipe is None) == (self.teacher.weights is None):
            raise UserError("teacher: give its recipe")
        for rule in self.rules:
            self._changed(rule.recipe)
        return self

    def taught_by(self, given: TeacherEntry | None) -> "Protocol":
        """With a given teacher in the place of its own, if it has one; its name tells them apart."""
        if given is None or self.teacher is None:
            return self
        other = {"recipe": None, "stops": (), "architecture": given.architecture, "weights": given.weights}
        name = f"{self.name}{GIVEN}{given.weights[:8]}"
        return self.model_copy(update={"name": name, "teacher": self.teacher.model_copy(update=other)})

    def computed_at(self, precision: Precision) -> "Protocol":
        """At another precision than its own; its name tells them apart."""
        if precision in (DEFAULT, self.precision):
            return self
        return self.model_copy(update={"name": f"{self.name}{GIVEN}{precision}", "precision": precision})

    def resolve(self, dataset: str, student: Architecture, ipc: int | None, factor: int = 1) -> "Protocol":
        """The protocol with its rules applied, and without them.

        Args:
            dataset: `bench.data.spec.preset_name` of the data set.
            student: architecture of the students.
            ipc: images per class of the set; None for the whole training set.
            factor: into how many images a side each stored image is cut.

        Raises:
            UserError: for rules that do not go together.
        """
        changes: dict[str, Any] = {}
        for rule in self.rules:
            if rule.holds(dataset, student, ipc, factor):
                changes |= rule.recipe
        return self._changed(changes) if changes else self.model_copy(update={"rules": ()})

    def _changed(self, changes: Mapping[str, Any]) -> "Protocol":
        recipe = RECIPE.dump_python(self.recipe, mode="json") | changes
        try:
            return Protocol.model_validate({**self.model_dump(), "recipe": recipe, "rules": ()})
        except ValidationError as error:
            raise UserError(f"rules: {describe_faults(list_faults(error))}") from None

    @model_serializer(mode="wrap")
    def _without_new_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what protocols of earlier versions did not have, where it changes nothing: keys stay."""
        unused = {
            "epoch_over": self.epoch_over == "images",
            "precision": self.precision == DEFAULT,
            "rules": not self.rules,
        }
        return {name: value for name, value in write(self).items() if not unused.get(name)}

    @property
    def stored_as(self) -> LabelPrecision:
        """The precision of the soft labels that its teacher gives."""
        return "fp32" if self.teacher is None else self.teacher.stored_as

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
