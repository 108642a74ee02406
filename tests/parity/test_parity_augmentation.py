"""Augmentation against the authors' codes: every operation of IDC and of DC and DSA, and IDC's CutMix."""

from types import SimpleNamespace

import pytest
import torch
from helpers.parity import Compare, drawn, load

from bench.core.augment import cutmix, dsa

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("source", ["idc", "dc"])
@pytest.mark.parametrize("kind", ["rgb", "grey"])
def test_an_operation(source: str, operation: str, kind: str, compare: Compare) -> None:
    """With one draw for a batch (siamese), and with one for each image."""
    held = load("augment")
    keys = [key for key in held if key.startswith(f"{source}_{operation}_{kind}_") and key.endswith("_u")]
    assert {key.split("_")[3] for key in keys} == {"batch", "each"}
    for key in keys:
        ours = dsa.apply(held[f"x_{kind}"], drawn(operation, 0, held[key][None]))
        compare({"dc": "dsa"}.get(source, source), "augmentation", ours, held[f"{key[:-1]}y"])


@pytest.mark.parametrize(("row", "side"), [(0, 32), (1, 28), (2, 8)])
def test_cutmix_pastes_the_same_share(
    row: int, side: int, compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean share pasted, from our boxes of every side and centre, each as often as it is drawn."""
    held = load("cutmix_share")
    assert held["sides"][row] == side

    def kept(length: int) -> float:
        """The mean length of a side that is clipped at the border, over all centres."""
        spans = []
        for centre in range(side):
            uniforms = torch.tensor([(length / side) ** 2, (centre + 0.5) / side, 0.5])
            given = SimpleNamespace(rand=lambda *_, u=uniforms, **__: u, randperm=torch.randperm)
            monkeypatch.setattr(cutmix, "torch", given)
            rows = cutmix.draw_cutmix((1, 1, side, side), torch.Generator()).rows
            spans.append(rows.stop - rows.start)
        return sum(spans) / side

    areas = (torch.arange(200_000) + 0.5) / 200_000
    lengths, counts = ((side * areas.sqrt()).long() // 2 * 2).unique(return_counts=True)
    shares = torch.tensor([(kept(length) / side) ** 2 for length in lengths.tolist()])
    share = (shares * counts).sum() / len(areas)
    compare("idc", "mean share pasted by CutMix", share, held["share"][row])
