"""How large a sweep is: defaults as large as in the papers, and the setting that makes it smaller.

And where it leaves what the papers say: data sets and images per class that their settings do not cover.
"""

from collections.abc import Iterable, Mapping

from bench.data.spec import preset_name
from bench.planning.estimate import Estimator, loop_steps, step_counts
from bench.planning.graph import Job
from bench.planning.presets import not_covered
from bench.planning.sweep import Sweep

LONG_S = 3600.0  # of work, above which `run` warns
PAPER_STEPS = 5000  # of a loop, from which on a default is said
# hyper-parameters that say how much a method's prerequisites cost, where it has them
PREPARE_SIZES = ("network_steps", "experts", "net_epochs")


def paper_sized(sweep: Sweep, methods: Iterable[str]) -> str | None:
    """A line on the methods whose many steps are a default or a preset, and not the sweep's own choice.

    Args:
        sweep: the checked sweep file.
        methods: those that have something to run.

    Returns:
        The line; None where there are none.
    """
    found: dict[str, tuple[int, str]] = {}
    for entry in sweep.methods:
        for spec in sweep.datasets:
            for ipc in sweep.ipc:
                values = vars(entry.resolve(preset_name(spec.name, spec.label), ipc))
                names, steps = step_counts(values), loop_steps(values)
                own = any(name in entry.values for name in names)
                if (
                    entry.name in methods
                    and not own
                    and steps >= max(PAPER_STEPS, found.get(entry.name, (0,))[0])
                ):
                    found[entry.name] = steps, _setting(entry.name, names[0], values[names[0]] / 100)
    if not found:
        return None
    sizes = ", ".join(f"{name} {steps:,} steps" for name, (steps, _) in found.items())
    settings = " ".join(f"--set {setting}" for _, setting in found.values())
    return f"as large as in the papers: {sizes}; for a first look {settings}"


def without_presets(sweep: Sweep, methods: Iterable[str]) -> list[str]:
    """A line for each method with hyper-parameters that its preset gives for other data sets or ipc only.

    Args:
        sweep: the checked sweep file.
        methods: those that have something to run.
    """
    found: dict[tuple[str, str], tuple[list[int], list[str]]] = {}
    for entry in sweep.methods:
        for spec in sweep.datasets if entry.name in methods else ():
            dataset = preset_name(spec.name, spec.label)
            for ipc in sweep.ipc:
                if names := not_covered(entry.name, dataset, ipc, entry.values):
                    found.setdefault((entry.name, spec.label), ([], names))[0].append(ipc)
    return [
        f"{method}: its paper gives no {', '.join(names)} for {label} at ipc {', '.join(map(str, ipc))}: "
        "defaults stand in for them"
        for (method, label), (ipc, names) in found.items()
    ]


def smaller_setting(jobs: Mapping[str, Job], todo: Iterable[str], costs: Estimator) -> str | None:
    """The `--set` that would bring what costs most to about an hour; None where no estimate is known."""
    spent: dict[tuple[str, str], float] = {}  # by kind of job and method
    of: dict[tuple[str, str], Job] = {}  # the distillation with the most steps
    users = _methods(jobs)
    for key in todo:
        seconds, distill = costs.seconds(key), users.get(key)
        if seconds and distill:
            part = jobs[key].kind, str(distill.identity["method"])
            spent[part] = spent.get(part, 0.0) + seconds
            of.setdefault(part, distill)
    if not spent:
        return None
    kind, method = part = max(spent, key=lambda part: spent[part])
    values = of[part].identity["hyperparameters"]
    names = PREPARE_SIZES if kind == "prepare" else step_counts(values) if kind == "distill" else ()
    name = next((name for name in names if isinstance(values.get(name), int)), None)
    if name is None:
        return "evaluate.students=1" if kind in ("tune", "evaluate") else None
    return _setting(method, name, values[name] * min(0.5, LONG_S / spent[part]))


def _methods(jobs: Mapping[str, Job]) -> dict[str, Job]:
    """The distillation that each job belongs to, the first of several."""
    found = {key: job for key, job in jobs.items() if job.kind == "distill"}
    for key, job in jobs.items():
        if job.kind in ("tune", "evaluate"):
            found[key] = jobs[job.inputs["artifact"]]
    for key in reversed(list(jobs)):  # users before what they need
        if key in found:
            for needed in jobs[key].inputs.values():
                found.setdefault(needed, found[key])
    return found


def _setting(method: str, name: str, value: float) -> str:
    """With one significant digit, rounded down."""
    whole = max(1, int(value))
    digit = 10 ** (len(str(whole)) - 1)
    return f"methods.{method}.{name}={whole // digit * digit}"
