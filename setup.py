"""Puts the pretrained model into the installed package; everything else about the package is in setup.cfg.

The model lies in saved_models/, where `btkeras export` puts models and whoever reads the repository looks for them. An
editable installation finds it there (btkeras/inference/model_folder.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MODEL = Path("saved_models", "brain_tumour_mri")


class BuildWithModel(build_py):
    """Also copies the model, if this tree has it."""

    def run(self) -> None:
        """Builds."""
        super().run()
        if not self.editable_mode and MODEL.is_dir():
            target = Path(self.build_lib, "btkeras", MODEL)
            # A model of an earlier build in the same folder may have had other files.
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(MODEL, target)


setup(cmdclass={"build_py": BuildWithModel})
