"""On what seconds were taken: those of two devices, or of two shares of one, do not compare. No torch."""

from collections.abc import Iterable

import pandas as pd

from bench.records.naming import CELL

LETTERS = "Seconds compare between rows of one device only; a mean over several is not taken."
SEVERAL = "Seconds are of several devices, and compare within one only."
SEPARATOR = "; "  # between the devices of a cell's seeds


def device_shares(rows: pd.DataFrame) -> pd.Series:
    """The device of each record; with the share of it that a job had where these differ on one device.

    Args:
        rows: A row per record.
    """
    had = [_share(cpus, gpus) for cpus, gpus in zip(rows["cpus"], rows["gpus"], strict=True)]
    share = pd.Series(had, rows.index, dtype=str)
    several = share.groupby(rows["device"]).transform("nunique") > 1
    return rows["device"].where(~several, rows["device"] + ", " + share)


def _share(cpus: float, gpus: float) -> str:
    """`2 CPUs a job`, `1 CPU and 0.25 GPU a job`."""
    cores = f"{cpus:g} CPU" if cpus == 1 else f"{cpus:g} CPUs"
    return f"{cores} and {gpus:g} GPU a job" if gpus else f"{cores} a job"


def of_one_device(rows: pd.DataFrame) -> pd.Series:
    """Whether all records of a record's cell are of one device, so that the mean of their seconds is one."""
    shares = device_shares(rows)
    return shares.groupby([rows[name] for name in CELL], dropna=False).transform("nunique") == 1


def joined_devices(devices: pd.Series) -> str:
    """The devices of a cell's seeds as one text."""
    return SEPARATOR.join(sorted(set(devices)))


def _names(devices: Iterable[str]) -> list[str]:
    return sorted({one for text in devices for one in text.split(SEPARATOR)})


def device_letters(devices: Iterable[str]) -> dict[str, str]:
    """A letter for each device; empty where there is one device.

    Args:
        devices: The `device` of rows of the summary.
    """
    names = _names(devices)
    return {name: _letter(i) for i, name in enumerate(names)} if len(names) > 1 else {}


def _letter(i: int) -> str:
    return (_letter(i // 26 - 1) if i >= 26 else "") + chr(ord("a") + i % 26)


def several_devices(devices: Iterable[str]) -> list[str]:
    """The note of a table or plot whose rows have seconds of several devices; else nothing.

    Args:
        devices: The `device` of rows of the summary.
    """
    return [SEVERAL] if len(_names(devices)) > 1 else []
