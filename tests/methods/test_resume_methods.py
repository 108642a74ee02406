"""Every distillation that is killed and taken up again ends as the undisturbed one, to the last bit."""

from pathlib import Path
from typing import Any

import pytest
from helpers.method import dying, keep, losses, problem_for, same, small, state

from bench.core.method import Method

STEPS = 4
METHODS = {
    **{
        name: {"steps": STEPS}
        for name in (
            *("dm", "mtt", "tesla", "haba", "bptt", "rat_bptt", "rtp", "sre2l", "datadam", "frepo", "ncfm"),
            *("datm", "idm"),
        )
    },
    **{name: {"iterations": 2, "inner_steps": 2} for name in ("dc", "dsa", "idc", "dream")},
}
FORMS: list[tuple[str, dict[str, Any]]] = [
    *METHODS.items(),
    ("idc", {"train_on": "synthetic", "labels": "image", "batch_synthetic": 3, "cutmix": 1.0}),
    ("idc", {"pool": 2, "pool_epochs": 1, "early": 1, "decoder": "multi_scale"}),
    ("sre2l", {"crop": "curriculum", "flip": True}),
    ("dream", {"every": 3}),
    ("frepo", {"labels": "image", "networks": 2, "max_age": 1, "batch_synthetic": 2, "batch_real": 20}),
    ("datm", {"labels": "image", "start_epochs": 1, "last_start_epochs": 2, "growth": 3}),
    ("idm", {"every": 1, "networks": 4, "trained": 3, "net_steps": 2}),  # full from the second step on
    ("mtt", {"labels": "class", "batch_synthetic": 2}),
    ("haba", {"labels": "image", "batch_synthetic": 2, "hallucinators": 3}),
    ("rat_bptt", {"clip": 0.5}),  # below the running mean: it clips always
    ("rtp", {"window": "online", "window_length": 1, "networks": 2, "lr_lr": 1e-5, "task_classes": 2}),
    ("rtp", {"momentum_lr": 1e-2, "segment": 2}),
    ("rtp", {"window": "random", "window_length": 2, "inner": "adam", "labels": "joint"}),
    ("rtp", {"memory": False, "labels": "image", "window": "end", "window_length": 2}),
    *(
        ("compose", {"objective": o})
        for o in (
            *("gradient_matching", "trajectory_matching", "unrolled", "batch_norm_statistics"),
            *("kernel_regression", "attention", "characteristic_function"),
        )
    ),
    ("compose", {"pool": "trained_on_synthetic", "stretch": 3, "parameterisation": "multi_formation"}),
    ("compose", {"pool": "queue"}),
    ("compose", {"pool": "experts", "parameterisation": "linear_bases"}),
]


def form(name: str, values: dict[str, Any]) -> Method:
    return small(name, **METHODS.get(name, {"steps": STEPS}) | values)


@pytest.mark.parametrize(
    ("name", "values"), FORMS, ids=lambda x: x if isinstance(x, str) else "-".join(map(str, x.values()))
)
def test_a_killed_distillation_ends_as_the_undisturbed_one(
    name: str, values: dict[str, Any], tmp_path: Path
) -> None:
    """Killed in its second step and again in its last: what a step hands on is kept, all of it."""
    method = form(name, values)
    problem = problem_for(method)
    undisturbed = state(method.distill(problem))
    for step in (2, STEPS):
        with dying(step):
            method.distill(keep(problem, tmp_path))
    resumed, noted = losses(method, keep(problem, tmp_path))
    assert len(noted) == 1, "only the last step is taken again"
    assert same(state(resumed), undisturbed)
