"""What the authors' codes gave is all read, and all that is verified is named."""

from pathlib import Path

import pytest
from helpers.parity import DATA, FOLDER, HEAD, ROWS

README = Path(__file__).parents[2] / "methods" / "README.md"


def test_every_file_is_read() -> None:
    tests = "\n".join(path.read_text() for path in FOLDER.glob("test_parity_*.py"))
    stems = [path.stem for path in DATA.iterdir()]
    assert len(stems) > 20
    assert [stem for stem in stems if f'"{stem}"' not in tests] == []


@pytest.mark.parametrize("method", ROWS)
def test_the_table_of_the_page_names_the_code_and_what_differs(method: str) -> None:
    lines = README.read_text().splitlines()
    first = lines.index(f"| {' | '.join(HEAD)} |") + 2
    cells = {line.split(" | ")[0]: line for line in lines[first : first + len(ROWS)]}
    code, purpose = ROWS[method]
    row = cells[f"| `{method}`"]
    assert f" | {code} | " in row
    assert row.endswith(f" | {purpose} |")
