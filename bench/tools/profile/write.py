"""The files of a profile, which appear when all of them are complete."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.core.errors import UserError
from bench.core.io import sync, temporary, write_atomic, writing
from bench.reporting.plots.style import save_plot
from bench.reporting.tables.render import markdown
from bench.tools.profile.plot import draw_profile
from bench.tools.profile.result import Profile
from bench.tools.profile.tables import profile_frame, profile_tables

TRACE = "trace.json"


@contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """A temporary folder in the target, or beside it where that is still to be made.

    Raises UserError if it cannot be made.
    """
    parent = target if target.is_dir() else target.parent
    new = not parent.exists()
    try:
        if target.exists() and not target.is_dir():
            raise UserError(f"--out {target}: is a file; name a folder")
        parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=parent, prefix=temporary("profile"))
    except OSError as error:
        raise UserError(f"--out {target}: cannot be written: {error.strerror}") from None
    try:
        with folder as path:
            yield Path(path)
    finally:
        if new and not any(parent.iterdir()):
            parent.rmdir()


def write_profile(profile: Profile, work: Path, target: Path) -> list[Path]:
    """Write tables, data and plots, and move them and the trace from `work` to `target`; return the files."""
    with writing(target):
        return _write_profile(profile, work, target)


def _write_profile(profile: Profile, work: Path, target: Path) -> list[Path]:
    write_atomic(work / "profile.json", json.dumps(profile.to_json(), indent=1) + "\n")
    write_atomic(work / "profile.md", markdown(profile_tables(profile)))
    write_atomic(work / "profile.csv", profile_frame(profile).to_csv(index=False, lineterminator="\n"))
    save_plot(lambda: draw_profile(profile), work / "profile")
    target.mkdir(parents=True, exist_ok=True)
    if not (work / TRACE).exists():
        (target / TRACE).unlink(missing_ok=True)
    written = []
    for path in sorted(work.iterdir()):
        sync(path)
        os.replace(path, target / path.name)
        written.append(target / path.name)
    return written
