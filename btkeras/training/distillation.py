"""Knowledge distillation: a network learns a finished run's probabilities, beside the true classes.

Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv:1503.02531. The teacher sees the augmented images
that the network sees. An ensemble is a run, too: so several networks become one, which takes the time of one.

``keras.distillation.Distiller`` would hold both networks: checkpoints, averaged weights and the state for resuming
would take in the teacher, and its losses expect logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
from keras import KerasTensor, layers

from btkeras.checksums import check_file
from btkeras.config import ExperimentConfig
from btkeras.errors import RunError
from btkeras.files import sha256
from btkeras.models.averaging import members
from btkeras.models.keras_file import load_network
from btkeras.models.reparameterize import reparameterize
from btkeras.runs import Run, open_run

_REMEDY = "Name another run: --set train.teacher=RUN"


def teacher_of(config: ExperimentConfig, classes: Sequence[str]) -> Run | None:
    """The run that ``train.teacher`` names; None if it names none.

    Args:
        config: The training's.
        classes: Of its dataset.

    Raises:
        RunError: If it is no run, unfinished or without a network, or has other classes or sees images otherwise.
    """
    if not config.train.teacher:
        return None
    run = open_run(config.train.teacher)
    run.require_finished("A teacher must be finished")
    if not run.best_model.is_file():
        rule, received = "A teacher must be a network", f"{run.path} without {run.best_model.name}"
        raise RunError(rule, received=received, remedy=_REMEDY)
    check_file(run.best_model)
    wanted = {"classes": tuple(classes)} | _seen(config)
    found = {"classes": run.classes()} | _seen(run.config())
    if different := [
        f"{name} {found[name]} in place of {wanted[name]}" for name in wanted if found[name] != wanted[name]
    ]:
        rule, received = "A teacher must know the classes and see images as the network does", ", ".join(different)
        raise RunError(rule, received=f"{run.path}: {received}", remedy=_REMEDY)
    return run


def _seen(config: ExperimentConfig) -> dict[str, Any]:
    return {f"data.{name}": getattr(config.data, name) for name in ("image_size", "channels", "harmonize")}


def record_teacher(run: Run, teacher: Run) -> None:
    """Records in a run's manifest what teaches it; ``RunError`` if it was another network before."""
    digest = sha256(teacher.best_model)
    if run.manifest().get("teacher", {}).get("sha256", digest) != digest:
        raise RunError(
            "A run must go on with the teacher that it began with",
            received=f"{teacher.path}, whose {teacher.best_model.name} has changed",
            remedy="Put it back, or start a new run",
        )
    run.update_manifest(teacher={"run": str(teacher.path), "sha256": digest})


def with_teacher(network: keras.Model, teacher: Run, share: float, precision: str = "float32") -> keras.Model:
    """The same network, whose training targets are mixed with the probabilities of ``teacher``.

    Args:
        network: Functional, not compiled. Its weights are the result's; the teacher's are none of them.
        teacher: Of ``teacher_of``.
        share: Of the teacher's probabilities in a target; validation has the true classes alone.
        precision: The training's dtype policy, which the teacher's feature maps get, too.
    """
    teaching = reparameterize(load_network(teacher.best_model))
    for each in members(teaching) or [teaching]:
        _use_precision(each, precision)
    taught = _Taught(network.input, network.output, name=network.name)
    # Behind a function, where Keras does not look for weights.
    taught.probabilities = partial(teaching, training=False)
    taught.share = share
    return taught


def _use_precision(network: keras.Model, precision: str) -> None:
    for layer in network.layers:
        if len(layer.output.shape) == 4 and not isinstance(layer, layers.InputLayer | layers.Normalization):
            layer.dtype_policy = precision


class _Taught(keras.Model):
    """A network that is trained with a teacher."""

    probabilities: Any
    share: float

    def compute_loss(
        self,
        x: KerasTensor | None = None,
        y: KerasTensor | None = None,
        y_pred: KerasTensor | None = None,
        sample_weight: KerasTensor | None = None,
        training: bool = True,
    ) -> KerasTensor | None:
        if training and y is not None:
            y = (1 - self.share) * y + self.share * keras.ops.stop_gradient(self.probabilities(x))
        return super().compute_loss(x, y, y_pred, sample_weight, training)
