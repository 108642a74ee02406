"""A few rounds of tests/chaos.py, which has more of them, on Ray too."""

from pathlib import Path

import pytest
from chaos import run_rounds, survivors


@pytest.mark.timeout(200)
def test_kills_anywhere_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    rounds = run_rounds(tmp_path, kills=3, seed=2, ray=0)
    assert [line for one in rounds for line in one.wrong] == []
    assert [where for one in rounds for where in one.lost] == []
    assert survivors(rounds) == []
    assert sum(len(one.kills) for one in rounds) == 3
