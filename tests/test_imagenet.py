"""ImageNet weights, from files that Keras wrote here: nothing is downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pooch
import pytest
import requests
from numpy.typing import NDArray

from btkeras.errors import ModelError
from btkeras.models import MODELS, backbone_layers, build_model
from btkeras.models.architectures import APPLICATIONS
from btkeras.models.imagenet import IMAGENET, load_pretrained, scaled_variance

FAST = ("vgg16", "densenet")
NAMES = [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in IMAGENET]
MEAN, VARIANCE = 120.0, 3600.0


@pytest.fixture(scope="module")
def application() -> Callable[[str], keras.Model]:
    """Makes a network of ``keras.applications`` with random weights and statistics, once a name."""
    made: dict[str, keras.Model] = {}

    def make(name: str) -> keras.Model:
        if name not in made:
            rng = np.random.default_rng(5)
            made[name] = APPLICATIONS[name].backbone(input_shape=(48, 48, 3))
            for variable in made[name].weights:
                if not variable.path.endswith("kernel"):
                    # Not more: EfficientNetV2 amplifies its input's last digits beyond recognition then.
                    variable.assign_add(rng.uniform(-0.1, 0.1, variable.shape))
        return made[name]

    return make


@pytest.fixture(scope="module")
def weights_file(application: Callable[[str], keras.Model], tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Writes the application's weights, once a name and format; ``.h5`` is laid out as Keras' downloads are."""
    folder = tmp_path_factory.mktemp("weights")

    def write(name: str, suffix: str = ".weights.h5") -> Path:
        target = folder / f"{name}_notop{suffix}"
        if not target.exists() and suffix == ".h5":
            application(name).save(folder / "whole.h5")
            with h5py.File(folder / "whole.h5") as whole, h5py.File(target, "w") as file:
                file.attrs.update(whole["model_weights"].attrs)
                for key in whole["model_weights"]:
                    whole.copy(f"model_weights/{key}", file)
        elif not target.exists():
            application(name).save_weights(target)
        return target

    return write


def pixels(channels: int) -> NDArray[np.float32]:
    return np.random.default_rng(7).integers(0, 256, (2, 48, 48, channels)).astype(np.float32)


def feature_map(model: keras.Model, images: NDArray) -> NDArray:
    until = keras.Model(model.input, backbone_layers(model)[-1].output)
    return keras.ops.convert_to_numpy(until(images, training=False))


def expected(application: keras.Model, name: str, images: NDArray) -> NDArray:
    """What the application itself makes of images with three channels, at its own scale."""
    standardized = (images - MEAN) / np.sqrt(VARIANCE)
    return keras.ops.convert_to_numpy(application(standardized * IMAGENET[name].scale, training=False))


def assert_close(found: NDArray, wanted: NDArray) -> None:
    assert found.shape == wanted.shape and wanted.std() > 0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("name", NAMES)
def test_the_backbone_computes_what_the_application_does(
    name: str, application: Callable[[str], keras.Model], weights_file: Callable[..., Path]
) -> None:
    images = pixels(3)
    model = build_model(
        name, input_shape=(48, 48, 3), mean=MEAN, variance=VARIANCE, weights=weights_file(name, ".weights.h5")
    )
    assert_close(feature_map(model, images), expected(application(name), name, images))


@pytest.mark.parametrize("name", NAMES)
def test_a_grey_image_is_seen_as_three_equal_channels(
    name: str, application: Callable[[str], keras.Model], weights_file: Callable[..., Path]
) -> None:
    images = pixels(1)
    model = build_model(
        name, input_shape=(48, 48, 1), mean=[MEAN], variance=[VARIANCE], weights=weights_file(name, ".h5")
    )
    assert_close(feature_map(model, images), expected(application(name), name, images.repeat(3, axis=-1)))


def test_a_checkpoint_finds_the_same_network_without_the_file(weights_file: Callable[..., Path]) -> None:
    """What resuming and ``best.keras`` need: the scale, but no ImageNet weights."""
    images, shape = pixels(1), (48, 48, 1)
    model = build_model("vgg16", input_shape=shape, mean=MEAN, variance=VARIANCE, weights=weights_file("vgg16"))
    again = build_model("vgg16", input_shape=shape, mean=MEAN, variance=scaled_variance("vgg16", VARIANCE))
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(feature_map(again, images), feature_map(model, images))


def test_statistics_may_be_one_a_channel() -> None:
    assert scaled_variance("densenet", [3600.0, 400.0]) == [3600.0, 400.0]
    assert scaled_variance("vgg16", 57.6**2) == pytest.approx(1.0)


def test_imagenet_images_have_the_scale_that_each_network_was_trained_on() -> None:
    """Noise with ImageNet's mean and deviation per colour, through Keras' own ``preprocess_input``."""
    mean, deviation = np.array([123.7, 116.3, 103.5]), np.array([58.4, 57.1, 57.4])
    images = np.random.default_rng(0).normal(mean, deviation, (4, 64, 64, 3)).astype(np.float32)
    preprocess = {
        **dict.fromkeys(("vgg16", "vgg19"), keras.applications.vgg16.preprocess_input),
        **dict.fromkeys(("resnet50", "resnet50_gap"), keras.applications.resnet50.preprocess_input),
        "densenet": keras.applications.densenet.preprocess_input,
        # Not preprocess_input, which passes images on: its first layer does it.
        "efficientnetv2": lambda images: images / 128 - 1,
    }
    assert set(preprocess) == set(IMAGENET)
    for name, function in preprocess.items():
        assert function(images.copy()).std(axis=(0, 1, 2)).mean() == pytest.approx(IMAGENET[name].scale, rel=0.02)


# --- Keras' own download ---


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path | Exception], list[tuple[str, str]]]:
    """Puts a file, or an error, where the network is; returns what is asked for."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    def serve(answer: Path | Exception) -> list[tuple[str, str]]:
        asked: list[tuple[str, str]] = []

        def retrieve(url: str, known_hash: str, *, fname: str, path: Path, **options: object) -> str:
            asked.append((url, known_hash))
            if isinstance(answer, Exception):
                raise answer
            path.mkdir(parents=True, exist_ok=True)
            return str(shutil.copy(answer, path / fname))

        monkeypatch.setattr(pooch, "retrieve", retrieve)
        return asked

    return serve


def test_imagenet_is_fetched_to_where_keras_keeps_it(
    served: Callable, weights_file: Callable, application: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, images = served(weights_file("densenet", ".h5")), pixels(3)
    model = build_model("densenet", input_shape=(48, 48, 3), mean=MEAN, variance=VARIANCE, weights="imagenet")
    cached = tmp_path / "keras/models/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5"
    said = capsys.readouterr()
    assert asked == [(IMAGENET["densenet"].url, f"md5:{IMAGENET['densenet'].md5}")] and cached.is_file()
    assert asked[0][0] in said.err and str(cached) in said.err and not said.out
    assert_close(feature_map(model, images), expected(application("densenet"), "densenet", images))


@pytest.mark.parametrize("error", [requests.ConnectionError("Name or service not known"), ValueError("MD5 hash of")])
def test_without_a_network_the_message_says_where_the_file_goes(served: Callable, error: Exception) -> None:
    served(error)
    with pytest.raises(ModelError, match=r"https://\S+ \((Name or|MD5)(.|\n)*Without a network.*keras/models/vgg16_"):
        build_model("vgg16", input_shape=(32, 32, 1), weights="imagenet")


@pytest.mark.parametrize("name", NAMES)
def test_address_and_checksum_are_those_that_keras_uses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):
        pass

    def get_file(fname: str, origin: str, **options: str) -> str:
        raise Asked(origin, options["file_hash"])

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    with pytest.raises(Asked) as asked:
        APPLICATIONS[name].factory(include_top=False, weights="imagenet")
    assert asked.value.args == (IMAGENET[name].url, IMAGENET[name].md5)


# --- What is refused ---


def test_networks_without_imagenet_weights_name_those_that_have_them() -> None:
    with pytest.raises(ModelError, match=r"loaded into vgg16, .*densenet\. Received: improved_resnet34"):
        build_model("improved_resnet34", weights="imagenet")
    assert set(IMAGENET) == set(APPLICATIONS) < set(MODELS)


def test_two_channels_are_refused() -> None:
    with pytest.raises(ModelError, match="1 or 3 channels"):
        build_model("densenet", input_shape=(48, 48, 2), weights="imagenet")


def broken(kind: str, good: Path, other: Path, folder: Path) -> Path:
    """A file that is not the network's, of the format that ``good`` has."""
    target = folder / good.name
    if kind == "text":
        target.write_text("not HDF5")
    elif kind == "truncated":
        target.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    elif kind == "empty HDF5":
        h5py.File(target, "w").close()
    elif kind == "another network":
        shutil.copy(other, target)
    elif kind == "other shapes":
        shutil.copy(good, target)
        with h5py.File(target, "r+") as file:
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            last = names[-1]
            del file[last]
            file[last] = np.zeros((3, 3))
    return target


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
@pytest.mark.parametrize("kind", ["text", "truncated", "empty HDF5", "another network", "other shapes"])
def test_a_file_that_is_not_the_network_s_is_one_message_and_changes_nothing(
    kind: str, suffix: str, weights_file: Callable[..., Path], tmp_path: Path, vgg16: keras.Model
) -> None:
    before = vgg16.get_weights()
    file = broken(kind, weights_file("vgg16", suffix), weights_file("vgg19", suffix), tmp_path)
    with pytest.raises(ModelError, match=r"must hold the weights of keras\.applications' vgg16 without its top"):
        load_pretrained(vgg16, file)
    assert all(np.array_equal(x, y) for x, y in zip(before, vgg16.get_weights(), strict=True))


@pytest.fixture(scope="module")
def vgg16() -> keras.Model:
    return build_model("vgg16", input_shape=(32, 32, 1))


@pytest.mark.parametrize("name", ["vgg16.keras", "nowhere/vgg16.weights.h5", "image_net"])
def test_what_is_no_file_of_weights_names_that_of_keras(tmp_path: Path, name: str, vgg16: keras.Model) -> None:
    (tmp_path / "vgg16.keras").write_bytes(b"PK")
    message = r"random, imagenet, or a .*h5 file that is there\. Received: .* called vgg16_.*_notop\.h5"
    with pytest.raises(ModelError, match=message):
        load_pretrained(vgg16, tmp_path / name)
