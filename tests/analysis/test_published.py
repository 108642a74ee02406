"""Published figures: the file of the package, the cells that they match, and what differs."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import without_plots
from helpers.record import make, write

from bench.analysis.aggregate import summary_frame
from bench.analysis.published import NETWORKS, PUBLISHED_CSV, match_published, published, split_setting
from bench.records.columns import record_frame
from bench.records.schema import Record
from bench.reporting.build import build_report
from bench.reporting.sections import RecordsView
from bench.reporting.tables.published import published_section

OFFICIAL = "DatasetCondensation/readme.md (official)"
DC_S = "DC's, 301 epochs without augmentation, on MNIST 1001 with"


def cifar(method: str, ipc: int | None, accuracies: tuple[float, ...] = (0.5,), **fields: Any) -> Record:
    given = {"dataset": "cifar10", "eval_arch": "convnet", "protocol": "dc", "image_shape": (3, 32, 32)}
    settings = {"preprocess": "paper"} | fields.pop("hyperparameters", {})
    return make(method, ipc, accuracies, hyperparameters=settings, **{**given, **fields})


def matched(*records: Record) -> list[dict[Any, Any]]:
    flat = record_frame(records)
    return match_published(flat, summary_frame(flat)).to_dict("records")


def differs(record: Record, source: str) -> str:
    """The differences from the figure of this source."""
    (found,) = {row["differs"] for row in matched(record) if row["source"].startswith(source)}
    return str(found)


# --- the file -----------------------------------------------------------------------------------------------


def test_the_figures_are_whole() -> None:
    table = published()
    assert len(table) == 699
    assert table["accuracy_mean"].between(0, 1).all()
    assert table["accuracy_std"].dropna().between(0, 0.1).all()
    assert table[["method", "dataset", "ipc", "architecture_eval", "source"]].notna().all(axis=None)
    assert not table["source"].str.contains("unverified").any()
    assert set(table["ipc"]) - {"full"} == {i for i in set(table["ipc"]) if i.isdigit()}
    assert not table.duplicated(
        ["method", "dataset", "ipc", *table.filter(like="arch").columns, "source"]
    ).any()


def test_the_file_is_package_data() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert f"*{PUBLISHED_CSV.suffix}" in project["tool"]["setuptools"]["package-data"]["*"]
    assert PUBLISHED_CSV.is_file()


def test_architectures_have_a_name_and_a_width() -> None:
    assert split_setting("convnet-w32") == ("convnet", 32)
    assert split_setting("convnet-d4-w64-batch") == ("convnet-d4-batch", 64)
    assert split_setting("resnet_ap10") == ("resnet_ap10", None)
    assert {name for name, network in NETWORKS.items() if network.name == "convnet"} == {
        "ConvNetD3", "ConvNetD3 width 1024"
    }  # fmt: skip


# --- matching -----------------------------------------------------------------------------------------------


def test_measured_less_published() -> None:
    """DC, CIFAR-10, ipc 10, ConvNet-3: 44.9 in its readme; measured 0.46 and 0.44."""
    (row,) = [
        row
        for row in matched(cifar("dc", 10, (0.46,)), cifar("dc", 10, (0.44,), seed=1))
        if row["source"] == OFFICIAL
    ]
    assert row["accuracy_mean_published"] == pytest.approx(0.449)
    assert row["difference"] == pytest.approx(0.45 - 0.449)
    assert row["differs"] == ""
    assert row["method_published"] == "DC"


@pytest.mark.parametrize(
    ("method", "hyperparameters", "name"),
    [
        ("idc", {"factor": 1}, "IDC-I"), ("idc", {"factor": 2}, "IDC"), ("haba", {}, "HaBa"),
        ("rtp", {"memory": True}, "RTP-memory"), ("mtt", {}, "MTT"), ("tesla", {}, "TESLA"), ("dm", {}, "DM"),
        ("dsa", {}, "DSA"), ("random_real", {}, "Random"), ("herding", {}, "Herding"),
        ("k_center", {}, "K-Center"), ("DATM", {}, "DATM"), ("rtp", {"memory": False}, None),
        ("bptt", {}, None), ("k_means", {}, None),
    ],
)  # fmt: skip
def test_methods_find_their_figures(method: str, hyperparameters: dict[str, Any], name: str | None) -> None:
    rows = matched(cifar(method, 10, hyperparameters=hyperparameters))
    assert {row["method_published"] for row in rows} == ({name} if name else set())


def test_the_whole_set_finds_the_ceiling() -> None:
    rows = matched(cifar("full", None, (0.85,)))
    assert [row["accuracy_mean_published"] for row in rows] == pytest.approx([0.848])


@pytest.mark.parametrize(
    "fields",
    [
        {"eval_arch": "convnet-d2"}, {"eval_arch": "convnet-batch"}, {"distill_arch": "convnet-d4"},
        {"dataset": "cifar10-half"}, {"dataset": "digits"}, {"ipc": 7},
    ],
)  # fmt: skip
def test_what_is_no_match(fields: dict[str, Any]) -> None:
    ipc = fields.pop("ipc", 10)
    assert matched(cifar("dc", ipc, **fields)) == []


def test_other_data_sets_and_networks() -> None:
    assert matched(cifar("dc", 1, dataset="fashion_mnist"))[0]["dataset_published"] == "FashionMNIST"
    rows = matched(cifar("random_real", 1000, eval_arch="resnet18-batch"))
    assert {row["architecture_eval"] for row in rows} == {"ResNet18-BN"}


# --- what differs -------------------------------------------------------------------------------------------


def test_width_protocol_and_copies_are_named() -> None:
    narrow = cifar("dc", 10, eval_arch="convnet-w32", distill_arch="convnet-w32", protocol="quick")
    assert differs(narrow, OFFICIAL) == (f"width 32 against 128; protocol quick against {DC_S}")
    copies = cifar("dc", 10, dataset_fingerprint="511a870f652c3359a4d06530ec08a256")
    assert differs(copies, OFFICIAL) == "data set of JPEG copies"
    wide = differs(cifar("random_real", 10, protocol="quick"), "AutoPalette")
    assert wide == "protocol quick against a recipe that the table does not state"


def test_the_published_selection_is_named_under_the_same_recipe() -> None:
    white = cifar("mtt", 10, protocol="mtt", hyperparameters={"preprocess": "zca"})
    found = differs(white, "AutoPalette")
    assert found == "published: the best of many evaluations on the test set"
    sources = {row["source"]: row["differs"] for row in matched(cifar("dsa", 10, protocol="dsa1000"))}
    assert sources.pop(OFFICIAL) == ""
    bench = {differs for source, differs in sources.items() if "DC-BENCH" in source}
    assert bench == {
        f"protocol dsa1000 against DC-BENCH's, the {x} of several augmentations" for x in ("best", "mean")
    }


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_dc_bench_s_recipe_is_not_dc_s(dataset: str) -> None:
    """It has neither DC's rules by data set, nor its epochs."""
    rows = [
        matched(cifar("dc", 10, dataset=dataset, protocol=name))[0]["differs"] for name in ("dc300", "dc")
    ]
    assert rows == [f"protocol dc300 against {DC_S}", ""]


def test_haba_s_epochs_over_the_bases_are_named() -> None:
    white = {"hyperparameters": {"preprocess": "zca"}}
    apart, same = (
        matched(cifar("haba", 10, protocol=name, **white))[0]["differs"] for name in ("mtt", "haba")
    )
    assert apart == "protocol mtt against HaBa's, 1001 epochs over the bases"
    assert same == "published: the best of many evaluations on the test set"


def test_settings_that_are_not_the_papers_are_named() -> None:
    given = {"steps": 100, "lr": 1.0, "momentum": 0.5, "batch_real": 64}
    found = differs(cifar("dm", 10, protocol="dsa1000", hyperparameters=given), "PAD")
    assert found == "distilled with batch_real 64 (paper 256), steps 100 (paper 20000)"
    plain = cifar("mtt", 10, protocol="mtt", hyperparameters={"preprocess": "normalise"})
    assert "distilled with preprocess normalise (paper zca)" in differs(plain, "PAD")
    white = cifar("mtt", 10, protocol="mtt", hyperparameters={"preprocess": "zca"})
    assert "distilled" not in differs(white, "PAD")


def test_another_deviation_to_divide_by_is_named() -> None:
    """Papers divide CIFAR-10 by the mean deviation of single images, MNIST by that of its pixels."""
    words = "divided by the deviation of all pixels"
    ours = make("dc", 10, dataset="cifar10", eval_arch="convnet", protocol="dc300")
    assert words in differs(ours, OFFICIAL)
    assert words not in differs(cifar("dc", 10), OFFICIAL)
    grey = make("dc", 10, dataset="mnist", eval_arch="convnet", protocol="dc300")
    assert all(words not in row["differs"] for row in matched(grey))
    white = make("mtt", 10, dataset="cifar10", eval_arch="convnet", protocol="mtt")
    assert words not in differs(white, "PAD")


# --- the report ---------------------------------------------------------------------------------------------


def test_the_table_names_sources_and_differences(tmp_path: Path) -> None:
    records = [cifar("dc", 10, (a,), seed=s, protocol="quick") for s, a in enumerate((0.44, 0.45, 0.46))]
    with without_plots():
        build_report(write(tmp_path, records))
    text = (tmp_path / "tables" / "published.md").read_text()
    line = next(line for line in text.splitlines() if "| 44.9 |" in line)
    measured, theirs, difference, number, letters = (part.strip() for part in line.split("|")[4:9])
    assert (measured, theirs) == ("45.0 ± 1.0 [42.5, 47.5]", "44.9")
    assert difference == "+0.1 [-2.4, 2.6]"
    assert f"- {number}: {OFFICIAL}." in text
    assert f"- {letters}: protocol quick against {DC_S}." in text
    assert (tmp_path / "tables" / "published.tex").exists()


def test_without_a_figure_there_is_no_table() -> None:
    assert published_section(RecordsView(record_frame([make()]), ())) is None
