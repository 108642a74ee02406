"""Rules of protocols: recipes for some data sets, networks and budgets, resolved when planned."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.plan import QUICK, Jobs, dataset, keys, sweep

from bench.core.errors import UserError
from bench.core.networks.architecture import parse_architecture
from bench.core.preprocess import Preprocess
from bench.data.dataset import Dataset
from bench.evaluation.scoring import EvaluationSetting, resolve_protocol
from bench.planning import protocols
from bench.planning.graph import plan_sweep
from bench.planning.protocols import Protocol, Rule, load_protocol
from bench.planning.yaml_schema import CONFIGS
from methods.blocks.parameterise.multi_formation import MultiFormation
from methods.blocks.parameterise.pixels import Pixels

CPU = torch.device("cpu")
CONVNET = parse_architecture("convnet")
FLIPLESS = "color_crop_cutout_scale_rotate"


def resolved(name: str, data: str, network: str = "convnet", ipc: int | None = 10, factor: int = 1) -> Any:
    return load_protocol(name).resolve(data, parse_architecture(network), ipc, factor).recipe


# --- the papers' -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "network", "augment", "epochs", "before"),
    [
        ("cifar10", "convnet", "none", 301, 152),
        ("fashion_mnist", "mlp", "none", 301, 152),
        ("cifar10", "resnet18-batch", "none", 301, 152),  # the authors name ConvNetBN alone
        ("mnist", "convnet", "dc-crop_dc-scale_dc-rotate", 1001, 502),
        ("mnist", "mlp", "dc-crop_dc-scale_dc-rotate", 1001, 502),
        ("cifar10", "convnet-batch", "dc-crop_dc-noise", 1001, 502),
        ("cifar10", "convnet-d4-w64-batch", "dc-crop_dc-noise", 1001, 502),
        ("mnist", "convnet-batch", "dc-crop_dc-noise", 1001, 502),
    ],
)
def test_dc_augments_mnist_and_batch_norm(
    data: str, network: str, augment: str, epochs: int, before: int
) -> None:
    recipe = resolved("dc", data, network)
    assert (recipe.augment, recipe.epochs) == (augment, epochs)
    for steps in (1, 4, 400):  # of an epoch
        assert recipe.drops(epochs * steps) == [before * steps]


@pytest.mark.parametrize("data", ["mnist", "svhn", "digits"])
def test_dsa_does_not_mirror_digits(data: str) -> None:
    assert resolved("dsa1000", data).augment == FLIPLESS
    assert resolved("dsa1000", "fashion_mnist").augment == load_protocol("dsa1000").recipe.augment
    assert "flip" in resolved("dsa1000", "cifar10").augment


@pytest.mark.parametrize(
    ("data", "network", "ipc", "factor", "augment", "cutmix", "epochs"),
    [
        ("cifar10", "convnet", 1, 1, "color+flip+crop_scale_rotate", 0.5, 1000),
        ("fashion_mnist", "convnet", 1, 2, "color+flip+crop_scale_rotate", 0.5, 1000),
        ("mnist", "convnet", 1, 1, "color+crop_scale_rotate", 0.5, 1000),
        ("mnist", "convnet", 10, 2, "color+crop_scale_rotate", 0.0, 1000),
        ("svhn", "convnet", 1, 1, "color+crop_scale_rotate+cutout", 0.0, 1000),
        ("svhn", "convnet", 1, 2, "color+crop_scale_rotate", 0.5, 1000),
        ("svhn", "convnet", 10, 1, "color+crop_scale_rotate", 0.5, 1000),
        ("svhn", "convnet", None, 1, "color+crop_scale_rotate", 0.5, 1000),  # the whole training set
        ("cifar10", "densenet", 50, 2, "color+flip+crop_scale_rotate", 0.5, 400),
        ("cifar10", "densenet", 50, 1, "color+flip+crop_scale_rotate", 0.5, 1000),
        ("cifar10", "densenet", 10, 2, "color+flip+crop_scale_rotate", 0.5, 1000),
    ],
)
def test_idc_s_rules(
    data: str, network: str, ipc: int | None, factor: int, augment: str, cutmix: float, epochs: int
) -> None:
    recipe = resolved("idc", data, network, ipc, factor)
    assert (recipe.augment, recipe.cutmix, recipe.epochs) == (augment, cutmix, epochs)


@pytest.mark.parametrize("name", ["mtt", "haba", "rtp", "dc300", "quick", "standard"])
def test_other_protocols_have_one_recipe(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.rules == ()
    assert protocol.resolve("mnist", parse_architecture("convnet-batch"), 1, 2) == protocol


def test_versions_were_raised_where_numbers_changed() -> None:
    assert {name: load_protocol(name).version for name in ("dc", "dsa1000", "idc", "dc300", "mtt")} == {
        "dc": 2, "dsa1000": 3, "idc": 3, "dc300": 1, "mtt": 2
    }  # fmt: skip


# --- in a plan ---------------------------------------------------------------------------------------------


def mnist(label: str = "mnist", name: str = "mnist") -> Dataset:
    made = dataset(label=label)
    return Dataset(name, label, made.train, made.test, made.classes, made.fingerprint, made.mean, made.std)


def plan(protocol: str, data: Dataset, **changes: Any) -> Jobs:
    spec = {"name": "image_folder", "path": "/x", "label": data.label}
    return plan_sweep(sweep(datasets=[spec], **changes), {data.label: data}, [load_protocol(protocol)])


def recipes(jobs: Jobs) -> list[dict[str, Any]]:
    return [job.identity["protocol"]["recipe"] for job in jobs.values() if job.kind == "evaluate"]


def test_a_plan_holds_the_recipe_that_is_run() -> None:
    jobs = plan("dc", mnist(), students_on=["mlp", "convnet-d2-w8-batch"])
    assert [r["augment"] for r in recipes(jobs)] == ["dc-crop_dc-scale_dc-rotate", "dc-crop_dc-noise"]
    assert all(r["epochs"] == 1001 for r in recipes(jobs))
    identities = [job.identity for job in jobs.values() if job.kind == "evaluate"]
    assert not any("rules" in identity["protocol"] for identity in identities)
    constants = [set(identity["resolved"]["augment"]) for identity in identities]
    assert constants == [{"dc-crop", "dc-scale", "dc-rotate"}, {"dc-crop", "dc-noise"}]


def test_a_folder_has_the_rules_of_the_data_set_that_its_label_names() -> None:
    (recipe,) = recipes(plan("dc", mnist(name="image_folder")))
    assert recipe["epochs"] == 1001
    (other,) = recipes(plan("dc", mnist("birds", "image_folder")))
    assert (other["epochs"], other["augment"]) == (301, "none")


@pytest.mark.parametrize(
    ("method", "cutmix"),
    [
        ({"name": "idc", "factor": 2}, 0.0),
        ({"name": "idc", "factor": 1}, 0.5),
        ({"name": "compose", "parameterisation": "multi_formation"}, 0.0),
        ({"name": "compose", "parameterisation": "pixels"}, 0.5),  # whose factor is not used
        ("dm", 0.5),
    ],
)
def test_multi_formation_is_told_by_the_method(method: Any, cutmix: float) -> None:
    (recipe,) = recipes(plan("idc", mnist(), methods=[method]))
    assert recipe["cutmix"] == cutmix


def test_the_whole_training_set_is_scored_once_for_all_ipcs() -> None:
    jobs = plan("idc", mnist("svhn", "svhn"), methods=["full"], ipc=[1, 2])
    assert len(keys("evaluate", jobs)) == 1


def test_rules_that_do_not_hold_move_no_key() -> None:
    rule = Rule(datasets=("mnist",), recipe={"lr": 0.5})
    ruled = QUICK.model_copy(update={"rules": (rule,)})
    for data, moves in ((dataset(), False), (mnist(), True)):
        spec = {"name": "image_folder", "path": "/x", "label": data.label}
        one, two = (
            plan_sweep(sweep(datasets=[spec]), {data.label: data}, [protocol]).keys()
            for protocol in (QUICK, ruled)
        )
        assert (one != two) == moves


# --- without a plan ----------------------------------------------------------------------------------------


def pixels(data: Dataset, ipc: int) -> Pixels:
    return Pixels(torch.zeros(10 * ipc, *data.image_shape), [ipc] * 10, Preprocess(data.mean, data.std))


def formed(data: Dataset, ipc: int) -> MultiFormation:
    images = torch.zeros(10 * ipc, *data.image_shape)
    return MultiFormation(images, 10, 2, "uniform", Preprocess(data.mean, data.std))


@pytest.mark.parametrize(
    ("label", "make", "ipc", "cutmix"),
    [
        ("svhn", pixels, 1, 0.0),
        ("svhn", pixels, 2, 0.5),
        ("svhn", formed, 1, 0.5),
        ("mnist", formed, 1, 0.0),
        ("mnist", pixels, 1, 0.5),
    ],
)
def test_a_set_says_its_ipc_and_formation(
    label: str, make: Callable[[Dataset, int], Any], ipc: int, cutmix: float
) -> None:
    data = mnist(label, label)
    found = resolve_protocol(load_protocol("idc"), data, CONVNET, make(data, ipc))
    assert found.recipe.cutmix == cutmix
    assert found.rules == ()


def test_unresolved_rules_are_never_trained_with() -> None:
    with pytest.raises(AssertionError, match="resolves"):
        EvaluationSetting(dataset(), CONVNET, load_protocol("idc"), 1, 0, CPU)


# --- in a file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ({"recipe": {"lr": -1.0}}, "rules: recipe.lr"),
        ({"recipe": {"rate": 0.1}}, "rules: recipe.rate"),
        ({"recipe": {"epochs": 3}}, "give steps or epochs"),
        ({"recipe": {"augment": "flop"}}, "did you mean flip?"),
        ({"recipe": {}}, "rules.0.recipe: "),
        ({"datasets": ["mnist"]}, "rules.0.recipe: is missing"),
        ({"architectures": ["convent"], "recipe": {"lr": 0.1}}, "did you mean convnet?"),
        ({"dataset": ["mnist"], "recipe": {"lr": 0.1}}, "did you mean datasets?"),
        ({"least_ipc": 0, "recipe": {"lr": 0.1}}, "rules.0.least_ipc: "),
    ],
)
def test_bad_rules_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: dict[str, Any], complaint: str
) -> None:
    quick = yaml.safe_load((CONFIGS / "protocols/quick.yaml").read_text())
    monkeypatch.setattr(protocols, "CONFIGS", tmp_path)
    (tmp_path / "protocols").mkdir()
    file = tmp_path / "protocols/mine.yaml"
    file.write_text(yaml.safe_dump({**quick, "rules": [rule]}))
    with pytest.raises(UserError) as caught:
        load_protocol("mine")
    assert str(caught.value).startswith(f"{file}: ")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rules_that_do_not_go_together_are_told_in_a_line() -> None:
    """Each is valid alone, and both hold."""
    changes: list[dict[str, Any]] = [{"steps": None, "epochs": 3}, {"steps": 5}]
    two = QUICK.model_copy(update={"rules": tuple(Rule(recipe=recipe) for recipe in changes)})
    with pytest.raises(UserError, match=r"^rules: recipe: .*give steps or epochs, and not both$"):
        two.resolve("mnist", CONVNET, 1)


def test_a_protocol_with_rules_is_read_back_from_what_it_is_written_as() -> None:
    protocol = load_protocol("idc")
    written = json.loads(protocol.model_dump_json())
    assert Protocol.model_validate(written) == protocol
