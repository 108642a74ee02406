"""DD-Ranking's scores (arXiv 2505.13300), on fractions; its code applies the formulas to percentages."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd

from bench.analysis.aggregate import Parts, deduplicate
from bench.analysis.intervals import intervals, one_by_one
from bench.records.columns import TRAINING_COLUMNS
from bench.records.groups import group_means, ragged
from bench.records.naming import CELL

SCORE_WEIGHT = 0.5  # of IOR against HLR, and of augmentation against none
SCORES: Final = ("hlr", "ior", "lrs", "ars")
WHOLE_SET, RANDOM_IMAGES = "full", "random_real"


# --- the formulas, for accuracies as fractions --------------------------------------------------------------


def hlr(full: Any, synthetic: Any) -> Any:
    """Hard label recovery: how far students with hard labels stay below the whole set's. Lower is better."""
    return full - synthetic


def ior(synthetic: Any, random: Any) -> Any:
    """Improvement over as many random real images, each with the labels of the protocol."""
    return synthetic - random


def dd_score(value: Any) -> Any:
    """(e^v - e^-1) / (e - e^-1): 0 at -1 and 1 at 1."""
    return (math.e**value - 1 / math.e) / (math.e - 1 / math.e)


def lrs(improvement: Any, recovery: Any, weight: float = SCORE_WEIGHT) -> Any:
    """Label-robust score of an IOR and an HLR."""
    return dd_score(weight * improvement - (1 - weight) * recovery)


def ars(augmented: Any, plain: Any, weight: float = SCORE_WEIGHT) -> Any:
    """Augmentation-robust score of the improvements over random images with and without augmentation."""
    return dd_score(weight * augmented + (1 - weight) * plain)


# --- of the records -----------------------------------------------------------------------------------------
# Both scores are the same in their two accuracies of the method (and of the random images) mixed by weight:
# these belong to one seed and are drawn together, while methods are drawn independently.


def _hlr(synthetic: Any, full: Any) -> Any:
    return hlr(full, synthetic)


def _lrs(synthetic: Any, random: Any, full: Any) -> Any:
    return lrs(ior(synthetic, random), hlr(full, synthetic))


def _ars(synthetic: Any, random: Any) -> Any:
    gain = ior(synthetic, random)
    return ars(gain, gain)


FORMULAS: Final[dict[str, Callable[..., Any]]] = {"hlr": _hlr, "ior": ior, "lrs": _lrs, "ars": _ars}
ScoredSeeds = dict[int, float]  # accuracy by seed, in their order


@dataclass(frozen=True)
class _Cell:
    """A cell of the summary: its accuracies by seed, and how its students were trained."""

    where: dict[str, Any]  # the columns CELL; the ipc of the whole set is None
    name: str  # the method's, without what tells its variants apart
    by_seed: ScoredSeeds
    training: dict[str, Any]

    def at(self, *names: str) -> tuple[Any, ...]:
        return tuple(self.where[name] for name in names)

    @property
    def scheme(self) -> str:
        """Which labels the students saw: hard ones are hard wherever they come from."""
        return self.training["labels"] if self.training["soft"] else "hard"

    @property
    def plain(self) -> bool:
        return self.training["augment"] == "none" and not self.training["cutmix"]

    def alike(self, other: "_Cell", names: Iterable[str]) -> bool:
        return all(self.training[name] == other.training[name] for name in names)


def _one(cells: list[_Cell]) -> _Cell | None:
    """The only one; of several none can be said to be meant."""
    return cells[0] if len(cells) == 1 else None


def _partner(cell: _Cell, candidates: list[_Cell]) -> _Cell | None:
    """The only candidate, or the only one among them with as many steps."""
    return _one(candidates) or _one([c for c in candidates if c.alike(cell, ["steps"])])


def _mixed(one: _Cell, other: _Cell) -> ScoredSeeds:
    """Two accuracies of each seed as one; a seed that lacks one of them is left out."""
    both = ((seed, value, other.by_seed.get(seed)) for seed, value in one.by_seed.items())
    return {seed: SCORE_WEIGHT * a + (1 - SCORE_WEIGHT) * b for seed, a, b in both if b is not None}


def _cells(frame: pd.DataFrame) -> list[_Cell]:
    """Those of which is known how they were trained: not by an older ddbench, nor in several ways."""
    rows = deduplicate(frame)
    ways = Parts(rows, TRAINING_COLUMNS)
    rows = rows.assign(way=ways.code, known=rows[TRAINING_COLUMNS].notna().all(axis=1))
    cells = Parts(rows, CELL)
    known = cells.all("known") & (cells.least("way") == cells.most("way"))
    seeds, accuracies, names = (
        cells.column(name).values.tolist() for name in ("seed", "accuracy", "method_name")
    )
    trainings = ways.where.to_dict("records")
    wheres = cells.where.astype(object).where(cells.where.notna(), None).to_dict("records")
    ends = np.cumsum(cells.sizes).tolist()
    starts = [0, *ends[:-1]]
    way = cells.least("way").tolist()
    return [
        _Cell(wheres[i], names[a], dict(zip(seeds[a:b], accuracies[a:b], strict=True)), trainings[way[i]])
        for i, (a, b) in enumerate(zip(starts, ends, strict=True))
        if known[i]
    ]


class _Cells:
    """All that the records say about each cell, by what is asked for."""

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
        """The whole training set with hard labels, on the same architecture under the same protocol."""
        dataset, arch, protocol = cell.at("dataset", "eval_arch", "protocol")
        found = _one(self._baselines[WHOLE_SET, dataset, None, arch, protocol])
        return found if found is not None and found.scheme == "hard" else None

    def random(self, cell: _Cell) -> _Cell | None:
        """As many random real images, on the same architecture under the same protocol."""
        return _one(self._baselines[RANDOM_IMAGES, *cell.at("dataset", "ipc", "eval_arch", "protocol")])

    def hard(self, cell: _Cell) -> _Cell | None:
        """The same method with hard labels: itself, or under a protocol that differs in the labels only."""
        same = ["augment", "cutmix", "preprocess"]
        if cell.scheme == "hard":
            return cell
        others = self._protocols[self._method(cell)]
        return _partner(cell, [c for c in others if c.scheme == "hard" and c.alike(cell, same)])

    def unaugmented(self, cell: _Cell) -> _Cell | None:
        """Of what was trained with augmentation: the same method and labels under a protocol without."""
        if cell.plain:
            return None
        others = [c for c in self._protocols[self._method(cell)] if c.plain and c.scheme == cell.scheme]
        return _partner(cell, [c for c in others if c.alike(cell, ["preprocess"])])


@dataclass(frozen=True)
class _Found:
    """What can be said about one cell; a score whose pieces are not all there is not."""

    groups: dict[str, list[ScoredSeeds]] = field(
        default_factory=dict
    )  # of each score, as its formula takes them
    partners: dict[str, str] = field(default_factory=dict)  # the columns `hlr_protocol` and `ars_protocol`


def _find(cell: _Cell, cells: _Cells) -> _Found:
    found = _Found()
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
    beside = None if plain is None else cells.random(plain)
    if plain is not None and beside is not None:
        found.groups["ars"] = [_mixed(cell, plain), _mixed(random, beside)]
        if all(found.groups["ars"]):
            found.partners["ars_protocol"] = plain.where["protocol"]
    return found


def _estimates(name: str, found: Sequence[_Found]) -> dict[str, Any]:
    """A score and its bootstrap interval as columns; NaN where it is not, or has a group without a seed."""
    columns = np.full((3, len(found)), np.nan)
    which = [i for i, one in enumerate(found) if all(one.groups.get(name, [{}]))]
    if which:
        groups = [ragged([list(seeds.values()) for seeds in group]) for group in _turned(found, which, name)]
        columns[0, which] = one_by_one(FORMULAS[name], *map(group_means, groups))
        columns[1:, which] = intervals(*groups, combine=FORMULAS[name]).T
    return dict(zip((name, f"{name}_ci_low", f"{name}_ci_high"), columns, strict=True))


def _turned(found: Sequence[_Found], which: Sequence[int], name: str) -> Iterable[tuple[ScoredSeeds, ...]]:
    """Of each group of a score the seeds of all cells."""
    return zip(*(found[i].groups[name] for i in which), strict=True)


def dd_ranking_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """HLR, IOR, LRS and ARS with 95 % intervals over seeds, a row per cell that has one of them.

    HLR: under the cell's protocol where its labels are hard, else under `hlr_protocol`, which differs in the
    labels only. IOR: against `random_real` of the same ipc under the same protocol; random images have none.
    ARS: with a cell trained with augmentation, and `ars_protocol` trained without.
    """
    cells = _Cells(frame)
    pairs = [(cell, _find(cell, cells)) for cell in cells.all if cell.name != WHOLE_SET]
    pairs = [(cell, found) for cell, found in pairs if found.groups]
    found = [one for _, one in pairs]
    table = pd.DataFrame([cell.where for cell, _ in pairs], columns=CELL)
    partners = {
        name: pd.Series([one.partners.get(name) for one in found], dtype=object)
        for name in ("hlr_protocol", "ars_protocol")
    }
    estimates = {column: values for name in SCORES for column, values in _estimates(name, found).items()}
    return table.assign(**estimates, **partners)
