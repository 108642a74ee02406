"""Are distilled sets better than well-chosen real images? By label regime, at equal storage. No torch.

Sets are compared where they agree in data set, ipc, network of the students, protocol and labels. One test
for all pairs of them (`best.separate_rows`) tells who is better than whom, so that of such comparisons of
equal sets about one in twenty has a wrong verdict, however many sets it has. No best real set is picked
first and compared then, which would flatter it: a set is better than real images only if it is told apart
from every set of them.
"""

from collections.abc import Sequence
from typing import Final, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.analysis.best import separate_rows
from bench.analysis.compute import cell_operations
from bench.records.naming import CELL, without_regime

Kind = Literal["random", "chosen", "patched", "averaged", "distilled", "noise", "all"]
KINDS: Final = get_args(Kind)
REAL: Final = ("random", "chosen")  # images as they are
COMPARED: Final = (*REAL, "patched", "distilled")
KIND_OF: Final[dict[str, Kind]] = {
    **dict.fromkeys(("random_real", "label_only"), "random"),
    **dict.fromkeys(("herding", "k_center", "k_means", "ccs", "facility_location", "grad_match"), "chosen"),
    **dict.fromkeys(("el2n", "forgetting", "aum", "uncertainty", "grad_norm"), "chosen"),
    **dict.fromkeys(("rded",), "patched"),
    **dict.fromkeys(("class_mean",), "averaged"),
    **dict.fromkeys(("noise",), "noise"),
    **dict.fromkeys(("full",), "all"),
}
SPENT: Final = ("prepare_s", "teacher_s", "distill_s", "tune_s")  # by a set before students are trained
PLACE: Final = ["dataset", "protocol", "ipc", "eval_arch", "labels"]  # what is compared
BETTER, WORSE, NOT_TOLD = "better", "worse", "not told apart"
VERDICTS: Final = {BETTER: "distilled better", WORSE: "real better", NOT_TOLD: "not told apart"}


def kind_of(method: str) -> Kind:
    """Of what images a method's sets are; those of a method that ddbench does not have count as distilled."""
    return KIND_OF.get(method, "distilled")


def sets_by_regime(flat: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """The sets of protocols that were asked for with several kinds of labels, each with its verdict.

    Args:
        flat: A row per record.
        summary: `aggregate.summary_frame` of it.

    Returns:
        A row per cell, as in the summary, the best of each place first. `protocol` is what all label regimes
        have in common, `labels` the regime. `operations`: of prerequisites and distillation, NaN where they
        were not counted. `kind`: see `kind_of`. `seconds`: what the set and its labels
        cost. `equal_storage`: it fits its budget, and has no more labels than as many real images.
        `best_real`: the real set of equal storage with the highest mean; `difference`: to its mean, a
        fraction. `verdict`: better than every real set of equal storage, worse than one of them, or not told
        apart; of real sets, and where there are none, empty. Empty where no protocol has several regimes.
    """
    names = ["protocol", "protocol_name", "labels", "method", "method_name", "dataset", "n_classes"]
    told = flat[names].drop_duplicates(["protocol", "method", "dataset"])
    rows = summary.merge(cell_operations(flat), on=CELL, how="left").merge(
        told, on=["protocol", "method", "dataset"]
    )
    rows["protocol"] = rows["protocol_name"].map(without_regime)
    regimes = rows.groupby(["dataset", "protocol"])["labels"].transform("nunique")
    rows = rows[(regimes > 1) & ~rows["exempt"]]
    kinds = rows["method_name"].map(kind_of)
    most_labels = rows["ipc"].astype(float) * rows["n_classes"] ** 2
    fits = rows["within_budget"] & ~((rows["labels"] == "soft") & (rows["label_floats"] > most_labels))
    rows = rows.assign(kind=kinds, equal_storage=fits, seconds=rows[list(SPENT)].sum(axis=1, skipna=False))
    rows = rows.drop(columns=["protocol_name", "method_name", "n_classes"])
    found = [_compared(part) for _, part in rows.groupby(PLACE, sort=True)]
    return pd.concat(found, ignore_index=True) if found else rows.assign(verdict="")


def _compared(part: pd.DataFrame) -> pd.DataFrame:
    """The rows of one place, with their differences and verdicts."""
    part = part.sort_values(["accuracy_mean", "method"], ascending=[False, True]).reset_index(drop=True)
    family = part[part["equal_storage"] & part["kind"].isin(COMPARED)]
    real = family[family["kind"].isin(REAL)]
    part = part.assign(best_real="", difference=np.nan, verdict="")
    if real.empty:
        return part
    part["best_real"] = real["method"].iloc[0]
    part["difference"] = part["accuracy_mean"] - real["accuracy_mean"].iloc[0]
    others = family.index.difference(real.index)
    part.loc[others, "verdict"] = _verdicts(family, real.index, others)
    return part


def _verdicts(family: pd.DataFrame, real: pd.Index, others: pd.Index) -> list[str]:
    above = _above(family)
    place = {index: i for i, index in enumerate(family.index)}
    real_at = [place[index] for index in real]
    told = []
    for i in (place[index] for index in others):
        better, worse = above[i, real_at].all(), above[real_at, i].any()
        told.append(BETTER if better else WORSE if worse else NOT_TOLD)
    return told


def _above(family: pd.DataFrame) -> NDArray[np.bool_]:
    """[N,N]: whether the first set is told apart from the second and better."""
    found = separate_rows(family[["accuracy_mean", "accuracy_std", "n_seeds"]].to_numpy(float))
    return np.zeros((len(family), len(family)), dtype=bool) if found is None else found.above


def verdict_of(part: pd.DataFrame) -> str:
    """What the rows of one place say: one of VERDICTS, or "" without sets of both kinds at equal storage.

    Distilled better: one distilled set is better than every real one. Real better: one real set is better
    than every distilled one.
    """
    family = part[part["equal_storage"] & part["kind"].isin((*REAL, "distilled"))]
    distilled = family["kind"].eq("distilled").to_numpy()
    if distilled.all() or not distilled.any():
        return ""
    above = _above(family)
    if above[np.ix_(distilled, ~distilled)].all(axis=1).any():
        return VERDICTS[BETTER]
    if above[np.ix_(~distilled, distilled)].all(axis=1).any():
        return VERDICTS[WORSE]
    return VERDICTS[NOT_TOLD]


def best_of(part: pd.DataFrame, kinds: Sequence[str]) -> pd.Series | None:
    """The row of these kinds with the highest mean at equal storage."""
    rows = part[part["equal_storage"] & part["kind"].isin(kinds)]
    return None if rows.empty else rows.sort_values("accuracy_mean", kind="stable").iloc[-1]
