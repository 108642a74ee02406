"""`preprocess: paper`: the constants reach distillation, students, keys and records."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import find_record, run_inline, sweep_file
from PIL import Image

import bench as dd
from bench.core.errors import UserError
from bench.core.paper_constants import CONSTANTS, paper_normalisation
from bench.core.preprocess import Preprocess
from bench.data.dataset import Dataset
from bench.planning.graph import plan_sweep
from bench.planning.protocols import load_protocols
from bench.planning.sweep import Sweep

GREY = Preprocess((0.1307,), (0.3081,))
TINY = {
    "ipc": [1],
    "distill": {"architectures": ["convnet-d1-w4"], "seeds": [0]},
    "evaluate": {"architectures": ["mlp"], "students": 1, "protocol": "quick"},
}


def test_names_in_any_spelling_and_no_other_number_of_channels() -> None:
    assert paper_normalisation(["Fashion-MNIST"], 1) == Preprocess(*CONSTANTS["fashionmnist"])
    assert paper_normalisation(["birds", "cifar10"], 3) == Preprocess(*CONSTANTS["cifar10"])
    assert paper_normalisation(["cifar10"], 1) is None
    assert paper_normalisation(["birds"], 3) is None


def test_what_distills_sees_the_constants_and_the_set_keeps_them(digits: Dataset) -> None:
    named = dataclasses.replace(digits, label="mnist")
    ours = dd.distill("dm", named, ipc=1, architecture="convnet-d1-w4", steps=1, progress=False)
    theirs = dd.distill(
        "dm", named, ipc=1, architecture="convnet-d1-w4", steps=1, progress=False, preprocess="paper"
    )
    assert theirs.preprocess == GREY != ours.preprocess
    start = GREY.invert(theirs.decode()[0].detach())  # one step after real images
    assert float(start.min()) > -0.5
    assert float(start.max()) < 1.5


def test_the_key_holds_the_constants(digits: Dataset) -> None:
    named = dataclasses.replace(digits, label="mnist")
    plans = []
    for value in ("normalise", "paper"):
        herding = {"name": "herding", "network_steps": 1, "preprocess": value}
        sweep = Sweep.model_validate(
            {**TINY, "name": "x", "datasets": [{"name": "digits", "label": "mnist"}], "methods": [herding]}
        )
        jobs = plan_sweep(sweep, {"mnist": named}, load_protocols(*sweep.evaluate.protocol))
        plans.append(jobs)
    ours, theirs = plans
    assert not ours.keys() & theirs.keys()
    made = [job for job in theirs.values() if job.kind in ("prepare", "distill")]
    assert [job.identity["normalisation"] for job in made] == [GREY.header()] * len(made)


def test_a_data_set_without_constants_is_one_line(digits: Dataset) -> None:
    with pytest.raises(UserError, match="preprocess: paper: no published constants for digits"):
        dd.distill("dm", digits, ipc=1, architecture="mlp", steps=1, preprocess="paper")


def test_records_and_labels_say_it(tmp_path: Path, digits: Dataset) -> None:
    for split, images in (("train", digits.train), ("test", digits.test)):
        for c in range(2):
            folder = tmp_path / "data" / split / str(c)
            folder.mkdir(parents=True)
            for i, image in enumerate(images.images[images.labels == c][:4]):
                Image.fromarray(np.asarray(image[0])).convert("RGB").save(folder / f"{i}.png")
    sweep = sweep_file(
        tmp_path,
        **TINY,
        datasets=[{"name": "image_folder", "label": "cifar10", "path": str(tmp_path / "data")}],
        methods=[{"name": "random_real", "preprocess": "paper"}],
    )
    ended = run_inline(sweep, tmp_path / "out")
    assert ended.code == 0, ended.err
    record = json.loads(find_record(tmp_path / "out").read_text())
    assert record["hyperparameters"] == {"preprocess": "paper"}
    assert record["training"]["preprocess"] == "paper"
