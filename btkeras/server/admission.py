"""How much is under way: images and bytes of all requests, bounded together.

Everything here happens on the event loop's thread, so nothing is locked.
"""

from __future__ import annotations

from contextvars import ContextVar

from btkeras.server.problems import Busy
from btkeras.server.settings import Limits


class Admission:
    """Counts what is under way and refuses what would be too much.

    Args:
        limits: Of which ``queued_images`` and ``queued_bytes`` are used.

    Attributes:
        images: Images under way.
        nbytes: Bytes of bodies under way.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.images = 0
        self.nbytes = 0

    def add(self, images: int, nbytes: int) -> None:
        """Takes places.

        Raises:
            Busy: If there are not so many; none is taken then.
        """
        if self.images + images > self._limits.queued_images:
            raise Busy("too many images are waiting")
        if self.nbytes + nbytes > self._limits.queued_bytes:
            raise Busy("too many bytes are waiting")
        self.images += images
        self.nbytes += nbytes

    def remove(self, images: int, nbytes: int) -> None:
        """Gives places back."""
        self.images -= images
        self.nbytes -= nbytes


class Ticket:
    """One request's places. They are given back when it and all work that it began in threads have ended.

    A request that timed out leaves work behind that cannot be stopped; what that work holds stays counted.

    Raises:
        Busy: If there is no place.
    """

    def __init__(self, admission: Admission) -> None:
        admission.add(1, 0)
        self._admission = admission
        self._holders = 1
        self.images = 1
        self.nbytes = 0

    def grow(self, nbytes: int) -> None:
        """Takes places for more bytes."""
        self._admission.add(0, nbytes)
        self.nbytes += nbytes

    def count(self, images: int) -> None:
        """Says how many images the request has; the first place is taken already."""
        more = max(0, images - self.images)
        self._admission.add(more, 0)
        self.images += more

    def hold(self) -> None:
        """Says that work began."""
        self._holders += 1

    def release(self) -> None:
        """Says that work, or the request itself, ended."""
        self._holders -= 1
        if self._holders == 0:
            self._admission.remove(self.images, self.nbytes)


# The ticket of the request that is being answered, set by `bounded.Bounded`.
CURRENT: ContextVar[Ticket | None] = ContextVar("ticket", default=None)
