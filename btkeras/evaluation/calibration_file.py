"""A run's ``calibration.json``, and whether it fits the run's network."""

from __future__ import annotations

import keras
import numpy as np

from btkeras.errors import RunError
from btkeras.evaluation.calibration import FILE, Calibration
from btkeras.files import write_json
from btkeras.models.temperature import temperature_of
from btkeras.runs import Run, read_json


def load_calibration(run: Run, model: keras.Model | None = None) -> Calibration | None:
    """Reads a run's ``calibration.json``; None if it was not calibrated.

    Args:
        run: The run.
        model: Its network, if it shall be checked that this has the temperature that the file speaks of.

    Raises:
        RunError: If the file cannot be read, or does not belong to the network.
    """
    file = run.path / FILE
    found = Calibration.from_json(read_json(file), str(file)) if file.is_file() else None
    if model is not None:
        expected, temperature = found.temperature if found else 1.0, temperature_of(model)
        if not np.isclose(temperature, expected, rtol=1e-6):
            raise RunError(
                f"{FILE} and {run.best_model.name} must be of one calibration",
                received=f"temperature {expected:g} in one and {temperature:g} in the other, in {run.path}",
                remedy=f"Calibrate it again: btkeras calibrate {run.path}",
            )
    return found


def save_calibration(run: Run, calibration: Calibration) -> None:
    """Writes ``calibration.json``."""
    write_json(run.path / FILE, calibration.to_json())
