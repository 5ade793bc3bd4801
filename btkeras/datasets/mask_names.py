"""What the names of files and folders say of masks: whether a file is one, of what, and whose."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from btkeras.datasets.sequences import find_sequence

# Folders that are looked at once; a source has many files in each.
_REMEMBERED = 4096

TUMOR, BRAIN = "tumor", "brain"

# A word ends at a separator, or where a capital follows a small letter.
_WORD = re.compile(r"[^\W_]+?(?=[\W_]|\Z|(?<=[a-z])(?=[A-Z]))")
_ENDING = re.compile(r"\.(nii\.gz|\w+)\Z", re.IGNORECASE)

# A number that counts masks may follow without a separator: gtv1.
_COUNTED = re.compile(r"(mask|seg|roi|gtv|lesion)\d{1,2}")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What is drawn, where the last words of a file's name say that it is a mask.
_MASK_WORDS = _words(
    "mask masks seg segm segs segmentation segmentations label labels labelmap annotation annotations annot roi rois "
    "gtv ctv lesion lesions gt groundtruth truth dseg probseg fseg brainmask synthseg glistr aseg aparc wmparc parc "
    "parcellation pveseg pve ribbon prob probs probability probabilities probmap softmax"
)
_OF_SEQUENCE = _words("seg segm segmentation mask")
_FIRST_WORDS = _MASK_WORDS - {"lesion", "lesions", "pve"}
# Of these, and of words that stand before a mask's word, what is drawn is the head or its tissues.
_BRAIN_WORDS = _words(
    "brain brainmask skull head parenchyma tissue tissues gm wm csf cortex cortical bet synthseg foreground dseg "
    "probseg fseg aseg aparc wmparc parc parcellation pveseg pve ribbon hippocampus ventricle ventricles"
)
_TUMOR_WORDS = _words(
    "tumor tumors tumour tumours lesion lesions gtv ctv glioma meningioma pituitary core whole enhancing edema oedema "
    "necrosis necrotic et wt tc ed ncr net"
)
_PART_WORDS = _words("core enhancing edema oedema necrosis necrotic et tc ed ncr net")
_EXPERT_WORDS = _words("manual manually expert corrected consensus final")
_AUTOMATED_WORDS = _words(
    "auto automated automatic approx pred predicted prediction glistr nnunet deepmedic "
    "prob probs probability probabilities probmap softmax"
)
_OTHER_WORDS = _words("binary desc label multi boost all ants")
_DESCRIPTIONS = _BRAIN_WORDS | _TUMOR_WORDS | _EXPERT_WORDS | _AUTOMATED_WORDS | _OTHER_WORDS | _MASK_WORDS

# The innermost folder that says either decides. Datasets are called segmentation, too: lgg-mri-segmentation.
_MASK_FOLDER = re.compile(
    r"((\w+_)?(masks?|annotations?|annots?|ground_?truths?|gts?|rois?|(brain)?labels?)"
    r"|((images|auto(mat(ed|ic))?|manual|expert|tumou?rs?|lesions?|brain)_)?(segms?|segs?|segmentations?))"
    r"(?P<part>tr|ts|val)?(_(png|jpe?g|bmp|tiff?|nii|nifti|images?|[23]d|train|test|val))?"
)
_IMAGE_FOLDER = re.compile(r"(images?|imgs?|scans?|raw|volumes?|slices?)(?P<part>tr|ts|val)?(_(?!segm|masks?\b)\w+)?")
# A series of TCIA's download: its number, description, and the last digits of its id.
_SERIES_FOLDER = re.compile(r"\d+\.\d+-.*\bsegmentation\b.*-\d{5}", re.IGNORECASE)


class MaskName(NamedTuple):
    """A mask, by its name or folder.

    Attributes:
        kind: ``tumor``, or ``brain`` for the head and its tissues.
        base: The name without what says that it is a mask: "" of ``mask.nii.gz``.
        rank: 0 drawn or corrected by an expert, 2 unknown, 4 automatic; 1 more if it is a part of the tumour.
    """

    kind: str
    base: str
    rank: int


def stem_of(path: str) -> str:
    """A file's name without folders and ending, ``.nii.gz`` as one."""
    return _ENDING.sub("", path.rpartition("/")[2])


def folders_of(path: str) -> tuple[str, ...]:
    """The folders of a path with forward slashes, the outermost first."""
    return tuple(folder.removesuffix(".zip") for folder in path.split("/")[:-1])


def split_words(text: str) -> list[re.Match[str]]:
    """The words of a name, where they stand."""
    return list(_WORD.finditer(text))


def is_mask_path(path: str) -> bool:
    """Whether a file's name, or a folder in its path, says that it is a mask and no image; nothing is read."""
    return mask_name(path) is not None


def mask_name(path: str) -> MaskName | None:
    """What a path relative to its source, with forward slashes, says of a mask; None if it says nothing of one."""
    stem = stem_of(path)
    words, base = _mask_words(stem)
    folder = mask_folder(path)
    if not words and folder is None:
        return None
    said = {*words, *(word.group().lower() for word in split_words(folder or ""))}
    tumor = said & _TUMOR_WORDS or not said & _BRAIN_WORDS
    rank = 0 if said & _EXPERT_WORDS or folder == "images_segm" else 4 if said & _AUTOMATED_WORDS else 2
    return MaskName(TUMOR if tumor else BRAIN, base, rank + bool(said & _PART_WORDS))


def mask_folder(path: str) -> str | None:
    """The innermost folder that says masks, in lower case; None without one, or where one below it says images."""
    for folder in reversed(folders_of(path)):
        name = _joined(folder)
        if _IMAGE_FOLDER.fullmatch(name):
            return None
        if _MASK_FOLDER.fullmatch(name) or _SERIES_FOLDER.fullmatch(folder):
            return name
    return None


@functools.lru_cache(_REMEMBERED)
def layout_of(folder: str) -> str | None:
    """Of a folder of masks or images its part, ``tr``, ``ts`` or ``val``, or ""; None of another folder."""
    name = _joined(folder)
    match = _IMAGE_FOLDER.fullmatch(name) or _MASK_FOLDER.fullmatch(name)
    return (match["part"] or "") if match else None


def _joined(folder: str) -> str:
    return re.sub(r"[\s.-]+", "_", folder.strip().lower())


def _mask_words(stem: str) -> tuple[list[str], str]:
    """The words, in lower case, that say mask, and the stem without them; none and the whole stem without any."""
    found = split_words(stem)
    words = [word.group().lower() for word in found]
    words = [*words[:1], *(_COUNTED.sub(r"\1", word) if _COUNTED.fullmatch(word) else word for word in words[1:])]
    last = len(words)
    while last and (words[last - 1].isdecimal() or words[last - 1] in _DESCRIPTIONS - _MASK_WORDS):
        last -= 1
    if last and words[last - 1] in _MASK_WORDS:
        return _trailing(stem, found, words, last)
    sequence = find_sequence(words)
    if sequence and sequence.first and not sequence.after and words[sequence.first - 1] in _OF_SEQUENCE:
        # VS_0001_seg_t1post is drawn on VS_0001_t1post.
        place = found[sequence.first - 1].start()
        return [words[sequence.first - 1]], stem[:place] + stem[found[sequence.first].start() :]
    first = re.fullmatch(r"([a-z]+)\d*", words[0]) if words else None
    if first and first[1] in _FIRST_WORDS and (len(words) > 1 or words[0] != first[1]):
        return [first[1]], stem[found[0].start() + len(first[1]) :].lstrip("_- .")
    return [], stem


def _trailing(stem: str, found: Sequence[re.Match[str]], words: Sequence[str], last: int) -> tuple[list[str], str]:
    """As ``_mask_words``, where ``words[:last]`` ends with a word for masks."""
    first = last - 1
    while first and words[first - 1] in _DESCRIPTIONS:
        first -= 1
    base = stem[: found[first].start()].rstrip("_- .(")
    # One or two digits count a case's masks, more are those of a slice.
    numbers = [word for word in words[last:] if word.isdecimal() and (len(word) > 2 or not base)]
    said = [word for word in words[first:] if not word.isdecimal()]
    return said, "_".join(filter(None, [base, *numbers]))
