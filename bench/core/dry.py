"""A dry run on torch's meta device: what a job would take, from shapes alone, and where it would wait.

Tensors there have shapes and no numbers. So an operation that needs a value fails, and what a device would
hold is counted without being allocated.
"""

import sys
import sysconfig
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from bench.core import operations, transfer
from bench.core.errors import UserError
from bench.core.timing import Operation

META = torch.device("meta")
ROOT = Path(__file__).parents[2]
_ATEN = torch.ops.aten
# operations that a GPU's host waits for, beside those that torch cannot do without numbers
_READS = {_ATEN._local_scalar_dense, _ATEN._linalg_check_errors, _ATEN.nonzero, _ATEN.equal, _ATEN.bincount}
_FIRST, _VIEW = object(), object()  # the result is the first input, with other numbers; or shares its memory
_RESHAPING = "resize resize_as set t transpose squeeze unsqueeze as_strided detach swapaxes swapdims"
_RESHAPE = {f"aten::{name}_" for name in _RESHAPING.split()}
_COPIES = {_ATEN._to_copy, _ATEN.copy_}
_MAKES = {torch.tensor, torch.as_tensor, Tensor.new_tensor}
# files that are never the place where something waits: these, torch, and Python's own library
_PASSED = (
    *(__file__, transfer.__file__, operations.__file__),
    *(torch.__path__[0], sysconfig.get_path("stdlib"), "<"),
)


class Waits(UserError):
    """The host would wait for the device here."""


@dataclass(frozen=True)
class Piece:
    """The memory of one tensor."""

    bytes: int = 0
    operation: str = ""  # that made it
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.operation} {'x'.join(map(str, self.shape))}"


class _Sketch(tuple[Any, ...]):
    """Shape, strides, type and kind of device of a tensor."""


def _sketch(value: Any, tensors: list[Tensor]) -> Any:
    """What shapes follow from: of tensors, whole numbers, and what is no number; notes the tensors."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return _Sketch((value.shape, value.stride(), value.dtype, value.device.type))
    if isinstance(value, float):
        return float
    if isinstance(value, list | tuple):
        return (type(value), *[_sketch(one, tensors) for one in value])
    if isinstance(value, dict):
        return tuple([(name, _sketch(one, tensors)) for name, one in value.items()])
    return value


def _fresh(known: Any, tensors: list[Tensor]) -> Any:
    """A result like a sketch; notes the tensors."""
    if isinstance(known, _Sketch):
        size, stride, dtype, _ = known
        tensors.append(torch.empty_strided(size, stride, dtype=dtype, device=META))
        return tensors[-1]
    if isinstance(known, tuple):
        kind, *parts = known
        made = [_fresh(part, tensors) for part in parts]
        return made if kind is list else tuple(made)
    return known


def _known_again(func: Any, args: Any, out: Any, like: Any, made: list[Tensor], new: list[Tensor]) -> Any:
    """What is to be kept of an operation, to know its result the next time; None: nothing can be.

    A result is known if it is new tensors, or the first input with other numbers. A view is made anew.
    """
    if args and out is args[0]:
        name = func._schema.name
        return _FIRST if name.endswith("_") and name not in _RESHAPE else None
    if not new:
        return _VIEW
    return like if len(new) == len(made) and all(t.is_meta for t in made) else None


def _laid_out(packet: Any, args: Any, out: Any) -> Any:
    """A convolution's results with the channels last in memory where devices have them so, and meta has not.

    Networks take another way then, see `networks.second_order`.
    """
    if packet not in (_ATEN.convolution, _ATEN.convolution_backward):
        return out
    given = [t for t in args[:3] if isinstance(t, Tensor) and t.is_meta and t.ndim == 4]
    own = given[:2] if packet is _ATEN.convolution else given[1:]  # images and kernel
    if not any(t.stride(1) == 1 and not t.is_contiguous() for t in own):
        return out
    last = torch.channels_last
    parts = out if isinstance(out, tuple) else (out,)
    found = [t.contiguous(memory_format=last) if t is not None and t.ndim == 4 else t for t in parts]
    return tuple(found) if isinstance(out, tuple) else found[0]


class _NoTensorsFromNumbers(TorchFunctionMode):
    """Tensors made on the device from numbers of the host, which no dispatch sees there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MAKES and torch.device(kwargs.get("device") or "cpu") == META:
            raise Waits(f"{where()} makes a tensor of the device from numbers, and waits: use torch.full")
        return func(*args, **kwargs)


class DryRun(TorchDispatchMode):
    """Counts the bytes that would be on the device, and finds where the host would wait for it.

    What needs a number of the device raises `Waits`, with the place in the file; inside of `step` so does a
    copy that waits, and a tensor of the host among those of the device. A single number may come from the
    host: it goes along with the operation.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in torch
        self.alive = self.peak = 0  # bytes
        self.largest = Piece()
        self._storages: dict[int, weakref.ref[Any]] = {}
        self._in_step = False
        # what operations gave for such inputs: torch computes shapes in Python, up to a millisecond each
        self._known: dict[Any, Any] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch's guard against its compiler takes longer than what is done here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, func._overloadpacket
        given: list[Tensor] = []
        made: list[Tensor] = []
        key = (func, _sketch(args, given), _sketch(kwargs, given))
        there = any(t.is_meta for t in given)
        if there and packet in _READS:
            raise Waits(f"{where()} needs a number from the device ({packet.__name__})")
        if self._in_step:
            self._check_step(packet, args, kwargs, given)
        known = self._known.get(key) if there else None
        if known is _FIRST:
            return args[0]
        if known is _VIEW:
            return func(*args, **kwargs)
        if known is not None:
            out = _fresh(known, made)
        else:
            try:
                out = _laid_out(packet, args, func(*args, **kwargs))
            except NotImplementedError as error:
                if not there:
                    raise
                raise Waits(f"{where()} needs numbers from the device ({packet.__name__})") from error
            like, all_made, shared = _sketch(out, made), made, {t.untyped_storage()._cdata for t in given}
            made = [t for t in all_made if t.untyped_storage()._cdata not in shared]
            if there:
                self._known[key] = _known_again(func, args, out, like, all_made, made)
        for tensor in made:
            if tensor.is_meta:
                self._hold(tensor, packet)
        return out

    def _check_step(self, packet: Any, args: Any, kwargs: Any, given: list[Tensor]) -> None:
        """Nothing in a step waits, and nothing is computed on the device from tensors of the host."""
        here = [t for t in given if t.device.type == "cpu"]
        if packet in _COPIES:
            there = len(here) < len(given) or torch.device(kwargs.get("device") or "cpu") == META
            waits = not (kwargs.get("non_blocking") or (packet is _ATEN.copy_ and True in args[2:]))
            if here and there and waits:
                raise Waits(f"{where()} copies to the device and waits: use bench.core.transfer.to_device")
        elif len(here) < len(given) and any(t.ndim for t in here):
            raise Waits(f"{where()} gives {packet.__name__} a tensor of the host and one of the device")

    def _hold(self, tensor: Tensor, packet: Any) -> None:
        """Count the memory of a tensor until nothing holds it."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = storage.nbytes()

        def freed(_: Any) -> None:
            self.alive -= size
            self._storages.pop(key, None)

        self._storages[key] = weakref.ref(storage, freed)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        if size > self.largest.bytes:
            self.largest = Piece(size, packet.__name__, tuple(tensor.shape))

    @contextmanager
    def step(self, reads: bool = False) -> Iterator[None]:
        """What runs inside is a step: nothing in it may wait for the device.

        Args:
            reads: but for `transfer.to_host`.
        """
        before, self._in_step = self._in_step, True
        try:
            with nullcontext() if reads else transfer.no_reads(), _NoTensorsFromNumbers():
                yield
        finally:
            self._in_step = before

    # --- as a `timing.Watcher`: the steps of trainings inside are steps -------------------------------------

    def inside(self, operation: Operation) -> AbstractContextManager[None]:
        """See `timing.Watcher`."""
        return nullcontext()

    def through(self, operation: Operation, arguments: tuple[object, ...], result: object) -> None:
        """See `timing.Watcher`."""

    def paced(self, n: int, share: float) -> Iterator[int]:
        """See `timing.Watcher`."""
        for step in range(n):
            with self.step():
                yield step


def where() -> str:
    """The place in a file that is at work, outside of torch, Python's library and what counts here."""
    frame: FrameType | None = sys._getframe(1)
    while frame and frame.f_code.co_filename.startswith(_PASSED):
        frame = frame.f_back
    if frame is None:
        return "something"
    path = Path(frame.f_code.co_filename)
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    return f"{name}:{frame.f_lineno}"
