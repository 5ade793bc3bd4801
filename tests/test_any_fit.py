"""The metric, the schedule, the callbacks and the datasets in a ``fit`` that is not btkeras' own, and saved models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.metrics import recall_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import btkeras
from btkeras.config import ScheduleConfig
from btkeras.datasets import load_dataset
from btkeras.errors import ConfigError, DataError, ModelError
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.splitting.splits import make_split

RNG = np.random.default_rng(0)
LOAD = "import keras, json; m = keras.models.load_model({file!r}); print(json.dumps(m.get_compile_config()))"


def small_model(classes: int = 4, *, size: int = 32) -> keras.Model:
    """A model of somebody else's, with btkeras' layer, metric and schedule in it."""
    slices = keras.Input((None, None, 1))
    x = btkeras.preprocessing.SlicePreprocessing(size, scale=1 / 255)(slices)
    outputs = keras.layers.Dense(classes, activation="softmax")(keras.layers.Flatten()(x))
    model = keras.Model(slices, outputs)
    model.compile(
        keras.optimizers.Adam(btkeras.training.Schedule(1e-2, "cosine", epochs=2, steps=2)),
        "sparse_categorical_crossentropy",
        metrics=[btkeras.training.MacroRecall(classes)],
    )
    return model


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, shared_images: Path) -> tuple[keras.Model, Path]:
    """Such a model after two epochs with the callbacks, and the folder for TensorBoard."""
    logs = tmp_path_factory.mktemp("logs")
    train = btkeras.datasets.load(shared_images, subset="train", image_size=32, batch_size=16)
    validation = btkeras.datasets.load(shared_images, subset="validation", image_size=32, shuffle=False)
    callbacks = [
        btkeras.training.ProgressLine(16),
        btkeras.training.ReplicaMean(),
        btkeras.training.ConfusionMatrix(logs, train.class_names),
    ]
    model = small_model()
    model.fit(train, validation_data=validation, epochs=2, verbose=0, callbacks=callbacks, shuffle=False)
    return model, logs


# --- The metric and the schedule ---


@pytest.mark.parametrize("form", ["indices", "column", "one_hot"])
def test_macro_recall_is_scikit_learns(form: str) -> None:
    actual, scores = RNG.integers(0, 3, 60), RNG.random((60, 3)).astype(np.float32)
    targets = {"indices": actual, "column": actual[:, None], "one_hot": np.eye(3, dtype=np.float32)[actual]}[form]
    metric = btkeras.training.MacroRecall(3)
    for part in (slice(40), slice(40, 60)):
        metric.update_state(targets[part], scores[part])
    expected = recall_score(actual, scores.argmax(axis=1), average="macro")
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


def test_macro_recall_weighs_images() -> None:
    actual, scores, weights = RNG.integers(0, 3, 60), RNG.random((60, 3)), RNG.random(60).astype(np.float32)
    metric = btkeras.training.MacroRecall.from_config(btkeras.training.MacroRecall(3, name="mine").get_config())
    metric.update_state(actual, scores, sample_weight=weights)
    expected = recall_score(actual, scores.argmax(axis=1), average="macro", sample_weight=weights)
    assert (float(metric.result()), metric.name) == (pytest.approx(expected, rel=1e-5), "mine")


@pytest.mark.parametrize("labels", [[0, 1, 1, 0], [[0], [1], [1], [0]], np.eye(2)[[0, 1, 1, 0]]])
def test_macro_recall_takes_a_single_sigmoid_output_as_two_classes(labels: object) -> None:
    metric = btkeras.training.MacroRecall(2)
    metric.update_state(labels, [[0.1], [0.9], [0.3], [0.5]])
    np.testing.assert_array_equal(metric.matrix, [[2, 0], [1, 1]])
    assert float(metric.result()) == 0.75


@pytest.mark.parametrize(
    ("classes", "labels", "scores", "message"),
    [
        (4, [0, 1], [[0.1, 0.9], [0.2, 0.8]], r"MacroRecall\(4\) needs one output a class.*shape \(2, 2\)"),
        (3, [0, 1], [[0.1], [0.9]], "needs one output a class"),
        (2, np.eye(3)[:2], [[0.1, 0.9], [0.2, 0.8]], r"labels that are class indices.*shape \(2, 3\)"),
    ],
)
def test_macro_recall_refuses_other_classes_than_its_own(
    classes: int, labels: object, scores: object, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        btkeras.training.MacroRecall(classes).update_state(labels, scores)


def test_macro_recall_in_fit_of_a_single_output() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, "sigmoid", kernel_initializer="ones")])
    model.compile("sgd", "binary_crossentropy", metrics=[btkeras.training.MacroRecall(2)])
    images, labels = np.array([[-9.0], [9.0], [8.0]]), np.array([0, 1, 1])
    assert model.evaluate(images, labels, verbose=0, return_dict=True)["macro_recall"] == 1
    model.compile("sgd", "binary_crossentropy", metrics=[btkeras.training.MacroRecall(4)])
    with pytest.raises(ModelError, match="needs one output a class"):
        model.evaluate(images, labels, verbose=0)
    with pytest.raises(ModelError, match="at least 2"):
        btkeras.training.MacroRecall(1)


def test_a_schedule_by_name_has_that_schedules_defaults() -> None:
    named = btkeras.training.Schedule(0.1, "linear", 3, 4)
    assert named.get_config() == btkeras.training.Schedule(0.1, ScheduleConfig("linear"), 3, 4).get_config()
    with pytest.raises(ConfigError, match="cosine"):
        btkeras.training.Schedule(0.1, "cosin", 3, 4)


@pytest.mark.parametrize(
    ("numbers", "key"), [((-1, 3, 4), "learning_rate"), ((0.1, 0, 4), "epochs"), ((1, 3, 0), "steps")]
)
def test_a_schedules_numbers_are_above_0(numbers: tuple[float, int, int], key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} must be a number above 0"):
        btkeras.training.Schedule(numbers[0], "cosine", *numbers[1:])


# --- The callbacks ---


def test_the_progress_line_shows_what_fit_logs(fitted: object, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_model(2)
    images, labels = np.zeros((6, 20, 20, 1), np.float32), np.arange(6) % 2
    model.fit(images, labels, batch_size=4, verbose=0, callbacks=[btkeras.training.ProgressLine(4)])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch 1/1")]
    assert "macro_recall 0." in line and "loss " in line and " images/s" in line and "val_" not in line


def test_tensorboard_gets_a_confusion_matrix_an_epoch(fitted: tuple[keras.Model, Path]) -> None:
    events = EventAccumulator(str(fitted[1]))
    events.Reload()
    assert [event.step for event in events.Tensors("confusion_matrix")] == [1, 2]


def test_without_the_metric_the_confusion_matrix_says_what_is_missing(tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile(loss="mse", metrics=["mae"])
    with pytest.raises(ModelError, match="compiled with the metric MacroRecall"):
        model.fit(
            np.zeros((2, 2)), np.zeros((2, 2)), verbose=0, callbacks=[btkeras.training.ConfusionMatrix(tmp_path, "ab")]
        )


def test_a_confusion_matrix_with_other_names_stops_at_the_first_step(tmp_path: Path) -> None:
    model, ended = small_model(2), []
    seen = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ended.append(epoch))
    callbacks = [seen, btkeras.training.ConfusionMatrix(tmp_path, ["no"])]
    with pytest.raises(ModelError, match=r"a name for each of MacroRecall's 2 classes\. Received: no"):
        model.fit(np.zeros((2, 20, 20, 1)), np.array([0, 1]), verbose=0, callbacks=callbacks)
    assert not ended


def test_without_validation_no_confusion_matrix_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callback = btkeras.training.ConfusionMatrix(tmp_path, ["no", "yes"])
    small_model(2).fit(np.zeros((2, 20, 20, 1)), np.array([0, 1]), epochs=2, verbose=0, callbacks=[callback])
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert "confusion_matrix" not in events.Tags()["tensors"]
    assert capsys.readouterr().err.count("ConfusionMatrix drew nothing: fit had no validation_data") == 1


@pytest.mark.parametrize(
    "callback",
    [
        btkeras.training.ProgressLine(8, epochs=3, metrics=("loss",)),
        btkeras.training.ReplicaMean(),
        btkeras.training.ConfusionMatrix("logs", ("a", "b")),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_a_callback_is_made_again_of_its_config(callback: btkeras.training.ProgressLine) -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(callback))
    assert type(again) is type(callback) and again.get_config() == callback.get_config()


# --- Saved models ---


def test_a_saved_model_is_read_after_import_btkeras_alone(fitted: tuple[keras.Model, Path], tmp_path: Path) -> None:
    file = tmp_path / "own.keras"
    fitted[0].save(file)
    again = keras.models.load_model(file)
    images = RNG.integers(0, 256, (2, 50, 40, 1)).astype(np.float32)
    np.testing.assert_array_equal(again(images), fitted[0](images))
    assert isinstance(again.optimizer._learning_rate, btkeras.training.Schedule)
    done = fresh(f"import btkeras, sys; assert 'keras' not in sys.modules; {LOAD.format(file=str(file))}")
    assert done.returncode == 0 and "btkeras>Schedule" in done.stdout, done.stderr
    # Keras' own message, which names the package.
    done = fresh(LOAD.format(file=str(file)))
    assert done.returncode and "make sure they are all imported" in done.stderr and "btkeras>" in done.stderr


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


# --- The datasets ---


def test_load_gives_the_images_and_labels_of_a_subset(shared_images: Path) -> None:
    settings = {"image_size": 40, "seed": 3, "batch_size": 5}
    batches = btkeras.datasets.load(shared_images, subset="test", shuffle=False, **settings)
    dataset = load_dataset(shared_images)
    config = btkeras.config.DataConfig(image_size=40, channels=1, split_seed=3)
    records = make_split(dataset, config).subset("test")
    assert batches.class_names == list(dataset.classes)
    assert batches.file_paths == [str(shared_images / record.path) for record in records]
    images, labels = (np.concatenate(parts) for parts in zip(*batches.as_numpy_iterator(), strict=True))
    expected = [Preprocessor(40, 1).file(file) for file in batches.file_paths]
    np.testing.assert_array_equal(images, np.stack(expected).astype(np.float32))
    assert [batches.class_names[label] for label in labels] == [record.label for record in records]
    shuffled = btkeras.datasets.load(dataset, subset="test", label_mode="categorical", **settings)
    one_hot = np.concatenate([targets for _, targets in shuffled])
    assert sorted(one_hot.argmax(axis=1)) == sorted(labels) and list(one_hot.argmax(axis=1)) != list(labels)


def test_subsets_are_a_partition(shared_images: Path) -> None:
    files = [
        btkeras.datasets.load(shared_images, subset=name, image_size=32).file_paths
        for name in ("train", "validation", "test")
    ]
    together = [file for part in files for file in part]
    assert sorted(together) == sorted(btkeras.datasets.load(shared_images, image_size=32).file_paths)
    assert len(set(together)) == len(together)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"subset": "training"}, DataError, "train, validation, test. Received: 'training'"),
        ({"label_mode": "binary"}, ConfigError, "label_mode must be one of int, categorical"),
        ({"image_size": 8}, ConfigError, "image_size"),
        ({"batch_size": 0}, ConfigError, "batch_size must be a whole number, at least 1. Received: 0"),
        ({"seed": "a"}, ConfigError, "seed must be a whole number, at least 0. Received: 'a'"),
    ],
)
def test_what_cannot_be_loaded_is_said(
    shared_images: Path, settings: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message.replace(".", r"\.")):
        btkeras.datasets.load(shared_images, **settings)


def test_a_broken_image_is_named(image_folder: Path) -> None:
    (image_folder / "glioma/000.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 broken:\s.*glioma/000.png(?s:.*)Mend or remove them\.$"):
        btkeras.datasets.load(image_folder, image_size=32)
