"""DD-Ranking's scores: HLR, IOR, LRS and ARS of each cell. No torch, no drawing.

Accuracies are fractions here; the authors' code applies the formulas to percentages.

References:
    Li et al., DD-Ranking: Rethinking the evaluation of dataset distillation, arXiv 2505.13300.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final

import pandas as pd

from bench.analysis.aggregate import deduplicate, grouped
from bench.analysis.intervals import score_interval
from bench.records.columns import TRAINING_COLUMNS
from bench.records.naming import CELL

SCORE_WEIGHT = 0.5  # of IOR against HLR, and of augmentation against none
SCORES: Final = ("hlr", "ior", "lrs", "ars")
WHOLE_SET, RANDOM_IMAGES = "full", "random_real"


# --- the formulas -------------------------------------------------------------------------------------------


def hlr(full: Any, synthetic: Any) -> Any:
    """Hard label recovery: accuracy on the whole set minus that on hard labels. Lower is better."""
    return full - synthetic


def ior(synthetic: Any, random: Any) -> Any:
    """Improvement over random: accuracy minus that on as many random real images."""
    return synthetic - random


def dd_score(value: Any) -> Any:
    """Map a difference from [-1, 1] to [0, 1]: (e^v - e^-1) / (e - e^-1)."""
    return (math.e**value - 1 / math.e) / (math.e - 1 / math.e)


def lrs(improvement: Any, recovery: Any, weight: float = SCORE_WEIGHT) -> Any:
    """Label-robust score: IOR and HLR weighted."""
    return dd_score(weight * improvement - (1 - weight) * recovery)


def ars(augmented: Any, plain: Any, weight: float = SCORE_WEIGHT) -> Any:
    """Augmentation-robust score: IOR with and without augmentation, weighted."""
    return dd_score(weight * augmented + (1 - weight) * plain)


# --- from records -------------------------------------------------------------------------------------------
# LRS and ARS are linear, before `dd_score`, in the two accuracies of the method, so that the weighted mean of
# both can take their place, seed by seed. Both are of one seed and vary together, while the seeds of
# different methods are independent. The same holds for random images.


def _hlr(synthetic: Any, full: Any) -> Any:
    return hlr(full, synthetic)


def _lrs(synthetic: Any, random: Any, full: Any) -> Any:
    return lrs(ior(synthetic, random), hlr(full, synthetic))


def _ars(synthetic: Any, random: Any) -> Any:
    gain = ior(synthetic, random)
    return ars(gain, gain)


FORMULAS: Final[dict[str, Callable[..., Any]]] = {"hlr": _hlr, "ior": ior, "lrs": _lrs, "ars": _ars}
ScoredSeeds = dict[int, float]  # accuracy by seed, in ascending order


@dataclass(frozen=True)
class _Cell:
    """A cell of the summary: its accuracies by seed, and how its students were trained."""

    where: dict[str, Any]  # the columns CELL; the ipc of the whole set is None
    name: str  # of the method, without hyper-parameters
    by_seed: ScoredSeeds
    training: dict[str, Any]  # the columns TRAINING_COLUMNS

    def at(self, *names: str) -> tuple[Any, ...]:
        """The values of these columns."""
        return tuple(self.where[name] for name in names)

    @property
    def scheme(self) -> str:
        """The labels that students were trained on: where soft ones come from, or "hard"."""
        return self.training["labels"] if self.training["soft"] else "hard"

    @property
    def plain(self) -> bool:
        """Whether students were trained without augmentation."""
        return self.training["augment"] == "none" and not self.training["cutmix"]

    def alike(self, other: "_Cell", names: Iterable[str]) -> bool:
        """Whether the students of both were trained alike in these columns."""
        return all(self.training[name] == other.training[name] for name in names)


def _only(cells: list[_Cell]) -> _Cell | None:
    """The cell if there is exactly one: it would be arbitrary to choose among several."""
    return cells[0] if len(cells) == 1 else None


def _partner(cell: _Cell, candidates: list[_Cell]) -> _Cell | None:
    """The only candidate, or the only one among them with as many steps."""
    return _only(candidates) or _only([c for c in candidates if c.alike(cell, ["steps"])])


def _mixed(one: _Cell, other: _Cell) -> ScoredSeeds:
    """The weighted mean of two accuracies of each seed, for seeds that have both."""
    both = ((seed, value, other.by_seed.get(seed)) for seed, value in one.by_seed.items())
    return {seed: SCORE_WEIGHT * a + (1 - SCORE_WEIGHT) * b for seed, a, b in both if b is not None}


def _cells(frame: pd.DataFrame) -> list[_Cell]:
    """The cells whose students were all trained alike."""
    rows = deduplicate(frame)
    rows = rows.assign(way=grouped(rows, TRAINING_COLUMNS).ngroup())
    rows = rows[grouped(rows, CELL)["way"].transform("nunique").eq(1)]
    found = []
    for values, part in grouped(rows, CELL):
        where = {name: None if pd.isna(value) else value for name, value in zip(CELL, values, strict=True)}
        by_seed = dict(zip(part["seed"].tolist(), part["accuracy"].tolist(), strict=True))
        first = part.iloc[0]
        found.append(_Cell(where, first["method_name"], by_seed, first[TRAINING_COLUMNS].to_dict()))
    return found


class _Cells:
    """All cells, and for each one those that its scores need."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.all = _cells(frame)
        self._baselines: dict[tuple[Any, ...], list[_Cell]] = defaultdict(list)
        self._protocols: dict[tuple[Any, ...], list[_Cell]] = defaultdict(list)
        for cell in self.all:
            self._protocols[self._method(cell)].append(cell)
            if cell.name in (WHOLE_SET, RANDOM_IMAGES):
                self._baselines[cell.name, *cell.at("dataset", "ipc", "eval_arch", "protocol")].append(cell)

    @staticmethod
    def _method(cell: _Cell) -> tuple[Any, ...]:
        return cell.at("method", "dataset", "ipc", "distill_arch", "eval_arch")

    def full(self, cell: _Cell) -> _Cell | None:
        """The whole training set with hard labels on the same architecture and protocol."""
        dataset, arch, protocol = cell.at("dataset", "eval_arch", "protocol")
        found = _only(self._baselines[WHOLE_SET, dataset, None, arch, protocol])
        return found if found is not None and found.scheme == "hard" else None

    def random(self, cell: _Cell) -> _Cell | None:
        """As many random real images on the same architecture and protocol."""
        return _only(self._baselines[RANDOM_IMAGES, *cell.at("dataset", "ipc", "eval_arch", "protocol")])

    def hard(self, cell: _Cell) -> _Cell | None:
        """The same method with hard labels: this cell, or under a protocol that differs in labels only."""
        same = ["augment", "cutmix", "preprocess"]
        if cell.scheme == "hard":
            return cell
        others = self._protocols[self._method(cell)]
        return _partner(cell, [c for c in others if c.scheme == "hard" and c.alike(cell, same)])

    def unaugmented(self, cell: _Cell) -> _Cell | None:
        """The same method and labels under a protocol without augmentation; None if the cell has none."""
        if cell.plain:
            return None
        others = [c for c in self._protocols[self._method(cell)] if c.plain and c.scheme == cell.scheme]
        return _partner(cell, [c for c in others if c.alike(cell, ["preprocess"])])


@dataclass(frozen=True)
class _Inputs:
    """What the scores of one cell are computed from; a score that lacks an input is not in it."""

    # by score: the accuracies that its formula takes, in its order
    groups: dict[str, list[ScoredSeeds]] = field(default_factory=dict)
    partners: dict[str, str] = field(default_factory=dict)  # the columns `hlr_protocol` and `ars_protocol`


def _inputs(cell: _Cell, cells: _Cells) -> _Inputs:
    found = _Inputs()
    hard, random, plain = cells.hard(cell), cells.random(cell), cells.unaugmented(cell)
    full = None if hard is None else cells.full(hard)
    if hard is not None and full is not None:
        found.groups["hlr"] = [hard.by_seed, full.by_seed]
        found.partners["hlr_protocol"] = hard.where["protocol"]
    if random is None or cell.name == RANDOM_IMAGES:
        return found
    found.groups["ior"] = [cell.by_seed, random.by_seed]
    if hard is not None and full is not None:
        found.groups["lrs"] = [_mixed(cell, hard), random.by_seed, full.by_seed]
    random_plain = None if plain is None else cells.random(plain)
    if plain is not None and random_plain is not None:
        found.groups["ars"] = [_mixed(cell, plain), _mixed(random, random_plain)]
        if all(found.groups["ars"]):
            found.partners["ars_protocol"] = plain.where["protocol"]
    return found


def _estimate(name: str, found: _Inputs) -> dict[str, float]:
    """A score and its interval as columns; NaN where an input is missing or has no seed."""
    groups = [list(seeds.values()) for seeds in found.groups.get(name, [{}])]
    if not all(groups):
        return dict.fromkeys((name, f"{name}_ci_low", f"{name}_ci_high"), math.nan)
    low, high = score_interval(FORMULAS[name], *groups)
    return {name: float(FORMULAS[name](*map(fmean, groups))), f"{name}_ci_low": low, f"{name}_ci_high": high}


def dd_ranking_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Compute HLR, IOR, LRS and ARS, as far as the records hold what they need.

    Args:
        frame: A row per record.

    Returns:
        A row per cell that has one of the scores, each with its 95 % interval over seeds; NaN where it lacks
        one. `hlr`: under the protocol of the cell if its labels are hard, else under `hlr_protocol`, which
        differs in labels only. `ior`: against `random_real` of the same ipc and protocol. `lrs`: of both.
        `ars`: of a cell trained with augmentation, and the one under `ars_protocol`, trained without.
    """
    cells = _Cells(frame)
    pairs = [(cell, _inputs(cell, cells)) for cell in cells.all if cell.name != WHOLE_SET]
    pairs = [(cell, found) for cell, found in pairs if found.groups]
    table = pd.DataFrame([cell.where for cell, _ in pairs], columns=CELL)
    estimates = [{k: v for name in SCORES for k, v in _estimate(name, found).items()} for _, found in pairs]
    names = [f"{name}{end}" for name in SCORES for end in ("", "_ci_low", "_ci_high")]
    partners = {
        name: pd.Series([found.partners.get(name) for _, found in pairs], dtype=object)
        for name in ("hlr_protocol", "ars_protocol")
    }
    return table.join(pd.DataFrame(estimates, columns=names, dtype=float)).assign(**partners)
