"""What a distilled set takes to store: floats, bytes, images per class, and whether its budget holds."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bench.core.distilled import DistilledDataset, stored_floats
from bench.core.errors import UserError
from bench.core.teachers import teacher_state
from bench.data.dataset import Dataset
from bench.records.schema import SoftLabels, Storage

# 0-dim tensors that do not break the budget: the learned step of an inner loop
LEARNED_NUMBERS = frozenset({"inner_lr", "inner_momentum"})
LABELS = "label_logits"  # the stored tensor of labels that were learned with a set
NOT_PIXELS = {LABELS, "weights", *LEARNED_NUMBERS}  # stored tensors that images are not made of
# what a file may hold beside what is counted: bytes, and bytes a class, and a part of what is counted
HEADER_BYTES, HEADER_BYTES_PER_CLASS, HEADER_PART = 2048, 8, 1 / 64


def measure_storage(
    distilled: DistilledDataset,
    data: Dataset,
    ipc: int | None,
    teacher: Mapping[str, Tensor] | None = None,
    given: SoftLabels | None = None,
) -> Storage:
    """What the artifact takes, in floats, bytes and images per class.

    The learned step size and momentum (0-dim) count, but do not break the budget: pixels alone fill it, and a
    whole image per class would have to go for one number. Neither do soft labels that the protocol's teacher
    gives to every set alike: they count, and the budget is for what the method stores.

    Args:
        distilled: the set.
        data: the data set, for the size of an image and the classes.
        ipc: the budget; None: it has none.
        teacher: state of the network that labels what students are trained on, if there is one. Its bytes
            are a figure of their own, and no part of the budget.
        given: the soft labels of the protocol, a probability vector an image, with which the teacher is not
            needed.
    """
    c, h, w = data.image_shape
    per_ipc = data.n_classes * c * h * w
    state = distilled.state_dict()
    free = sum(stored_floats(t) for name, t in state.items() if name in LEARNED_NUMBERS and t.dim() == 0)
    learned = stored_floats(state[LABELS]) if LABELS in state else 0
    more = 0 if given is None else _n_images(distilled) * data.n_classes
    more_bytes = more * (2 if given is not None and given.stored_as == "fp16" else 4)
    single = distilled.bytes_uint8
    return Storage(
        floats=distilled.n_stored + more,
        bytes=4 * distilled.n_stored + more_bytes,
        bytes_uint8=None if single is None else single + more_bytes,
        ipc_equivalent=(distilled.n_stored + more) / per_ipc,
        transform_floats=distilled.transform_floats,
        within_budget=ipc is not None and distilled.n_stored - free <= ipc * per_ipc,
        exempt=ipc is None,
        teacher_bytes=0 if given is not None else weight_bytes(teacher_state(teacher or {})),
        label_floats=learned + more,
    )


def images_per_class(distilled: DistilledDataset, data: Dataset) -> int:
    """How many images have as many numbers as a class stores, without labels; rounded up."""
    stored = sum(t.numel() for name, t in distilled.state_dict().items() if name not in NOT_PIXELS)
    return math.ceil(stored / (data.n_classes * math.prod(data.image_shape)))


@torch.no_grad()
def _n_images(distilled: DistilledDataset) -> int:
    return len(distilled.decode()[0])


def weight_bytes(state: Mapping[str, Tensor]) -> int:
    """Bytes of a network's state, as it is stored."""
    return sum(t.numel() * t.element_size() for t in state.values())


def check_header(path: Path, distilled: DistilledDataset, n_classes: int) -> None:
    """Check that the file of a set holds nothing to speak of beside the tensors that are counted.

    Args:
        path: the safetensors file.
        distilled: the set that it holds.
        n_classes: of the data set.

    Raises:
        UserError: its header, with the config and the names of the tensors, is too long.
    """
    with path.open("rb") as file:
        taken = int.from_bytes(file.read(8), "little")
    counted = 4 * distilled.n_stored
    allowed = int(HEADER_BYTES + HEADER_BYTES_PER_CLASS * n_classes + HEADER_PART * counted)
    if taken > allowed:
        raise UserError(
            f"the header of {path.name} takes {taken:,} bytes, of which {allowed:,} are allowed: put what is "
            "stored into tensors, which count, and not into config() or names"
        )
