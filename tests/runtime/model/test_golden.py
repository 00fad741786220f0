"""Vectors and scores of qvl-tiny as committed, so that no change moves them unseen, on any machine."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

_spec = importlib.util.spec_from_file_location("make_golden", Path(__file__).with_name("make_golden.py"))
make_golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_golden)


@pytest.fixture(scope="module")
def fresh():
    return make_golden.compute()


@pytest.mark.parametrize("name", make_golden.inputs().keys())
def test_nothing_moved(fresh, name):
    golden = json.loads(make_golden.GOLDEN.read_text(encoding="utf-8"))[name]
    moved = np.abs(np.subtract(fresh[name]["vector"], golden["vector"])).max()
    assert moved <= 1e-4, "new weights? then run: python tests/runtime/model/make_golden.py"
    assert abs(fresh[name]["score"] - golden["score"]) <= 1e-4
