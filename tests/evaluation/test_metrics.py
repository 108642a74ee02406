"""Metrics: closed forms of perfect, constant and uniform predictors, and identities between them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.core import random
from bench.core.networks.architecture import parse_architecture
from bench.core.pieces import piece_size
from bench.core.preprocess import Preprocess
from bench.core.training import accuracy
from bench.evaluation.metrics import (
    CALIBRATION_BINS,
    Scores,
    agreement,
    calibration_errors,
    class_accuracies,
    score_students,
)

PLAIN = Preprocess((0.0,), (1.0,))
N = 2 * piece_size(torch.device("cpu")) + 7  # three pieces, the last a small one


def numbered(n: int = N) -> Tensor:
    """Images uint8 [n,1,1,2] that hold their own number."""
    number = torch.arange(n)
    return torch.stack([number // 256, number % 256], 1).to(torch.uint8).view(n, 1, 1, 2)


def judged(logits: Tensor, labels: Tensor) -> Scores:
    """Judge predictors that answer image i with logits[:, i]."""

    def answer(images: Tensor) -> Tensor:
        high, low = images.mul(255).round().long().flatten(1).unbind(1)
        return logits[:, 256 * high + low]

    return score_students(answer, numbered(len(labels)), labels, PLAIN, logits.shape[2])


def one_hot(classes: Tensor, n_classes: int, sure: float = 40.0) -> Tensor:
    return sure * torch.nn.functional.one_hot(classes, n_classes).float()


def test_perfect_and_constant_and_uniform_predictors() -> None:
    """Four classes, the last without images; sure of the truth, sure of class 0, and sure of nothing."""
    labels = torch.arange(N) % 3
    zero = torch.zeros_like(labels)
    students = torch.stack([one_hot(labels, 4), one_hot(zero, 4), one_hot(zero, 4, sure=0.0)])
    found = judged(students, labels)
    share = int((labels == 0).sum()) / N
    assert found.accuracies == [1.0, share, share]
    assert found.class_accuracies == [[1.0, 1.0, 1.0, None], [1.0, 0.0, 0.0, None], [1.0, 0.0, 0.0, None]]
    assert found.calibration_errors == pytest.approx([0.0, 1 - share, abs(share - 1 / 4)])
    assert found.agreement == pytest.approx((2 * share + 1) / 3)  # the second and third always agree


def test_calibration_error_by_hand() -> None:
    """Bins of a fifteenth: .9 and .91 share one (half right), .5 is alone (wrong), 1 is alone (right)."""
    confidences = torch.tensor([[0.90, 0.91, 0.50, 1.0]], dtype=torch.float64)
    correct = torch.tensor([[1.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    expected = 2 / 4 * abs(0.5 - 0.905) + 1 / 4 * 0.5
    assert calibration_errors(confidences, correct).tolist() == pytest.approx([expected])


def test_the_upper_edge_belongs_to_a_bin() -> None:
    edges = torch.arange(1, CALIBRATION_BINS + 1, dtype=torch.float64) / CALIBRATION_BINS
    pairs = torch.stack([edges, (edges - 1e-9)], 1).flatten()[None]  # both ends of a pair in one bin
    correct = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(CALIBRATION_BINS)[None]
    expected = float((0.5 - edges + 5e-10).abs().mean())
    assert calibration_errors(pairs, correct).tolist() == pytest.approx([expected], abs=1e-12)


@given(st.integers(0, 2**32), st.integers(2, 5), st.integers(1, 60))
def test_classes_calibration_and_agreement_are_consistent(seed: int, n_students: int, n: int) -> None:
    generator = random.generator(seed, "metrics")
    labels = torch.randint(4, (n,), generator=generator)
    found = judged(torch.randn(n_students, n, 4, generator=generator), labels)
    counts = labels.bincount(minlength=4).tolist()
    for mean, classes, error in zip(
        found.accuracies, found.class_accuracies, found.calibration_errors, strict=True
    ):
        assert [a is None for a in classes] == [count == 0 for count in counts]
        hits = sum(a * count for a, count in zip(classes, counts, strict=True) if a is not None)
        assert mean == pytest.approx(hits / n)
        assert error is not None
        assert 0 <= error <= 1
    assert found.agreement is not None
    assert 0 <= found.agreement <= 1


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_one_bin_of_confidence_is_accuracy_less_confidence(seed: int, n: int) -> None:
    correct = torch.randint(2, (3, n), generator=random.generator(seed, "correct")).double()
    found = calibration_errors(torch.full_like(correct, 0.42), correct)
    torch.testing.assert_close(found, (correct.mean(1) - 0.42).abs())


def test_agreement_counts_pairs() -> None:
    predicted = torch.tensor([[0, 1, 2, 3], [0, 1, 0, 0], [0, 2, 0, 3]])  # pairs share 2, 2, 2 of 4
    assert float(agreement(predicted)) == 0.5
    assert float(agreement(predicted[:1].repeat(5, 1))) == 1.0
    assert math.isnan(float(agreement(predicted[:1])))


def test_one_student_has_no_agreement() -> None:
    assert judged(torch.zeros(1, 5, 2), torch.zeros(5, dtype=torch.long)).agreement is None


def test_class_accuracies_by_hand() -> None:
    correct = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 1]], dtype=torch.float64)
    found = class_accuracies(correct, torch.tensor([2, 2, 0, 2]), 3)
    expected = torch.tensor([[1, math.nan, 2 / 3], [0, math.nan, 1 / 3]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_students_that_diverged_are_counted_and_claim_nothing(bad: float) -> None:
    """Even on one image only. Their accuracy is what was scored; the other figures are the others' own."""
    labels = torch.arange(6) % 3
    logits = torch.randn(4, 6, 3, generator=random.generator(0, "diverged"))
    sound = judged(logits[[0, 3]], labels)
    logits[1], logits[2, 4, 1] = bad, bad
    found = judged(logits, labels)
    assert found.diverged == 2
    assert found.calibration_errors == [sound.calibration_errors[0], None, None, sound.calibration_errors[1]]
    assert found.agreement == sound.agreement
    assert found.accuracies[0::3] == sound.accuracies
    assert found.accuracies[1] == 2 / 6, "the first class"
    assert sound.diverged == 0


def test_where_all_diverged_there_is_no_calibration() -> None:
    found = judged(torch.full((2, 6, 3), math.nan), torch.arange(6) % 3)
    assert (found.calibration_errors, found.agreement, found.diverged) == ([None, None], None, 2)


def test_a_logit_of_minus_infinity_is_a_class_that_is_ruled_out() -> None:
    logits = torch.tensor([[[0.0, -math.inf, 1.0]]])
    assert judged(logits, torch.tensor([2])).diverged == 0


def test_a_network_is_judged_as_by_accuracy() -> None:
    generator = random.generator(0, "judged")
    net = parse_architecture("convnet-d1-w4").build((1, 8, 8), 10, generator).eval()
    images = torch.randint(256, (N, 1, 8, 8), generator=generator).to(torch.uint8)
    labels = torch.randint(10, (N,), generator=generator)
    preprocess = Preprocess((0.3,), (0.2,))
    found = score_students(lambda x: net(x)[None], images, labels, preprocess, 10)
    assert found.accuracies == [accuracy(net, images, labels, preprocess)]
