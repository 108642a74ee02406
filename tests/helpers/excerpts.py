"""Tables in the pages that are excerpts of committed tables; a comment above each says of which.

<!-- results/runtime/tables/summary.md: ipc, method, distill s; rows 10 -->

copies these columns (all if none are named) of the file's first table, of the rows whose first cell is 10.

PYTHONPATH=tests python -m helpers.excerpts    # writes the pages again
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "results" / "README.md")
EXCERPT = re.compile(r"<!-- (\S+\.md)(?:: ([^;>]+?))?(?:; rows ([^>]+?))? -->\n(?:\|[^\n]*\n)*")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _excerpt(found: re.Match[str]) -> str:
    path, columns, wanted = found.groups()
    table = re.search(r"(?:^\|.*\n)+", (ROOT / path).read_text(), flags=re.M)
    assert table is not None, f"{path} has no table"
    header, *body = map(_cells, table[0].splitlines())
    places = [header.index(name.strip()) for name in columns.split(",")] if columns else range(len(header))
    rows = [row for row in body[1:] if wanted is None or row[0] in wanted.split()]
    chosen = (_line([row[place] for place in places]) for row in (header, body[0], *rows))
    return found[0].split("\n", 1)[0] + "\n" + "".join(chosen)


def renewed(page: str) -> str:
    """The text of a page with its excerpts as the committed tables are now."""
    return EXCERPT.sub(_excerpt, page)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(renewed(page.read_text()))
