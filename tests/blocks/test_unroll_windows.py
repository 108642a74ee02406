"""Which steps of an inner run are differentiated: every policy keeps to its unroll, and online carries on."""

import io
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from helpers.hypergradient import advance
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import UserError
from bench.core.random import generator
from methods.blocks.hypergradient import SGD, Adam, FlatNetwork, Rule, State, hypergradient
from methods.blocks.inner_batches import shuffled_batches
from methods.blocks.unroll_windows import Unroll, Window

FINE = torch.tensor(1.0)


class Runs:
    """Counts the fresh starts; the weights of the k-th are k."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, _: torch.Generator) -> State:
        self.made += 1
        return State(torch.full((2,), float(self.made)), (torch.zeros(2),), 0)


def unroll(
    window: Window,
    total: int,
    length: int,
    pool: int = 1,
    seed: int = 0,
    start: Callable[[torch.Generator], State] | None = None,
) -> Unroll:
    return Unroll(window, total, length, pool, start or Runs(), generator(seed, "windows"))


def walk(state: State, steps: int) -> State:
    """A run of `steps` more steps, each of which adds 1000 to the weights and 1 to the velocity."""
    return State(state.weights + 1000 * steps, tuple(s + steps for s in state.slots), state.step + steps)


# --- offline --------------------------------------------------------------------------------------


def test_full_and_end_always_take_the_whole_run() -> None:
    for window, wanted in (("full", (0, 20)), ("end", (15, 5))):
        runs = Runs()
        policy = unroll(window, 20, 5, start=runs)
        for k in range(1, 4):
            state, *steps = policy.next()
            assert tuple(steps) == wanted
            assert (state.step, float(state.weights[0])) == (0, k), "a fresh start each time"
            policy.done(walk(state, 20), FINE)
        assert runs.made == 3


@given(total=st.integers(1, 12), data=st.data())
def test_a_random_window_ends_within_the_unroll(total: int, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, total))
    policy = unroll("random", total, length)
    drawn = [policy.next() for _ in range(40)]
    assert all(0 <= plain <= total - length and steps == length for _, plain, steps in drawn)
    assert all(state.step == 0 for state, _, _ in drawn)


def test_a_random_window_starts_anywhere_alike() -> None:
    policy = unroll("random", 20, 11)
    counts = Counter(policy.next()[1] for _ in range(4000))
    chi2 = sum((counts[n] - 400) ** 2 / 400 for n in range(10))
    assert chi2 < 27.9, "the 0.999 quantile for 9 degrees of freedom"


# --- online ---------------------------------------------------------------------------------------


def visit(policy: Unroll, loss: torch.Tensor = FINE) -> tuple[State, int, int]:
    state, plain, steps = policy.next()
    policy.done(walk(state, plain + steps), loss)
    return state, plain, steps


@given(total=st.integers(1, 30), pool=st.integers(1, 6), seed=st.integers(0, 50), data=st.data())
def test_ages_stay_within_the_unroll_and_on_its_grid(
    total: int, pool: int, seed: int, data: st.DataObject
) -> None:
    length = data.draw(st.integers(1, total))
    policy = unroll("online", total, length, pool, seed)
    for _ in range(30):
        state, plain, steps = visit(policy)
        assert steps == length
        assert (state.step + plain) % length == 0
        assert state.step + plain + steps <= total
        assert plain == 0 or state.step == 0, "plain steps are for the first visit"
        kept = [m for m in policy.state_dict()["members"] if m is not None]
        assert all(0 < m["step"] <= total - length for m in kept)


def test_first_visits_are_staggered() -> None:
    policy = unroll("online", 40, 10, pool=6)
    first: dict[int, int] = {}
    for _ in range(200):
        _, plain, _ = visit(policy)
        first.setdefault(policy._visited, plain)
    assert first == {0: 0, 1: 10, 2: 20, 3: 30, 4: 0, 5: 10}


def test_one_member_goes_on_where_it_was_and_then_starts_anew() -> None:
    policy = unroll("online", 9, 3)
    seen = [visit(policy)[0] for _ in range(5)]
    assert [s.step for s in seen] == [0, 3, 6, 0, 3]
    assert [float(s.slots[0][0]) for s in seen] == [0, 3, 6, 0, 3], "a new run begins at rest"
    birth = [float(s.weights[0]) % 1000 for s in seen]
    assert birth[0] == birth[1] == birth[2] != birth[3] == birth[4]


def test_a_window_as_long_as_the_run_is_the_whole_run() -> None:
    runs = Runs()
    policy = unroll("online", 7, 7, start=runs)
    assert [(s.step, plain, n) for s, plain, n in (visit(policy) for _ in range(3))] == [(0, 0, 7)] * 3
    assert runs.made == 4, "a spare and three starts"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_run_that_diverges_is_replaced(bad: float) -> None:
    policy = unroll("online", 100, 3)
    state, plain, steps = policy.next()
    broken = walk(state, plain + steps)
    policy.done(State(broken.weights * bad, (broken.slots[0] * bad,), broken.step), torch.tensor(bad))
    again, _, _ = policy.next()
    assert torch.equal(again.weights, torch.ones(2)), "the spare, which was made first"
    assert not again.slots[0].any()


def test_a_saved_pool_goes_on_the_same() -> None:
    runs, others = Runs(), Runs()
    policy = unroll("online", 12, 3, pool=4, seed=1, start=runs)
    for _ in range(7):
        visit(policy)
    buffer = io.BytesIO()
    torch.save(policy.state_dict(), buffer)
    buffer.seek(0)
    resumed = unroll("online", 12, 3, pool=4, seed=2, start=others)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    others.made = runs.made  # the caller's to keep
    for loss in [FINE, FINE, torch.tensor(float("nan")), *[FINE] * 5]:
        (one, *rest), (two, *same) = visit(policy, loss), visit(resumed, loss)
        assert rest == same
        assert one.step == two.step
        assert torch.equal(one.weights, two.weights)
        assert torch.equal(one.slots[0], two.slots[0])


@pytest.mark.parametrize("window", ["full", "end", "random"])
def test_offline_windows_can_be_saved(window: Window) -> None:
    policy, other = unroll(window, 9, 4, seed=1), unroll(window, 9, 4, seed=2)
    policy.next()
    other.load_state_dict(policy.state_dict())
    assert [policy.next()[1:] for _ in range(9)] == [other.next()[1:] for _ in range(9)]


# --- with the hypergradient -----------------------------------------------------------------------


@pytest.mark.parametrize("rule", [SGD(), SGD(momentum=0.9), Adam()], ids=str)
def test_online_without_outer_steps_is_one_long_run(rule: Rule) -> None:
    """The images stay as they are: the windows of one member, end to end, are an offline run of T steps."""
    net = FlatNetwork(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 3)).double())
    g = generator(0, "data")
    images, targets = torch.randn(6, 2, 2, 2, generator=g, dtype=torch.float64), torch.arange(6) % 3
    batches = shuffled_batches(6, 4, 12, g, "flip")
    lr = torch.tensor(0.05, dtype=torch.float64)
    policy = unroll("online", 12, 4, start=lambda _: rule.start(net.weights()))
    for k in range(3):
        state, plain, steps = policy.next()
        assert (plain, steps) == (0, 4)
        part = batches[4 * k : 4 * k + 4]
        found = hypergradient(
            net, rule, images, targets, lr, part, state, lambda w: net(w, images).square().mean()
        )
        policy.done(found.end, found.loss)
    whole = advance(net, rule, images, targets, lr, batches, rule.start(net.weights()))
    assert found.end.step == whole.step == 12
    assert torch.equal(found.end.weights, whole.weights)


def test_bad_input_is_named_in_one_line() -> None:
    for window in ("end", "random", "online"):
        for length in (0, 11):
            with pytest.raises(UserError, match=f"window of {length} steps .* unroll of 10"):
                unroll(window, 10, length)
    with pytest.raises(UserError, match="pool of at least 1"):
        unroll("online", 10, 5, pool=0)
