"""Class names: what folders and labels of public collections mean, and which names a class of one's own may have."""

from __future__ import annotations

import difflib
import functools
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from btkeras.errors import DataError

NO_TUMOR, TUMOR = "no_tumor", "tumor"
# The paper's.
CLASSES = ("glioma", "meningioma", NO_TUMOR, "pituitary")
KINDS = frozenset(CLASSES) - {NO_TUMOR}
# How public collections spell them, and "tumour or not", in lower case, with "_" for "-" and " ", and US spelling.
_SPELLINGS = {
    "glioma": ("glioma", "gliomas", "glioma_tumor", "gl"),
    "meningioma": ("meningioma", "meningiomas", "meningioma_tumor", "meninigioma", "me"),
    NO_TUMOR: ("no_tumor", "notumor", "non_tumor", "nontumor", "no", "none", "normal", "healthy"),
    "pituitary": ("pituitary", "pituitary_tumor", "pituitary_adenoma", "pi"),
    TUMOR: ("tumor", "tumors", "brain_tumor", "yes"),
}
_CLASS_OF = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}
# Words of tables and decisions that stand where a class may.
RESERVED = frozenset(
    (
        *("uncertain", "rejected", "all", "macro", "average", "path", "label", "prediction", "decision", "error"),
        *("set", "reasons", "ood_percentile", "near_duplicate", "patient", "series", "instance", "position", "group"),
        *("slices", "supporting", "unreadable", "file", "slice", "axis", "channel"),
    )
)
_NAME = re.compile(r"\w(?:[\w .+()-]{0,38}[\w.+)])?")
# A misspelling is nearer to a usual name than this; pituitary_macroadenoma, lipoma and unhealthy are not. Letters that
# changed places are looked for in names of so many letters at least.
_MISSPELT, _LONG = 0.88, 5
_REMEMBERED = 4096
# Folders that an error lists.
_LISTED = 8


def plain_name(spelling: str) -> str:
    """A name in lower case, with "_" for "-" and " ", and US spelling."""
    return re.sub("[- ]", "_", spelling.strip().lower()).replace("tumour", TUMOR)


@functools.lru_cache(_REMEMBERED)
def find_class(spelling: str, own: frozenset[str] = frozenset()) -> str | None:
    """The class that a folder's name or a label means; None if it means none of the usual ones and of ``own``."""
    name = plain_name(spelling)
    return _CLASS_OF.get(name) or next((each for each in own if plain_name(each) == name), None)


def class_name(spelling: str, where: str = "") -> str:
    """The class of a label: a usual one by its usual name, any other as it is.

    Raises:
        DataError: If it looks like a usual one misspelt, or cannot be a name; ``where`` says where the spelling stands.
    """
    if name := find_class(spelling):
        return name
    if near := _misspelt(plain_name(spelling)):
        rule = "A class of one's own must not look like a usual one misspelt"
        raise DataError(rule, received=f"{spelling!r}{where}", remedy=f"Did you mean {near!r}")
    name = spelling.strip()
    if not _NAME.fullmatch(name) or name.lower() in RESERVED:
        raise DataError(
            "A class's name must be 1 to 40 letters, digits, spaces and _ . + ( ) -, and no word of btkeras' tables",
            received=f"{spelling!r}{where}",
            remedy="Rename it",
        )
    return name


def _misspelt(name: str) -> str | None:
    """The usual class that a plain name looks like."""
    # A number makes another class: meningioma_1, glioma2.
    if any(letter.isdigit() for letter in name):
        return None
    letters = sorted(name) if len(name) >= _LONG else []
    near = difflib.get_close_matches(name, _CLASS_OF, n=1, cutoff=_MISSPELT)
    near += [usual for usual in _CLASS_OF if sorted(usual) == letters]
    return _CLASS_OF[near[0]] if near else None


def not_classes(spellings: Sequence[str], where: str, own: Collection[str]) -> DataError:
    """The error that folders of a source are none of its classes; ``where`` the first one, nearest to which a class is
    sought, was found; ``own`` are those that were named beside the usual ones.
    """
    near = difflib.get_close_matches(plain_name(spellings[0]), _CLASS_OF, n=1)
    advice = f"Did you mean {_CLASS_OF[near[0]]!r}" if near else "Rename or remove it"
    count = len(spellings) - 1
    more = f", and {count} more such folder{'s' * (count > 1)}" if count else ""
    given = shlex.quote(",".join((*sorted(own), *spellings[:_LISTED]))) + ("..." if spellings[_LISTED:] else "")
    return DataError(
        f"A class must be one of {', '.join(_SPELLINGS)}, or named by --classes",
        received=f"{spellings[0]!r}{where}{more}",
        remedy=f"{advice}; if it is a class of its own: --classes {given}",
    )


def check_classes(names: Iterable[str], where: object) -> None:
    """Raises ``DataError`` if classes of one dataset exclude each other, or differ by case and separators alone."""
    found = frozenset(names)
    if TUMOR in found and (kinds := sorted(found & KINDS)):
        raise DataError(
            f"A dataset must name either kinds of tumours or {TUMOR}, which is each of them",
            received=f"{TUMOR} beside {', '.join(kinds)} in {where}",
            remedy=f"Leave out the images of one side, or name {TUMOR} by its kind",
        )
    if same := [name for name, count in Counter(map(plain_name, found)).items() if count > 1]:
        raise DataError(
            "Classes must differ in more than capitals and separators",
            received=f"{' and '.join(sorted(each for each in found if plain_name(each) == same[0]))} in {where}",
            remedy="Give one name to both",
        )


def own_names(names: Collection[str]) -> list[str]:
    """Those of classes that are none of the usual ones, in alphabetical order."""
    return sorted(set(names) - set(_SPELLINGS))
