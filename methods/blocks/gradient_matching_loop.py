"""Gradient matching along networks that train on the synthetic set: algorithm 1 of DC, which DSA augments."""

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
    """`iterations` networks theta (K), each for `inner_steps` matchings (T), after each of which it trains.

    The matched gradients are those of all kernels and linear maps; their distance is one minus the cosine of
    each output unit, summed (Zhao, Mopuri & Bilen, ICLR 2021, eqs. 9 and 10). Learns `synthetic` in place.
    """
    optimiser = torch.optim.SGD(synthetic.parameters(), lr=lr, momentum=momentum)
    total = iterations * inner_steps
    run = problem.loop.steps(total, synthetic, "lr", optimiser=optimiser, pairs=pairs, pool=pool)
    for step in run:
        if step % inner_steps == 0:
            pool.restart()
        pair = pairs.next(synthetic)
        loss = gradient_matching(pool.net, *pair, problem.n_classes, distance="cosine", matched="weights")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        pool.advance(synthetic)
        run.loss(loss.detach())
    return synthetic
