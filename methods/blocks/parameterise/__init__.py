"""How a distilled set is stored. A parameterisation knows no network."""

from methods.blocks.parameterise.base import Balanced
from methods.blocks.parameterise.formation import MultiFormation
from methods.blocks.parameterise.hallucinators import Hallucinators
from methods.blocks.parameterise.linear import LinearBases
from methods.blocks.parameterise.pixels import Pixels

__all__ = ["Balanced", "Hallucinators", "LinearBases", "MultiFormation", "Pixels"]
