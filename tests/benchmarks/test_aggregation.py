"""From a folder of records to all tables, at 1,000 to 100,000 records. Run by `make benchmark`.

The records are made up and look like those of sweeps: data sets, protocols with and without augmentation and
soft labels, architectures, methods in several variants, the baselines that scores need, three seeds a cell,
half of the cells with a curve. As a program, this prints the seconds and the peak memory of one aggregation
of the folder that it is given.
"""

import hashlib
import itertools
import json
import math
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.records.reader import PARQUET, load_frame, uncollected
from bench.records.schema import RECORD_SCHEMA, content_digest
from bench.reporting.build import SECTIONS, texts
from bench.reporting.sections import RecordsView

DATASETS = {"cifar10": 10, "svhn": 10, "mnist": 10, "cifar100": 100, "fashion_mnist": 10, "imagenette": 10}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "standard": {"labels": "stored", "soft": True, "augment": "flip_crop"},
    "hard": {"labels": "hard", "soft": False, "augment": "flip_crop"},
    "plain": {"labels": "stored", "soft": True, "augment": "none"},
}
ARCHS = ("convnet-d3-w128", "resnet18", "vgg11", "alexnet")
SOURCES = ARCHS[:2]
IPCS = (1, 10, 50)
METHODS = ("dc", "dsa", "dm", "mtt", "tesla", "haba", "idc", "frepo", "datm", "rat_bptt")
VARIANTS = 2  # of each method, by its hyperparameters
SEEDS, STUDENTS = 3, 3
PER_DATASET = 4464  # records: all that follows from the above


def cells(datasets: int) -> Iterator[dict[str, Any]]:
    """What was distilled and where it was scored: the baselines of all data sets, then method by method."""
    known = itertools.islice(
        ((f"{n}{i or ''}", c) for i in itertools.count() for n, c in DATASETS.items()), datasets
    )
    wheres = [
        {"dataset": dataset, "n_classes": classes, "protocol": protocol, "eval_arch": arch}
        for (dataset, classes), protocol, arch in itertools.product(known, PROTOCOLS, ARCHS)
    ]
    whole = [{"method": "full", "ipc": None, "distill_arch": "any", "variant": 0}]
    random = [{"method": "random_real", "ipc": ipc, "distill_arch": "any", "variant": 0} for ipc in IPCS]
    yield from (where | made for where in wheres for made in whole + random)
    for variant, method in itertools.product(range(VARIANTS), METHODS):
        for where, ipc, source in itertools.product(wheres, IPCS, SOURCES):
            yield where | {"method": method, "ipc": ipc, "distill_arch": source, "variant": variant}


def content(cell: dict[str, Any], seed: int, curve: bool, rng: np.random.Generator) -> dict[str, Any]:
    """A record as JSON: accuracies of a test split of 10,000 images, timings that never come twice."""
    method, classes = cell["method"], cell["n_classes"]
    ipc = cell["ipc"] or 5000
    level = (
        0.9 if method == "full" else 0.3 + 0.1 * np.log10(ipc) + 0.01 * len(method) + 0.02 * cell["variant"]
    )
    drawn = np.clip(rng.normal(level - 0.05 * ARCHS.index(cell["eval_arch"]), 0.01, STUDENTS), 0, 1).round(4)
    steps = 3000
    ends = [
        {"fraction": f, "step": int(f * steps), "accuracies": (drawn * (0.7 + 0.25 * f)).round(4).tolist()}
        for f in (0.1, 0.25, 0.5)
    ]
    per_class = np.clip(rng.normal(level, 0.1, (STUDENTS, classes)), 0, 1).round(3).tolist()
    training = PROTOCOLS[cell["protocol"]]
    if method == "full":
        training = training | {"labels": "hard", "soft": False}
    floats = ipc * classes * 3072
    hyperparameters = {"steps": 1000 * (1 + cell["variant"]), "lr": 0.1, "init": "real", "batch_real": 256}
    identity = json.dumps([cell, seed], sort_keys=True)
    seconds = rng.exponential(100.0, 3).tolist()
    return {
        "schema_version": RECORD_SCHEMA, "key": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "artifact": hashlib.sha256(f"{identity} distilled".encode()).hexdigest()[:16],
        "method": method, "method_version": 1, "hyperparameters": hyperparameters,
        "dataset": cell["dataset"], "dataset_fingerprint": hashlib.md5(cell["dataset"].encode()).hexdigest(),
        "image_shape": [3, 32, 32], "n_classes": classes, "ipc": cell["ipc"],
        "distill_arch": cell["distill_arch"], "eval_arch": cell["eval_arch"],
        "protocol": cell["protocol"], "protocol_version": 1, "seed": seed, "accuracies": drawn.tolist(),
        "metrics": {
            "class_accuracies": per_class, "calibration_errors": rng.uniform(0, 0.2, STUDENTS).tolist(),
            "agreement": float(rng.uniform(0.5, 1)), "diverged": 0, "curve": ends if curve else [],
            "snapshots": None,
        },
        "training": {
            "steps": steps, "lr": 0.01, "lr_from": "protocol", "holdout_scores": None, "cutmix": 0.0,
            "preprocess": "normalise", **training,
        },
        "storage": {
            "floats": floats, "bytes": 4 * floats, "bytes_uint8": floats, "ipc_equivalent": float(ipc),
            "within_budget": True, "exempt": method == "full", "transform_floats": 0,
            "teacher_bytes": 0,
        },
        "cost": {
            "prepare_s": seconds[0], "prerequisites_s": {"experts": seconds[0]}, "teacher_s": 0.0,
            "distill_s": seconds[1], "bookkeeping_s": 0.1, "tune_s": 0.0, "evaluate_s": seconds[2],
            "peak_memory_bytes": 2**30, "peak_memory": {"distill": 2**30, "evaluate": 2**29},
            "device": "NVIDIA H100", "cpus": 4, "gpus": 1.0, "exclusive": True, "warm": True, "cold": [],
        },
        "versions": {"python": "3.11.7", "ddbench": "0.1.0", "torch": "2.14.1", "commit": "2a56a1c4" * 5},
    }  # fmt: skip


def contents(count: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    found = cells(max(2, math.ceil(count / PER_DATASET)))
    whole = ((cell, seed, i % 2 == 0) for i, cell in enumerate(found) for seed in range(SEEDS))
    for cell, seed, curve in itertools.islice(whole, count):
        yield content(cell, seed, curve, rng)


def generate(directory: Path, count: int) -> Path:
    """A results folder of so many records, as `bench.records.schema.dump` writes them."""
    folder = directory / "records"
    folder.mkdir(parents=True)
    for record in contents(count):
        text = json.dumps({**record, "sha256": content_digest(record)}, indent=1) + "\n"
        (folder / f"{record['key']}.json").write_text(text)
    return directory


def aggregate(directory: Path) -> dict[str, Any]:
    """All tables of a folder as CSV, Markdown and LaTeX: their rows, seconds, and the peak memory.

    What several need is made by the first of them. Plots are not drawn.
    """
    seconds: dict[str, float] = {}
    rows: dict[str, int] = {}
    start = time.perf_counter()
    with uncollected():  # as `report.build` does
        view = RecordsView(load_frame(directory)[0], (directory,))
        seconds["read"] = time.perf_counter() - start
        for make_section in SECTIONS:
            began = time.perf_counter()
            shown = make_section(view)
            if shown is not None and texts(shown):
                rows[shown.stem] = 0 if shown.frame is None else len(shown.frame)
                seconds[shown.stem] = time.perf_counter() - began
    seconds["all"] = time.perf_counter() - start
    status = Path(
        "/proc/self/status"
    ).read_text()  # getrusage would give the peak of the parent of this process
    own = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"rows": rows, "seconds": seconds, "peak_mib": {"own": own, "largest worker": worker}}


@pytest.fixture(scope="module", params=[1_000, 10_000, 100_000])
def folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    return request.param, generate(tmp_path_factory.mktemp("records"), request.param)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("source", ["json", "parquet"])
def test_all_tables(benchmark: Any, folder: tuple[int, Path], source: str) -> None:
    """In a process of its own, so that its peak is that of the aggregation; its start is not in `seconds`."""
    count, directory = folder
    if source == "json":
        (directory / PARQUET).unlink(missing_ok=True)
    command = [sys.executable, __file__, str(directory)]
    done = benchmark.pedantic(
        subprocess.run, (command,), {"capture_output": True, "check": True, "text": True}, rounds=1
    )
    found = json.loads(done.stdout)
    benchmark.extra_info.update(found)
    print(f"\n{count:,} records from {source}: {done.stdout.strip()}")
    assert found["rows"]["summary"] == math.ceil(count / SEEDS)
    assert found["rows"]["metrics"] == found["rows"]["summary"]
    assert min(found["rows"].values()) > 0


if __name__ == "__main__":
    print(json.dumps(aggregate(Path(sys.argv[1]))))
