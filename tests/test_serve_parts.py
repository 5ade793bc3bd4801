"""The server's parts on their own: batches, the queue's bounds, the watched versions, settings."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from btkeras.errors import ConfigError, ModelError
from btkeras.server.admission import Admission, Ticket
from btkeras.server.batching import Batcher, Outputs
from btkeras.server.problems import Busy, HTTPError
from btkeras.server.settings import Batching, Limits, ServerSettings, is_loopback
from btkeras.server.versions import Versions


class FakeNetwork:
    """Doubles its images' first pixel and remembers the batches; waits for `gate` if there is one."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate: asyncio.Event | None = None

    async def run(self, parts: list[np.ndarray[Any, Any]]) -> Outputs:
        batch = np.concatenate(parts)
        self.batches.append(len(batch))
        if self.gate is not None:
            await self.gate.wait()
        return {"twice": batch[:, 0, 0, 0].astype(int) * 2}


def image(value: int, count: int = 1) -> np.ndarray[Any, Any]:
    return np.full((count, 2, 2, 1), value, np.uint8)


def in_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), 20)

    asyncio.run(limited())


def test_images_of_many_requests_share_batches_and_each_gets_its_own_answer() -> None:
    async def test() -> None:
        network = FakeNetwork()
        batcher = Batcher(network.run, Batching(max_images=8, wait_ms=50))
        answers = await asyncio.gather(*(batcher.submit(image(value)) for value in range(20)))
        assert [answer["twice"].tolist() for answer in answers] == [[2 * value] for value in range(20)]
        assert network.batches == [8, 8, 4]

    in_loop(test)


def test_a_large_request_is_cut_and_put_together_again() -> None:
    async def test() -> None:
        network = FakeNetwork()
        batcher = Batcher(network.run, Batching(max_images=4, wait_ms=0))
        pixels = np.concatenate([image(value) for value in range(11)])
        answer = await batcher.submit(pixels)
        assert answer["twice"].tolist() == [2 * value for value in range(11)]
        assert sum(network.batches) == 11 and max(network.batches) <= 4

    in_loop(test)


def test_a_batch_waits_no_longer_than_it_may() -> None:
    async def test() -> None:
        batcher = Batcher(FakeNetwork().run, Batching(max_images=32, wait_ms=100))
        loop = asyncio.get_running_loop()
        start = loop.time()
        await batcher.submit(image(1))
        assert 0.09 < loop.time() - start < 5
        # A full batch does not wait.
        slow = Batcher(FakeNetwork().run, Batching(max_images=2, wait_ms=60_000))
        await asyncio.gather(slow.submit(image(1)), slow.submit(image(2)))

    in_loop(test)


def test_whoever_gave_up_is_left_out_and_a_failure_reaches_all_of_its_batch_only() -> None:
    async def test() -> None:
        network = FakeNetwork()
        network.gate = asyncio.Event()
        batcher = Batcher(network.run, Batching(max_images=2, wait_ms=0))
        first = asyncio.create_task(batcher.submit(image(1)))
        await asyncio.sleep(0.05)
        gone = asyncio.create_task(batcher.submit(image(2)))
        third = asyncio.create_task(batcher.submit(image(3)))
        await asyncio.sleep(0.05)
        gone.cancel()
        network.gate.set()
        assert (await first)["twice"].tolist() == [2] and (await third)["twice"].tolist() == [6]
        assert network.batches == [1, 1]

        async def fail(parts: list[np.ndarray[Any, Any]]) -> Outputs:
            if parts[0][0, 0, 0, 0] == 9:
                raise RuntimeError("out of memory")
            return await network.run(parts)

        batcher = Batcher(fail, Batching(max_images=1, wait_ms=0))
        answers = await asyncio.gather(batcher.submit(image(9)), batcher.submit(image(5)), return_exceptions=True)
        assert isinstance(answers[0], RuntimeError) and answers[1]["twice"].tolist() == [10]  # type: ignore[index]

    in_loop(test)


def test_places_are_counted_together_and_given_back_when_the_last_work_ends() -> None:
    admission = Admission(Limits(queued_images=3, queued_bytes=100))
    first = Ticket(admission)
    first.count(2)
    first.grow(90)
    second = Ticket(admission)
    with pytest.raises(Busy, match="images"):
        Ticket(admission)
    with pytest.raises(Busy, match="images"):
        second.count(2)
    with pytest.raises(Busy, match="bytes"):
        second.grow(11)
    first.hold()
    first.release()
    assert (admission.images, admission.nbytes) == (3, 90)
    first.release()
    second.release()
    assert (admission.images, admission.nbytes) == (0, 0)


class Folder:
    """A model's folder of empty versions, and a loader that remembers what it loaded and refuses what it is told to."""

    def __init__(self, path: Path, keep: int = 1) -> None:
        self.path = path
        self.broken: set[int] = set()
        self.loads: list[int] = []
        self.versions = Versions(ServerSettings(path, keep=keep), self._load)

    def add(self, number: int) -> None:
        (self.path / str(number)).mkdir(parents=True)
        (self.path / str(number) / "saved_model.pb").write_bytes(b"x")

    def _load(self, folder: Path) -> Any:
        number = int(folder.name)
        self.loads.append(number)
        if number in self.broken:
            raise ModelError("broken")
        return SimpleNamespace(number=number)

    def states(self) -> dict[int, str]:
        return {number: status.state for number, status in sorted(self.versions.statuses.items())}


def test_a_newer_version_takes_over_and_the_old_one_goes_when_its_requests_are_answered(tmp_path: Path) -> None:
    async def test() -> None:
        folder = Folder(tmp_path / "model")
        folder.add(1)
        await folder.versions.poll()
        assert folder.versions.get(None).number == 1
        folder.add(10)
        # Not versions: a name that is no number, one with zeros, one without a SavedModel.
        for name in ("new", "011", "12"):
            (folder.path / name).mkdir()
        with folder.versions.lease(None) as lease:
            poll = asyncio.create_task(folder.versions.poll())
            while folder.states() != {1: "UNLOADING", 10: "AVAILABLE"}:
                await asyncio.sleep(0.01)
            assert lease.number == 1 and folder.versions.get(None).number == 10
            with pytest.raises(HTTPError, match=r"Specific\(model, 1\)"):
                folder.versions.get(1)
            await asyncio.sleep(0.2)
            assert not poll.done()
        await poll
        assert folder.states() == {1: "END", 10: "AVAILABLE"}
        await folder.versions.poll()
        assert folder.loads == [1, 10]
        folder.versions.close()

    in_loop(test)


def test_a_broken_version_leaves_the_old_one_and_is_tried_again_when_it_changes(tmp_path: Path) -> None:
    async def test() -> None:
        folder = Folder(tmp_path / "model")
        folder.add(1)
        await folder.versions.poll()
        folder.add(2)
        folder.broken.add(2)
        for _ in range(3):
            await folder.versions.poll()
        assert folder.loads == [1, 2]
        assert folder.states() == {1: "AVAILABLE", 2: "END"}
        assert folder.versions.statuses[2].error == "broken."
        # Whole now.
        folder.broken.clear()
        (folder.path / "2" / "variables").write_bytes(b"weights")
        await folder.versions.poll()
        assert folder.states() == {1: "END", 2: "AVAILABLE"}
        folder.versions.close()

    in_loop(test)


def test_removed_versions_are_unloaded_and_an_unreadable_folder_changes_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        folder = Folder(tmp_path / "model", keep=2)
        for number in (1, 2, 3):
            folder.add(number)
        await folder.versions.poll()
        assert folder.states() == {2: "AVAILABLE", 3: "AVAILABLE"}
        assert folder.versions.get(2).number == 2
        shutil.rmtree(folder.path / "3")
        await folder.versions.poll()
        # The highest left, and the one below it comes back.
        assert folder.versions.get(None).number == 2 and folder.versions.get(1).number == 1
        folder.path.rename(tmp_path / "away")
        await folder.versions.poll()
        assert folder.versions.get(None).number == 2
        folder.path.mkdir()
        await folder.versions.poll()
        with pytest.raises(HTTPError, match=r"Latest\(model\)"):
            folder.versions.get(None)
        folder.versions.close()

    in_loop(test)


def test_settings_are_checked(tmp_path: Path) -> None:
    settings = ServerSettings(tmp_path / "model")
    assert settings.name == "model" and settings.host == "127.0.0.1" and not settings.open_to_others
    assert ServerSettings(tmp_path, host="0.0.0.0").open_to_others
    assert not ServerSettings(tmp_path, host="0.0.0.0", token="secret").open_to_others
    for wrong in (
        {"name": "a/b"},
        {"name": "a:b"},
        {"port": 70000},
        {"keep": 0},
        {"poll_seconds": 0},
        {"drain_seconds": -1},
        {"token": " "},
        {"token": "caf\u00e9"},
    ):
        with pytest.raises(ConfigError):
            ServerSettings(tmp_path, **wrong)  # type: ignore[arg-type]
    for limits in ({"body_bytes": 0}, {"pixels": 10**9}, {"instances": -1}, {"header_seconds": float("nan")}):
        with pytest.raises(ConfigError):
            Limits(**limits)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        Batching(max_images=0)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("example.org", False),
    ],
)
def test_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) is own
