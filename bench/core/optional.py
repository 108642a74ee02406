"""Libraries that are imported where they are used, so that the rest works without them."""

import importlib
from typing import Any

from bench.core.errors import UserError, first_line


def import_torchvision(part: str) -> Any:
    """The module torchvision.`part`. Raises UserError if torchvision is missing or does not match torch."""
    try:
        return importlib.import_module(f"torchvision.{part}")
    except ModuleNotFoundError as error:
        raise UserError(f"torchvision is needed here ({error}): pip install torchvision") from error
    except (RuntimeError, ImportError, AttributeError, OSError) as error:
        raise UserError(
            f"the torch and torchvision builds do not match ({first_line(error)}): reinstall both "
            "together with pip install --force-reinstall torch torchvision"
        ) from error
