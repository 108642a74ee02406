"""The gradient of one inner step with the graph behind it, and the bytes that such a graph keeps."""

from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


@dataclass(frozen=True)
class StepGradient:
    """The gradient of the loss of one inner step, and what it was computed from.

    Args:
        value: [P]; with a graph if the images require a gradient.
        weights: [P].
        images: [b,C,H,W].
        targets: int64 [b], or [b,K].
    """

    value: Tensor
    weights: Tensor
    images: Tensor
    targets: Tensor


class GraphSize(saved_tensors_hooks):
    """Counts the bytes of what autograd keeps of the operations inside; a storage that is shared once."""

    def __init__(self) -> None:
        self._storages: dict[int, int] = {}
        super().__init__(self._count, lambda tensor: tensor)

    def _count(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._storages[storage._cdata] = storage.nbytes()  # a dry run has no addresses
        return tensor

    @property
    def bytes(self) -> int:
        """The sum over the storages."""
        return sum(self._storages.values())
