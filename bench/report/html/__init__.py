"""One page that shows everything: a leaderboard, the other exhibits, the records to take away."""

from bench.report.html.page import Picture, render

__all__ = ["Picture", "render"]
