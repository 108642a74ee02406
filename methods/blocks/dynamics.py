"""Training dynamics: how a network learns each image of the real training set, from which images are scored.

The scores (EL2N, forgetting, AUM, ...) differ in a formula; the training that they read is one prerequisite.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench.core import counting, timing
from bench.core.batches import BatchOrder, batch_share
from bench.core.method import ARCHITECTURE, SEED, Prerequisite, Problem
from bench.core.networks.base import Network
from bench.core.training import Recipe, in_pieces
from methods.blocks.students import InnerStudent


@dataclass(frozen=True)
class Dynamics:
    """What a network in training answers to every training image, after each epoch and at the end.

    The learning rate is constant, so a shorter training is the beginning of a longer one. Methods that score
    images by the same training share it, and are each charged for it.

    Args:
        epochs: passes over the training set.
        member: number of the network; scores that average networks ask for several.
        lr: learning rate.
        batch_size: images per step.
    """

    version: ClassVar[int] = 1
    depends_on: ClassVar[frozenset[str]] = frozenset({ARCHITECTURE, SEED})

    epochs: int
    member: int = 0
    lr: float = 0.01
    batch_size: int = 256

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def build(self, problem: Problem) -> dict[str, Tensor]:
        """Train the network, and read all images after every epoch.

        Returns:
            What `answers` gives, [epochs,N] each, and of the network at the end "probabilities" [N,K] and
            "features" [N,D], in the order of the training set.
        """
        purpose = ("dynamics", self.member)
        net = problem.make_net(problem.rng(*purpose, "init"))
        recipe = Recipe(batch_size=self.batch_size, lr=self.lr, epochs=1)
        student = InnerStudent(net, recipe, problem.rng(*purpose, "draws"))
        n = len(problem.images)
        order = BatchOrder(n, self.batch_size, problem.rng(*purpose, "order"), problem.device)
        steps, kept = recipe.n_steps(n), []
        counting.announce(self.epochs * steps, self.batch_size, n, then=self.epochs * n)
        for _ in range(self.epochs):
            paced = timing.paced(steps, batch_share(n, self.batch_size, steps))
            for _, index in zip(paced, order, strict=False):
                student.step(problem.preprocess(problem.images[index]), problem.labels[index])
                counting.count_steps()
            features, probabilities = _read(net, problem)
            kept.append(answers(probabilities, features, problem.labels))
        found = {name: torch.stack([epoch[name] for epoch in kept]) for name in kept[0]}
        return {**found, "probabilities": probabilities, "features": features}


@torch.no_grad()
def _read(net: Network, problem: Problem) -> tuple[Tensor, Tensor]:
    """The features [N,D] and the probabilities [N,K] of all training images, in evaluation mode."""
    net.eval()
    features = in_pieces(lambda x: net.embed(problem.preprocess(x)), problem.images)
    net.train()
    return features, net.classifier(features).softmax(1)


def answers(probabilities: Tensor, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What scores need of a network's answers.

    Args:
        probabilities: [N,K].
        features: what the last layer reads, [N,D].
        labels: int64 [N].

    Returns:
        [N] each: "true", the probability of the true class; "other", the largest of another class; "error",
        the l2 norm of probabilities - onehot; "gradient", the l2 norm of the gradient of the cross-entropy
        in the last layer's weight and bias.
    """
    onehot = torch.nn.functional.one_hot(labels, probabilities.shape[1])
    error = (probabilities - onehot).norm(dim=1)
    return {
        "true": (probabilities * onehot).sum(1),
        "other": probabilities.masked_fill(onehot.bool(), -1.0).amax(1),
        "error": error,
        # the gradient is (p - y) x (features, 1): the norm of an outer product is that of its factors
        "gradient": error * (features.square().sum(1) + 1).sqrt(),
    }


def area_under_margin(true: Tensor, other: Tensor) -> Tensor:
    """The sum over the epochs of p_y - max over j != y of p_j.

    Args:
        true: probability of the true class after each epoch, [epochs,N].
        other: the largest probability of another class, [epochs,N].

    Returns:
        [N]; the lowest are hard, or mislabelled.
    """
    return (true - other).sum(0)
