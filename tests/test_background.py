"""Files that a thread writes beside the training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.config import ExperimentConfig
from btkeras.datasets.dataset import load_dataset
from btkeras.runs import open_run
from btkeras.training import run_callbacks, tensorboard, trainer
from btkeras.training.background import BackgroundWriter
from btkeras.training.checkpoint import Progress


def test_all_is_written_in_order_and_of_what_waits_the_newest_alone() -> None:
    written, begun, ready = [], Event(), Event()

    def slow() -> None:
        begun.set()
        ready.wait()

    with BackgroundWriter() as writer:
        writer.give("slow", slow)
        writer.start()
        begun.wait()
        # Epochs, of which the second and the fourth are better ones.
        for number, names in enumerate((["best", "state"], ["best", "state"], ["state"], ["best", "state", "other"])):
            for name in names:
                writer.give(name, lambda name=name, number=number: written.append((name, number)))
            writer.start()
        ready.set()
    assert written == [("best", 3), ("state", 3), ("other", 3)]


def test_a_state_is_never_written_before_the_best_model_that_it_names() -> None:
    """The first epoch's best model is being written when the second epoch, a better one, ends."""
    written, begun, ready = [], Event(), Event()

    def first_best() -> None:
        begun.set()
        ready.wait()

    with BackgroundWriter() as writer:
        writer.give("best", first_best)
        writer.give("state", lambda: written.append("state 1"))
        writer.start()
        begun.wait()
        for name in ("best", "state"):
            writer.give(name, lambda name=name: written.append(f"{name} 2"))
        writer.start()
        ready.set()
    assert written == ["best 2", "state 2"]


def test_nothing_is_written_before_the_start() -> None:
    written: list[str] = []
    with BackgroundWriter() as writer:
        writer.give("state", lambda: written.append("state"))
        time.sleep(0.05)
        assert not written
    assert written == ["state"]


def test_after_an_error_nothing_is_written_and_it_is_raised() -> None:
    written: list[str] = []

    def full() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), BackgroundWriter() as writer:
        writer.give("best", full)
        writer.start()
        # Raised here, or at the end: the thread decides.
        writer.give("state", lambda: written.append("state"))
    assert not written


def test_an_error_of_the_training_comes_after_all_is_written() -> None:
    written: list[str] = []
    with pytest.raises(KeyboardInterrupt), BackgroundWriter() as writer:
        writer.give("state", lambda: written.append("state"))
        raise KeyboardInterrupt
    assert written == ["state"]


def test_a_disk_that_is_full_ends_the_training_which_can_be_resumed(
    tmp_path: Path, shared_images: Path, tiny_config: Callable[..., ExperimentConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_callbacks, "save_state", full)
        with pytest.raises(OSError, match="No space left"):
            trainer.train(tiny_config("train.epochs=3"), load_dataset(shared_images), tmp_path / "cut")
    assert not open_run(tmp_path / "cut").state_file.exists()
    trainer.resume(tmp_path / "cut")
    trainer.train(tiny_config("train.epochs=3"), load_dataset(shared_images), tmp_path / "whole")
    histories = [(tmp_path / name / "history.csv").read_text() for name in ("cut", "whole")]
    assert histories[0] == histories[1]


def test_what_is_drawn_of_short_epochs_does_not_hold_a_training_up(
    tmp_path: Path, shared_images: Path, tiny_config: Callable[..., ExperimentConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every epoch's metrics are there, of both phases, but not every epoch's matrix."""
    drawn: list[int] = []
    draw = tensorboard.confusion_image

    def slow(matrix: tensorboard.Counts, classes: Sequence[str]) -> NDArray[np.uint8]:
        drawn.append(1)
        time.sleep(0.5)
        return draw(matrix, classes)

    monkeypatch.setattr(tensorboard, "confusion_image", slow)
    trainer.train(tiny_config("train.epochs=30", "cooldown.epochs=3"), load_dataset(shared_images), tmp_path / "run")
    events = [
        value.tag
        for file in (tmp_path / "run/tensorboard/train").glob("events*")
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    ]
    assert events.count("loss") == 30 and 1 <= len(drawn) < 30


def test_the_state_does_not_wait_for_what_is_drawn(
    tmp_path: Path, shared_images: Path, tiny_config: Callable[..., ExperimentConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first epoch is drawn, those after it are saved."""
    draw, saved = tensorboard.confusion_image, Event()
    save = run_callbacks.save_state

    def save_and_say(target: Path, state: Mapping[str, NDArray[Any]], progress: Progress) -> None:
        save(target, state, progress)
        if progress.epochs > 1:
            saved.set()

    def wait(matrix: tensorboard.Counts, classes: Sequence[str]) -> NDArray[np.uint8]:
        assert saved.wait(60)
        return draw(matrix, classes)

    monkeypatch.setattr(tensorboard, "confusion_image", wait)
    monkeypatch.setattr(run_callbacks, "save_state", save_and_say)
    trainer.train(tiny_config("train.epochs=3"), load_dataset(shared_images), tmp_path / "run")
    assert open_run(tmp_path / "run").state_file.exists()
