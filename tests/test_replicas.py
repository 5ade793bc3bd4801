"""A training on several devices, which two virtual ones of the processor stand in for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

_SCRIPT = """
import sys
from pathlib import Path
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from types import MappingProxyType
from btkeras.config_io import load_config
from btkeras.datasets.dataset import load_dataset
from btkeras.models import build
from btkeras.training import device, trainer
from tests.conftest import TINY, TINY_NETWORKS

build.MODELS = MappingProxyType({**build.MODELS, **TINY_NETWORKS})
device.accelerators = lambda: tf.config.list_logical_devices("CPU")
out, dataset = Path(sys.argv[2]), load_dataset(Path(sys.argv[1]))
settings = (*TINY, "model.frozen_epochs=1", "train.epochs=3", "train.batch_size=8", "train.keep_state=true")
config = load_config(None, settings)
replicas = []
compile = trainer._Training._compile


def counted(self, optimizer):
    replicas.append(tf.distribute.get_strategy().num_replicas_in_sync)
    compile(self, optimizer)


trainer._Training._compile = counted
trainer.train(config, dataset, out / "whole")
assert set(replicas) == {2}, replicas


def interrupt(self, epoch, logs=None):
    if epoch == 2:
        raise KeyboardInterrupt


begin, trainer.BestModel.on_epoch_begin = trainer.BestModel.on_epoch_begin, interrupt
try:
    trainer.train(config, dataset, out / "cut")
except trainer.Interrupted:
    trainer.BestModel.on_epoch_begin = begin
trainer.resume(out / "cut")
"""


def test_freezing_and_resuming_on_two_devices(shared_images: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(shared_images), str(tmp_path)],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    histories = [(tmp_path / name / "history.csv").read_text() for name in ("whole", "cut")]
    assert histories[0] == histories[1] and histories[0].count("\n") == 4
