"""The parts that methods share: those that `compose` can name, and those that artifacts and jobs can."""

from typing import Any

from methods.blocks.attention import attention_matching
from methods.blocks.characteristic_functions import characteristic_function
from methods.blocks.dynamics import Dynamics
from methods.blocks.experts import ExpertEpoch, Experts
from methods.blocks.interpolated import InitialAndTrained, Interpolated
from methods.blocks.kernel_regression import kernel_regression
from methods.blocks.network_pools import Embedding, Fixed, Fresh, TrainedOnReal, TrainedOnSynthetic
from methods.blocks.network_queue import Queue
from methods.blocks.objectives import batch_norm_statistics, distribution_matching, gradient_matching
from methods.blocks.online_pool import Online
from methods.blocks.parameterise.hallucinators import Hallucinators
from methods.blocks.parameterise.linear_bases import LinearBases
from methods.blocks.parameterise.multi_formation import MultiFormation
from methods.blocks.parameterise.pixels import Pixels
from methods.blocks.parameterise.tiles import Tiles
from methods.blocks.parameterise.weighted_pixels import WeightedPixels
from methods.blocks.teacher import ImportedTeacher, NamedTeacher, Teacher
from methods.blocks.trajectory import TrajectoryMatching
from methods.blocks.unrolled import Unrolled
from methods.blocks.whitening import Whitening

BLOCK_CHOICES: dict[str, dict[str, Any]] = {
    "parameterisation": {
        "pixels": Pixels,
        "multi_formation": MultiFormation,
        "linear_bases": LinearBases,
        "hallucinators": Hallucinators,
        "tiles": Tiles,
    },
    "objective": {
        "gradient_matching": gradient_matching,
        "distribution_matching": distribution_matching,
        "trajectory_matching": TrajectoryMatching,
        "unrolled": Unrolled,
        "batch_norm_statistics": batch_norm_statistics,
        "kernel_regression": kernel_regression,
        "attention": attention_matching,
        "characteristic_function": characteristic_function,
    },
    "pool": {
        "fresh": Fresh,
        "trained_on_real": TrainedOnReal,
        "trained_on_synthetic": TrainedOnSynthetic,
        "experts": Experts,
        "teacher": Fixed,
        "online": Online,
        "interpolated": Interpolated,
        "queue": Queue,
    },
    "prerequisite": {
        "Dynamics": Dynamics,
        "Embedding": Embedding,
        "ExpertEpoch": ExpertEpoch,
        "ImportedTeacher": ImportedTeacher,
        "InitialAndTrained": InitialAndTrained,
        "NamedTeacher": NamedTeacher,
        "Teacher": Teacher,
        "Whitening": Whitening,
    },
}
BLOCKS = (
    *BLOCK_CHOICES["parameterisation"].values(),
    WeightedPixels,  # chosen, and not learned: `compose` cannot start from it
    *BLOCK_CHOICES["prerequisite"].values(),
)
