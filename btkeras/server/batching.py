"""The model's thread, where images of requests that wait at the same time are predicted together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from btkeras.inference.backends import ModelOutputs, Predict
from btkeras.preprocessing.decode import ImageArray

_Result = TypeVar("_Result")
_Request = tuple[ImageArray, Future[ModelOutputs]]


class ModelThread:
    """Runs a model in one thread. A request waits for no other: what has come in meanwhile is taken together.

    Args:
        predict: As ``InferenceBackend.predict``.
        most: Images taken together; a request with more of them is predicted by itself.
    """

    def __init__(self, predict: Predict, most: int) -> None:
        self._predict, self._most = predict, most
        self._waiting: deque[_Request] = deque()
        self._thread = ThreadPoolExecutor(1, "model")

    def predict(self, pixels: ImageArray) -> Future[ModelOutputs]:
        """The outputs for one request's images, uint8 ``[n, size, size, channels]``."""
        future: Future[ModelOutputs] = Future()
        self._waiting.append((pixels, future))
        # One call for each request: the first takes what waits, and finds its successors nothing to do.
        self._thread.submit(self._run)
        return future

    def call(self, function: Callable[..., _Result], *args: object) -> Future[_Result]:
        """Another function of the model."""
        return self._thread.submit(function, *args)

    def close(self) -> None:
        """Ends the thread; what has not begun is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        for _, future in self._waiting:
            future.cancel()

    def _run(self) -> None:
        if taken := self._taken():
            self._answer(taken)

    def _taken(self) -> list[_Request]:
        taken: list[_Request] = []
        images = 0
        while self._waiting and (not images or images + len(self._waiting[0][0]) <= self._most):
            pixels, future = self._waiting.popleft()
            # Nobody waits any more for one that timed out.
            if future.set_running_or_notify_cancel():
                taken.append((pixels, future))
                images += len(pixels)
        return taken

    def _answer(self, taken: list[_Request]) -> None:
        try:
            outputs = self._predict(np.concatenate([pixels for pixels, _ in taken]))
        except Exception as error:  # Whatever it is, each request gets an answer.
            if len(taken) == 1:
                taken[0][1].set_exception(error)
                return
            # One request's images must not fail the others.
            for each in taken:
                self._answer([each])
            return
        (probabilities, scores), end = outputs, 0
        for pixels, future in taken:
            start, end = end, end + len(pixels)
            future.set_result(ModelOutputs(probabilities[start:end], None if scores is None else scores[start:end]))
