"""Engines side by side in processes of their own: what is measured of them, and what their failures are."""

from __future__ import annotations

import os
from contextlib import ExitStack

import numpy as np
import pytest

from benchmarks.rounds import Engine, EngineError, Worker, measure

IMAGES = np.full((2, 8, 8, 1), 7, np.uint8)


def toy(name: str, **arguments: object) -> Engine:
    return Engine(name, f"tests.toy_engines:{name}", arguments)


def test_turns_say_what_a_caller_waits_and_what_the_processor_does() -> None:
    with ExitStack() as stack:
        engines = {
            "short": toy("sleeping", seconds=0.02),
            "long": toy("sleeping", seconds=0.08),
            "busy": toy("busy", seconds=0.04),
        }
        workers = {name: stack.enter_context(Worker(engine)) for name, engine in engines.items()}
        for worker in workers.values():
            worker.load()
            worker.predict(IMAGES)
        rounds = []
        taken = measure(workers, 3, lambda: rounds.append(0))

    assert len(rounds) == 3
    assert taken["short"].rounds.shape == (3, 2)
    # Waiting takes no processor time, and is never shorter than asked for.
    assert taken["short"].median >= 0.02
    assert taken["short"].processor < 0.01
    assert taken["busy"].processor >= 0.04
    assert taken["short"].p95 >= taken["short"].median
    # Short calls fill a turn several times, of which the first does not count.
    assert len(taken["short"].wall) > 3 * 2
    assert taken["long"].ratios(taken["short"])[0] > 1.5


def test_an_engine_answers_the_images_that_it_is_shown_and_says_what_it_is() -> None:
    with Worker(toy("sleeping", seconds=0.0)) as worker:
        about, seconds = worker.load()
        answer, _ = worker.predict(IMAGES)

    assert about == {"size": 8, "channels": 1}
    assert seconds > 0
    np.testing.assert_array_equal(answer, [[7], [7]])


def test_peak_memory_is_the_engine_s_own_also_when_it_was_given_back() -> None:
    with Worker(toy("greedy", mebibytes=200)) as worker, Worker(toy("sleeping", seconds=0.0)) as other:
        for one in (worker, other):
            one.load()
        before = worker.memory()
        worker.predict(IMAGES)

        assert worker.memory() - before > 150 * 2**20
        assert other.memory() < before + 50 * 2**20


def test_only_an_engine_s_own_process_has_its_environment() -> None:
    engine = Engine("environment", "tests.toy_engines:environment", {"name": "TOY"}, {"TOY": "yes"})
    with Worker(engine) as worker:
        about, _ = worker.load()

    assert about == {"TOY": "yes"}
    assert "TOY" not in os.environ


def test_an_engine_that_fails_says_why_and_the_process_is_still_there() -> None:
    with Worker(toy("broken", reason="no such thing")) as worker:
        with pytest.raises(EngineError, match="no such thing"):
            worker.load()
        assert worker.memory() > 0


def test_an_engine_that_ends_its_process_is_an_error_with_its_code() -> None:
    with Worker(toy("dying", code=7)) as worker, pytest.raises(EngineError, match="exit code 7"):
        worker.load()
