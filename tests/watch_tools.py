"""What a piece of code makes PyTorch do: the operations that it runs, and the memory of their results."""

from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Watch(TorchDispatchMode):
    """The most bytes of tensors alive at once, of those made while it watches; and the operations run.

    `flops` are those of convolutions and matrix products, a multiply-add is two, by PyTorch's own formulae.
    Its FlopCounterMode hooks modules too, and fails where `autograd.grad` asks for gradients inside of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak, self.flops, self.operations = 0, 0, set[str]()
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations.add(func.name())
        if count := flop_registry.get(func._overloadpacket):
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                reference = StorageWeakRef(x.untyped_storage())
                self._alive[reference.cdata] = (reference, x.untyped_storage().nbytes())
        self._alive = {k: v for k, v in self._alive.items() if not v[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return out
