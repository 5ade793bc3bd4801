"""Requests that wait at the same time are predicted together, and each gets its own answer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from btkeras.errors import ModelError
from btkeras.inference.backends import ModelOutputs
from btkeras.server.batching import ModelThread
from tests.serve_tools import PREDICT, b64, noise, png, quarters_backend, quarters_outputs, running, until

MOST = 16


class Held:
    """A model that waits in its first call, and notes how many images each call has."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, pixels: NDArray[np.uint8]) -> ModelOutputs:
        self.sizes.append(len(pixels))
        self.begun.set()
        assert self.go.wait(60)
        if (pixels == 255).all(axis=(1, 2, 3)).any():
            raise ModelError("A model's outputs must be finite numbers")
        return quarters_outputs(pixels)


def images(count: int, seed: int) -> NDArray[np.uint8]:
    return noise(seed, count, 32, 32, 1)


def test_what_waits_is_predicted_together_and_parted_again() -> None:
    model = Held()
    thread = ModelThread(model, MOST)
    parts = [images(count, seed) for seed, count in enumerate((1, 2, 3, MOST - 6, 2))]
    futures = [thread.predict(parts[0])]
    assert model.begun.wait(60)
    futures += [thread.predict(part) for part in parts[1:]]
    gone = thread.predict(images(1, 9))
    assert gone.cancel()
    model.go.set()
    for part, future in zip(parts, futures, strict=True):
        expected, found = quarters_outputs(part), future.result(60)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-6)
        np.testing.assert_allclose(found.ood_scores, expected.ood_scores, rtol=1e-6)
    # The second and third with the fourth are as many as fit.
    assert model.sizes == [1, MOST - 1, 2]
    thread.close()


def test_a_request_that_fails_fails_alone() -> None:
    model = Held()
    thread = ModelThread(model, MOST)
    first = thread.predict(images(1, 0))
    assert model.begun.wait(60)
    good, bad = thread.predict(images(1, 1)), thread.predict(np.full((1, 32, 32, 1), 255, np.uint8))
    model.go.set()
    assert first.result(60).probabilities.shape == good.result(60).probabilities.shape == (1, 4)
    with pytest.raises(ModelError):
        bad.result(60)
    thread.close()


def test_clients_at_the_same_time_get_the_answers_that_they_would_get_alone() -> None:
    model = Held()
    bodies = [{"instances": [b64(png(noise(seed, 40, 40)))]} for seed in range(6)]
    with running(quarters_backend(predict=model)) as (client, served), ThreadPoolExecutor(6) as pool:

        def ask(body: object) -> httpx.Response:
            return client.post(PREDICT, json=body)

        futures = [pool.submit(ask, body) for body in bodies]
        until(lambda: sum(model.sizes) + len(served._model._waiting) == 6)
        model.go.set()
        together = [future.result().json() for future in futures]
        alone = [ask(body).json() for body in bodies]
    assert together == alone and len({str(each) for each in alone}) == 6
    assert sum(model.sizes[:2]) == 6 and model.sizes[2:] == [1] * 6
