"""What a result was made by: versions, machine, settings, commit, and the sources of the code."""

import contextlib
import functools
import hashlib
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from bench.core import timing
from bench.core.precision import precision_now
from bench.core.registry import block_class, method_source, own_methods
from bench.core.sources import source_digest
from bench.planning.graph import Job
from bench.records.schema import ANY_ARCHITECTURE, EXTERNAL_HYPERPARAMETERS

CHECKOUT = Path(__file__).resolve().parents[2]
CODE = ("bench", "methods", "configs", "pyproject.toml")  # what of a checkout moves a result
PACKAGES = ("ddbench", "torch", "numpy", "scipy", "scikit-learn", "torchvision", "ray")
CPU = torch.device("cpu")
_NETWORKS = "bench.core.networks.architecture"
_SCORING = "bench.evaluation.scoring"
SOURCES, EVALUATION = "sources", "evaluation_sources"  # of the artifact, and of what scores it


# --- versions and settings ----------------------------------------------------------------------------------


def versions(device: torch.device = CPU) -> dict[str, str]:
    """What a record says about software, machine and settings, as they are now."""
    settings = _gpu_settings() if device.type == "cuda" else {}
    return _installed() | settings | {"precision": precision_now()}


@functools.cache
def _installed() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    # two processors of one model name may differ in their instructions, and then in the last digits
    capability = torch.backends.cpu.get_cpu_capability()
    return {**found, "cpu": timing.device_name(CPU), "cpu_capability": capability}


def _gpu_settings() -> dict[str, str]:
    """Read anew each time: a method may change them."""
    found = {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "matmul_precision": torch.backends.cuda.matmul.fp32_precision,
        # set at run time, so that torch's types do not know it
        "convolution_precision": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }
    return {name: str(value) for name, value in found.items()}


def method_packages(recorded: Mapping[str, str]) -> list[str]:
    """The packages among a record's versions that bring its method: what is not said of every job."""
    place = {"python", *PACKAGES, "cpu", "cpu_capability", "precision", *_gpu_settings()}
    always = {*place, "commit", SOURCES, EVALUATION}
    return sorted(recorded.keys() - always)


def source_commit() -> str:
    """The commit of this checkout of ddbench, or "unknown" for an installed package.

    Where the code or its configs differ from the commit: COMMIT+dirty.DIGEST, with a digest of the changes.
    """
    if not (CHECKOUT / ".git").exists():
        return "unknown"
    commit = _git("rev-parse", "HEAD").decode().strip()
    if not commit:
        return "unknown"
    changes = _git("diff", "--no-ext-diff", "--no-color", "--binary", "HEAD", "--", *CODE)
    for name in _git("ls-files", "-z", "--others", "--exclude-standard", "--", *CODE).split(b"\0"):
        path = CHECKOUT / name.decode()
        changes += name + path.read_bytes() if name and path.is_file() else b""
    return f"{commit}+dirty.{hashlib.sha256(changes).hexdigest()[:8]}" if changes else commit


def _git(*command: str) -> bytes:
    found = subprocess.run(["git", "-C", str(CHECKOUT), *command], capture_output=True, check=False)
    return found.stdout


# --- sources ------------------------------------------------------------------------------------------------


def job_sources(job: Job) -> dict[str, str]:
    """Digests of the sources that make a job's result today: {"sources": of a set or a prerequisite}.

    {"evaluation_sources": of what scores} for an evaluation and the choice of a learning rate; their
    "sources" are those of the set that they score. Empty for a set from elsewhere.
    """
    own_methods()
    identity = job.identity
    if job.kind in ("evaluate", "tune"):
        return {EVALUATION: source_digest(_SCORING, *_blocks(job, "teacher"))}
    networks = [] if identity["architecture"] == ANY_ARCHITECTURE else [_NETWORKS]
    shared = (*networks, *_blocks(job, "whitening"))
    if job.kind == "prepare":
        return {SOURCES: source_digest(block_class(identity["block"]).__module__, *shared)}
    if identity["hyperparameters"].keys() == EXTERNAL_HYPERPARAMETERS:
        return {}
    return {SOURCES: source_digest(method_source(identity["method"]), *shared)}


def _blocks(job: Job, role: str) -> list[str]:
    """The module of a prerequisite that the plan adds to what a method requires itself."""
    return [block_class(role.capitalize()).__module__] if role in job.inputs else []


def planned_sources(job: Job, jobs: Mapping[str, Job]) -> dict[str, str]:
    """As `job_sources`, with the sources of the set that an evaluation scores."""
    if "artifact" not in job.inputs:
        return job_sources(job)
    return job_sources(jobs[job.inputs["artifact"]]) | job_sources(job)


def same_sources(planned: Mapping[str, str], recorded: Mapping[str, str]) -> bool | None:
    """Whether a result was made by these sources; None where it does not say."""
    if any(recorded.get(name, digest) != digest for name, digest in planned.items()):
        return False
    return True if planned.keys() <= recorded.keys() else None
