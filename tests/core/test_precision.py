"""What is set around a job, what networks compute in, and that all of it is put back."""

from contextlib import suppress
from typing import Any

import pytest
import torch
from helpers.method import problem_for, small
from helpers.network import build
from torch import nn

from bench.core.networks.second_order import laid_out
from bench.core.precision import PRECISIONS, Precision, computing, precision_now
from bench.core.random import generator
from bench.core.registry import method_names
from bench.core.training import Recipe, train
from bench.evaluation.students import TrainingSet, train_students

FAMILIES = ["convnet-d1-w4", "mlp", "lenet", "alexnet", "vgg11", "resnet18-w8", "vit", "densenet"]


def settings() -> dict[str, Any]:
    backends: Any = torch.backends
    return {
        "matmul": backends.cuda.matmul.fp32_precision,
        "conv": backends.cudnn.conv.fp32_precision,
        "rnn": backends.cudnn.rnn.fp32_precision,
        "benchmark": backends.cudnn.benchmark,
        "deterministic": backends.cudnn.deterministic,
    }


@pytest.mark.parametrize(("precision", "kept"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")])
def test_inside_a_gpu_computes_at_the_precision_and_repeatably(precision: Precision, kept: str) -> None:
    before = settings()
    assert before["conv"] == "tf32", "torch's own default, which is never what a job asked for"
    with computing(precision):
        assert settings() == {
            **dict.fromkeys(("matmul", "conv", "rnn"), kept),
            "benchmark": False,
            "deterministic": True,
        }
        assert precision_now() == precision
    assert (settings(), precision_now()) == (before, "fp32")


def test_what_was_set_is_put_back_after_an_error_and_after_an_inner_block() -> None:
    before = settings()
    with suppress(KeyError), computing("tf32"):
        with computing("bf16"):
            assert precision_now() == "bf16"
        assert (precision_now(), settings()["conv"]) == ("tf32", "tf32")
        raise KeyError
    assert (settings(), precision_now()) == (before, "fp32")


def computed_in(net: nn.Module, images: torch.Tensor) -> set[torch.dtype]:
    """The types of what convolutions and linear layers return."""
    found: set[torch.dtype] = set()
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [m.register_forward_hook(lambda _, __, y: found.add(y.dtype)) for m in layers]
    assert net(images).dtype is net.embed(images).dtype is torch.float32  # type: ignore[operator]
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_bf16_is_inside_the_forward_pass_of_every_network(name: str) -> None:
    net, images = build(name).eval(), torch.rand(2, 3, 32, 32)
    plain = net(images)
    with computing("bf16"):
        assert computed_in(net, images) == {torch.bfloat16}
        torch.testing.assert_close(net(images), plain, rtol=0.1, atol=0.1)
    for precision in ("fp32", "tf32"):
        with computing(precision):
            assert computed_in(net, images) == {torch.float32}
            assert torch.equal(net(images), plain)


def test_weights_and_gradients_stay_float32_in_both_layouts() -> None:
    net = build("convnet-d2-w8")
    for images in (torch.rand(4, 3, 32, 32), laid_out(torch.rand(4, 3, 32, 32))):
        images.requires_grad_()
        with computing("bf16"):
            loss = nn.functional.cross_entropy(net(images), torch.arange(4))
            gradients = torch.autograd.grad(loss, [images, *net.parameters()])
        assert {loss.dtype, *(g.dtype for g in gradients)} == {torch.float32}


def test_networks_on_meta_know_shapes_at_every_precision() -> None:
    net = build("convnet-d1-w4").to("meta")
    for precision in PRECISIONS:
        with computing(precision):
            assert net(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)


@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
def test_bf16_students_learn(together: bool) -> None:
    draws = generator(0, "images")
    labels = torch.arange(10).repeat(4)
    images = torch.rand(10, 3, 8, 8, generator=draws)[labels] + 0.1 * torch.rand(40, 3, 8, 8, generator=draws)
    recipe, preprocess = Recipe(batch_size=20, lr=0.05, steps=15), problem_for().preprocess
    with computing("bf16"):
        found = train_students(
            lambda i: build("convnet-d1-w8", (3, 8, 8), seed=i),
            TrainingSet(images, labels, recipe, preprocess),
            [generator(i, "order") for i in range(2)],
            together=together,
        )
        logits = found[15].logits(images)
    assert logits.dtype is torch.float32
    assert ((logits.argmax(-1) == labels).float().mean(1) > 0.9).all()


def test_bf16_and_fp32_train_to_other_weights_of_the_same_type() -> None:
    problem, weights = problem_for(), dict[str, list[torch.Tensor]]()
    for precision in ("fp32", "bf16", "tf32"):
        net = build("convnet-d1-w4", problem.image_shape, problem.n_classes)
        with computing(precision):
            recipe = Recipe(batch_size=16, lr=0.01, steps=3)
            train(net, problem.images, problem.labels, recipe, generator(0, "order"), problem.preprocess)
        weights[precision] = list(net.parameters())
    assert all(w.dtype is torch.float32 for found in weights.values() for w in found)
    assert not torch.equal(weights["fp32"][0], weights["bf16"][0])
    assert torch.equal(weights["fp32"][0], weights["tf32"][0])  # a CPU has no TF32


@pytest.mark.parametrize("name", method_names())
def test_every_method_distills_at_bf16_to_finite_float32(name: str) -> None:
    """Those that differentiate a training are refused before, unless called like this."""
    method = small(name)
    with computing("bf16"):
        found = method.distill(problem_for(method))
    tensors = found.state_dict().values()
    assert all(t.isfinite().all() for t in tensors)
    assert {t.dtype for t in tensors} <= {torch.float32, torch.uint8}
