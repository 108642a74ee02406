"""The heat map of compositions."""

from typing import Any

from helpers.record import make

from bench.records.columns import record_frame
from bench.records.schema import Record
from bench.reporting.sections import RecordsView
from bench.reporting.tables.composition import composition_section


def composed(parameterisation: str, objective: str, accuracy: float, **fields: Any) -> Record:
    blocks = {"parameterisation": parameterisation, "objective": objective}
    return make("compose", 10, (accuracy,), hyperparameters=blocks, **fields)


def test_a_map_has_a_box_for_each_pair_of_blocks_and_names_random_images() -> None:
    records = [
        composed("pixels", "unrolled", 0.5),
        composed("pixels", "matching", 0.75),
        composed("bases", "unrolled", 0.25, within_budget=False),
        make("random_real", 10, (0.4,), distill_arch="any"),
    ]
    section = composition_section(RecordsView(record_frame(records), ()))
    assert section is not None
    axes, bar = section.plots["composition"]().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bases", "pixels"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["matching", "unrolled"]
    texts = {text.get_text(): text.get_position() for text in axes.texts}
    assert texts == {"25.0 ‡": (1.5, 0.5), "75.0": (0.5, 1.5), "50.0": (1.5, 1.5)}
    assert "random_real: 40.0" in axes.get_title()
    assert bar.get_ylabel() == "test accuracy (%)"
