"""Cross-validation on a Ray cluster of several nodes on this machine, one of which is killed on the way."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from btkeras.config_io import load_config
from btkeras.datasets import load_dataset
from btkeras.experiments.executors import run_on_ray
from btkeras.experiments.experiment import Experiment, create_experiment, cross_validate
from tests.conftest import TINY

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[1]
CV = (*TINY, "train.epochs=15", "cv.models=[tiny]", "cv.folds=3")


def know_tiny_networks() -> None:
    """Runs in each worker before its task."""
    from types import MappingProxyType

    from btkeras.models import build
    from tests.conftest import TINY_NETWORKS

    build.MODELS = MappingProxyType({**build.MODELS, **TINY_NETWORKS})


@pytest.fixture
def nodes() -> Any:
    """A head without cores, and two nodes with one each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    started = [cluster.add_node(num_cpus=1) for _ in range(2)]
    # Also here, because a worker imports the tests' networks.
    environment = {"env_vars": {"PYTHONPATH": str(ROOT)}, "worker_process_setup_hook": know_tiny_networks}
    ray.init(address=cluster.address, runtime_env=environment, log_to_driver=False)
    yield cluster, started
    ray.shutdown()
    cluster.shutdown()


def make(folder: Path, image_folder: Path) -> Experiment:
    return create_experiment(folder, load_config(None, CV), load_dataset(image_folder))


def test_a_node_that_dies_loses_nothing_and_repeats_nothing(
    tmp_path: Path, shared_images: Path, nodes: tuple[Any, list[Any]]
) -> None:
    cluster, started = nodes
    experiment = make(tmp_path / "cv", shared_images)
    killed: list[list[int]] = []

    def kill_one() -> None:
        while not list(experiment.path.glob("tiny/fold_*/history.csv")):
            time.sleep(0.05)
        killed.append([job.index for job in experiment.jobs() if experiment.is_finished(job)])
        cluster.remove_node(started[0], allow_graceful=False)

    killer = threading.Thread(target=kill_one)
    killer.start()
    summary = cross_validate(experiment, lambda e, jobs: run_on_ray(e, jobs, address=cluster.address, cpus=1, gpus=0))
    killer.join()
    assert killed and len(killed[0]) < 3, "the node was killed while there was work"
    assert summary["bootstrap"]["images"] == sum(summary["dataset"]["images"].values())
    for job in experiment.jobs():
        epochs = [line.split(",")[0] for line in experiment.run(job).history_file.read_text().splitlines()[1:]]
        assert epochs == [str(epoch) for epoch in range(1, 16)], "each epoch once"
    # On the node that is left: another number of threads would change the last digits.
    undisturbed = make(tmp_path / "undisturbed", shared_images)
    cross_validate(undisturbed, lambda e, jobs: run_on_ray(e, jobs, address=cluster.address, cpus=1, gpus=0))
    assert undisturbed.summary_file.read_bytes() == experiment.summary_file.read_bytes()


def test_a_task_that_fails_says_why(tmp_path: Path, image_folder: Path, nodes: tuple[Any, list[Any]]) -> None:
    from btkeras.errors import RunError

    experiment = make(tmp_path / "cv", image_folder)
    os.truncate(image_folder / "glioma/005.png", 20)
    with pytest.raises(RunError, match=r"(?s)must succeed.*must be readable"):
        cross_validate(experiment, lambda e, jobs: run_on_ray(e, jobs, address=None, cpus=1, gpus=0))
