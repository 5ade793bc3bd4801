#!/usr/bin/env bash
# Captum takes a Keras network (PyTorch backend) for the torch module that it is, but does not know its layers, and says
# nothing of it:
# - GuidedBackprop and Deconvolution return the plain gradient, DeepLift gradient x (input - baseline), which does not
#   sum to the change of the output. They act on torch.nn.ReLU alone; keras.layers.ReLU and activation="relu" are passed
#   over. (Captum prints that it is "setting backward hooks on ReLU activations".)
# - LayerGradCam averages over the wrong axes: in Keras' channels_last the "channels" it weighs are rows, and what it
#   returns are columns by channels, which LayerAttribution.interpolate makes as large as the image.
# Saliency, IntegratedGradients and InputXGradient are right. With channels_first, Grad-CAM is right, too.
#
# A reader expects: with ReLU as a module of its own, which Captum's documentation asks for, each method works as for
# the same network in torch, or refuses, as Captum's LRP does. (Grad-CAM's part was guessed before the run.)
# Versions: captum 0.9.0, keras 3.15.1, torch 2.13.0 (CPU), numpy 2.4.6. Source: the run below.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet captum==0.9.0 keras==3.15.1 torch==2.13.0 numpy==2.4.6
cd "$work"
KERAS_BACKEND=torch venv/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import keras
import numpy as np
import torch
from captum import attr

torch.set_num_threads(1)
generator = np.random.default_rng(0)


class Twin(torch.nn.Module):
    """The Keras network below in torch, with its weights."""

    def __init__(self, weights, first):
        super().__init__()
        first_kernel, first_bias, kernel, bias, dense, dense_bias = weights
        self.channels_last = not first
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(1, 6, 3), torch.nn.ReLU(), torch.nn.Conv2d(6, 6, 3), torch.nn.ReLU()
        )
        self.head = torch.nn.Linear(6, 3)
        values = first_kernel.transpose(3, 2, 0, 1), first_bias, kernel.transpose(3, 2, 0, 1), bias, dense.T, dense_bias
        with torch.no_grad():
            for parameter, value in zip(self.parameters(), values, strict=True):
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))

    def forward(self, x):
        return self.head(self.body(x.permute(0, 3, 1, 2) if self.channels_last else x).mean((2, 3)))


def networks(data_format):
    first = data_format == "channels_first"
    given = keras.Input((1, 24, 24) if first else (24, 24, 1))
    x = keras.layers.ReLU()(keras.layers.Conv2D(6, 3, data_format=data_format)(given))
    x = last = keras.layers.ReLU()(keras.layers.Conv2D(6, 3, data_format=data_format)(x))
    x = keras.layers.GlobalAveragePooling2D(data_format=data_format)(x)
    made = keras.Model(given, keras.layers.Dense(3)(x))
    made.set_weights([0.4 * generator.normal(size=weight.shape).astype("float32") for weight in made.get_weights()])
    return made, last._keras_history.operation, Twin(made.get_weights(), first)


def image(shape):
    return torch.from_numpy(generator.normal(size=shape).astype("float32")).requires_grad_()


made, last, twin = networks("channels_last")
x = image((1, 24, 24, 1))
baseline = torch.full_like(x, 0.5)
change = (twin(x) - twin(baseline))[0, 0].item()
np.testing.assert_allclose(made(x).detach(), twin(x).detach(), atol=1e-5)
gradient = torch.autograd.grad(twin(x)[0, 0], x)[0]
found = {}
for name in ("IntegratedGradients", "InputXGradient", "GuidedBackprop", "Deconvolution", "DeepLift"):
    given = {"target": 0}
    if name in ("IntegratedGradients", "DeepLift"):
        given["baselines"] = baseline
    maps = [getattr(attr, name)(network).attribute(x, **given).detach() for network in (made, twin)]
    found[name] = np.corrcoef(*[array.ravel() for array in maps])[0, 1], *maps
    print(f"{name}: correlation of Keras' and torch's map {found[name][0]:.3f}")
sums = [float(array.sum()) for array in found["DeepLift"][1:]]
print("DeepLift, change of the output {:.3f}: sums to {:.3f} for Keras, {:.3f} for torch".format(change, *sums))
for name in ("GuidedBackprop", "Deconvolution"):
    assert torch.allclose(found[name][1], gradient, atol=1e-6) and found[name][0] < 0.95
assert torch.allclose(found["DeepLift"][1], gradient * (x - baseline).detach(), atol=1e-6)
assert abs(sums[1] - change) < 1e-3 and abs(sums[0] - change) > 0.05
assert min(found["IntegratedGradients"][0], found["InputXGradient"][0]) > 0.999


def cam(network, layer, x):
    made = attr.LayerGradCam(network, layer).attribute(x, target=0).detach()
    large = attr.LayerAttribution.interpolate(made, (24, 24), interpolate_mode="bilinear")
    return tuple(made.shape[2:]), large.ravel()


made_cam, twin_cam = cam(made, last, x), cam(twin, twin.body[3], x)
print("Grad-CAM, channels_last: maps of", made_cam[0], "and", twin_cam[0], end="; ")
print(f"correlation when made as large as the image {np.corrcoef(made_cam[1], twin_cam[1])[0, 1]:.3f}")
assert made_cam[0] == (20, 6) and twin_cam[0] == (20, 20)
assert np.corrcoef(made_cam[1], twin_cam[1])[0, 1] < 0.5
made, last, twin = networks("channels_first")
x = image((1, 1, 24, 24))
first = np.corrcoef(cam(made, last, x)[1], cam(twin, twin.body[3], x)[1])[0, 1]
print(f"Grad-CAM, channels_first: correlation {first:.3f}")
assert first > 0.999
PYTHON
