"""The examples in the public names' docstrings run, after ``import btkeras`` alone, without a warning."""

from __future__ import annotations

import doctest
import importlib
from functools import partial

import pytest

from btkeras.config import PhantomConfig
from btkeras.models import pretrained

MODULES = (
    "btkeras.models.applications",
    "btkeras.preprocessing.slice_preprocessing",
    "btkeras.training.callbacks",
    "btkeras.training.confusion_matrix",
    "btkeras.training.macro_recall",
    "btkeras.training.schedules",
    "btkeras.training.tf_dataset",
)


@pytest.mark.parametrize("name", MODULES)
def test_its_examples_print_what_is_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not pretrained.FILES[1].is_file() and name != MODULES[-1]:
        pytest.skip("this tree has no pretrained weights")
    module = importlib.import_module(name)
    if name == MODULES[-1]:
        monkeypatch.setattr(module, "PhantomConfig", partial(PhantomConfig, patients=40, slices=1, image_size=64))
    found = [test for test in doctest.DocTestFinder(exclude_empty=True).find(module, globs={}) if test.examples]
    assert found
    for test in found:
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0
