"""What chooses the values of trials, and the rule that stops some early."""

from types import SimpleNamespace
from typing import Any

import pytest
from helpers.trial import PERCENT, trial
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.search import Choices, Search
from bench.execution.halving import SuccessiveHalving
from bench.execution.samplers import OptunaSampler, RandomSampler, Sampler
from bench.records.trial import best_trial

SPACE = {"lr": Search(0.01, 100), "momentum": Search(0, 0.9, "linear"), "init": Choices(("real", "noise"))}


def drawn(sampler: Sampler, n: int = 200) -> list[dict[str, float | str]]:
    return [sampler.values(number, 0) for number in range(n)]


def test_random_values_are_those_of_the_trial_alone_and_cover_the_space() -> None:
    found = drawn(RandomSampler(SPACE, "cell"))
    assert found[7] == RandomSampler(SPACE, "cell").values(7, 0), "whatever was drawn before"
    assert found[7] != RandomSampler(SPACE, "cell").values(7, 1)
    assert found[7] != RandomSampler(SPACE, "another").values(7, 0)
    rates = [float(values["lr"]) for values in found]
    assert 80 < sum(rate < 1 for rate in rates) < 120, "as often in the lower half of the log scale"
    assert all(0.01 <= rate <= 100 for rate in rates)
    assert {values["init"] for values in found} == {"real", "noise"}


def test_optuna_looks_where_trials_were_good() -> None:
    pytest.importorskip("optuna")
    sampler = OptunaSampler(SPACE, "cell")
    for number in range(40):
        values = sampler.values(number, 0)
        assert 0.01 <= float(values["lr"]) <= 100
        score = 1 - abs(float(values["momentum"]) - 0.3)
        ended = (score,) * (4 if number % 2 else 2)  # every other one stopped early
        sampler.learn(trial(number, *ended, values=values))
    late = [float(sampler.values(number, 0)["momentum"]) for number in range(40, 80)]
    spread = [float(RandomSampler(SPACE, "cell").values(number, 0)["momentum"]) for number in range(40, 80)]
    assert sum(abs(x - 0.3) for x in late) < 0.6 * sum(abs(x - 0.3) for x in spread)


def test_optuna_gives_the_same_values_after_the_same_trials() -> None:
    pytest.importorskip("optuna")
    known = [
        trial(n, 0.1, 0.2, 0.3, 0.01 * n, values=RandomSampler(SPACE, "c").values(n, 0)) for n in range(15)
    ]
    outside = trial(15, 0.1, 0.2, 0.3, 0.4, values={"lr": 1e3, "momentum": 0.5, "init": "real"})
    failed = trial(16, state="failed")
    samplers = [OptunaSampler(SPACE, "c"), OptunaSampler(SPACE, "c")]
    for sampler in samplers:
        for one in (*known, outside, failed):
            sampler.learn(one)
    assert samplers[0].values(17, 0) == samplers[1].values(17, 0)


def test_a_trial_stops_where_it_is_worse_than_half_of_those_before_it() -> None:
    rule = SuccessiveHalving()
    assert not rule.stops(10, 0.5), "nothing to compare with"
    assert not rule.stops(10, 0.7)
    assert rule.stops(10, 0.59)
    assert not rule.stops(10, 0.6), "the median of 0.5, 0.59 and 0.7 is 0.59"
    assert not rule.stops(20, 0.1), "rungs are compared with themselves"
    assert not rule.stops(100, 0.9)
    assert not rule.stops(100, 0.1), "it has ended already"


@pytest.mark.ray
@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), max_size=8))
@settings(max_examples=40)
def test_the_rule_without_ray_is_that_of_ray(all_scores: list[list[float]]) -> None:
    from ray.tune.schedulers import TrialScheduler

    from bench.execution.ray_trials import halving_rule

    ours, theirs = SuccessiveHalving(), halving_rule([])
    for number, scores in enumerate(all_scores):
        one: Any = SimpleNamespace(trial_id=str(number))
        theirs.on_trial_add(None, one)
        for percent, accuracy in zip(PERCENT[:-1], scores[:-1], strict=True):
            result = {"percent": percent, "accuracy": accuracy}
            stopped = theirs.on_trial_result(None, one, result) == TrialScheduler.STOP
            assert ours.stops(percent, accuracy) == stopped
            if stopped:
                break


def test_the_best_trial_came_to_its_end_and_of_equals_is_the_first() -> None:
    stopped, default, tied, failed = trial(3, 0.9), trial(0, 0, 0, 0, 0.5), trial(1, 0, 0, 0, 0.5), trial(2)
    assert best_trial([stopped, tied, default, failed]) == default
    assert best_trial([stopped, failed]) is None
