"""The parts that methods share. `BLOCKS` is what artifacts and jobs may name."""

from methods.blocks.parameterise import Pixels
from methods.blocks.pools import Embedding

BLOCKS = (Pixels, Embedding)
