"""A profile as tables for the terminal and Markdown, and as rows of a CSV file."""

# ruff: noqa: RUF001  (tables use real multiplication signs)

import pandas as pd

from bench.core.words import count, duration
from bench.reporting.tables.table import MISSING, Comparison, TableCell, TableColumn, short_number
from bench.tools.profile.result import Profile, ProfiledPhase, ProfiledStep
from bench.tools.profile.scaling import ScalingAxis


def profile_tables(profile: Profile) -> list[Comparison]:
    """Three tables: phases and their operations, the step and the projection, and the scaling."""
    return [_operations(profile), _figures(profile), _scaling(profile)]


def _operations(profile: Profile) -> Comparison:
    columns = _columns("phase", "operation", "seconds", "%", "in full", "peak MiB", left=2)
    groups = [_phase(phase) for phase in profile.phases]
    threads = count(profile.cpus, "thread")
    where = profile.device if profile.gpus else f"{profile.device}, {threads}"
    shape = "x".join(map(str, profile.image_shape))
    notes = [
        f"{where}; {profile.n_classes} classes of {shape} pixels.",
        "seconds: own time of what was watched, so that operations add up. A backward pass is charged to the "
        "operation whose results it goes through. The gradients: also features, and the outer loss.",
        *(f"{phase.name}: {phase.note}." for phase in profile.phases),
    ]
    return Comparison(profile.title, columns, groups, notes)


def _columns(*headers: str, left: int) -> list[TableColumn]:
    """The first of them, as many as `left`, are aligned to the left."""
    return [TableColumn(header, left=i < left) for i, header in enumerate(headers)]


def _cells(rows: list[list[str]]) -> list[list[TableCell]]:
    return [[TableCell(text) for text in row] for row in rows]


def _phase(phase: ProfiledPhase) -> list[list[TableCell]]:
    mib = short_number(phase.peak_bytes / 2**20) if phase.peak_bytes else MISSING
    share = "100" if phase.total else ""
    head = ["all", short_number(phase.total / 1e9), share, duration(phase.projected_s), mib]
    rows = [
        [phase.name, name, short_number(spent / 1e9), f"{100 * spent / phase.total:.1f}", "", ""]
        for name, spent in phase.operations()
    ]
    return [[TableCell(phase.name), *(TableCell(text, bold=True) for text in head)], *_cells(rows)]


def _figures(profile: Profile) -> Comparison:
    groups = [_step(profile, profile.step)] if profile.step else []
    kwh = profile.projected_kwh
    unit = "GPU-hours" if profile.gpus else "device-hours"
    groups.append([
        ["in full", "time, all phases", duration(profile.projected_s)],
        ["in full", unit, short_number(profile.device_hours)],
        ["in full", "energy of the steps, kWh", "not measured" if kwh is None else short_number(kwh)],
    ])  # fmt: skip
    notes = [
        "GFLOP: convolutions and matrix products, a multiply-add is two. Rate: the best of ten large float32 "
        f"matrix products here, {profile.matrix_rate / 1e9:,.0f} GFLOP/s; convolutions may beat it "
        "(on a GPU, in TF32).",
        "in full: all steps of the preset at their mean cost, and all prerequisites.",
    ]
    columns = _columns("", "figure", "value", left=2)
    return Comparison("A step, and all of them", columns, [_cells(group) for group in groups], notes)


def _step(profile: Profile, step: ProfiledStep) -> list[list[str]]:
    share = profile.share_of_rate
    figures = {
        "steps in full": f"{step.total:,}",
        "steps per second (median)": short_number(step.per_second),
        "ms, median": short_number(1000 * step.median_s),
        "ms, mean": short_number(1000 * step.mean_s),
        "ms, mean while watched": MISSING if step.watched_s is None else short_number(1000 * step.watched_s),
        "GFLOP": MISSING if step.flops is None else short_number(step.flops / 1e9),
        "% of the matrix rate": MISSING if share is None else short_number(100 * share),
        "J": "not measured" if step.joules is None else short_number(step.joules),
    }
    return [["a step", *figure] for figure in figures.items()]


def _scaling(profile: Profile) -> Comparison:
    what = "a step" if profile.step else "the distillation"
    notes = [
        f"Of {what}, the hyper-parameters being the same, on normalised images: ms = a × size^exponent, by "
        "least squares on the logarithms of the sizes shown.",
        *(f"{', '.join(names)}: {note}." for note, names in _notes(profile).items()),
    ]
    groups = [_axis(axis) for axis in profile.scaling if axis.sizes]
    columns = _columns("axis", "size", "ms", "exponent", "R²", left=1)
    return Comparison("How it scales", columns, groups, notes)


def _notes(profile: Profile) -> dict[str, list[str]]:
    """{reason: axes}: why axes have no exponent."""
    found: dict[str, list[str]] = {}
    for axis in profile.scaling:
        if axis.note:
            found.setdefault(axis.note, []).append(axis.name)
    return found


def _axis(axis: ScalingAxis) -> list[list[TableCell]]:
    fitted = [MISSING if x is None else f"{x:.2f}" for x in (axis.exponent, axis.r2)]
    return _cells([
        [axis.name, str(size), short_number(1000 * seconds), *(fitted if i == 0 else ["", ""])]
        for i, (size, seconds) in enumerate(zip(axis.sizes, axis.seconds, strict=True))
    ])  # fmt: skip


def profile_frame(profile: Profile) -> pd.DataFrame:
    """A row for each figure: (kind, name, item, value, unit), after columns that name the profile."""
    rows: list[tuple[str, str, str, float | None, str]] = []
    for phase in profile.phases:
        rows += [
            ("phase", phase.name, "measured", phase.seconds, "s"),
            ("phase", phase.name, "projected", phase.projected_s, "s"),
            ("phase", phase.name, "peak memory", phase.peak_bytes or None, "bytes"),
        ]
        rows += [("operation", phase.name, name, spent / 1e9, "s") for name, spent in phase.operations()]
    if step := profile.step:
        rows += [
            ("step", "distill", "total", step.total, "steps"),
            ("step", "distill", "median", step.median_s, "s"),
            ("step", "distill", "mean", step.mean_s, "s"),
            ("step", "distill", "watched", step.watched_s, "s"),
            ("step", "distill", "operations", step.flops, "FLOP"),
            ("step", "distill", "share of the matrix rate", profile.share_of_rate, "1"),
            ("step", "distill", "energy", step.joules, "J"),
        ]
    rows += [
        ("projected", "all", "time", profile.projected_s, "s"),
        ("projected", "all", "device-hours", profile.device_hours, "h"),
        ("projected", "distill", "energy", profile.projected_kwh, "kWh"),
    ]
    for axis in profile.scaling:
        rows += [
            ("scaling", axis.name, str(n), s, "s") for n, s in zip(axis.sizes, axis.seconds, strict=True)
        ]
        rows += [
            ("scaling", axis.name, "exponent", axis.exponent, "1"),
            ("scaling", axis.name, "R2", axis.r2, "1"),
        ]
    of = ("method", "dataset", "ipc", "architecture", "device")
    here = [getattr(profile, name) for name in of]
    columns = [*of, "kind", "name", "item", "value", "unit"]
    return pd.DataFrame([[*here, *row] for row in rows], columns=columns)
