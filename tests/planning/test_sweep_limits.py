"""Sweep files that ask for more than anybody means: one short message, at once."""

from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.cli import ddbench, sweep_file

from bench.core.errors import UserError
from bench.core.registry import method_class
from bench.core.strict import check_distinct, valid_name
from bench.planning.overrides import read_overrides, set_keys
from bench.planning.presets import preset
from bench.planning.protocols import load_protocols
from bench.planning.sweep import MOST_METHODS, MOST_RECORDS, build_method, load_sweep
from bench.planning.yaml_schema import LONGEST_FAULT, MOST_FAULTS

HUGE = 10**30
LONG = "x" * 5000


LARGE: list[tuple[dict[str, Any], str]] = [
    ({"ipc": [HUGE]}, "ipc.0: must be less than 9223372036854775808"),
    ({"evaluate": {"students": HUGE}}, "evaluate.students: must be less than"),
    ({"resources": {"cpus": HUGE}}, "resources.cpus: must be less than"),
    ({"methods": [{"name": "dm", "steps": HUGE}]}, "method dm: steps: a whole number below 2^63"),
    ({"methods": [{"name": "dm", "steps": -HUGE}]}, "method dm: steps"),
    ({"methods": [{"name": "dm", "seeds": HUGE}]}, "method dm: seeds"),
    ({"methods": [{"name": "dm", "lr": 10**99}]}, ""),
    ({"name": "a" * 201}, "name: "),
    ({"name": LONG}, "name: "),
    ({"methods": [LONG]}, "no method named 'xxx"),
    ({"methods": [{"name": "dm", LONG: 1}]}, "method dm does not take the parameter"),
    ({"methods": [{"name": "dm", "init": LONG}]}, "method dm: init"),
    ({"datasets": [LONG]}, "datasets.0"),
    ({"datasets": [{"name": "digits", "label": LONG}]}, "datasets.0.label"),
    ({"datasets": [{"name": "digits", "classes": ["9" * 5000, 1]}]}, "classes"),
    ({"datasets": [{"name": "digits", "classes": [HUGE, 1]}]}, "no class"),
    ({"distill": {"architectures": [LONG]}}, "no architecture named 'xxx"),
    ({"distill": {"architectures": [f"mlp-{LONG}"]}}, "distill.architectures.0"),
    ({"evaluate": {"protocol": LONG}}, "no protocol named 'xxx"),
    ({LONG: 1}, "no key named 'xxx"),
    ({"ipc": [*range(1, 140)], "distill": {"seeds": [*range(9000)]}}, "records, a sweep may have"),
    ({"methods": [f"m{i}" for i in range(MOST_METHODS + 1)]}, "things to mend"),
]


@pytest.mark.parametrize(("changes", "needle"), LARGE, ids=[needle or "a rate" for _, needle in LARGE])
def test_what_is_too_large_is_refused_shortly(changes: dict[str, Any], needle: str, tmp_path: Path) -> None:
    ended = ddbench("plan", sweep_file(tmp_path, **changes))
    if needle:
        assert ended.code == 2
        assert needle in ended.err
        assert len(max(ended.err.splitlines(), key=len)) < 2 * LONGEST_FAULT
        assert len(ended.err.splitlines()) <= MOST_FAULTS + 2
    else:
        assert (ended.code, ended.err) == (0, "")


def test_many_faults_are_counted(tmp_path: Path) -> None:
    ended = ddbench("plan", sweep_file(tmp_path, ipc=[-1] * 1000))
    first, *faults, last = ended.err.splitlines()
    assert first.endswith("1,000 things to mend:")
    assert len(faults) == MOST_FAULTS
    assert last == f"  and {1000 - MOST_FAULTS} more"


def test_the_largest_sweep_is_a_sweep(tmp_path: Path) -> None:
    many = {"methods": ["dm"], "ipc": [*range(1, 101)], "distill": {"seeds": [*range(MOST_RECORDS // 100)]}}
    assert len(load_sweep(sweep_file(tmp_path, **many)).distill.seeds) == MOST_RECORDS // 100
    with pytest.raises(UserError, match="2,000,000 records, a sweep may have 1,000,000: split it"):
        load_sweep(sweep_file(tmp_path, **many), ["evaluate.architectures=[mlp, lenet]"])


class Counted:
    """A value that counts how often it is compared."""

    compared = 0

    def __init__(self, n: int) -> None:
        self.n = n

    def __hash__(self) -> int:
        return hash(self.n)

    def __eq__(self, other: object) -> bool:
        type(self).compared += 1
        return isinstance(other, Counted) and self.n == other.n

    def __str__(self) -> str:
        return f"number {self.n}"


@pytest.mark.parametrize("last", [1999, 0])
def test_a_list_is_searched_once_for_what_is_given_twice(last: int) -> None:
    values = [*map(Counted, range(1999)), Counted(last)]
    Counted.compared = 0
    if last:
        assert check_distinct(values) is values
    else:
        with pytest.raises(UserError, match=r"^number 0 is given twice$"):
            check_distinct(values)
    assert Counted.compared < len(values)


def test_what_has_no_hash_is_compared() -> None:
    assert check_distinct([{"a": 1}, {"a": 2}]) == [{"a": 1}, {"a": 2}]
    with pytest.raises(UserError, match="given twice"):
        check_distinct([{"a": 1}, {"b": 1}, {"a": 1.0}])


@pytest.mark.parametrize("value", ["a\x1b[31m", "a\nb", "\u202ea", "\udce9"])
def test_a_text_of_a_method_is_one_printable_line(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a part of labels; from Python it has not passed YAML."""
    method = make_dataclass(
        "Texts", [("file", str, "mine")], bases=(method_class("random_real"),), frozen=True
    )
    monkeypatch.setattr("bench.planning.sweep.method_class", lambda _: method)
    with pytest.raises(UserError, match="method random_real: file: "):
        build_method("random_real", {"file": value})
    assert build_method("random_real", {"file": "x" * 300}).file == "x" * 300


# --- the command line's own keys --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        ["ipc=[1]", "ipc=[2]"],
        ["methods.dm.steps=1", "methods.2.steps=2"],
        ["methods.2.steps=1", "methods.dm.steps=1"],
        ["datasets.digits.label=a", "datasets.0.label=b"],
    ],
)
def test_a_place_is_set_once(overrides: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--set \S+: given twice, give it once$"):
        load_sweep(sweep_file(tmp_path), overrides)


def test_places_inside_each_other_are_set_in_turn() -> None:
    content: dict[str, Any] = {"ipc": [1, 2]}
    set_keys(content, ["ipc=[3, 4]", "ipc.1=5", "resources={cpus: 1}", "resources.cpus=2"])
    assert content == {"ipc": [3, 5], "resources": {"cpus": 2}}


def test_a_hyper_parameter_of_profile_is_set_once(tmp_path: Path) -> None:
    words = ("--dataset", "digits", "--ipc", 1, "--set", "steps=1", "--set", "steps=2")
    ended = ddbench("profile", "dm", *words, "--out", tmp_path / "out")
    assert (ended.code, ended.err) == (2, "error: --set steps: given twice, give it once\n")
    assert read_overrides(["steps=1", "lr={a: 1}"], "steps=1") == {"steps": 1, "lr": {"a": 1}}


# --- files beside the sweep ---------------------------------------------------------------------------------

BAD = {
    "date": ("day: !!timestamp 2024-13-45", "is not YAML"),
    "tag": ("a: !!int abc", "holds abc, which is no int"),
    "deep": ("[" * 5000, "is nested more than"),
    "twice": ("a: 1\na: 2", "gives the key 'a' twice"),
    "large": (f"a: {'x' * 2**20}", "is larger than 1 MiB"),
}


@pytest.mark.parametrize(("text", "needle"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("kind", ["protocols", "methods", "a package's"])
def test_protocols_and_presets_are_read_as_sweeps_are(
    kind: str, text: str, needle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("protocols" if kind == "protocols" else "methods")
    folder.mkdir()
    path = folder / "dm.yaml"
    path.write_text(text)
    monkeypatch.setattr("bench.planning.protocols.CONFIGS", tmp_path)
    monkeypatch.setattr("bench.planning.presets.CONFIGS", tmp_path if kind == "methods" else tmp_path / "no")
    brought = path if kind == "a package's" else None
    monkeypatch.setattr("bench.planning.presets.brought_presets", lambda _: brought)
    with pytest.raises(UserError) as caught:
        load_protocols("dm") if kind == "protocols" else preset("dm", "digits", 1)
    assert str(caught.value).startswith(f"{path}: {needle}")


# --- names of sweeps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "name"),
    [("_birds", "birds"), ("-x_", "x_"), ("my birds", "my-birds"), ("y" * 250, "y" * 200), ("...", "sweep")],
)
def test_a_file_names_its_sweep(stem: str, name: str, tmp_path: Path) -> None:
    content = yaml.safe_load(sweep_file(tmp_path).read_text())
    del content["name"]
    path = tmp_path / f"{stem}.yaml"
    path.write_text(yaml.safe_dump(content))
    assert load_sweep(path).name == valid_name(stem) == name
