"""A budget of operations: the same steps on every machine, prerequisites paid first, what it cannot pay."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cli import ddbench, run_inline, sweep_file

from bench.core.errors import UserError
from bench.core.method import Method
from bench.core.networks.architecture import parse_architecture
from bench.data.dataset import Dataset
from bench.execution.budget import ComputeBudget
from bench.planning.graph import Cell
from bench.planning.sweep import MethodEntry
from bench.records.reader import load_frame
from methods.dm import DM
from methods.random_real import RandomReal

CPU = torch.device("cpu")
NETWORK = parse_architecture("convnet-d1-w4")
FIRST, LAST = 2 * 9 * 4 * 8 * 8, 2 * 4 * 4 * 4 * 10  # operations of an image: a convolution, the classifier
TRAINED = 3 * (FIRST + LAST) - FIRST  # forward and backward; the first layer passes nothing on to the image
MTT = {"inner_steps": 2, "experts": 2, "expert_epochs": 1, "start_epochs": 1, "expert_batch": 100}
IDC = {"inner_steps": 4, "net_images": 64, "batch_real": 8}
DSA = {"inner_steps": 4, "net_epochs": 1, "batch_real": 8}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of this test alone."""
    monkeypatch.setattr("bench.execution.budget.cache_dir", lambda: tmp_path / "cache")


def fitted(digits: Dataset, limit: float, name: str, ipc: int = 1, **values: Any) -> Method | None:
    entry = MethodEntry.model_validate({"name": name, **values})
    return ComputeBudget(limit, {"digits": digits}, CPU).fit(
        entry, entry.resolve("digits", ipc), Cell(digits, ipc, NETWORK, 0)
    )


def test_steps_are_as_many_as_the_budget_pays_for(digits: Dataset) -> None:
    """DM: a forward pass of real images, and forward and backward through the features of synthetic ones."""
    step = 10 * 16 * FIRST + 10 * 2 * FIRST
    for limit, steps in ((step, 1), (7 * step, 7), (8 * step - 1, 7)):
        found = fitted(digits, limit, "dm", batch_real=16)
        assert isinstance(found, DM)
        assert found.steps == steps


def test_prerequisites_are_paid_first(digits: Dataset) -> None:
    """An epoch of two experts; then the steps are as many as the rest pays for."""
    paid = 2 * len(digits.train.labels) * TRAINED
    assert fitted(digits, paid, "mtt", **MTT) is None
    steps = [vars(fitted(digits, paid + rest, "mtt", **MTT))["steps"] for rest in (1e8, 1e9)]
    assert steps[0] > 100
    assert steps[1] == pytest.approx(10 * steps[0], abs=10)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("dm", {}),
        ("mtt", MTT),
        ("rat_bptt", {"unroll": 9, "window": 3}),
        ("idc", IDC),
        ("dsa", DSA),
    ],
)
def test_threads_and_seeds_do_not_move_steps(
    name: str, values: dict[str, Any], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = MethodEntry.model_validate({"name": name, **values})
    method, found, threads = entry.resolve("digits", 1), set(), torch.get_num_threads()
    for n in (1, 2):
        monkeypatch.setattr("bench.execution.budget.cache_dir", lambda n=n: tmp_path / f"cache {n}")
        torch.set_num_threads(n)
        try:
            budget = ComputeBudget(1e10, {"digits": digits}, CPU)
            found.add(budget.fit(entry, method, Cell(digits, 1, NETWORK, seed=n)))
        finally:
            torch.set_num_threads(threads)
    assert len(found) == 1
    assert None not in found


def test_iterations_are_whole_networks(digits: Dataset) -> None:
    one = 1e9 / vars(fitted(digits, 1e9, "idc", inner_steps=1))["iterations"]
    ten = fitted(digits, 1e9, "idc", inner_steps=10)
    assert vars(ten)["inner_steps"] == 10
    assert vars(ten)["iterations"] <= 1e9 / one / 5


def test_what_has_no_steps_runs_as_it_is(digits: Dataset) -> None:
    assert fitted(digits, 1, "random_real") == RandomReal()
    assert fitted(digits, 1, "herding", network_steps=10) is not None


def test_a_count_is_made_once(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fitted(digits, 1e8, "mtt", **MTT)
    monkeypatch.setattr("bench.execution.budget.JobOperations", None)
    assert fitted(digits, 1e8, "mtt", **MTT) == first
    (tmp_path / "cache").rename(tmp_path / "gone")
    with pytest.raises(UserError, match=r"the operations of .* cannot be counted: TypeError"):
        fitted(digits, 1e8, "mtt", **MTT)


def test_a_damaged_count_is_made_again(digits: Dataset, tmp_path: Path) -> None:
    first = fitted(digits, 1e8, "dm")
    for path in (tmp_path / "cache/operations").iterdir():
        path.write_text("{}")
    assert fitted(digits, 1e8, "dm") == first


def test_a_sweep_within_a_budget(tmp_path: Path) -> None:
    """End to end: a method with steps, one without, and one that cannot take a step."""
    methods = ["random_real", {"name": "dm", "batch_real": 8}, {"name": "mtt", **MTT}]
    path = sweep_file(tmp_path, methods=methods, budget={"compute": "5 MFLOP"})
    ended = run_inline(path, tmp_path / "out")
    assert ended.code == 0, ended.err
    assert "5 MFLOP pay for dm digits ipc 1 convnet-d1-w4 1" in ended.text
    (left_out,) = [line for line in ended.out.splitlines() if "mtt digits ipc 1" in line]
    assert left_out.startswith("left out of 5 MFLOP: mtt digits ipc 1 convnet-d1-w4 takes ")
    frame, problems = load_frame(tmp_path / "out")
    assert problems == []
    assert set(frame["method_name"]) == {"random_real", "dm"}
    assert set(frame["compute_budget"]) == {5e6}
    spent = frame[frame["method_name"] == "dm"]["distill_operations"]
    assert spent.between(4e6, 5e6).all()
    again = ddbench("plan", path, "--out", tmp_path / "out")
    assert "to run: nothing" in again.text


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        (
            [{"name": "dm", "steps": 5}],
            "methods.dm.steps: budget.compute sets it, so leave one of the two out",
        ),
        ([{"name": "dsa", "iterations": 5}], "methods.dsa.iterations: budget.compute sets it"),
        ([{"name": "dm", "batch_real": 8}], "left out of 10 FLOP: dm digits ipc 1 convnet-d1-w4 takes"),
    ],
)
def test_a_budget_that_cannot_be_is_one_line(methods: list[Any], said: str, tmp_path: Path) -> None:
    path = sweep_file(tmp_path, methods=methods, ipc=[1], budget={"compute": "10 FLOP"})
    for command in ("plan", "run"):
        ended = ddbench(command, path, "--out", tmp_path / "out")
        assert ended.code == 2
        assert said in " ".join(ended.err.split())
        assert "Traceback" not in ended.err
        assert not (tmp_path / "out").exists()


@dataclasses.dataclass(frozen=True)
class Nameless(DM):
    """DM whose number of steps has another name."""

    steps: Any = None
    turns: int = 5

    def distill(self, problem: Any) -> Any:
        """As DM."""
        return DM(steps=self.turns, batch_real=8).distill(problem)


def test_a_loop_whose_steps_have_no_known_name_is_left_out(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.execution.budget.build_method", lambda name, values: Nameless(**values))
    budget = ComputeBudget(1e12, {"digits": digits}, CPU)
    entry = MethodEntry.model_validate("dm")
    assert budget.fit(entry, Nameless(), Cell(digits, 1, NETWORK, 0)) is None
    (line,) = budget.summary()
    assert "names no steps or iterations, which a budget could set" in line
