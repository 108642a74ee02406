"""What the students' predictions on the test images say: accuracy, calibration, agreement."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.core.preprocess import Preprocess
from bench.core.training import piece_size

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Scores:
    """Fractions; a list has one entry per student."""

    accuracies: list[float]
    class_accuracies: list[list[float | None]]  # per student and class; None: no image of that class
    calibration_errors: list[float]
    agreement: float | None  # of one student there is none


@torch.inference_mode()
def score_students(
    logits: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    preprocess: Preprocess,
    n_classes: int,
) -> Scores:
    """Judge S students on uint8 images [N,C,H,W] with labels int64 [N].

    `logits` maps images [n,C,H,W] as networks see them to [S,n,K]. Some images at a time; one wait for the
    device, at the end.
    """
    pieces = [_predict(logits(preprocess(x))) for x in images.split(piece_size(images.device))]
    predicted, confidences = (torch.cat(part, dim=1) for part in zip(*pieces, strict=True))
    correct = (predicted == labels).double()
    by_class = class_accuracies(correct, labels, n_classes)
    errors = calibration_errors(confidences.nan_to_num(1 / n_classes), correct)
    found = torch.cat([correct.mean(1, keepdim=True), errors[:, None], by_class], dim=1)
    *students, (agreed, *_) = torch.cat([found, agreement(predicted).expand(1, found.shape[1])]).tolist()
    return Scores(
        accuracies=[accuracy for accuracy, *_ in students],
        class_accuracies=[[None if a != a else a for a in accuracies] for _, _, *accuracies in students],
        calibration_errors=[error for _, error, *_ in students],
        agreement=None if agreed != agreed else agreed,
    )


def _predict(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Class [S,n] and its probability; logits that are not finite give NaN, which claims nothing."""
    confidences, predicted = logits.float().softmax(-1).max(-1)
    return predicted, confidences.double()


def class_accuracies(correct: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """The fraction of each class's images that is right: correct [S,N] of 0 and 1, labels [N] -> [S,K].

    NaN for a class without images.
    """
    hits = correct.new_zeros(len(correct), n_classes).index_add_(1, labels, correct)
    counts = correct.new_zeros(n_classes).index_add_(0, labels, torch.ones_like(correct[0]))
    return hits / counts


def calibration_errors(confidences: Tensor, correct: Tensor) -> Tensor:
    """Expected calibration error (Guo et al., ICML 2017, eq. 3) of confidences and correctness [S,N] -> [S].

    The mean distance of confidence from accuracy over 15 equal bins ((b-1)/15, b/15], weighted by images.
    """
    bins = (confidences * CALIBRATION_BINS).ceil().clamp(1, CALIBRATION_BINS) - 1
    inside = bins[:, None] == torch.arange(CALIBRATION_BINS, device=bins.device)[:, None]
    gaps = (correct - confidences)[:, None].where(inside, 0).sum(2)
    return gaps.abs().sum(1) / confidences.shape[1]


def agreement(predicted: Tensor) -> Tensor:
    """The mean over pairs of students of how often they predict the same class: [S,N] -> scalar.

    NaN for one student.
    """
    n_students, n_images = predicted.shape
    alike = (predicted[:, None] == predicted).double().sum() - n_students * n_images  # less each with itself
    return alike / (n_students * (n_students - 1) * n_images)
