"""Teachers by file: written, read, used by a sweep in the place of a protocol's own, and refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import WriteProtocol
from helpers.cli import ONE_METHOD, ddbench, run_inline, stable_records, sweep_file
from safetensors.torch import save_file
from torch import Tensor

from bench.core import random
from bench.core.networks.architecture import parse_architecture
from bench.core.teacher_file import TeacherFile, read_teacher
from bench.records.reader import load_frame
from bench.records.to_sweep import sweep_of

NAME = "convnet-d1-w4-batch"
TAUGHT = {"recipe": {"batch_size": 50, "lr": 0.05, "steps": 4}, "stops": [0.5, 1.0]}


def state(seed: int = 0, name: str = NAME) -> dict[str, Tensor]:
    return dict(parse_architecture(name).build((1, 8, 8), 10, random.generator(seed)).state_dict())


def teacher(*words: Any) -> Any:
    return ddbench("teacher", *words, "--dataset", "digits")


def test_a_file_keeps_all_of_it(tmp_path: Path) -> None:
    kept = TeacherFile(NAME, 12.5, state())
    kept.save(path := tmp_path / "t.safetensors")
    found = read_teacher(path)
    assert (found.architecture, found.seconds, found.digest) == (NAME, 12.5, kept.digest)
    assert all(torch.equal(found.state[name], tensor) for name, tensor in state().items())


def test_the_digest_is_of_the_weights_alone() -> None:
    digest = TeacherFile(NAME, 1.0, state()).digest
    assert TeacherFile(NAME, 9.0, dict(reversed(state().items()))).digest == digest
    moved = state()
    moved["classifier.bias"] = moved["classifier.bias"] + 1e-6
    assert TeacherFile(NAME, 1.0, moved).digest != digest


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "parallel"])
def test_weights_as_others_save_them(wrap: str, tmp_path: Path) -> None:
    weights = {f"module.{k}": t for k, t in state().items()} if wrap == "parallel" else state()
    torch.save({"state_dict": weights, "epoch": 3} if wrap == "state_dict" else weights, tmp_path / "net.pth")
    to = tmp_path / "t.safetensors"
    ended = teacher(tmp_path / "net.pth", "--architecture", NAME, "--seconds", 60, "--to", to)
    assert ended.code == 0, ended.err
    assert read_teacher(to).digest == TeacherFile(NAME, 60.0, state()).digest
    assert f"evaluate: {{teacher: {to}}}" in ended.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seconds", "1"], "does not say its architecture: name it with --architecture"),
        (["--architecture", NAME], "does not say what its training took: give --seconds"),
        (
            ["--architecture", "convnet-d1-w8-batch", "--seconds", "1"],
            "name its own architecture and data set",
        ),
        (["--architecture", "convnet-d1-w4", "--seconds", "1"], "missing: name its own architecture"),
        (["--architecture", "resnet1", "--seconds", "1"], "no architecture named 'resnet1'"),
    ],
)
def test_weights_that_cannot_be_used_are_one_line(words: list[str], told: str, tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "net.pth")
    ended = teacher(tmp_path / "net.pth", *words, "--to", tmp_path / "t.safetensors")
    assert ended.code == 2
    assert told in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "t.safetensors").exists()


def test_other_files_are_no_teachers(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    assert "holds no weights" in teacher(tmp_path / "list.pt", "--to", tmp_path / "t.safetensors").err
    save_file(state(), tmp_path / "plain.safetensors")
    for name, told in (("plain.safetensors", "is no teacher's file"), ("absent", "no such file")):
        sweep = with_teacher(tmp_path, tmp_path / name)
        ended = run_inline(sweep, tmp_path / "out")
        assert ended.code == 2
        assert told in ended.err
        assert not (tmp_path / "out").exists()


def artifacts(out: Path, word: str) -> list[Path]:
    return [path.parent for path in out.glob("artifacts/*/meta.json") if f'"{word}"' in path.read_text()]


def with_teacher(tmp_path: Path, file: Path | None) -> Path:
    given = {} if file is None else {"teacher": str(file)}
    evaluate = {"architectures": ["mlp"], "students": 1, "protocol": ["mine.soft", "mine.teacher"], **given}
    return sweep_file(tmp_path, **{**ONE_METHOD, "evaluate": evaluate})


def test_a_given_teacher_labels_in_the_place_of_a_protocol_s(
    tmp_path: Path, write_protocol: WriteProtocol
) -> None:
    """Its records are told from those under the protocol's own, say what it cost, and can be made again."""
    write_protocol("mine", variants={k: {"labels": k, "teacher": TAUGHT} for k in ("soft", "teacher")})
    file, out = tmp_path / "t.safetensors", tmp_path / "out"
    given = TeacherFile(NAME, 77.0, state())
    given.save(file)
    assert run_inline(with_teacher(tmp_path, None), out).code == 0
    own = stable_records(out)
    ended = run_inline(with_teacher(tmp_path, file), out)
    assert ended.code == 0, ended.err
    found = {key: record for key, record in stable_records(out).items() if key not in own}
    names = {f"mine.{kind}@{given.digest[:8]}" for kind in ("soft", "teacher")}
    assert {record["protocol"] for record in found.values()} == names
    wanted = {"architecture": NAME, "weights": given.digest}
    assert all(record["training"]["given_teacher"] == wanted for record in found.values())
    costs = [json.loads((out / "records" / key).read_text())["cost"] for key in found]
    assert {cost["teacher_s"] for cost in costs} == {77.0}

    file.unlink()  # what was made stays, and says what made it
    checked = ddbench("submit-check", out, "--sample", 8)
    assert checked.code == 0, checked.out
    rows = [row for row in load_frame(out)[0].to_dict("records") if "@" in row["protocol_name"]]
    assert sweep_of(rows[:1], {"name": "digits"})["evaluate"]["teacher"] == wanted

    again = teacher(artifacts(out, "ImportedTeacher")[0], "--to", tmp_path / "again.safetensors")
    assert again.code == 0, again.err
    assert read_teacher(tmp_path / "again.safetensors").digest == given.digest


def test_a_teacher_of_a_run_goes_into_a_file(tmp_path: Path, write_protocol: WriteProtocol) -> None:
    write_protocol("mine", variants={k: {"labels": k, "teacher": TAUGHT} for k in ("soft", "teacher")})
    assert run_inline(with_teacher(tmp_path, None), tmp_path / "out").code == 0
    made = artifacts(tmp_path / "out", "prepare")[0]
    ended = teacher(made, "--to", tmp_path / "t.safetensors")
    assert ended.code == 0, ended.err
    kept, cost = (
        read_teacher(tmp_path / "t.safetensors"),
        json.loads((made / "meta.json").read_text())["cost"],
    )
    assert (kept.architecture, kept.seconds) == ("mlp", cost["prepare_s"])
    other = artifacts(tmp_path / "out", "distill")[0]
    assert "is no teacher" in teacher(other, "--to", tmp_path / "other.safetensors").err
