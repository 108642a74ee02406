"""Artifacts with made-up headers and tensors: each decodes, or is refused in one line, in little memory."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from helpers import fuzz
from helpers.artifact import GOOD, STATS, written
from helpers.importer import dataset
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.interop.importers.read import read_set
from bench.interop.importers.request import ImportRequest

pytestmark = pytest.mark.filterwarnings("ignore")
DATA = dataset()
MORE = {  # optional tensors of the parameterisations, and what belongs to none
    "label_logits": fuzz.near(6, 3, plain=True),
    "inner_lr": fuzz.near(plain=True),
    "kernel": fuzz.near(4, 4, plain=True),
    "queries": fuzz.near(3, 3, plain=True),
    "basis_labels": fuzz.near(2, 3, plain=True),
    "preprocess.mean": fuzz.near(3, plain=True),
    "labels": fuzz.near(6, plain=True),
}
SETTINGS = {"n_classes": 3, "factor": 2, "decoder": "multi_scale", "padding": 1, "downsample": 4}


def near_config(config: dict[str, Any]) -> st.SearchStrategy[Any]:
    usual = {key: fuzz.mostly(st.just(value), fuzz.values) for key, value in config.items()}
    more = {
        key: fuzz.mostly(st.just(value), fuzz.values) for key, value in SETTINGS.items() if key not in config
    }
    more |= {"learned_queries": st.booleans()}
    return fuzz.mostly(
        st.fixed_dictionaries(usual), st.one_of(fuzz.values, st.fixed_dictionaries(usual, optional=more))
    )


def near_tensors(tensors: dict[str, Tensor]) -> st.SearchStrategy[dict[str, Tensor]]:
    usual = {
        name: fuzz.mostly(st.just(tensor), fuzz.near(*tensor.shape, plain=True))
        for name, tensor in tensors.items()
    }
    return fuzz.mostly(st.fixed_dictionaries(usual), st.fixed_dictionaries(usual, optional=MORE))


whitening = st.fixed_dictionaries({"kind": st.sampled_from(["mtt", "kip", "frepo", "x"])})
preprocessing = fuzz.mostly(
    st.just(STATS),
    st.one_of(whitening, st.fixed_dictionaries({"mean": fuzz.values, "std": fuzz.values}), fuzz.values),
)
WHITENED = {
    **{f"preprocess.{name}": fuzz.near(3, fill="unit", plain=True) for name in ("mean", "std")},
    **{f"preprocess.{name}": fuzz.near(48, fill="unit", plain=True) for name in ("centre", "scales")},
    "preprocess.directions": fuzz.near(48, 48, plain=True),
}


@pytest.mark.parametrize("kind", GOOD)
@given(st.data())
def test_made_up_artifacts(kind: str, data: st.DataObject) -> None:
    config, tensors = GOOD[kind]
    held = data.draw(near_tensors(tensors))
    header = data.draw(near_config(config)), data.draw(preprocessing)
    kind = data.draw(fuzz.mostly(st.just(kind), fuzz.values))
    schema = data.draw(fuzz.mostly(st.just(1), fuzz.values))
    if isinstance(header[1], dict) and "kind" in header[1]:
        held |= data.draw(st.fixed_dictionaries(WHITENED))
    read(kind, header[0], held, header[1], schema)


def read(kind: Any, config: Any, held: dict[str, Tensor], preprocess: Any, schema: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tensors = {name: tensor.clone() for name, tensor in held.items()}
        path = written(Path(folder) / "data.safetensors", kind, config, tensors, preprocess, schema)
        fuzz.one_line(lambda: read_set(ImportRequest(path), DATA))
