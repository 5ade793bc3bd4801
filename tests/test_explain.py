"""Explanation maps against closed forms, finite tricks and loops; scoring on images with known boxes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers
from PIL import Image

from btkeras.cli import main
from btkeras.datasets import load_dataset
from btkeras.datasets.dataset import Record
from btkeras.errors import ConfigError, DataError, ModelError
from btkeras.explain.cam import Axis, explain, stages
from btkeras.explain.methods import METHODS, Occlusion, occlude
from btkeras.explain.score_rows import classified_tumors, explanations_table, regions_of
from btkeras.explain.scores import reinitialized, score_explanations
from btkeras.models import build_model
from btkeras.models.head import with_temperature
from btkeras.runs import open_run
from tests.conftest import CLASSES

RNG = np.random.default_rng(0)


def network(body, shape: tuple[int, int, int] = (16, 12, 1)) -> keras.Model:  # type: ignore[no-untyped-def]
    """A network with the ending of the real ones, random weights with biases and all."""
    inputs = keras.Input(shape)
    x = layers.GlobalAveragePooling2D(name="features")(body(inputs))
    outputs = layers.Dense(3, activation="softmax", name="probabilities")(x)
    model = keras.Model(inputs, outputs)
    for weight in model.trainable_weights:
        weight.assign(RNG.normal(size=weight.shape))
    return model


def sample_images(count: int = 3, shape: tuple[int, int, int] = (16, 12, 1)) -> np.ndarray:
    return RNG.uniform(0, 255, (count, *shape)).astype(np.float32)


def to_one(maps: np.ndarray) -> np.ndarray:
    highest = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)


@pytest.mark.parametrize("temperature", [None, 2.5])
def test_gradcam_of_a_linear_head_is_the_class_activation_map(temperature: float | None) -> None:
    # Zhou et al. 2016: where global average pooling stands before the dense layer, the gradient is its weights.
    model = network(lambda x: layers.Conv2D(5, 3, padding="same", activation="relu", name="last")(x))
    maps = keras.Model(model.input, model.get_layer("last").output)
    weights = model.get_layer("probabilities").kernel.numpy()
    images, classes = sample_images(), np.array([0, 1, 2])
    expected = np.maximum(np.einsum("nhwc,cn->nhw", np.asarray(maps(images)), weights[:, classes]), 0)
    explained = with_temperature(model, temperature) if temperature else model
    np.testing.assert_allclose(explain(explained, images, classes, "gradcam"), to_one(expected), atol=1e-4)


def test_layercam_multiplies_the_stages_each_at_its_place() -> None:
    def body(x):  # type: ignore[no-untyped-def]
        x = layers.Conv2D(4, 1, activation="relu", name="early")(x)
        x = layers.AveragePooling2D(2)(x)
        return layers.Conv2D(5, 1, activation="relu", name="late")(x)

    model = network(body)
    images, classes = sample_images(), np.array([2, 0, 1])

    def product(images: np.ndarray) -> list[np.ndarray]:
        early, late = (
            np.asarray(keras.Model(model.input, model.get_layer(name).output)(images)) for name in ("early", "late")
        )
        head = model.get_layer("probabilities").kernel.numpy()[:, classes].T[:, None, None, :]
        # Backwards by hand: through the average, the ReLU, the 1 x 1 convolution and the pooling.
        back = np.where(late > 0, head, 0) @ model.get_layer("late").kernel.numpy()[0, 0].T
        spread = np.repeat(np.repeat(back, 2, axis=1), 2, axis=2)
        fine = np.maximum((early * np.maximum(spread, 0)).sum(axis=-1), 0)
        coarse = np.maximum((late * np.maximum(head, 0)).sum(axis=-1), 0)
        # The centre of a 2 x 2 window lies half a pixel behind its first pixel.
        columns = [np.interp(range(12), np.arange(6) * 2 + 0.5, row) for row in coarse.reshape(-1, 6)]
        wide = np.reshape(columns, (3, 8, 12))
        large = np.stack(
            [[np.interp(range(16), np.arange(8) * 2 + 0.5, wide[n, :, j]) for j in range(12)] for n in range(3)]
        ).transpose(0, 2, 1)
        return [to_one(large), to_one(fine)]

    turned = [one[:, :, ::-1] for one in product(images[:, :, ::-1])]
    expected = np.prod([a + b for a, b in zip(product(images), turned, strict=True)], axis=0)
    np.testing.assert_allclose(explain(model, images, classes, "layercam"), to_one(expected), atol=1e-4)


def positive(x):  # type: ignore[no-untyped-def]
    """Every way that a layer here can move a map, in one network."""
    x = layers.ZeroPadding2D(((3, 1), (0, 2)))(x)
    x = layers.Conv2D(2, 7, strides=2, name="padded")(x)
    x = layers.Conv2D(2, 3, strides=2, padding="same", name="same")(x)
    x = layers.BatchNormalization(name="same_bn")(x)
    x = layers.AveragePooling2D(2, name="pooled")(x)
    x = layers.Conv2D(2, 3, dilation_rate=2, padding="same", name="dilated")(x)
    return layers.Add(name="sum")([x, layers.Conv2D(2, 1, name="shortcut")(x)])


def test_a_cells_place_is_the_middle_of_what_it_sees() -> None:
    import tensorflow as tf

    model = network(positive, (96, 80, 1))
    for weight in model.trainable_weights:
        weight.assign(np.ones(weight.shape))
    for stage in stages(model):
        part = keras.Model(model.input, stage.tensor)
        image = tf.Variable(np.ones((1, 96, 80, 1), np.float32))
        cell = (stage.tensor.shape[1] // 2, stage.tensor.shape[2] // 2)
        with tf.GradientTape() as tape:
            value = part(image)[0, cell[0], cell[1], 0]
        seen = np.abs(tape.gradient(value, image).numpy()[0, :, :, 0])
        middle = [(seen.sum(axis=1 - axis) * np.arange(seen.shape[axis])).sum() / seen.sum() for axis in (0, 1)]
        stated = [axis.start + axis.step * index for axis, index in zip(stage.axes, cell, strict=True)]
        assert stated == pytest.approx(middle, abs=1e-3), stage.name


def test_stages_are_what_everything_passes_through() -> None:
    assert [stage.name for stage in stages(network(positive, (96, 80, 1)))] == ["sum", "same_bn", "padded"]


def test_stages_of_the_papers_network() -> None:
    found = stages(build_model("improved_resnet34", input_shape=(112, 112, 1)))
    expected = ["stage4_block3_relu", "stage3_block6_relu", "stage2_block4_relu", "stage1_block3_relu"]
    assert [stage.name for stage in found[:4]] == expected
    assert [stage.tensor.shape[1] for stage in found[:4]] == [4, 7, 14, 28]
    assert [stage.axes for stage in found[:4]] == [(Axis(0, step),) * 2 for step in (32, 16, 8, 4)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spot", [(4, 20), (25, 9)])
def test_a_network_that_looks_at_what_is_bright_is_found_out(method: str, spot: tuple[int, int]) -> None:
    model = network(lambda x: layers.Conv2D(2, 3, padding="same", activation="relu", name="last")(x), (32, 32, 1))
    # One channel sees what is much brighter than a slice's tissue, and speaks for class 1.
    model.get_layer("last").set_weights([np.full((3, 3, 1, 2), 1 / 9), np.array([-150.0, -300.0])])
    model.get_layer("probabilities").set_weights([np.array([[0, 1, 0], [0, 0, 0]], float), np.zeros(3)])
    images = RNG.uniform(40, 60, (1, 32, 32, 1)).astype(np.float32)
    images[0, spot[0] - 2 : spot[0] + 3, spot[1] - 2 : spot[1] + 3] = 250
    found = explain(model, images, np.array([1]), method)[0]
    assert found.shape == (32, 32)
    assert found.dtype == np.float32
    assert found.max() == 1
    assert found.min() >= 0
    middle = np.argwhere(found == 1).mean(axis=0)
    # Occlusion is as coarse as its squares' distance.
    assert np.abs(middle - spot).max() <= (2 if method != "occlusion" else 4)
    assert not explain(model, images, np.array([0]), "gradcam").any()


def test_occlusion_equals_a_loop() -> None:
    settings, images = Occlusion("", window=0.5, stride=0.25), sample_images(2, (8, 12, 1))
    weights = RNG.normal(size=(8 * 12, 2)) / 1000

    def predict(covered: np.ndarray) -> np.ndarray:
        odds = np.exp(covered.reshape(len(covered), -1) @ weights)
        return odds / odds.sum(axis=1, keepdims=True)

    def loss(image: np.ndarray, top: int, left: int) -> float:
        covered = image.copy()
        covered[max(top, 0) : top + 4, max(left, 0) : left + 6] = 0
        (before,), (after,) = predict(image[None]), predict(covered[None])
        return float(np.log(before[1] / before[0]) - np.log(after[1] / after[0]))

    expected = np.zeros((2, 8, 12))
    for n, image in enumerate(images):
        for i in range(8):
            for j in range(12):
                squares = [
                    loss(image, top, left)
                    for top in range(-2, 8, 2)
                    for left in range(-3, 12, 3)
                    if top <= i < top + 4 and left <= j < left + 6
                ]
                expected[n, i, j] = max(np.mean(squares), 0)
    np.testing.assert_allclose(occlude(predict, images, np.array([1, 1]), settings), to_one(expected), atol=1e-4)


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'gradcam'"):
        explain(network(lambda x: x), sample_images(), np.zeros(3, int), "grad-cam")


def test_without_tensorflows_gradients_another_method_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(lambda x: layers.Conv2D(2, 3)(x))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ModelError, match=r"Keras on jax.*occlusion"):
        explain(model, sample_images(), np.zeros(3, int), "gradcam")


def test_random_weights_are_others_and_the_same_each_time() -> None:
    model = with_temperature(build_model("tiny", input_shape=(32, 32, 1), mean=90.0, variance=900.0), 2.0)
    before = [np.array(weight) for weight in model.weights]
    first, second = reinitialized(model), reinitialized(model)
    images = sample_images(4, (32, 32, 1))
    np.testing.assert_array_equal(first(images), second(images))
    assert np.abs(np.asarray(first(images)) - np.asarray(model(images))).max() > 0.01
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def boxed(folder: Path, source: Path, text: str = "0.5,0.5,0.5,0.5") -> Path:
    shutil.copytree(source, folder)
    with (folder / "boxes.csv").open("w", newline="") as file:
        file.write("file,x_center,y_center,width,height\n")
        for path in sorted(folder.glob("*/*.png")):
            if path.parent.name != "no_tumor":
                file.write(f"{path.relative_to(folder)},{text}\n")
    return folder


@pytest.fixture(scope="module")
def run_copy(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("explained") / "run"))


def test_scores_say_where_tumors_and_maps_are(run_copy: Path, shared_images: Path, tmp_path: Path) -> None:
    data = boxed(tmp_path / "boxed", shared_images)
    found = score_explanations(open_run(run_copy), dataset=load_dataset(data), methods=("gradcam", "layercam"), limit=9)
    rows = {(row["title"], row["network"]): row for row in found["rows"]}
    assert (found["region"], found["tumors"]) == ("box", 36)
    assert 5 <= found["images"] <= 9
    center = rows["centre of the image", "baseline"]
    # The box is a quarter of the image, around its centre.
    assert (center["pointing"], center["energy"]) == (1, 1)
    assert center["iou"] == pytest.approx(1 / 256)
    assert {row["network"] for row in found["rows"]} == {"baseline", "trained", "random weights"}
    trained = rows["Grad-CAM", "trained"]
    assert -1 <= trained["correlation_with_random"] <= 1
    assert trained["pointing_interval"][0] <= trained["pointing"] <= trained["pointing_interval"][1]
    written = json.loads((run_copy / "evaluations" / "boxed" / "explanations.json").read_text())
    assert written == found
    assert "LayerCAM of four stages" in explanations_table(found)


def test_masks_are_taken_before_boxes(run_copy: Path, shared_images: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(shared_images, tmp_path / "masked"))
    mask = np.zeros((48, 40), np.uint8)
    mask[:24, :20] = 255
    Image.fromarray(mask).save(data / "mask.png")
    with (data / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "mask", "box"])
        for path in sorted(data.glob("*/*.png")):
            tumor = path.parent.name != "no_tumor"
            row = ["mask.png", "0.25 0.25 0.1 0.1"] if tumor else ["", ""]
            writer.writerow([path.relative_to(data), path.parent.name, *row])
    found = score_explanations(open_run(run_copy), dataset=load_dataset(data), methods=("gradcam",), limit=3)
    assert found["region"] == "mask"
    records = [record for record in load_dataset(data).records if record.label == "glioma"][:1]
    region = regions_of(load_dataset(data), records, (32, 32), "mask")[0]
    expected = np.zeros((32, 32), bool)
    expected[:16, :16] = True
    np.testing.assert_array_equal(region, expected)


def test_boxes_follow_the_crop_to_the_head(tmp_path: Path) -> None:
    (tmp_path / "glioma").mkdir()
    image = np.zeros((100, 100), np.uint8)
    image[20:80, 30:90] = 150
    for folder in ("glioma", "no_tumor"):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / folder / "a.png")
    (tmp_path / "boxes.csv").write_text("file,x_center,y_center,width,height\nglioma/a.png,0.45,0.35,0.3,0.3\n")
    dataset = load_dataset(tmp_path)
    region = regions_of(dataset, dataset.records[:1], (60, 60), "box", harmonized=True)[0]
    expected = np.zeros((60, 60), bool)
    expected[:30, :30] = True
    np.testing.assert_array_equal(region, expected)


def test_a_dataset_without_boxes_cannot_be_scored(run_copy: Path, shared_images: Path) -> None:
    with pytest.raises(DataError, match="predict --explain"):
        score_explanations(open_run(run_copy))
    result = CliRunner().invoke(main, ["evaluate", str(run_copy), "--data", str(shared_images), "--explain"])
    assert (result.exit_code, "tumours with a box or mask" in result.output) == (1, True)
    assert not (run_copy / "evaluations" / shared_images.name).exists()


def test_a_tumor_of_no_known_kind_is_explained_by_the_most_probable_one() -> None:
    probabilities = np.array([[0.1, 0.2, 0.4, 0.3], [0.1, 0.1, 0.7, 0.1], [0.3, 0.1, 0.4, 0.2], [0.6, 0.1, 0.2, 0.1]])
    records = [Record(f"{i}.png", label) for i, label in enumerate(("tumor", "tumor", "glioma", "glioma"))]
    images, regions = np.arange(4), np.ones((4, 2, 2), bool)
    found = classified_tumors(images, (records, "box", 4), regions, CLASSES, probabilities)
    # Of a known kind, the sum is no right answer.
    assert found.images.tolist() == [0, 3]
    assert [CLASSES[i] for i in found.labels] == ["pituitary", "glioma"]
    assert found.names.tolist() == ["tumor", "glioma"]


def test_metrics_are_shown_where_no_tumor_is_classified_correctly(
    run_copy: Path,
    shared_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = boxed(tmp_path / "empty", shared_images)
    # A box between pixels: no tumour has a region.
    monkeypatch.setattr("btkeras.explain.scores.regions_of", lambda *_, **__: np.zeros((36, 32, 32), bool))
    result = CliRunner().invoke(main, ["evaluate", str(run_copy), "--data", str(data), "--explain", "--json"])
    assert result.exit_code == 0 and "explanations" not in json.loads(result.stdout)
    assert "no explanations are scored: Explanations need tumours" in caplog.text


def test_evaluate_prints_and_writes_scores(run_copy: Path, shared_images: Path, tmp_path: Path) -> None:
    data = boxed(tmp_path / "printed", shared_images)
    arguments = ["evaluate", str(run_copy), "--data", str(data), "--explain", "--method", "gradcam", "--limit", "4"]
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)["explanations"]
    assert scores["tumors"] == 36
    assert "random weights" in explanations_table(scores) and "of 36 with a box" in explanations_table(scores)


def test_evaluate_refuses_what_belongs_to_explain(run_copy: Path) -> None:
    assert CliRunner().invoke(main, ["evaluate", str(run_copy), "--limit", "3"]).exit_code == 2
    unknown = CliRunner().invoke(main, ["evaluate", str(run_copy), "--explain", "--method", "gradcan"])
    assert (unknown.exit_code, "Did you mean 'gradcam'" in unknown.output) == (2, True)
