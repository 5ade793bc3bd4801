"""What was measured: ``t1``, ``t1c`` (with a contrast agent), ``t2``, ``flair``, or another map, by a name's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

SEQUENCES = ("t1c", "t1", "t2", "flair")

# How collections spell them, in lower case, words joined.
_SPELLINGS = {
    "t1c": "t1c t1ce t1wce t1gd t1wgd t1gad t1gado t1post t1wpost t1contrast t1km t1cw t1wc t1pc t1enh t1postcontrast "
    "t1gadolinium ct1 ct1w cet1 cet1w ce1 gdt1 postt1",
    "t1": "t1 t1w t1n t1wi t1pre t1wpre t1native t1nativ t1precontrast t1unenhanced pret1 mpr mprage t1mprage spgr",
    "t2": "t2 t2w t2wi t2tse t2fse",
    "flair": "flair flairt2 t2f t2flair t2wflair t2fla fla tirm",
}
_SEQUENCE_OF = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings.split()}
# Other maps, whose names stay as they are; they must stand last.
_OTHERS = (
    "adc dwi swi asl cbf cbv rcbv dti dsc dce pd pdw pdt2 t2star t2starw t2s gre mra tof angio bold sbref trace perf "
    "perfusion fa md rd ad t1map t2map t1rho unit1 inplanet1 ktrans mtt ttp"
)
_OTHER_WORDS = frozenset(_OTHERS.split())
_MOST_WORDS = 3


class FoundSequence(NamedTuple):
    """The sequence that a name's words say, the words after it, and where its own begin.

    ``bias`` of ``T1c_bias`` comes after it: another version of the same scan. Numbers are left away.
    """

    name: str
    after: tuple[str, ...]
    first: int

    @property
    def full_name(self) -> str:
        """``t1c_bias``."""
        return "_".join([self.name, *self.after])


def canonical(name: str) -> str:
    """A sequence's name as of this module: ``T1-Gd`` is ``t1c``; another name in lower case."""
    words = "".join(letter.lower() if letter.isalnum() else " " for letter in name).split()
    return _SEQUENCE_OF.get("".join(words), "_".join(words))


def find_sequence(words: Sequence[str]) -> FoundSequence | None:
    """The first sequence among a name's words."""
    lower = [word.lower() for word in words]
    for first in range(len(lower)):
        for end in range(min(first + _MOST_WORDS, len(lower)), first, -1):
            if name := _SEQUENCE_OF.get("".join(lower[first:end])):
                return FoundSequence(name, tuple(word for word in lower[end:] if not word.isdecimal()), first)
    if lower and lower[-1] in _OTHER_WORDS:
        return FoundSequence(lower[-1], (), len(lower) - 1)
    return None
