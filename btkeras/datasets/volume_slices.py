"""Which slices of a volume become images: of which planes, and which of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from btkeras.datasets.readers.nifti import AXES, Volume
from btkeras.errors import ConfigError

MIDDLE_THIRD = "middle-third"

# Share of a volume's slices, as 1 / N, that is left out at either end.
_MIDDLES = {MIDDLE_THIRD: 3, "middle-two-thirds": 6}
_EVERY = re.compile(r"every-([1-9][0-9]{0,3})")


class VolumeSlices(NamedTuple):
    """A choice of slices: every ``step``-th of ``planes``, without 1 / ``ends`` of them at either end (0: with all).

    Without planes it is that which ``Volume.axis`` chooses.
    """

    planes: tuple[str, ...] = ()
    step: int = 1
    ends: int = 0

    def views(self, volume: Volume) -> tuple[str, ...]:
        """The chosen planes of a volume."""
        return self.planes or (volume.axis(None),)

    def numbers(self, plane: str, count: int, mask: Volume | None) -> Sequence[int]:
        """Numbers of the chosen ones of ``count`` slices; of a volume whose mask shows a tumour, only among those."""
        if mask is not None:
            others = tuple(number for number in range(3) if number != AXES[plane])
            if with_tumor := np.flatnonzero(mask.voxels.any(axis=others)).tolist():
                return with_tumor[:: self.step]
        end = count // self.ends if self.ends else 0
        return range(min(end + self.step // 2, count - 1), count - end, self.step)


def volume_slices(slices: str, planes: Iterable[str] = ()) -> VolumeSlices:
    """Reads a choice: ``middle-third``, ``middle-two-thirds``, ``all`` or ``every-N``, and planes, keys of ``AXES``.

    Raises:
        ConfigError: If it is something else.
    """
    every, chosen = _EVERY.fullmatch(slices), tuple(dict.fromkeys(planes))
    if not every and slices != "all" and slices not in _MIDDLES:
        raise ConfigError(f"--slices must be {', '.join(_MIDDLES)}, all or every-N", received=repr(slices))
    if unknown := [plane for plane in chosen if plane not in AXES]:
        raise ConfigError(f"--plane must be of {', '.join(AXES)}", received=repr(unknown[0]))
    return VolumeSlices(chosen, int(every[1]) if every else 1, _MIDDLES.get(slices, 0))
