"""DD-Ranking's scores (arXiv 2505.13300), on fractions; its code applies the formulas to percentages."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from bench.aggregate import CELL, TRAINING, interval, once, parts

WEIGHT = 0.5  # of IOR against HLR, and of augmentation against none
SCORES: Final = ("hlr", "ior", "lrs", "ars")
REAL, RANDOM = "full", "random_real"


# --- the formulas, for accuracies as fractions --------------------------------------------------------------


def hlr(full: Any, synthetic: Any) -> Any:
    """Hard label recovery: how far students with hard labels stay below the whole set's. Lower is better."""
    return full - synthetic


def ior(synthetic: Any, random: Any) -> Any:
    """Improvement over as many random real images, each with the labels of the protocol."""
    return synthetic - random


def score(value: Any) -> Any:
    """(e^v - e^-1) / (e - e^-1): 0 at -1 and 1 at 1."""
    return (math.e**value - 1 / math.e) / (math.e - 1 / math.e)


def lrs(improvement: Any, recovery: Any, weight: float = WEIGHT) -> Any:
    """Label-robust score of an IOR and an HLR."""
    return score(weight * improvement - (1 - weight) * recovery)


def ars(augmented: Any, plain: Any, weight: float = WEIGHT) -> Any:
    """Augmentation-robust score of the improvements over random images with and without augmentation."""
    return score(weight * augmented + (1 - weight) * plain)


# --- of the records -----------------------------------------------------------------------------------------
# Both scores are the same in their two accuracies of the method (and of the random images) mixed by weight:
# these belong to one seed and are drawn together, while methods are drawn independently.


def _hlr(synthetic: Any, full: Any, axis: int = -1) -> Any:
    return hlr(full.mean(axis), synthetic.mean(axis))


def _ior(synthetic: Any, random: Any, axis: int = -1) -> Any:
    return ior(synthetic.mean(axis), random.mean(axis))


def _lrs(synthetic: Any, random: Any, full: Any, axis: int = -1) -> Any:
    return lrs(_ior(synthetic, random, axis), _hlr(synthetic, full, axis))


def _ars(synthetic: Any, random: Any, axis: int = -1) -> Any:
    gain = _ior(synthetic, random, axis)
    return ars(gain, gain)


@dataclass(frozen=True)
class _Cell:
    """A cell of the summary: its accuracies by seed, and how its students were trained."""

    where: dict[str, Any]  # the columns CELL
    name: str  # the method's, without what tells its variants apart
    by_seed: pd.Series
    training: dict[str, Any]

    def at(self, *names: str) -> tuple[Any, ...]:
        """A key: these columns, with one ipc for the whole set (missing values do not equal themselves)."""
        return tuple(None if pd.isna(self.where[name]) else self.where[name] for name in names)

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


def _mixed(one: _Cell, other: _Cell) -> pd.Series:
    """Two accuracies of each seed as one; a seed that lacks one of them is left out."""
    return (WEIGHT * one.by_seed + (1 - WEIGHT) * other.by_seed).dropna()


class _Cells:
    """All that the records say about each cell, by what is asked for."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.all: list[_Cell] = []
        self._baselines: dict[tuple[Any, ...], list[_Cell]] = defaultdict(list)
        self._protocols: dict[tuple[Any, ...], list[_Cell]] = defaultdict(list)
        for where, rows in parts(once(frame), CELL):
            trainings = rows[TRAINING].drop_duplicates()
            if len(trainings) > 1 or trainings.isna().any(axis=None):
                continue  # of an older ddbench, or of several: how it was trained is not known
            training = {str(name): value for name, value in trainings.iloc[0].items()}
            cell = _Cell(where, rows["method_name"].iloc[0], rows.set_index("seed")["accuracy"], training)
            self.all.append(cell)
            self._protocols[self._method(cell)].append(cell)
            if cell.name in (REAL, RANDOM):
                self._baselines[cell.name, *cell.at("dataset", "ipc", "eval_arch", "protocol")].append(cell)

    @staticmethod
    def _method(cell: _Cell) -> tuple[Any, ...]:
        return cell.at("method", "dataset", "ipc", "distill_arch", "eval_arch")

    def full(self, cell: _Cell) -> _Cell | None:
        """The whole training set with hard labels, on the same architecture under the same protocol."""
        dataset, arch, protocol = cell.at("dataset", "eval_arch", "protocol")
        found = _one(self._baselines[REAL, dataset, None, arch, protocol])
        return found if found is not None and found.scheme == "hard" else None

    def random(self, cell: _Cell) -> _Cell | None:
        """As many random real images, on the same architecture under the same protocol."""
        return _one(self._baselines[RANDOM, *cell.at("dataset", "ipc", "eval_arch", "protocol")])

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


def _estimate(name: str, statistic: Callable[..., Any], *groups: pd.Series) -> dict[str, float]:
    """A score of groups of seeds and its bootstrap interval; nothing where a group is empty."""
    if not all(map(len, groups)):
        return {}
    low, high = interval(*groups, statistic=statistic)
    point = float(statistic(*(group.sort_index().to_numpy() for group in groups)))
    return {name: point, f"{name}_ci_low": low, f"{name}_ci_high": high}


def _scores(cell: _Cell, cells: _Cells) -> dict[str, Any]:
    """What can be said about one cell; a score whose pieces are not all there is not."""
    found: dict[str, Any] = {}
    hard, random, plain = cells.hard(cell), cells.random(cell), cells.unaugmented(cell)
    full = None if hard is None else cells.full(hard)
    if hard is not None and full is not None:
        found |= _estimate("hlr", _hlr, hard.by_seed, full.by_seed)
        found["hlr_protocol"] = hard.where["protocol"]
    if random is None or cell.name == RANDOM:
        return found
    found |= _estimate("ior", _ior, cell.by_seed, random.by_seed)
    if hard is not None and full is not None:
        found |= _estimate("lrs", _lrs, _mixed(cell, hard), random.by_seed, full.by_seed)
    beside = None if plain is None else cells.random(plain)
    if plain is not None and beside is not None:
        found |= _estimate("ars", _ars, _mixed(cell, plain), _mixed(random, beside))
        found["ars_protocol"] = plain.where["protocol"] if "ars" in found else None
    return found


def scores(frame: pd.DataFrame) -> pd.DataFrame:
    """HLR, IOR, LRS and ARS with 95 % intervals over seeds, a row per cell that has one of them.

    HLR: under the cell's protocol where its labels are hard, else under `hlr_protocol`, which differs in the
    labels only. IOR: against `random_real` of the same ipc under the same protocol; random images have none.
    ARS: with a cell trained with augmentation, and `ars_protocol` trained without.
    """
    cells = _Cells(frame)
    rows = [(cell.where, _scores(cell, cells)) for cell in cells.all if cell.name != REAL]
    estimates = [f"{name}{part}" for name in SCORES for part in ("", "_ci_low", "_ci_high")]
    columns = [*CELL, *estimates, "hlr_protocol", "ars_protocol"]
    return pd.DataFrame([{**where, **found} for where, found in rows if found], columns=columns)
