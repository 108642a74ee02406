"""What the students' predictions on the test images say: accuracy, calibration, agreement."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.core import counting
from bench.core.pieces import Halving, piece_size
from bench.core.preprocess import Preprocess

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Scores:
    """Fractions; a list has one entry per student."""

    accuracies: list[float]
    class_accuracies: list[list[float | None]]  # per student and class; None: no image of that class
    calibration_errors: list[float | None]  # None: diverged
    agreement: float | None  # of those that did not diverge; None for fewer than two
    diverged: int  # students with logits that are not finite for some image


@torch.inference_mode()
def score_students(
    logits: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    preprocess: Preprocess,
    n_classes: int,
) -> Scores:
    """Score S students.

    Args:
        logits: maps images [n,C,H,W], as networks see them, to logits [S,n,K].
        images: uint8 [N,C,H,W]; some go through the networks at a time.
        labels: int64 [N].
        preprocess: what networks see of the images.
        n_classes: K.

    Returns:
        The scores. The device is waited for once, after the last image.
    """
    pieces, fitting = [], Halving(lambda x: logits(preprocess(x)), dim=1)
    for x in images.split(piece_size(images.device, images.shape)):
        pieces.append(_predict(fitting(x)))
        counting.count_passes(len(x) * len(pieces[-1][0]))
    predicted, confidences = (torch.cat(part, dim=1).cpu() for part in zip(*pieces, strict=True))
    labels = labels.cpu()  # from here on on the host: one number for each student and image
    correct = (predicted == labels).double()
    by_class = class_accuracies(correct, labels, n_classes).tolist()
    sound = ~confidences.isnan().any(1)  # [S]; the others' predictions claim nothing
    errors = iter(calibration_errors(confidences[sound], correct[sound]).tolist())
    agreed = agreement(predicted[sound]).item() if sound.sum() > 1 else None
    return Scores(
        accuracies=correct.mean(1).tolist(),
        class_accuracies=[[None if math.isnan(a) else a for a in accuracies] for accuracies in by_class],
        calibration_errors=[next(errors) if finite else None for finite in sound.tolist()],
        agreement=agreed,
        diverged=int((~sound).sum()),
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
