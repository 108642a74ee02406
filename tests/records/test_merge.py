"""Several result folders as one report."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.cli import Ended, ddbench, without_plots
from helpers.record import make, measured, sweep, write

from bench.records.merge import merge_folders
from bench.records.schema import dump_record

ONE = ("random_real", "dm")


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders that have only random_real in common."""
    return write(tmp_path / "a", sweep(ONE)), write(tmp_path / "b", sweep(("random_real", "haba")))


def seconds_and_problems(folders: list[Path]) -> tuple[list[float], list[str]]:
    """The seconds of the records that were taken, and the problems."""
    flat, problems = merge_folders(folders)
    return flat["distill_s"].tolist(), problems


def report(*words: object) -> Ended:
    """`ddbench report` without plots."""
    with without_plots():
        return ddbench("report", *words)


def summary(folder: Path) -> str:
    return (folder / "tables/summary.csv").read_text()


def test_report_of_two_folders_is_that_of_their_union(two: tuple[Path, Path], tmp_path: Path) -> None:
    ended = report(*two, "--out", tmp_path / "both")
    assert (ended.code, ended.err) == (0, "")
    union = write(tmp_path / "union", sweep(("random_real", "dm", "haba")))
    # `sweep` draws its noise in the order of its methods, so haba of the union is another one: copied over
    for path in (two[1] / "records").iterdir():
        shutil.copy(path, union / "records")
    for path in (two[0] / "records").iterdir():
        shutil.copy(path, union / "records")
    assert report(union).code == 0
    assert summary(tmp_path / "both") == summary(union)
    assert not (two[0] / "tables").exists()
    assert not (tmp_path / "both/records").exists()


def test_labels_are_made_over_all_folders(tmp_path: Path) -> None:
    """Labels that are equal in each folder alone are told apart in the merged frame."""
    folders = [
        write(tmp_path / name, [make("dm", method_version=version, dataset_fingerprint=print_, seed=version)])
        for name, version, print_ in (("a", 1, "aaaaaa00"), ("b", 2, "bbbbbb00"))
    ]
    assert report(*folders, "--out", tmp_path / "out").code == 0
    lines = summary(tmp_path / "out").splitlines()[1:]
    assert [line.split(",")[:2] for line in lines] == [["dm v1", "digits#aaaaaa"], ["dm v2", "digits#bbbbbb"]]


def test_same_record_twice_counts_once(tmp_path: Path) -> None:
    """Its costs and versions may differ: the job was run on two machines."""
    one = make("dm", 1, (0.5, 0.6))
    other = make("dm", 1, (0.5, 0.6), cost={"distill_s": 9.0}, versions={"torch": "1"})
    folders = [write(tmp_path / "a", [one]), write(tmp_path / "b", [other])]
    assert seconds_and_problems(folders) == ([2.0], [])
    assert seconds_and_problems(folders[::-1]) == ([9.0], [])


def test_other_versions_may_score_otherwise(tmp_path: Path) -> None:
    one, other = make("dm", 1, (0.5,)), make("dm", 1, (0.6,), versions={"torch": "1"})
    flat, problems = merge_folders([write(tmp_path / "a", [one]), write(tmp_path / "b", [other])])
    assert (flat["accuracy"].tolist(), problems) == ([0.5], [])


def test_records_of_one_key_that_disagree_are_named_and_the_first_is_kept(tmp_path: Path) -> None:
    one, other = make("dm", 1, (0.5,)), make("dm", 1, (0.7,))
    a, b = write(tmp_path / "a", [one]), write(tmp_path / "b", [other])
    flat, (problem,) = merge_folders([a, b])
    assert flat["accuracy"].tolist() == [0.5]
    assert problem.startswith(
        f"{b}/records/{one.key}.json differs from the one in {a} in accuracy, accuracies:"
    )
    ended = report(a, b, "--out", tmp_path / "out")
    assert ended.code == 1
    assert f"left out: {problem}" in ended.out


def test_a_metric_that_only_one_of_two_records_has_is_a_disagreement(tmp_path: Path) -> None:
    records = [make(metrics=measured(agreement=agreement)) for agreement in (None, 0.5)]
    folders = [write(tmp_path / name, [one]) for name, one in zip("ab", records, strict=True)]
    _, (problem,) = merge_folders(folders)
    assert f"differs from the one in {folders[0]} in agreement:" in problem


def test_damaged_record_is_named_with_its_folder(two: tuple[Path, Path]) -> None:
    path = sorted((two[1] / "records").iterdir())[0]
    path.write_text("{")
    flat, (problem,) = merge_folders(two)
    assert problem.startswith(f"{two[1]}/records/{path.name} is not readable as JSON")
    assert len(flat) == len({*names(two[0]), *names(two[1])} - {path.name}) + (path.name in names(two[0]))


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "records").iterdir()}


def test_several_folders_need_a_place_to_write_to(two: tuple[Path, Path]) -> None:
    ended = report(*two)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "2 result folders become one report: say where with --out DIR" in ended.err


def test_same_folder_named_twice_is_one(two: tuple[Path, Path]) -> None:
    assert report(two[0], two[0] / ".").code == 0
    assert (two[0] / "tables/summary.csv").exists()


def test_folders_without_records_are_passed_over_and_missing_ones_refused(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "notes").mkdir()
    ended = report(two[0], tmp_path / "notes", two[1], "--out", tmp_path / "out")
    assert ended.code == 0
    assert f"passed over: {tmp_path / 'notes'} has no records" in ended.out
    ended = report(two[0], tmp_path / "mistyped", "--out", tmp_path / "out")
    assert ended.code == 2
    assert f"{tmp_path / 'mistyped'}: no such folder" in ended.err


def test_page_of_one_folder_is_made_again_byte_for_byte(tmp_path: Path) -> None:
    """Elsewhere too, and its paths are not in it."""
    one, other = (write(tmp_path / name, sweep(ONE, ipcs=(1,), seeds=1)) for name in ("a", "long/way/off"))
    for folder in (one, other):
        assert ddbench("report", folder, "--html").code == 0
    page = (one / "index.html").read_bytes()
    assert page == (other / "index.html").read_bytes()
    assert str(tmp_path).encode() not in page
    (one / "index.html").unlink()
    shutil.rmtree(one / "plots")
    assert ddbench("report", one, "--html").code == 0
    assert (one / "index.html").read_bytes() == page


def test_text_of_records_is_text_in_the_page(tmp_path: Path) -> None:
    """A name with markup in it cannot end a script, or begin one."""
    nasty = "</script><script>alert(1)</script>"
    folder = write(tmp_path, [make("dm", 1)])
    path = next((folder / "records").iterdir())
    path.unlink()
    record = make("dm", 1, dataset=nasty, dataset_fingerprint="77").model_copy(update={"key": "k"})
    (folder / "records/k.json").write_text(dump_record(record))
    assert ddbench("report", folder, "--html").code == 0
    page = (folder / "index.html").read_text()
    assert "<script>alert" not in page
    assert "alert(1)" in page
    rows = page.split('id="rows">')[1].split("</script>")[0]
    assert json.loads(rows)[0][8] == nasty
