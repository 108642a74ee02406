"""Write the page of a report."""

from pathlib import Path

from bench.core.io import write_atomic
from bench.reporting.build import Report
from bench.reporting.html.page import render_page
from bench.reporting.images.thumbnails import thumbnails_of


def write_page(built: Report, to: Path) -> Path:
    """Write index.html beside the tables and plots of a report that was built in the folder `to`."""
    view = built.view
    page = render_page(view, built.sections, to / "plots", thumbnails_of(view))
    return write_atomic(to / "index.html", page)
