"""The parts that methods share. `BLOCKS` is what artifacts and jobs may name."""

from methods.blocks.experts import ExpertEpoch
from methods.blocks.parameterise import Hallucinators, LinearBases, MultiFormation, Pixels
from methods.blocks.pools import Embedding

BLOCKS = (Pixels, MultiFormation, LinearBases, Hallucinators, Embedding, ExpertEpoch)
