"""Advice from records: the best within storage and time on the most similar data, or none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import ddbench, run_inline, sweep_file
from helpers.record import make, write

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
    return advise({"results/one": record_frame(records)}, replace(ASKED, **changes))


def standings(advice: Advice) -> dict[str, str]:
    return dict(zip(advice.rows["method"], advice.rows["standing"], strict=True))


RECORDS = [
    *seeds("random_real", 0.5, 0.0),
    *seeds("herding", 0.699, 5.0),
    *seeds("dm", 0.7, 50.0),
    *seeds("mtt", 0.8, 5000.0),
    *seeds("haba", 0.9, 1.0, within_budget=False),
]


def test_what_is_not_told_apart_from_the_best_is_advised_if_it_is_cheaper() -> None:
    advice = told(RECORDS)
    assert (advice.advised["method"], advice.best["method"]) == ("herding", "dm")
    assert list(standings(advice).items()) == [
        ("herding", "advised"),
        ("dm", "not told apart"),
        ("random_real", "worse"),
        ("mtt", "over the time"),
    ], "and nothing over its budget"
    assert advice.notes[0] == "data: digits (8 x 8 x 1, 10 classes), the same images"
    assert ({row["method"] for row in advice.records}, len(advice.records)) == ({"herding"}, 4)
    slower = told(RECORDS, seconds=6000.0)
    assert slower.advised["method"] == slower.best["method"] == "mtt"
    assert set(standings(slower).values()) == {"advised", "worse"}


def test_best_and_advised_stand_beside_the_runner_up_and_random_images() -> None:
    advice = told(RECORDS)
    found = {(one.first, one.second): (round(one.points, 6), one.told) for one in advice.differences}
    assert found == {
        ("dm", "herding"): (0.001, False),
        ("herding", "dm"): (-0.001, False),
        ("dm", "random_real"): (0.2, True),
        ("herding", "random_real"): (0.199, True),
    }
    assert 0.001 < advice.least_difference < 0.199


def test_random_images_are_advised_where_nothing_is_told_apart_from_them() -> None:
    advice = told([*seeds("random_real", 0.699, 0.0), *seeds("dm", 0.7, 50.0)])
    assert standings(advice) == {"random_real": "advised", "dm": "not told apart"}


def test_single_seeds_do_not_tell() -> None:
    with pytest.raises(NoEvidence, match=r"one seed, .*; the highest, dm, had 69.4 %"):
        told([one for one in RECORDS if one.seed == 0])


def test_a_cost_that_nobody_measured_is_not_within_the_time() -> None:
    elsewhere = [
        make("theirs", 1, (0.9 + 0.004 * seed,), seed=seed, cost={"distill_s": None, "bookkeeping_s": None})
        for seed in range(4)
    ]
    assert standings(told([*RECORDS, *elsewhere]))["theirs"] == "cost unknown"
    with pytest.raises(NoEvidence, match="all there was distilled elsewhere"):
        told(elsewhere)


def test_all_phases_but_the_scoring_count_as_cost() -> None:
    phases = {"prepare_s": 1.0, "teacher_s": 2.0, "distill_s": 4.0, "tune_s": 8.0, "evaluate_s": 100.0}
    records = [make("dm", 1, (0.5 + 0.01 * seed,), seed=seed, cost=phases) for seed in range(3)]
    assert told(records).advised["seconds"] == 15
    with pytest.raises(NoEvidence, match="within 14 s: the fastest, dm, took 15 s"):
        told(records, seconds=14.0)
    with pytest.raises(NoEvidence, match=r"within 0\.0014 s: the fastest, dm, took 0\.002 s"):
        told(seeds("dm", 0.5, 0.002), seconds=0.0014)


def test_seconds_taken_beside_other_work_are_said_to_be() -> None:
    assert "beside other work" not in told(RECORDS).notes[-1]
    assert "measured on cpu, some beside other work" in told(seeds("dm", 0.5, 1.0, exclusive=False)).notes[-1]


LETTERS = {"dataset": "letters", "dataset_fingerprint": "ff", "image_shape": (1, 16, 16)}
ANOTHER = {"dataset": "mine", "dataset_fingerprint": "ee", "image_shape": (1, 9, 9)}
FAR = {"dataset": "mine", "dataset_fingerprint": "dd", "image_shape": (3, 14, 14)}


@pytest.mark.parametrize(
    ("others", "name"),
    [
        ([], "digits"),
        ([LETTERS], "letters"),
        ([LETTERS, ANOTHER], "mine"),  # its name goes before its size
        ([LETTERS, FAR], "letters"),  # but not where it is no more than a name
        ([LETTERS, ANOTHER, {**FAR, "dataset": "copy", "dataset_fingerprint": "00"}], "copy"),
    ],
)
def test_evidence_comes_from_the_same_images_else_the_same_name_else_the_most_similar(
    others: list[dict[str, Any]], name: str
) -> None:
    records = [*seeds("dm", 0.7, 1.0), *(one for other in others for one in seeds("dm", 0.3, 1.0, **other))]
    found = told(records, fingerprint="00", label="mine", image_shape=(1, 14, 14))
    assert found.notes[0].startswith(f"data: {name} (")
    assert ("the most similar to mine (14 x 14 x 1, 10 classes)" in found.notes[0]) == (name != "copy")


@pytest.mark.parametrize(
    ("image_shape", "n_classes", "apart"),
    [((1, 8, 8), 10, 0), ((1, 16, 16), 5, 2), ((1, 8, 32), 10, 1), ((1, 4, 16), 10, 1), ((3, 8, 8), 10, 2)],
)
def test_distance_is_in_factors_of_two(
    image_shape: tuple[int, int, int], n_classes: int, apart: float
) -> None:
    assert distance(ASKED, image_shape, n_classes) == apart


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"fingerprint": "00", "image_shape": (3, 32, 32)},
            r"like digits \(32 x 32 x 3, 10 classes\); the nearest",
        ),
        ({"ipc": 50}, "no set of about 50 images per class was scored; there are 1$"),
        ({"seconds": 1e-9}, "the fastest, herding, took 5 s"),
        ({"protocol": "standard"}, "nothing there was scored with standard; there are quick"),
        ({"architecture": "mlp"}, "nothing there was scored with mlp; there are convnet"),
    ],
)
def test_the_records_do_not_tell(changes: dict[str, Any], words: str) -> None:
    records = [one for one in RECORDS if one.method != "random_real"]
    with pytest.raises(NoEvidence, match=words):
        told(records, **changes)


def test_the_best_covered_table_is_taken_and_the_nearest_ipc() -> None:
    more = [*seeds("dm", 0.9, 1.0, protocol="standard"), *seeds("dm", 0.95, 1.0, ipc=10)]
    advice = told([*RECORDS, *more], ipc=2)
    assert advice.best["accuracy_mean"] == pytest.approx(0.7)
    assert advice.notes[1:3] == [
        "images per class: 1, the nearest to 2",
        "protocol quick, students convnet, with the most seeds of 2 tables",
    ]
    assert told([*RECORDS, *more], protocol="standard").best["accuracy_mean"] == pytest.approx(0.9)


def test_folders_are_not_pooled_and_variants_of_one_method_do_not_count() -> None:
    variants = [
        one
        for steps in range(9)
        for one in seeds("dm", 0.9, 1.0, hyperparameters={"steps": steps}, artifact=f"a{steps}")
    ]
    variants = [one.model_copy(update={"key": f"{one.key}-{i}"}) for i, one in enumerate(variants)]
    frames = {"results/ablation": record_frame(variants), "results/methods": record_frame(RECORDS)}
    advice = advise(frames, ASKED)
    assert advice.folder == "results/methods"
    assert "dm[steps=0]" not in set(advice.rows["method"])


def test_of_a_method_distilled_on_several_networks_the_students_own_counts() -> None:
    other = seeds("dm", 0.9, 1.0, distill_arch="alexnet")
    assert told([*RECORDS, *other]).best["accuracy_mean"] == pytest.approx(0.7)


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
    assert ended.out.count("advised: ") == 1
    assert "dm less random_real: " in ended.text or "random_real less dm: " in ended.text
    assert f"evidence: {tmp_path / 'out'}" in ended.out
    _, _, lines = ended.out.partition("makes it, with this in the file:\n")
    (tmp_path / "again.yaml").write_text("".join(f"{line[4:]}\n" for line in lines.splitlines()))
    again = run_inline(tmp_path / "again.yaml", tmp_path / "out")
    assert "Every cell has its record" in again.text
    nothing = ddbench(*asked, "--ipc", 100)
    assert (nothing.code, nothing.out.count("\n")) == (1, 1)
    assert nothing.out.startswith("The records do not tell: no set of about 100 images per class was scored")
    for words, said in (
        (("--ipc", 0, "--hours", 1), "--ipc 0: must be at least 1"),
        (("--ipc", 1, "--hours", 0), "--hours 0: must be above 0, and finite"),
        (("--ipc", 1, "--hours", "nan"), "--hours nan: must be above 0, and finite"),
        (("--ipc", 1, "--hours", "inf"), "--hours inf: must be above 0, and finite"),
    ):
        bad = ddbench("advise", "digits", "--results", tmp_path / "out", *words)
        assert (bad.code, bad.err.strip()) == (2, f"error: {said}")


def test_variants_keep_their_brackets_all_that_is_as_good_is_shown_and_bad_files_are_told(
    tmp_path: Path,
) -> None:
    records = [
        one.model_copy(update={"key": f"{one.key}-{steps}"})
        for steps in range(15)
        for one in seeds("dm", 0.7, 1.0 + steps, hyperparameters={"steps": steps}, artifact=f"a{steps}")
    ]
    folder = write(tmp_path / "out", records)
    (folder / "records" / "bad.json").write_text("{")
    ended = ddbench("advise", "digits", "--ipc", 1, "--hours", 1, "--results", folder)
    assert ended.code == 0, ended.err
    assert all(f"dm[steps={steps}]" in ended.out for steps in range(15))
    assert f"left out: {folder}/records/bad.json" in ended.text
    assert "random real images were not scored there" in ended.text


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (RECORDS, "advised: herding, the cheapest of what is not told apart from the best, dm"),
        ([*RECORDS[:4], *seeds("dm", 0.501, 0.0)], "advised: dm, the best, and the cheapest of what is not"),
        ([*RECORDS[:4], *seeds("dm", 0.9, 5.0)], "advised: dm, told apart from all others within the time"),
        (seeds("dm", 0.7, 5.0), "advised: dm, the only method within the time"),
    ],
)
def test_why_it_is_advised(tmp_path: Path, records: list[Record], words: str) -> None:
    folder = write(tmp_path / "out", records)
    ended = ddbench("advise", "digits", "--ipc", 1, "--hours", 1, "--results", folder)
    assert words in ended.text


@pytest.mark.parametrize("name", ["nonsense", "{name: digits, path: x}"])
def test_a_bad_data_set_is_said_to_be_the_argument_that_it_is(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "out", RECORDS)
    ended = ddbench("advise", name, "--ipc", 1, "--hours", 1, "--results", folder)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert ended.err.startswith("error: DATASET: ")


def test_without_result_folders_it_says_where_to_name_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results" / "empty" / "records").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    ended = ddbench("advise", "digits", "--ipc", 1, "--hours", 1)
    assert (ended.code, ended.err) == (
        2, "error: no result folders under results/: name them with --results DIR\n"
    )  # fmt: skip
