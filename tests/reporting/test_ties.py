"""Equal means are tied in every table, whatever the order in which they were summed."""

from helpers.record import make

from bench.records.columns import record_frame
from bench.reporting.build import make_sections
from bench.reporting.sections import RecordsView


def test_equal_means_are_bold_in_every_table() -> None:
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1 in floats."""
    records = []
    for objective, accuracies in (("unrolled", (0.1, 0.2, 0.3)), ("kernel", (0.3, 0.2, 0.1))):
        values = {"parameterisation": "pixels", "objective": objective}
        records += [make("compose", ipc, accuracies, hyperparameters=values) for ipc in (1, 10)]
    view = RecordsView(record_frame(records), ())
    assert len(set(view.summary["accuracy_mean"])) == 2
    sections = make_sections(view)
    bold = {
        shown.stem: [[cell.text for cell in row if cell.bold] for group in table.groups for row in group]
        for shown in sections
        for table in shown.comparisons
    }
    assert bold["summary"] == bold["equal_storage"] == [["20.0"]] * 4
    assert bold["composition"] == [["20.0", "20.0"]] * 2
    assert bold["standings"] == [["20.0"]] * 2


def test_of_equal_means_the_summary_takes_the_interval_of_the_first() -> None:
    """`wide` and `narrow` have the mean 0.5; the interval of `low` overlaps that of `wide` only.

    The table at equal storage takes the higher interval instead: the two are kept apart in `analysis.best`.
    """
    accuracies = {"a_wide": (0.3, 0.5, 0.7), "b_narrow": (0.49, 0.5, 0.51), "low": (0.38, 0.40, 0.42)}
    records = [
        make(method, 1, (value,), seed=seed)
        for method, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    rows = RecordsView(record_frame(records), ()).ranked.set_index("method")
    assert rows["summary_best"].to_dict() == {"a_wide": True, "b_narrow": True, "low": True}
    assert rows["best"].to_dict() == {"a_wide": True, "b_narrow": True, "low": False}
