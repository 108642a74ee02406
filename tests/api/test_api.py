"""`import bench as dd`: the same sets and scores as a sweep, from Python."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import WriteProtocol
from helpers.cli import ONE_METHOD, find_record, run_inline, sweep_file

import bench as dd
from bench.execution.store import WEIGHTS
from bench.records.schema import load_record

ROOT = Path(__file__).parents[2]
NETWORK = "convnet-d1-w4"


def test_importing_it_loads_nothing() -> None:
    code = "import sys, bench; print({'torch', 'pandas', 'ray', 'matplotlib'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_every_name_is_there_and_documented() -> None:
    assert dir(dd) == sorted(dd.__all__)
    for name in dd.__all__:
        assert getattr(dd, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        dd.distil  # noqa: B018  (to look it up is the test)


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("random_real", {}),
        ("dm", {"steps": 2}),
        ("herding", {"network_steps": 5}),
        ("dm", {"steps": 1, "preprocess": "zca"}),
        ("mtt", {"steps": 1, "inner_steps": 2, "experts": 1, "start_epochs": 1, "expert_epochs": 1}),
    ],
)
def test_a_set_is_that_of_a_sweep_to_the_last_bit(
    method: str, values: dict[str, Any], tmp_path: Path
) -> None:
    sweep = sweep_file(
        tmp_path,
        methods=[{"name": method, **values}],
        ipc=[1],
        distill={"architectures": [NETWORK], "seeds": [1]},
    )
    run_inline(sweep, tmp_path / "out")
    record = load_record(find_record(tmp_path / "out", method=method))
    stored = dd.load(tmp_path / "out" / "artifacts" / record.artifact / WEIGHTS)
    data = dd.load_dataset("digits")
    made = dd.distill(method, data, ipc=1, architecture=NETWORK, seed=1, **values)
    for here, there in zip(made.decode(), stored.decode(), strict=True):
        assert torch.equal(here, there)
    scored = dd.evaluate(made, data, protocol="quick", architecture="mlp", students=1, seed=1)
    assert scored.accuracies == record.accuracies
    assert scored.stored_floats == record.storage.floats
    assert scored.ipc_equivalent == record.storage.ipc_equivalent


def test_a_set_can_be_kept_and_shown(tmp_path: Path) -> None:
    data = dd.load_dataset("digits")
    made = dd.distill("random_real", data, ipc=2)
    made.save(tmp_path / "set.safetensors")
    again = dd.load(tmp_path / "set.safetensors")
    assert torch.equal(again.decode()[0], made.decode()[0])
    figure = dd.show(again, data.classes, title="two of each", path=tmp_path / "set.png")
    assert (tmp_path / "set.png").read_bytes().startswith(b"\x89PNG")
    assert "two of each" in [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize(("labels", "floats"), [("stored", 640), ("teacher", 640), ("soft", 740)])
def test_protocols_with_a_teacher_and_with_a_choice_of_rates(
    labels: str, floats: int, tmp_path: Path, write_protocol: Any
) -> None:
    teacher = {"recipe": {"batch_size": 20, "lr": 0.03, "steps": 5}, "stops": [0.5, 1.0]}
    taught = {"labels": labels, "teacher": teacher}
    write_protocol("mine", **({"rates": [0.03, 0.1]} if labels == "stored" else taught))
    data = dd.load_dataset("digits")
    found = dd.evaluate(
        dd.distill("random_real", data, ipc=1), data, protocol="mine", architecture="mlp", students=2
    )
    assert len(found.accuracies) == 2
    assert found.lr in (0.03, 0.1)
    assert found.stored_floats == floats
    assert repr(found).startswith(f"<Evaluation {100 * found.accuracy:.1f} % ± ")


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda data: dd.load_dataset("digit"), r"did you mean digits\?"),
        (lambda data: dd.load_dataset("mnist"), "needs data_dir"),
        (lambda data: dd.load_dataset(7), "a name, a folder or a mapping"),
        (lambda data: dd.distill("dm2", data, ipc=1), r"did you mean dm\?"),
        (lambda data: dd.distill("dm", data, ipc=1, step=1), "does not take the parameter 'step'"),
        (lambda data: dd.distill("random_real", data, ipc=1000), "use 1 to 139"),
        (lambda data: dd.distill("dm", data, ipc=0), "at least 1"),
        (lambda data: dd.distill("dc", data, ipc=1, architecture="convnet-d1-w4-batch"), "BatchNorm2d"),
        (lambda data: dd.distill("dm", data, ipc=1, architecture="convnet-d9"), "too deep"),
        (lambda data: dd.evaluate(dd.distill("noise", data, ipc=1), data, students=0), "at least 1"),
        (lambda data: dd.load_records("/nowhere"), "no records in"),
        (lambda data: dd.load_records(), "at least one"),
        (lambda data: dd.run("/nowhere.yaml"), "no such file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(call: Any, complaint: str) -> None:
    with pytest.raises(dd.UserError, match=complaint) as caught:
        call(dd.load_dataset("digits"))
    assert "\n" not in str(caught.value)


def test_results_are_frames(tmp_path: Path) -> None:
    folder = dd.run(sweep_file(tmp_path, **ONE_METHOD), out=tmp_path / "out", executor="inline")
    assert folder == tmp_path / "out"
    frame = dd.load_records(folder)
    assert len(frame) == 2
    assert isinstance(frame, pd.DataFrame)
    pd.testing.assert_frame_equal(dd.summary(frame), dd.summary(str(folder)))
    moved = dd.compare(frame, folder)
    assert moved["difference"].tolist() == [0.0]
    assert moved.attrs["notes"] == []
    written = dd.report(folder, html=True)
    assert folder / "index.html" in written
    assert all(path.is_file() for path in written)


def test_a_failed_job_is_an_error_and_the_rest_is_kept(tmp_path: Path) -> None:
    sweep = sweep_file(tmp_path, methods=["random_real", {"name": "dm", "steps": 3, "lr": 1e30}], ipc=[1])
    with pytest.raises(dd.UserError, match="not finite"):
        dd.run(sweep, out=tmp_path / "out", executor="inline")
    assert set(dd.load_records(tmp_path / "out")["method"]) == {"random_real"}


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(ROOT / "examples" / "quickstart.py"))
    assert (tmp_path / "digits.png").is_file()
    assert 0.5 < found["scored"].accuracy < 1


def test_evaluate_applies_the_rules_of_the_protocol(write_protocol: WriteProtocol) -> None:
    write_protocol("fast", rules=[{"datasets": ["digits"], "recipe": {"lr": 0.25}}])
    data = dd.load_dataset("digits")
    made = dd.distill("random_real", data, ipc=1)
    assert dd.evaluate(made, data, protocol="fast", architecture="mlp", students=1).lr == 0.25
