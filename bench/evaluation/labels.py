"""The labels that a protocol has students learn: the set's own, the class, or what a teacher says."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from bench.core.preprocess import Preprocess
from bench.planning.protocols import Protocol

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class LabelChoice:
    """Which soft labels: from the teacher after a fraction of its training, at a temperature."""

    stop: float
    temperature: float

    def __str__(self) -> str:
        return f"{self.stop:g}/{self.temperature:g}"


def label_candidates(protocol: Protocol) -> list[LabelChoice]:
    """The soft labels of which a hold-out chooses; empty for other labels."""
    return [LabelChoice(*candidate) for candidate in protocol.label_candidates]


def label_scores(protocol: Protocol, tuned: Tensors | None) -> dict[LabelChoice, float]:
    """What students with each candidate scored on the hold-out, mean; empty where there was no choice."""
    if tuned is None or "label_accuracies" not in tuned:
        return {}
    means = tuned["label_accuracies"].mean(1).tolist()
    return dict(zip(label_candidates(protocol), means, strict=True))


def label_choice(protocol: Protocol, tuned: Tensors | None) -> LabelChoice | None:
    """The candidate that scored best on the hold-out, of equals the first; None without soft labels."""
    scores = label_scores(protocol, tuned)
    return max(scores or label_candidates(protocol), key=lambda choice: scores.get(choice, 0.0), default=None)


class Seeing(nn.Module):
    """A network that was trained on other normalised images than the students get."""

    def __init__(self, net: nn.Module, own: Preprocess, given: Preprocess) -> None:
        super().__init__()
        self.net, self.own, self.given = net, own, given

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images if self.own == self.given else self.own(self.given.invert(images)))
