"""Equal means are tied in every table, whatever the order in which they were summed."""

from helpers.record import make

from bench.records.columns import record_frame
from bench.reporting.build import make_sections
from bench.reporting.sections import RecordsView


def test_equal_means_are_bold_in_every_table() -> None:
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1 in floats: without any spread the last digit would decide."""
    records = []
    for objective, accuracies in (("unrolled", (0.1, 0.2, 0.3)), ("kernel", (0.3, 0.2, 0.1))):
        values = {"parameterisation": "pixels", "objective": objective}
        records += [
            make("compose", ipc, accuracies, seed=seed, hyperparameters=values)
            for ipc in (1, 10)
            for seed in range(3)
        ]
    sections = make_sections(RecordsView(record_frame(records), ()))
    bold = {
        shown.stem: [[cell.text for cell in row if cell.bold] for group in table.groups for row in group]
        for shown in sections
        for table in shown.comparisons
    }
    assert bold["summary"] == bold["equal_storage"] == [["20.0 ± 0.0"]] * 4
    assert bold["composition"] == [["20.0 ± 0.0", "20.0 ± 0.0"]] * 2
