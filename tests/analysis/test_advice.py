"""Advice from records: the best within storage and time on the most similar data, or none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import ddbench, run_inline, sweep_file
from helpers.record import make

from bench.analysis.advice import Advice, NoEvidence, Question, advise, distance
from bench.records.columns import record_frame
from bench.records.schema import Record

ASKED = Question("digits", "ab12cd34", (1, 8, 8), 10, ipc=1, seconds=3600.0)


def seeds(method: str, mean: float, spent: float, ipc: int = 1, **fields: Any) -> list[Record]:
    return [
        make(method, ipc, (mean + 0.004 * (seed - 1.5),), seed=seed, cost={"distill_s": spent}, **fields)
        for seed in range(4)
    ]


def told(records: list[Record], **changes: Any) -> Advice:
    return advise(record_frame(records), replace(ASKED, **changes))


RECORDS = [
    *seeds("random_real", 0.5, 0.0),
    *seeds("herding", 0.699, 5.0),
    *seeds("dm", 0.7, 50.0),
    *seeds("mtt", 0.8, 5000.0),
    *seeds("haba", 0.9, 1.0, within_budget=False),
]


def test_the_best_in_time_and_the_cheapest_that_is_as_good() -> None:
    advice = told(RECORDS)
    assert (advice.advised["method"], advice.cheapest["method"]) == ("dm", "herding")
    assert advice.over_random == pytest.approx(0.2)
    assert list(advice.rows["method"]) == ["dm", "mtt", "herding", "random_real"], (
        "and nothing over its budget"
    )
    assert advice.rows.set_index("method")["slow"].to_dict() == {
        "dm": False, "mtt": True, "herding": False, "random_real": False
    }  # fmt: skip
    assert advice.notes[0] == "data: digits (8 x 8 x 1, 10 classes), the same images"
    assert {row["seed"] for row in advice.records} == {0, 1, 2, 3}
    slower = told(RECORDS, seconds=6000.0)
    assert (slower.advised["method"], slower.cheapest["method"]) == ("mtt", "mtt")


def test_single_seeds_tell_nothing_apart() -> None:
    advice = told([one for one in RECORDS if one.seed == 0])
    assert not advice.told
    assert advice.advised["method"] == "dm"


def test_evidence_comes_from_the_most_similar_data() -> None:
    """In factors of two of the side and the classes; grey and coloured images are never near."""
    other = {"dataset": "letters", "dataset_fingerprint": "ff", "image_shape": (1, 16, 16)}
    records = [*seeds("dm", 0.7, 1.0), *seeds("dm", 0.3, 1.0, **other)]
    found = told(records, fingerprint="00", label="mine", image_shape=(1, 14, 14))
    assert found.notes[0].startswith("data: letters (16 x 16 x 1, 10 classes), the most similar to mine (14")
    assert distance(ASKED, (1, 8, 8), 10) == 0
    assert distance(ASKED, (1, 16, 16), 5) == 2
    assert distance(ASKED, (3, 8, 8), 10) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"fingerprint": "00", "image_shape": (3, 32, 32)},
            r"like digits \(32 x 32 x 3, 10 classes\); the nearest",
        ),
        ({"ipc": 50}, "no set of about 50 images per class was scored; there are 1$"),
        ({"seconds": 1e-9}, None),
        ({"protocol": "standard"}, "nothing there was scored with standard; there are quick"),
        ({"architecture": "mlp"}, "nothing there was scored with mlp; there are convnet"),
    ],
)
def test_the_records_do_not_tell(changes: dict[str, Any], words: str | None) -> None:
    records = [one for one in RECORDS if one.method != "random_real"]
    with pytest.raises(NoEvidence, match=words or "the fastest, herding, took 5 s"):
        told(records, **changes)


def test_the_place_with_the_most_methods_is_taken_and_the_nearest_ipc() -> None:
    more = [*seeds("dm", 0.9, 1.0, protocol="standard"), *seeds("dm", 0.95, 1.0, ipc=10)]
    advice = told([*RECORDS, *more], ipc=2)
    assert advice.advised["accuracy_mean"] == pytest.approx(0.7)
    assert advice.notes[1:3] == [
        "images per class: 1, the nearest to 2",
        "protocol quick, students convnet, with the most methods of 2 places",
    ]
    assert told([*RECORDS, *more], protocol="standard").advised["accuracy_mean"] == pytest.approx(0.9)


def test_from_the_command_line(tmp_path: Path) -> None:
    sweep = sweep_file(
        tmp_path,
        methods=["random_real", {"name": "dm", "steps": 2}],
        ipc=[1],
        distill={"architectures": ["convnet-d1-w4"], "seeds": [0, 1, 2]},
        evaluate={"architectures": ["mlp"], "students": 1, "protocol": "quick"},
    )
    assert run_inline(sweep, tmp_path / "out").code == 0
    asked = ("advise", "digits", "--results", tmp_path / "out", "--hours", 1)
    ended = ddbench(*asked, "--ipc", 1)
    assert ended.code == 0, ended.err
    assert "advised" in ended.out
    assert f"evidence: {tmp_path / 'out'}" in ended.out
    _, _, lines = ended.out.partition("a sweep that makes it:\n")
    (tmp_path / "again.yaml").write_text("".join(f"{line[4:]}\n" for line in lines.splitlines()))
    again = run_inline(tmp_path / "again.yaml", tmp_path / "out")
    assert "Every cell has its record" in again.text
    nothing = ddbench(*asked, "--ipc", 100)
    assert (nothing.code, nothing.out.count("\n")) == (1, 1)
    assert nothing.out.startswith("The records do not tell: no set of about 100 images per class was scored")
    for words, said in (
        (("--ipc", 0, "--hours", 1), "--ipc 0: must be at least 1"),
        (("--ipc", 1, "--hours", 0), "--hours 0: must be above 0"),
    ):
        bad = ddbench("advise", "digits", "--results", tmp_path / "out", *words)
        assert (bad.code, bad.err.strip()) == (2, f"error: {said}")
