"""Short names of methods on plots."""

import pytest

from bench.reporting.method_names import LINE, MOST_LINES, method_settings, name_on_one_line, short_names


def test_settings_are_chips_and_those_in_common_are_left_out() -> None:
    labels = ["dm", "idc[factor=1, lr=0.1]", "idc[factor=2, lr=0.1]", "rtp[bases=4, memory=true]"]
    assert list(short_names(labels).values()) == [
        "dm",
        "idc · factor 1",
        "idc · factor 2",
        "rtp · bases 4 · memory true",
    ]


def test_blocks_stand_for_a_composition() -> None:
    label = "compose[labels=hard, objective=trajectory_matching, parameterisation=multi_formation]"
    assert short_names([label])[label] == "labels hard · trajectory_matching\nmulti_formation"
    assert method_settings(label)[1]["objective"] == "trajectory_matching"


@pytest.mark.parametrize("n", [2, 12, 40])
def test_long_names_are_wrapped_and_elided_and_stay_different(n: int) -> None:
    labels = [
        f"rtp[{', '.join(f'setting_{i}={i * variant}.0' for i in range(1, n))}]" for variant in range(1, 5)
    ]
    names = short_names(labels)
    assert len(set(names.values())) == len(labels)
    for name in names.values():
        assert len(name.splitlines()) <= MOST_LINES
        assert max(map(len, name.splitlines())) <= LINE + 25


def test_a_value_of_any_form_is_one_chip() -> None:
    label = 'mtt[augment={"a": 1, "b": [2, 3]}, lr=10.0, path=' + "x" * 40 + "]"
    name = name_on_one_line(label)
    assert name.startswith('mtt · augment {"a": 1, "b": [2, 3]} · lr 10 · path xxxxxxxxxxxx…xxxxxxxx')
    assert name_on_one_line("dm") == "dm"
    assert method_settings("odd[name") == ("odd[name", {})
