"""What a distilled set takes to store: floats, bytes, images per class, and whether its budget holds."""

from bench.core.distilled import DistilledDataset
from bench.data.dataset import Dataset
from bench.records.schema import Storage


def measure_storage(distilled: DistilledDataset, data: Dataset, ipc: int | None) -> Storage:
    """What the artifact takes, in floats, bytes and images per class.

    Single numbers (0-dim: a learned step size, a momentum) count, but do not break the budget: pixels alone
    fill it, and a whole image per class would have to go for one number.
    """
    c, h, w = data.image_shape
    per_ipc = data.n_classes * c * h * w
    numbers = sum(t.dim() == 0 for t in distilled.state_dict().values())
    return Storage(
        floats=distilled.n_stored,
        bytes=4 * distilled.n_stored,
        bytes_uint8=distilled.bytes_uint8,
        ipc_equivalent=distilled.n_stored / per_ipc,
        transform_floats=distilled.transform_floats,
        within_budget=ipc is not None and distilled.n_stored - numbers <= ipc * per_ipc,
        exempt=ipc is None,
    )
