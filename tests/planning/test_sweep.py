"""Sweep files: every fault is reported with the file, the key and the choices."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.cli import ddbench, sweep_file

from bench.core.errors import UserError
from bench.core.networks.architecture import parse_architecture
from bench.data.spec import DATASETS
from bench.planning.sweep import load_sweep
from bench.planning.yaml_schema import CONFIGS, LONGEST_FAULT

GOOD: dict[str, Any] = {
    "name": "tiny",
    "datasets": ["digits"],
    "methods": ["random_real", {"name": "dm", "steps": 5}],
    "ipc": [1, 2],
    "distill": {"architectures": ["convnet-d2-w8"], "seeds": [0, 1]},
    "evaluate": {"architectures": ["convnet-d2-w8", "mlp"], "students": 2, "protocol": "quick"},
    "resources": {"cpus": 1, "gpus": 0},
}
DELETE = object()


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with one entry, at a dotted path, set or deleted."""
    content = copy.deepcopy(GOOD)
    here: Any = content
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        here = here[part]
    if value is DELETE:
        del here[last]
    else:
        here[last] = value
    return content


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    return path


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_sweep(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_good_file_is_good(file: Path) -> None:
    sweep = load_sweep(file)
    assert (sweep.name, sweep.ipc, sweep.distill.seeds) == ("tiny", (1, 2), (0, 1))
    assert [m.name for m in sweep.methods] == ["random_real", "dm"]
    assert sweep.evaluate.architectures == (parse_architecture("convnet-d2-w8"), parse_architecture("mlp"))
    assert sweep.datasets[0].label == "digits"


def test_defaults(file: Path) -> None:
    content = changed("resources", DELETE)
    del content["evaluate"]["students"]
    file.write_text(yaml.safe_dump(content))
    sweep = load_sweep(file)
    assert (sweep.evaluate.students, sweep.resources.cpus, sweep.resources.gpus) == (5, 1, 0)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        # unknown keys at each level
        ("nmae", 1, ["'nmae'", "did you mean name?", "datasets, distill, evaluate, ipc, methods"]),
        (
            "distill.seed",
            1,
            ["distill", "'seed'", "did you mean seeds?", "architectures, experts_per_seed, precision, seeds"],
        ),
        (
            "evaluate.studens",
            1,
            [
                "evaluate",
                "did you mean students?",
                "architectures, curve, labels, precision, protocol, ",
            ],
        ),
        ("resources.gpu", 1, ["resources", "did you mean gpus?", "accelerator, cpus, distill, "]),
        ("datasets.0", {"name": "digits", "sise": 8}, ["datasets.0", "sise"]),
        # names that are not there
        (
            "methods.0",
            "random_rael",
            ["methods.0", "did you mean random_real?", "herding, idc, idm, k_center"],
        ),
        ("methods.1.name", "dmm", ["methods.1", "did you mean dm?", "random_real"]),
        ("datasets.0", "digit", ["datasets.0", "did you mean digits?", *DATASETS]),
        ("distill.architectures.0", "convent", ["distill.architectures.0", "did you mean convnet?", "mlp"]),
        ("evaluate.architectures.1", "mlp-d3", ["evaluate.architectures.1", "mlp takes width, not 'depth'"]),
        ("evaluate.protocol", "quik", ["evaluate", "did you mean quick?"]),
        # hyper-parameters
        ("methods.0", {"name": "full", "lr": 1}, ["methods.0", "'lr'", "takes none"]),
        ("methods.1.lrr", 1, ["methods.1", "dm does not take", "'lrr'", "steps, lr, momentum"]),
        ("methods.1.steps", 0, ["methods.1", "dm: steps", "greater than 0", "not 0"]),
        ("methods.1.steps", "many", ["methods.1", "dm: steps", "not 'many'"]),
        ("methods.1.lr", float("inf"), ["methods.1", "dm: lr", "finite"]),
        ("methods.1.lr", float("nan"), ["methods.1", "dm: lr"]),
        ("methods.1.init", "reel", ["methods.1", "dm: init", "'real' or 'noise'"]),
        ("methods.1.augment", "colour", ["methods.1", "dm", "did you mean color?"]),
        # types and ranges
        ("ipc", [0], ["ipc.0", "greater than 0", "not 0"]),
        ("ipc", ["1"], ["ipc.0", "not '1'"]),
        ("ipc", [1.5], ["ipc.0", "not 1.5"]),
        ("ipc", [True], ["ipc.0", "not True"]),
        ("ipc", 0, ["ipc", "not 0"]),
        ("ipc", "1", ["ipc", "not '1'"]),
        ("ipc", [], ["ipc", "at least one, not []"]),
        ("ipc", [1, 2, 1], ["ipc: 1 is given twice"]),
        ("methods", ["dm", "dm"], ["methods: dm is given twice"]),
        ("datasets", ["digits", "Digits"], ["datasets: digits is given twice"]),
        ("distill.seeds", [-1], ["distill.seeds.0", "greater than or equal to 0", "not -1"]),
        ("distill.seeds", [2**63], ["distill.seeds.0", "less than 9223372036854775808"]),
        ("distill.seeds", [0, 0], ["distill", "seeds: 0 is given twice"]),
        ("distill.seeds", ["a"], ["distill.seeds.0", "not 'a'"]),
        ("distill.architectures", [], ["distill.architectures", "at least one, not []"]),
        ("distill.architectures", ["mlp", "mlp-w128"], ["distill", "architectures: mlp is given twice"]),
        ("distill.architectures", [3], ["distill.architectures.0", "a name or a mapping"]),
        ("distill.architectures", "mlp", ["distill.architectures", "not 'mlp'"]),
        (
            "evaluate.architectures",
            ["mlp", {"name": "mlp"}],
            ["evaluate", "architectures: mlp is given twice"],
        ),
        ("evaluate.students", 0, ["evaluate.students", "greater than 0", "not 0"]),
        ("evaluate.students", "2", ["evaluate.students", "not '2'"]),
        ("resources.gpus", 1.5, ["resources.gpus", "less than or equal to 1", "not 1.5"]),
        ("resources.gpus", -1, ["resources.gpus", "greater than or equal to 0", "not -1"]),
        ("resources.cpus", 0, ["resources.cpus", "greater than 0", "not 0"]),
        ("name", "a/b", ["name", "not 'a/b'"]),
        ("name", "../x", ["name", "not '../x'"]),
        ("name", 3, ["name", "not 3"]),
        ("methods.0", 3, ["methods.0", "a name or a mapping with a name"]),
        ("methods.0", {"steps": 3}, ["methods.0", "a name or a mapping with a name"]),
        ("methods", "dm", ["methods", "not 'dm'"]),
        ("distill", [1], ["distill", "not [1]"]),
        ("distill", None, ["distill", "not None"]),
        # keys that are missing
        ("datasets", DELETE, ["datasets", "is missing"]),
        ("methods", DELETE, ["methods", "is missing"]),
        ("ipc", DELETE, ["ipc", "is missing"]),
        ("datasets.0", {"path": "x"}, ["datasets.0", "name"]),
        ("datasets.0", {"name": "image_folder"}, ["datasets.0.path", "needs path"]),
    ],
)
def test_bad_entries_are_named(file: Path, path: str, value: Any, words: list[str]) -> None:
    file.write_text(yaml.safe_dump(changed(path, value)))
    message = refused(file)
    assert message.startswith(f"{file}: ")
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "is not YAML"),
        ("a: b: c", "is not YAML"),
        ("\t", "is not YAML"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
        ("", "a sweep file is a mapping with name, datasets"),
        ("- 1", "a sweep file is a mapping with name, datasets"),
        ("hello", "a sweep file is a mapping with name, datasets"),
        ("{1: 2, datasets: [digits], methods: [dm], ipc: [1]}", "no key named '1'"),
        ("name: a\nname: b", "gives the key 'name' twice"),
    ],
)
def test_files_that_are_no_sweep(file: Path, text: str, words: str) -> None:
    file.write_text(text)
    message = refused(file)
    assert message.startswith(f"{file}: ")
    assert words in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: no such file"
    assert refused(tmp_path).startswith(f"{tmp_path}: cannot be read")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xfa")
    assert refused(tmp_path / "binary").startswith(f"{tmp_path}/binary: ")


# --- all faults at once ---------------------------------------------------------------------------


def test_all_faults_are_reported_at_once(file: Path) -> None:
    content = changed(
        "methods", ["random_rael", {"name": "dm", "stepz": 3, "lr": "high", "preprocess": "zac"}]
    )
    content |= {"datasets": ["digit", {"name": "digits", "sise": 8}], "ipc": [1, 1], "resource": {}}
    content["evaluate"] = {"architectures": ["mlpp"], "protocol": ["quik", "slow"], "students": 0}
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as caught:
        load_sweep(file)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{file}: 12 things to mend:"
    starts = [
        "no key named 'resource' (did you mean resources?)",
        "datasets.0.name: unknown data set 'digit' (did you mean digits?)",
        "datasets.1: no key named 'sise'",
        "methods.0: no method named 'random_rael' (did you mean random_real?)",
        "methods.1: method dm does not take the parameter 'stepz' (did you mean steps?)",
        "methods.1: no preprocess named 'zac' (did you mean zca?)",
        "methods.1: method dm: lr: ",
        "ipc: 1 is given twice",
        "evaluate.architectures.0: no architecture named 'mlpp' (did you mean mlp?)",
        "evaluate.students: must be greater than 0, not 0",
        "evaluate.protocol.0: no protocol named 'quik' (did you mean quick?)",
        "evaluate.protocol.1: no protocol named 'slow'",
    ]
    assert [
        line for line, start in zip(lines, starts, strict=True) if not line.startswith(f"  {start}")
    ] == []


def test_the_command_line_prints_them_all(tmp_path: Path) -> None:
    sweep = sweep_file(tmp_path, ipc=[1, 500], distill={"architectures": ["convnet-d5"], "seeds": [0]})
    ended = ddbench("plan", sweep)
    assert ended.code == 2
    first, *lines = ended.err.splitlines()
    assert first == f"error: {sweep}: 2 things to mend:"
    assert lines[0].startswith("  methods: random_real on digits: ipc: 500 is more than class ")
    assert lines[1].startswith("  distill.architectures: ")
    sweep = sweep_file(tmp_path, ipc=[0], name="a/b")
    assert ddbench("plan", sweep).err.splitlines() == [
        f"error: {sweep}: 2 things to mend:",
        "  name: must be letters, digits, dots, dashes and underscores, not 'a/b'",
        "  ipc.0: must be greater than 0, not 0",
    ]


def test_a_misspelled_key_is_one_fault(file: Path) -> None:
    content = changed("ipc", DELETE) | {"IPC": [1]}
    file.write_text(yaml.safe_dump(content))
    assert "no key named 'IPC' (did you mean ipc?)" in refused(file)


@pytest.mark.parametrize(
    ("path", "value", "hint"),
    [
        ("methods.0", "Random_Real", "did you mean random_real?"),
        ("methods.1", {"name": "dm", "STEPS": 3}, "did you mean steps?"),
        ("evaluate.protocol", "QUICK", "did you mean quick?"),
        ("distill.architectures.0", "ConvNet", "did you mean convnet?"),
        ("Evaluate", {}, "did you mean evaluate?"),
        ("datasets.0", "CIFAR-11", "did you mean cifar10?"),
        ("datasets.0", {"name": "digits", "Classes": [1, 2]}, "did you mean classes?"),
    ],
)
def test_suggestions_ignore_case(file: Path, path: str, value: Any, hint: str) -> None:
    file.write_text(yaml.safe_dump(changed(path, value)))
    assert hint in refused(file)


# --- defaults -------------------------------------------------------------------------------------


def test_a_sweep_needs_data_methods_and_budgets_only(tmp_path: Path) -> None:
    path = tmp_path / "my first sweep.yaml"
    path.write_text("datasets: [digits]\nmethods: [dm]\nipc: [1]\n")
    convnet = (parse_architecture("convnet"),)
    sweep = load_sweep(path)
    assert sweep.name == "my-first-sweep"
    assert (sweep.distill.architectures, sweep.distill.seeds) == (convnet, (0, 1, 2))
    assert (sweep.evaluate.architectures, sweep.evaluate.students) == (convnet, 5)
    assert sweep.evaluate.protocol == ("standard",)
    assert load_sweep(path, ["name=other"]).name == "other"


def test_students_have_the_architectures_of_the_sets_by_default(file: Path) -> None:
    file.write_text(yaml.safe_dump(changed("evaluate", {"protocol": "quick"})))
    sweep = load_sweep(file)
    assert sweep.evaluate.architectures == sweep.distill.architectures
    file.write_text(yaml.safe_dump(changed("distill", {"architectures": ["mlp"]})))
    sweep = load_sweep(file)
    assert sweep.distill.seeds == (0, 1, 2)
    assert [a.label for a in sweep.evaluate.architectures] == ["convnet-d2-w8", "mlp"]


def test_a_data_set_may_be_the_path_of_a_folder(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    (file.parent / "pets").mkdir()
    (file.parent / "digits").mkdir()  # a data set of that name comes first
    file.write_text(yaml.safe_dump(changed("datasets", ["pets", "./new", "digits"])))
    pets, new, digits = load_sweep(file).datasets
    assert (pets.name, pets.path, pets.label) == ("image_folder", file.parent / "pets", "pets")
    assert (new.name, new.path, new.label) == ("image_folder", file.parent / "new", "new")
    assert digits.name == "digits"


# --- overrides ------------------------------------------------------------------------------------


def test_overrides_reach_every_place(file: Path) -> None:
    sweep = load_sweep(
        file,
        [
            "name=other",
            "evaluate.students=7",
            "ipc=[3, 4]",
            "ipc.1=5",
            "methods.dm.steps=9",
            "methods.1.lr=0.5",
            "methods.0={name: herding, network_steps: 4}",
            "distill.architectures.convnet-d2-w8.norm=batch",
            "evaluate.architectures.mlp=lenet",
        ],
    )
    assert (sweep.name, sweep.evaluate.students, sweep.ipc) == ("other", 7, (3, 5))
    assert [(m.name, m.values) for m in sweep.methods] == [
        ("herding", {"network_steps": 4}),
        ("dm", {"steps": 9, "lr": 0.5}),
    ]
    assert sweep.distill.architectures == (parse_architecture("convnet-d2-w8-batch"),)
    assert sweep.evaluate.architectures == (parse_architecture("convnet-d2-w8"), parse_architecture("lenet"))


def test_an_override_can_make_what_is_not_there(file: Path) -> None:
    file.write_text(yaml.safe_dump(changed("resources", DELETE)))
    assert load_sweep(file, ["resources.cpus=2"]).resources.cpus == 2


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("evaluate.students", ["write KEY=VALUE"]),
        ("=3", ["write KEY=VALUE"]),
        ("evaluate.=3", ["write KEY=VALUE"]),
        (".students=3", ["write KEY=VALUE"]),
        ("", ["write KEY=VALUE"]),
        ("ipc=[1", ["the value is not YAML"]),
        ("name.x=1", ["name holds no keys"]),
        ("name.x.y=1", ["name holds no keys"]),
        ("ipc.0.x=1", ["0 holds no keys"]),
        ("ipc.7=1", ["no entry '7'", "1, 2"]),
        ("methods.mtt.steps=1", ["no entry 'mtt'", "random_real, dm"]),
        ("methods.-1.steps=1", ["no entry '-1'", "random_real, dm"]),
        ("methods.\u00b2.steps=1", ["no entry '\u00b2'"]),
        (f"methods.{'9' * 5000}.steps=1", ["no entry '999"]),
        ("a." * 60 + "b=1", ["write KEY=VALUE"]),
        ("evaluate.studens=3", ["did you mean students?"]),
        ("methods.dm.stepz=3", ["methods.1", "'stepz'"]),
        ("methods.random_real.steps=3", ["methods.0", "takes repeat"]),
        ("evaluate.students=none", ["evaluate.students", "not 'none'"]),
    ],
)
def test_bad_overrides_are_named(file: Path, override: str, words: list[str]) -> None:
    message = refused(file, override)
    assert message.startswith((f"--set {override.partition('=')[0][:50]}", f"{file}: "))
    assert len(message) < LONGEST_FAULT
    for word in words:
        assert word in message


# --- the files that come with the program ---------------------------------------------------------


@pytest.mark.parametrize("path", sorted((CONFIGS / "sweeps").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_sweep_loads(path: Path) -> None:
    sweep = load_sweep(path)
    assert sweep.name == path.stem
    for method in sweep.methods:
        for ipc in sweep.ipc:
            method.resolve(sweep.datasets[0].name, ipc)


@pytest.mark.parametrize("seeds", ["0", "-1", "true", "1.5", "[0, 1]", "many", "100000"])
def test_bad_numbers_of_seeds_are_named(file: Path, seeds: str) -> None:
    with pytest.raises(UserError, match="method dm: seeds: how many, a whole number from 1 to 1000, not "):
        load_sweep(file, [f"methods=[{{name: dm, seeds: {seeds}}}]"])
