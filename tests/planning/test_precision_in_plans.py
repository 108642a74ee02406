"""Where a precision enters the plan, what keeps fp32, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
from helpers.plan import QUICK, Jobs, dataset, keys, planned, sweep
from pydantic import ValidationError

from bench.core.errors import UserError
from bench.planning.graph import plan_sweep, recorded_hyperparameters
from bench.planning.protocols import load_protocol
from bench.planning.sweep import Sweep, build_method
from bench.records.naming import without_regime

EXACT = ["rtp", "bptt", "rat_bptt", "mtt", "tesla", "datm", "haba"]


def at(precision: str | None, method: Any = "dm") -> Sweep:
    """A sweep of one method at a precision; None: without a word of it."""
    asked = {} if precision is None else {"precision": precision}
    return sweep(methods=[method], distill={"architectures": ["convnet-d2-w8"], "seeds": [0], **asked})


def precisions(jobs: Jobs) -> dict[str, set[str]]:
    """The precisions in the identities of each kind of job."""
    found: dict[str, set[str]] = {}
    for job in jobs.values():
        found.setdefault(job.kind, set()).add(
            job.identity.get("protocol", job.identity).get("precision", "not said")
        )
    return found


def plan(chosen: Sweep) -> Jobs:
    return plan_sweep(chosen, {"digits": dataset()}, chosen.protocols)


def test_fp32_is_the_default_and_moves_no_key() -> None:
    assert plan(at("fp32")).keys() == plan(at(None)).keys() == planned(sweep()).keys()
    assert precisions(plan(at("fp32"))) == {"distill": {"not said"}, "evaluate": {"not said"}}


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_another_precision_is_another_set(precision: str) -> None:
    jobs = plan(at(precision))
    assert precisions(jobs) == {"distill": {precision}, "evaluate": {"not said"}}
    assert not jobs.keys() & plan(at("fp32")).keys()
    (job,) = (jobs[key] for key in keys("distill", jobs))
    assert recorded_hyperparameters(job.identity)["precision"] == precision
    assert "precision" not in job.identity["hyperparameters"]
    assert precision in job.label


def test_prerequisites_have_the_precision_of_what_needs_them() -> None:
    assert precisions(plan(at("bf16", "herding")))["prepare"] == {"bf16"}


def test_a_whitening_is_always_exact() -> None:
    jobs = plan(at("bf16", {"name": "dm", "preprocess": "zca"}))
    assert precisions(jobs) == {"prepare": {"not said"}, "distill": {"bf16"}, "evaluate": {"not said"}}


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_exact_gradients_keep_fp32_unless_their_entry_asks(method: str, precision: str) -> None:
    for chosen in (at(precision, method), at(precision, {"name": method, "precision": "fp32"})):
        assert set().union(*precisions(plan(chosen)).values()) == {"not said"}
    asked = precisions(plan(at(None, {"name": method, "precision": "tf32"})))
    assert asked.pop("evaluate") == {"not said"}
    assert set().union(*asked.values()) == {"tf32"}


@pytest.mark.parametrize(
    "entry",
    [*EXACT, "compose-unrolled", "compose-trajectory_matching"],
)
def test_exact_gradients_at_bf16_are_refused_in_a_line(entry: str) -> None:
    name, _, objective = entry.partition("-")
    values = {"objective": objective} if objective else {}
    with pytest.raises(UserError, match=f"method {name}: precision: bf16 .* use fp32 or tf32") as told:
        plan(at(None, {"name": name, "precision": "bf16", **values}))
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize("method", ["random_real", "class_mean", "noise", "full"])
def test_sets_made_without_a_network_are_the_same_at_every_precision(method: str) -> None:
    assert plan(at("bf16", method)).keys() == plan(at(None, method)).keys()


def test_an_entry_wins_over_the_sweep() -> None:
    assert precisions(plan(at("bf16", {"name": "dm", "precision": "tf32"})))["distill"] == {"tf32"}
    assert precisions(plan(at("bf16", {"name": "dm", "precision": "fp32"})))["distill"] == {"not said"}


def test_students_have_a_precision_of_their_own() -> None:
    chosen = sweep(precision="bf16")
    jobs, plain = plan(chosen), planned(sweep())
    assert precisions(jobs) == {"distill": {"not said"}, "evaluate": {"bf16"}}
    assert keys("distill", jobs) == keys("distill", plain)
    (protocol,) = chosen.protocols
    assert (protocol.name, protocol.precision) == ("quick@bf16", "bf16")
    assert without_regime("standard.soft@bf16") == "standard@bf16"
    assert sweep(precision="fp32").protocols == [QUICK]


def test_a_teacher_has_the_precision_of_the_students() -> None:
    jobs = plan(sweep(precision="tf32", protocol="standard.teacher"))
    assert precisions(jobs)["prepare"] == precisions(jobs)["evaluate"] == {"tf32"}
    assert load_protocol("standard.teacher").precision == "fp32"


@pytest.mark.parametrize("where", ["distill", "evaluate", "method"])
def test_an_unknown_precision_names_the_known_ones(where: str) -> None:
    asked: dict[str, Callable[[], Any]] = {
        "distill": lambda: at("fp16"),
        "evaluate": lambda: sweep(precision="fp16"),
        "method": lambda: at(None, {"name": "dm", "precision": "fp16"}),
    }
    with pytest.raises((UserError, ValidationError)) as told:
        asked[where]()
    assert all(known in str(told.value) for known in ("fp32", "tf32", "bf16"))


def test_a_method_takes_a_precision_as_it_takes_a_preprocess() -> None:
    assert build_method("dm", {"precision": "bf16", "steps": 3}) == build_method("dm", {"steps": 3})
