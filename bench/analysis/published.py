"""Published accuracies with their sources, and what differs in how they were measured. No torch."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import pandas as pd

from bench.planning.presets import preset
from bench.records.naming import CELL

PUBLISHED_CSV = Path(__file__).parent / "published.csv"
# the preprocessing of records and of papers that name none, see `core.preprocess`
NORMALISE, PAPER = "normalise", "paper"
OTHER_CONSTANTS: Final = {"cifar10"}  # data sets that papers do not divide by the deviation of the pixels
Paper = Callable[[str, str, int], dict[str, Any]]  # (method, dataset, ipc) -> hyper-parameters of the paper
MATCHED = ["to_method", "to_dataset", "to_ipc", "to_arch"]  # a cell and a published figure agree in these


@dataclass(frozen=True)
class PublishedNetwork:
    """A published architecture: its name here without the width, and its width."""

    name: str
    width: int | None = None  # None: fixed


NETWORKS: Final = {
    "ConvNetD3": PublishedNetwork("convnet", 128),
    "ConvNetD3 width 1024": PublishedNetwork("convnet", 1024),
    "ConvNetD3-BN": PublishedNetwork("convnet-batch", 128),
    "ConvNetD4": PublishedNetwork("convnet-d4", 128),
    "ConvNetD4-BN": PublishedNetwork("convnet-d4-batch", 128),
    "MLP": PublishedNetwork("mlp", 128),
    "LeNet": PublishedNetwork("lenet"),
    "AlexNet": PublishedNetwork("alexnet"),
    "VGG11": PublishedNetwork("vgg11"),
    "ResNet18": PublishedNetwork("resnet18", 64),
    "ResNet18-BN": PublishedNetwork("resnet18-batch", 64),
}


@dataclass(frozen=True)
class PublishedEvaluation:
    """How published students were trained."""

    protocols: tuple[str, ...]  # those here that train them alike
    about: str  # what it is, for a cell under another protocol
    still: str = ""  # what differs even under these protocols


_BEST = "published: the best of many evaluations on the test set"
EVALUATIONS: Final = {
    "DC": PublishedEvaluation(("dc",), "DC's, 301 epochs without augmentation, on MNIST 1001 with"),
    "DSA": PublishedEvaluation(("dsa1000",), "DSA's, 1001 epochs with its augmentation"),
    "DM": PublishedEvaluation(("dsa1000",), "DSA's, 1001 epochs with its augmentation"),
    "IDC": PublishedEvaluation(("idc",), "IDC's, 1000 epochs with augmentation and CutMix"),
    "IDC-I": PublishedEvaluation(("idc",), "IDC's, 1000 epochs with augmentation and CutMix"),
    "MTT": PublishedEvaluation(("mtt",), "MTT's, 1001 epochs at the learned step size", _BEST),
    "TESLA": PublishedEvaluation(("mtt",), "MTT's, 1001 epochs at the learned step size", _BEST),
    "HaBa": PublishedEvaluation(("haba",), "HaBa's, 1001 epochs over the bases", _BEST),
    "RTP-memory": PublishedEvaluation(("rtp",), "RTP's, 300 epochs at a constant rate"),
    "RDED": PublishedEvaluation(
        ("decoupled",),
        "RDED's, 300 epochs under an online teacher",
        _BEST,
    ),
    "SRe2L": PublishedEvaluation(("decoupled",), "SRe2L's, under a teacher's labels of every epoch", _BEST),
    "DATM": PublishedEvaluation((), "MTT's with the learned soft labels and ZCA", _BEST),
    "FRePo": PublishedEvaluation((), "FRePo's, squared error to its learned labels"),
    "IDM": PublishedEvaluation((), "IDM's, 1000 epochs with augmentation and CutMix", _BEST),
}
DC_BENCH: Final = {
    "best over augmentations": PublishedEvaluation((), "DC-BENCH's, the best of several augmentations"),
    "mean over augmentations": PublishedEvaluation((), "DC-BENCH's, the mean of several augmentations"),
}
UNSTATED = PublishedEvaluation((), "a recipe that the table does not state")
# data sets that are not the original files, by fingerprint
COPIES: Final = {"511a870f652c3359a4d06530ec08a256": "data set of JPEG copies"}


def _plain(name: str) -> str:
    """A name without case and punctuation: `K-Center` and `k_center` are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@cache
def published() -> pd.DataFrame:
    """The published figures, accuracies as fractions, with the columns `MATCHED`."""
    table = pd.read_csv(PUBLISHED_CSV, dtype={"ipc": "str", "source": "str"})
    table[["accuracy_mean", "accuracy_std"]] /= 100
    return table.assign(
        to_method=table["method"].map(_plain),
        to_dataset=table["dataset"].map(_plain),
        to_ipc=table["ipc"],
        to_arch=table["architecture_eval"].map({name: network.name for name, network in NETWORKS.items()}),
    )


# --- names of a measured cell in the table ------------------------------------------------------------------


def _their_name(method: str, values: dict[str, Any]) -> str:
    """The published name of a method with these hyper-parameters; empty where there is none."""
    if method == "idc":
        return "IDC-I" if values.get("factor") == 1 else "IDC"
    if method == "rtp":
        return "RTP-memory" if values.get("memory", True) else ""
    return {"random_real": "Random", "full": "Full dataset"}.get(method, method)


def split_setting(architecture: str) -> tuple[str, int | None]:
    """Split `convnet-w32-batch` into its name without the width, and the width; None: the default."""
    family, *parts = architecture.split("-")
    widths = [part for part in parts if re.fullmatch(r"w\d+", part)]
    name = "-".join([family, *(part for part in parts if part not in widths)])
    return name, int(widths[0][1:]) if widths else None


def match_published(flat: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Match cells with the figures that were published for them.

    They agree in method, data set, ipc and architectures, except for their width.

    Args:
        flat: A row per record.
        summary: `aggregate.summary_frame` of it.

    Returns:
        A row per cell and figure, with the columns of both; those of the figure end in `_published` where the
        summary has the same. `difference`: measured minus published, a fraction. `differs`: what else differs
        in how they were measured, joined by "; ".
    """
    kept = ["method_name", "hyperparameters", "protocol_name", "dataset_name", "dataset_fingerprint"]
    cells = summary.merge(flat.drop_duplicates(CELL)[[*CELL, *kept]], on=CELL)
    values = cells["hyperparameters"].map(json.loads)
    names = [_their_name(m, v) for m, v in zip(cells["method_name"], values, strict=True)]
    keyed = cells.assign(
        to_method=[_plain(name) for name in names],
        to_dataset=cells["dataset_name"].map(_plain),
        to_ipc=["full" if pd.isna(ipc) else str(ipc) for ipc in cells["ipc"]],
        to_arch=[split_setting(arch)[0] for arch in cells["eval_arch"]],
    )
    found = keyed.merge(published(), on=MATCHED, suffixes=("", "_published"))
    same = [_same_source(row) for row in found.to_dict("records")]
    found = found[pd.Series(same, index=found.index, dtype=bool)].reset_index(drop=True)
    found["difference"] = found["accuracy_mean"] - found["accuracy_mean_published"]
    paper = cache(preset)  # each file is read once
    found["differs"] = ["; ".join(_differences(row, paper)) for row in found.to_dict("records")]
    return found.drop(columns=[*MATCHED, *kept])


def _same_source(row: dict[Any, Any]) -> bool:
    """Whether both were distilled on the same architecture but for its width, or one of them on none."""
    theirs = row["architecture_distill"]
    if pd.isna(theirs) or row["distill_arch"] == "any":
        return True
    return theirs in NETWORKS and NETWORKS[theirs].name == split_setting(row["distill_arch"])[0]


# --- what differs -------------------------------------------------------------------------------------------


def _differences(row: dict[Any, Any], paper: Paper) -> list[str]:
    found = [
        _widths(row),
        _protocol(row),
        *_distillation(row, paper),
        _normalisation(row, paper),
        COPIES.get(row["dataset_fingerprint"], ""),
    ]
    return [text for text in found if text]


def _widths(row: dict[Any, Any]) -> str:
    """A difference in the width of the students, which is usually that of the distillation network too."""
    network = NETWORKS[row["architecture_eval"]]
    default = next(n.width for n in NETWORKS.values() if n.name == network.name)
    ours = split_setting(row["eval_arch"])[1] or default
    return "" if ours == network.width else f"width {ours} against {network.width}"


def _protocol(row: dict[Any, Any]) -> str:
    """A difference in how the students were trained."""
    theirs = EVALUATIONS.get(row["method_published"], UNSTATED)
    if "DC-BENCH re-evaluation" in row["source"]:
        theirs = next((e for words, e in DC_BENCH.items() if words in row["source"]), UNSTATED)
    if row["protocol_name"] in theirs.protocols:
        return theirs.still
    return f"protocol {row['protocol_name']} against {theirs.about}"


def _normalisation(row: dict[Any, Any], paper: Paper) -> str:
    """Another deviation to divide by; where papers have that of the pixels, theirs is ours, rounded."""
    if row["to_dataset"] not in OTHER_CONSTANTS or json.loads(row["hyperparameters"]).get("preprocess"):
        return ""
    of_a_whole_set = pd.isna(row["ipc"])
    theirs = {} if of_a_whole_set else paper(row["method_name"], row["dataset_name"], int(row["ipc"]))
    return (
        ""
        if "preprocess" in theirs
        else "divided by the deviation of all pixels (`preprocess: paper`: by theirs)"
    )


def _distillation(row: dict[Any, Any], paper: Paper) -> list[str]:
    """Hyper-parameters that differ from the paper's, as far as configs/methods has those."""
    if pd.isna(row["ipc"]):
        return []
    ours = {"preprocess": NORMALISE} | json.loads(row["hyperparameters"])
    theirs = {"preprocess": PAPER} | paper(row["method_name"], row["dataset_name"], int(row["ipc"]))
    if (ours["preprocess"], theirs["preprocess"]) == (NORMALISE, PAPER):
        del ours["preprocess"]  # see _normalisation
    changed = [name for name in sorted(ours) if name in theirs and ours[name] != theirs[name]]
    texts = [f"{name} {ours[name]} (paper {theirs[name]})" for name in changed]
    return [f"distilled with {', '.join(texts)}"] if texts else []
