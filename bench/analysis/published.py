"""Published accuracies with their sources, and how they were measured otherwise than here. No torch."""

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
NORMALISE = "normalise"  # where a preset says nothing of preprocessing
Paper = Callable[[str, str, int], dict[str, Any]]
AT_SIGN = ["to_method", "to_dataset", "to_ipc", "to_arch"]  # how a measured cell finds its published figures


@dataclass(frozen=True)
class PublishedNetwork:
    """A published architecture: its name here without the width, and its width."""

    name: str
    width: int | None = None  # None: it has none to choose


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
class Evaluation:
    """How published students were trained: the protocols here that do as much, and what still differs."""

    protocols: tuple[str, ...]
    about: str
    still: str = ""


_BEST = "published: the best of many evaluations on the test set"
EVALUATIONS: Final = {
    "DC": Evaluation(("dc300",), "DC's, 300 epochs without augmentation"),
    "DSA": Evaluation(("dsa1000",), "DSA's, 1000 epochs with its augmentation"),
    "DM": Evaluation(("dsa1000",), "DSA's, 1000 epochs with its augmentation"),
    "IDC": Evaluation(("idc",), "IDC's, 1000 epochs with augmentation and CutMix"),
    "IDC-I": Evaluation(("idc",), "IDC's, 1000 epochs with augmentation and CutMix"),
    "MTT": Evaluation(("mtt",), "MTT's, 1000 epochs at the learned step size", _BEST),
    "TESLA": Evaluation(("mtt",), "MTT's, 1000 epochs at the learned step size", _BEST),
    "HaBa": Evaluation(("mtt",), "MTT's, 1000 epochs at the learned step size", _BEST),
    "RTP-memory": Evaluation(("rtp",), "RTP's, 300 epochs at a constant rate"),
}
DC_BENCH: Final = {
    "best over augmentations": Evaluation((), "DC-BENCH's, the best of several augmentations"),
    "mean over augmentations": Evaluation((), "DC-BENCH's, the mean of several augmentations"),
}
UNSTATED = Evaluation((), "a recipe that the table does not state")
COPIES: Final = {"511a870f652c3359a4d06530ec08a256": "data set of JPEG copies"}  # by fingerprint


def _plain(name: str) -> str:
    """`K-Center` and `k_center` are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@cache
def published() -> pd.DataFrame:
    """The published figures, as fractions, with the columns AT."""
    table = pd.read_csv(PUBLISHED_CSV, dtype={"ipc": "str", "source": "str"})
    table[["accuracy_mean", "accuracy_std"]] /= 100
    return table.assign(
        to_method=table["method"].map(_plain),
        to_dataset=table["dataset"].map(_plain),
        to_ipc=table["ipc"],
        to_arch=table["architecture_eval"].map({name: network.name for name, network in NETWORKS.items()}),
    )


# --- what a measured cell is called there -------------------------------------------------------------------


def _their_name(method: str, values: dict[str, Any]) -> str:
    if method == "idc":
        return "IDC-I" if values.get("factor") == 1 else "IDC"
    if method == "rtp":
        return "RTP-memory" if values.get("memory", True) else ""
    return {"random_real": "Random", "full": "Full dataset"}.get(method, method)


def split_setting(architecture: str) -> tuple[str, int | None]:
    """`convnet-w32-batch` as its name without the width, and the width where it is not the default."""
    family, *parts = architecture.split("-")
    widths = [int(part[1:]) for part in parts if re.fullmatch(r"w\d+", part)]
    return "-".join([family, *(part for part in parts if not re.fullmatch(r"w\d+", part))]), (*widths, None)[
        0
    ]


def match_published(flat: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """A row per cell of the summary and figure published for it; of `rows.frame` and `aggregate.summary`.

    For it: the same method, data set, ipc and networks but for their width. What else differs is named in
    `differs`; the figure's columns end in `_published` where the summary has the same.
    """
    kept = ["method_name", "hyperparameters", "protocol_name", "dataset_name", "dataset_fingerprint"]
    cells = summary.merge(flat.drop_duplicates(CELL)[[*CELL, *kept, "preprocess"]], on=CELL)
    values = cells["hyperparameters"].map(json.loads)
    names = [_their_name(m, v) for m, v in zip(cells["method_name"], values, strict=True)]
    keyed = cells.assign(
        to_method=[_plain(name) for name in names],
        to_dataset=cells["dataset_name"].map(_plain),
        to_ipc=["full" if pd.isna(ipc) else str(ipc) for ipc in cells["ipc"]],
        to_arch=[split_setting(arch)[0] for arch in cells["eval_arch"]],
    )
    found = keyed.merge(published(), on=AT_SIGN, suffixes=("", "_published"))
    same = [_same_source(row) for row in found.to_dict("records")]
    found = found[pd.Series(same, index=found.index, dtype=bool)].reset_index(drop=True)
    found["difference"] = found["accuracy_mean"] - found["accuracy_mean_published"]
    paper = cache(preset)  # a file is read once
    found["differs"] = ["; ".join(_differences(row, paper)) for row in found.to_dict("records")]
    return found.drop(columns=[*AT_SIGN, *kept, "preprocess"])


def _same_source(row: dict[Any, Any]) -> bool:
    """Distilled on the same network but for its width; what either side distils on none can be compared."""
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
        COPIES.get(row["dataset_fingerprint"], ""),
    ]
    return [text for text in found if text]


def _widths(row: dict[Any, Any]) -> str:
    """Of the students, which is that of the distillation too in all but transfer."""
    network = NETWORKS[row["architecture_eval"]]
    default = next(n.width for n in NETWORKS.values() if n.name == network.name)
    ours = split_setting(row["eval_arch"])[1] or default
    return "" if ours == network.width else f"width {ours} against {network.width}"


def _protocol(row: dict[Any, Any]) -> str:
    theirs = EVALUATIONS.get(row["method_published"], UNSTATED)
    if "DC-BENCH re-evaluation" in row["source"]:
        theirs = next((e for words, e in DC_BENCH.items() if words in row["source"]), UNSTATED)
    if row["protocol_name"] in theirs.protocols:
        return theirs.still
    return f"protocol {row['protocol_name']} against {theirs.about}"


def _distillation(row: dict[Any, Any], paper: Paper) -> list[str]:
    """Hyper-parameters that are not the paper's, as far as configs/methods has these."""
    if pd.isna(row["ipc"]):
        return []
    theirs = {"preprocess": NORMALISE} | paper(row["method_name"], row["dataset_name"], int(row["ipc"]))
    ours = json.loads(row["hyperparameters"])
    if not pd.isna(row["preprocess"]):
        ours["preprocess"] = row["preprocess"]
    changed = [name for name in sorted(ours) if name in theirs and ours[name] != theirs[name]]
    texts = [f"{name} {ours[name]} (paper {theirs[name]})" for name in changed]
    return [f"distilled with {', '.join(texts)}"] if texts else []
