"""Gradient matching under networks that train on the synthetic set: algorithm 1 of both DC and DSA."""

import torch

from bench.core.method import Problem
from methods.blocks.matching_batches import MatchingBatches
from methods.blocks.network_pools import TrainedOnSynthetic
from methods.blocks.objectives import gradient_matching
from methods.blocks.parameterise.pixels import Pixels


def match_gradients(
    problem: Problem,
    synthetic: Pixels,
    pairs: MatchingBatches,
    pool: TrainedOnSynthetic,
    *,
    iterations: int,
    inner_steps: int,
    lr: float,
    momentum: float,
) -> Pixels:
    """Learn a set by gradient matching: algorithm 1 of DC, and with augmentation of DSA.

    The gradients are those of all kernels and linear maps. Their distance is one minus the cosine, summed
    over output units.

    Args:
        problem: the training set and its loop of steps.
        synthetic: the set; learned in place.
        pairs: real and synthetic batches, whose augmentation makes the difference between DC and DSA.
        pool: the networks theta; they train on the set after each matching but their last.
        iterations: number of networks, K.
        inner_steps: matchings under each network, T.
        lr: learning rate of the images, eta_S.
        momentum: of the images' SGD.

    Returns:
        `synthetic`.

    References:
        Zhao, Mopuri & Bilen, ICLR 2021, algorithm 1, eqs. 9 and 10; Zhao & Bilen, ICML 2021, algorithm 1.
    """
    optimiser = torch.optim.SGD(synthetic.parameters(), lr=lr, momentum=momentum)
    total = iterations * inner_steps
    steps = problem.loop.steps(total, synthetic, "lr", optimiser=optimiser, pairs=pairs, pool=pool)
    for step in steps:
        if step % inner_steps == 0:
            pool.restart()
        pair = pairs.next(synthetic)
        loss = gradient_matching(pool.net, *pair, problem.n_classes, distance="cosine", matched="weights")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        pool.advance(synthetic, followed=(step + 1) % inner_steps > 0)
        steps.loss(loss.detach())
    return synthetic
