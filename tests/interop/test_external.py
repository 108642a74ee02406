"""Other people's files through the command line: evaluate, import, export, verify."""

import itertools
import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import WriteProtocol
from helpers.cli import Ended, ddbench, leftovers, stable_records, without_plots
from torch import Tensor

from bench.core.distilled import load_distilled
from bench.core.preprocess import Preprocess
from bench.data.dataset import Dataset
from bench.execution.store import WEIGHTS
from bench.interop import diagnose

FAST = ("--architecture", "mlp", "--protocol", "fast", "--students", 2)


def real(digits: Dataset, per_class: int = 2) -> tuple[Tensor, Tensor]:
    """Training images uint8, class after class, and their labels."""
    members = torch.cat([(digits.train.labels == c).nonzero()[:per_class, 0] for c in range(10)])
    return digits.train.images[members], digits.train.labels[members]


def dc_file(path: Path, digits: Dataset, experiments: int = 2, **content: Any) -> Path:
    """As DC publishes: normalised images and labels of several experiments."""
    images, labels = real(digits)
    normalised = Preprocess(digits.mean, digits.std)(images)
    sets = [[normalised.clone(), labels.clone()] for _ in range(experiments)]
    torch.save({"data": sets, "accs_all_exps": {"ConvNet": [0.5, 0.6][:experiments]}, **content}, path)
    return path


def evaluate(file: Path, out: Path, *words: object) -> Ended:
    with without_plots():
        return ddbench("evaluate", file, "--dataset", "digits", "--out", out, *FAST, *words)


def test_a_published_file_gets_the_same_table(
    tmp_path: Path, digits: Dataset, write_protocol: WriteProtocol
) -> None:
    write_protocol("fast")
    file, out = dc_file(tmp_path / "res_DC_digits.pt", digits), tmp_path / "out"
    ended = evaluate(file, out)
    assert ended.code == 0, ended.err
    found = list(stable_records(out).values())
    assert sorted(r["seed"] for r in found) == [0, 1]  # an experiment of the file is a distillation seed
    assert {r["method"] for r in found} == {"res_DC_digits.pt"}
    assert all(r["storage"]["within_budget"] and r["ipc"] == 2 for r in found)
    assert "the file claims" in ended.text
    assert "protocol fast" in ended.text
    assert (out / "tables/summary.md").exists()
    again = evaluate(file, out)
    assert again.code == 0
    assert "Every cell has its record" in again.text
    assert not leftovers(out)


def test_another_network_trains_on_the_artifact_that_is_there(
    tmp_path: Path, digits: Dataset, write_protocol: WriteProtocol
) -> None:
    write_protocol("fast")
    file, out = dc_file(tmp_path / "x.pt", digits, 1), tmp_path / "out"
    evaluate(file, out, "--name", "theirs")
    (key,) = [path.name for path in (out / "artifacts").iterdir()]
    ended = evaluate(file, out, "--name", "theirs", "--architecture", "mlp,convnet-d1-w4")
    assert ended.code == 0, ended.err
    assert [path.name for path in (out / "artifacts").iterdir()] == [key]
    assert {r["eval_arch"] for r in stable_records(out).values()} == {"mlp", "convnet-d1-w4"}
    assert "theirs" in ended.text


def test_what_nobody_measured_is_no_number(
    tmp_path: Path, digits: Dataset, write_protocol: WriteProtocol
) -> None:
    write_protocol("fast")
    out = tmp_path / "out"
    evaluate(dc_file(tmp_path / "x.pt", digits, 1), out)
    (record,) = (json.loads(path.read_text()) for path in (out / "records").iterdir())
    assert record["cost"]["distill_s"] is record["cost"]["bookkeeping_s"] is None
    assert record["cost"]["device"]  # of the evaluation, the only work that was done here
    table = (out / "tables/summary.md").read_text()
    row = next(line for line in table.splitlines() if "x.pt" in line)
    assert "nan" not in table
    assert "—" in row


def test_import_show_export_and_back(tmp_path: Path, digits: Dataset) -> None:
    file, out = dc_file(tmp_path / "x.pt", digits, 1), tmp_path / "out"
    ended = ddbench("import", file, "--dataset", "digits", "--out", out)
    assert ended.code == 0, ended.err
    (folder,) = (out / "artifacts").iterdir()
    assert str(folder) in ended.out
    assert ddbench("show", out).code == 0
    refused = ddbench("export", out, folder.name[:6], "--to", tmp_path / "copy", "--format", "dc")
    assert refused.code == 2
    assert "must end in .pt" in refused.err
    images, labels = load_distilled(folder / WEIGHTS).decode()
    for form, name in (("dc", "copy.pt"), ("plain", "copy"), ("safetensors", "copy.safetensors")):
        target = tmp_path / name
        written = ddbench("export", out, folder.name[:6], "--to", target, "--format", form)
        assert written.code == 0, written.err
        back = ddbench("import", target, "--dataset", "digits", "--out", tmp_path / f"back-{form}")
        assert back.code == 0, back.err
        (other,) = (tmp_path / f"back-{form}/artifacts").iterdir()
        theirs = load_distilled(other / WEIGHTS).decode()
        assert torch.equal(theirs[0], images)
        assert torch.equal(theirs[1], labels)


def test_verify_finds_the_figure(tmp_path: Path, digits: Dataset, write_protocol: WriteProtocol) -> None:
    write_protocol("fast", recipe={"batch_size": 20, "lr": 0.05, "steps": 60})
    file = dc_file(tmp_path / "x.pt", digits, 1)
    words = ("verify", file, "--dataset", "digits", *FAST)
    missed = ddbench(*words, "--expect", 0.2)
    assert missed.code == 1
    measured = float(missed.text.split("measured ")[1].split(" %")[0]) / 100
    met = ddbench(*words, "--expect", measured, "--tolerance", 0.01)
    assert met.code == 0
    assert "reproduced" in met.text
    assert "width" not in met.text  # nothing else is tried


@pytest.mark.parametrize("wrong", ["order", "scale", "axes", "brightness"])
def test_verify_blames_the_right_suspect(
    tmp_path: Path, digits: Dataset, write_protocol: WriteProtocol, wrong: str
) -> None:
    write_protocol("fast", recipe={"batch_size": 20, "lr": 0.05, "steps": 60})
    words = ("--dataset", "digits", *FAST)
    images, labels = real(digits, 5)
    normalised = Preprocess(digits.mean, digits.std)(images)
    right = tmp_path / "right.pt"
    torch.save({"data": [[normalised, labels]], "accs_all_exps": {}}, right)
    told = ddbench("verify", right, *words, "--expect", 0.5, "--tolerance", 0.5)  # any: no search
    expected = float(told.text.split("measured ")[1].split(" %")[0]) / 100
    file = tmp_path / "wrong.pt"
    if wrong in ("axes", "brightness"):
        other = normalised.mT if wrong == "axes" else Preprocess(digits.mean, digits.std)(255 - images)
        torch.save({"data": [[other.contiguous(), labels]], "accs_all_exps": {}}, file)
        ended = ddbench("verify", file, *words, "--expect", expected)
    elif wrong == "order":  # as a folder of classes that was sorted as text
        shuffled = (labels * 3 + 1) % 10
        torch.save({"data": [[normalised, shuffled]], "accs_all_exps": {}}, file)
        ended = ddbench("verify", file, *words, "--expect", expected)
    else:  # what was normalised is told to be whitened
        torch.save({"images": normalised, "labels": labels}, file)
        ended = ddbench("verify", file, *words, "--space", "zca", "--expect", expected)
    assert ended.code == 1
    suspect = {
        "order": "class order 10 classes renamed",
        "scale": "pixel values taken as normalized",
        "axes": "image axes transposed",
        "brightness": "brightness inverted",
    }[wrong]
    verdict = ended.text.split("missed by")[1]
    assert suspect in verdict
    assert abs(float(verdict.split("left unexplained ")[1].split()[0].replace("\N{MINUS SIGN}", "-"))) < 3


class Bomb:
    """A pickle that would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("command", ["evaluate", "import", "verify"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", ["no such file"]),
        ("bomb", ["touch"]),
        ("cut", ["cut.pt"]),
        ("nan", ["NaN"]),
        ("classes", ["labels run from"]),
        ("shape", ["images are"]),
        ("range", ["from 0 to 255", "so it is raw255: pass --space raw255"]),
        ("pair", ["pass --factor", "else --format plain"]),
    ],
)
def test_bad_files_are_one_line(
    tmp_path: Path, digits: Dataset, command: str, kind: str, words: list[str]
) -> None:
    file, mark, out = tmp_path / f"{kind}.pt", tmp_path / "mark", tmp_path / "out"
    images, labels = real(digits)
    floats = Preprocess(digits.mean, digits.std)(images)
    if kind == "bomb":
        file.write_bytes(pickle.dumps({"data": [[Bomb(mark)]]}))
    elif kind == "cut":
        file.write_bytes(dc_file(tmp_path / "whole.pt", digits).read_bytes()[:400])
    elif kind != "missing":
        floats[0] = float("nan") if kind == "nan" else floats[0]
        labels = labels + 5 if kind == "classes" else labels
        floats = {"shape": floats[..., :5], "range": images.float()}.get(kind, floats)
        held = [images / 255, labels] if kind == "pair" else {"data": [[floats, labels]], "accs_all_exps": {}}
        torch.save(held, file)
    more = ("--expect", 0.5) if command == "verify" else ("--out", out)
    ended = ddbench(command, file, "--dataset", "digits", *more)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert all(word in ended.err for word in words), ended.err
    assert not ended.out
    assert not mark.exists()
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--dataset", "digist"), "did you mean digits?"),
        (("--dataset", "{name: digits, sise: 3}"), "--dataset"),
        (("--dataset", "{"), "--dataset"),
        (("--dataset", "digits", "--architecture", "mpl"), "did you mean mlp?"),
        (("--dataset", "digits", "--architecture", "lenet"), "at least 16 pixels"),
        (("--dataset", "digits", "--protocol", "quik"), "did you mean quick?"),
        (("--dataset", "digits", "--students", 0), "--students 0"),
        (("--dataset", "digits", "--space", "raw"), "raw01"),
        (("--dataset", "digits", "--format", "dcc"), "did you mean dc?"),
        (("--dataset", "digits", "--factor", 2), "--factor"),
        (("--dataset", "digits", "--gpus", 3), "gpus"),
    ],
)
def test_bad_arguments_are_one_line(
    tmp_path: Path, digits: Dataset, words: tuple[object, ...], complaint: str
) -> None:
    ended = ddbench("evaluate", dc_file(tmp_path / "x.pt", digits), "--out", tmp_path / "out", *words)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert complaint in ended.err
    assert not (tmp_path / "out").exists()


def test_verify_ends_when_no_suspect_is_left(
    tmp_path: Path, digits: Dataset, write_protocol: WriteProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every trial helps a little, and there are fewer suspects than rounds."""
    write_protocol("fast")
    gains = itertools.count(0.3, 0.02)

    def better(*_: Any) -> SimpleNamespace:
        return SimpleNamespace(scores=SimpleNamespace(accuracies=[next(gains)]))

    monkeypatch.setattr(diagnose, "train_and_score", better)
    monkeypatch.setattr(diagnose, "SUSPECTS", ("augmentation",))
    file = dc_file(tmp_path / "x.pt", digits, 1)
    ended = ddbench("verify", file, "--dataset", "digits", *FAST, "--expect", 0.9)
    assert ended.code == 1, ended.err
    assert "left unexplained +58.0" in ended.text


@pytest.mark.parametrize(("factor", "steps"), [(1, 10), (2, 7)])
def test_rules_know_how_a_foreign_set_is_stored(
    tmp_path: Path, digits: Dataset, write_protocol: WriteProtocol, factor: int, steps: int
) -> None:
    write_protocol("fast", rules=[{"multi_formation": True, "recipe": {"steps": 7}}])
    images, labels = real(digits)
    file, out = tmp_path / "data.pt", tmp_path / "out"
    torch.save([images.float() / 255, labels], file)
    ended = evaluate(file, out, "--format", "idc", "--factor", factor)
    assert ended.code == 0, ended.err
    (record,) = stable_records(out).values()
    assert record["training"]["steps"] == steps
    checked = ddbench("submit-check", out)
    assert checked.code == 0, checked.text


def test_verify_applies_the_rules_of_the_protocol(
    tmp_path: Path, digits: Dataset, write_protocol: WriteProtocol
) -> None:
    write_protocol("fast", rules=[{"datasets": ["digits"], "recipe": {"lr": 0.0625}}])
    file = dc_file(tmp_path / "x.pt", digits, 1)
    ended = ddbench("verify", file, "--dataset", "digits", *FAST, "--expect", 0.5, "--tolerance", 0.99)
    assert ended.code == 0, ended.err
    assert "rate 0.0625" in ended.text
