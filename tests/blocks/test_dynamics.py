"""What a training on the real set keeps of each image, against networks trained and asked by hand."""

import pytest
import torch
import torch.nn.functional as F
from helpers.method import problem_for
from helpers.parameterise import noise
from torch.func import functional_call, grad, vmap

from methods.blocks.dynamics import Dynamics, answers


def test_answers_by_hand() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]], dtype=torch.float64)
    found = answers(
        probabilities, torch.tensor([[2.0, 1.0], [0.0, 0.0]], dtype=torch.float64), torch.tensor([0, 1])
    )
    errors = [(0.3**2 + 0.2**2 + 0.1**2) ** 0.5, (0.3**2 + 0.7**2 + 0.4**2) ** 0.5]
    assert found["true"].tolist() == pytest.approx([0.7, 0.3], rel=1e-12)
    assert found["other"].tolist() == pytest.approx([0.2, 0.4], rel=1e-12)
    assert found["error"].tolist() == pytest.approx(errors, rel=1e-12)
    assert found["gradient"].tolist() == pytest.approx([errors[0] * 6**0.5, errors[1]], rel=1e-12)


def test_the_norm_of_the_gradient_is_that_of_autograd() -> None:
    layer, features, labels = torch.nn.Linear(5, 3).double(), noise(7, 5), torch.arange(7) % 3

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(functional_call(layer, parameters, (x,)), y)

    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    gradients = vmap(grad(loss), (None, 0, 0))(parameters, features, labels)
    expected = torch.cat([g.flatten(1) for g in gradients.values()], 1).norm(dim=1)
    found = answers(layer(features).softmax(1).detach(), features, labels)["gradient"]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_it_is_a_plain_training_asked_after_every_epoch() -> None:
    problem, block = problem_for(exact=True), Dynamics(epochs=3, batch_size=7)
    found = block.build(problem)
    net = problem.make_net(problem.rng("dynamics", 0, "init"))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    order, images = problem.rng("dynamics", 0, "order"), problem.preprocess(problem.images)
    for epoch in range(3):
        for batch in torch.randperm(18, generator=order).split(7):
            optimiser.zero_grad()
            F.cross_entropy(net(images[batch]), problem.labels[batch]).backward()
            optimiser.step()
        with torch.no_grad():
            features = net.embed(images)
            probabilities = net.classifier(features).softmax(1)
        for name, expected in answers(probabilities, features, problem.labels).items():
            torch.testing.assert_close(found[name][epoch], expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found["features"], features, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found["probabilities"], probabilities, rtol=1e-9, atol=1e-12)


def test_a_shorter_training_is_the_beginning_of_a_longer_one() -> None:
    problem = problem_for()
    short, long = (Dynamics(epochs=epochs, batch_size=7).build(problem) for epochs in (2, 3))
    assert torch.equal(short["true"], long["true"][:2])


def test_members_are_different_networks() -> None:
    problem = problem_for()
    one, two = (Dynamics(epochs=1, member=member).build(problem)["true"] for member in (0, 1))
    assert not torch.equal(one, two)
