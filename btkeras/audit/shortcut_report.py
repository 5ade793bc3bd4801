"""The search for shortcuts as a whole, and its table with what it means."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from btkeras.audit.shortcuts import EXCHANGED, OUTSIDE, Row, Shortcuts, build_feature_table, simple_rows
from btkeras.datasets.dataset import Dataset
from btkeras.runs import Run
from btkeras.splitting.splits import Split

_T = TypeVar("_T")


def find_shortcuts(dataset: Dataset, split: Split, run: Run | None = None, *, seed: int = 0) -> Shortcuts:
    """Measures what a dataset gives away besides its tumours; progress on standard error.

    Args:
        dataset: The images; boxes are those of its column ``box``.
        split: What is learnt from and what is answered.
        run: Also says what its network answers when it is shown parts; the split must be its own.
        seed: Of the random forest, and of the parts hidden where there is no tumour.
    """
    total = sum(len(subset) for subset in (split.train, split.validation, split.test))
    seen, broken = build_feature_table(dataset, split, seed=seed, progress=lambda looks: _bar(looks, total, "reading"))
    steps = tqdm(total=None, desc="fitting", file=sys.stderr, leave=False, disable=None)
    with steps:
        rows = simple_rows(seen, split, seed=seed, told=lambda name: steps.set_postfix_str(name))
    if run is not None:
        # Only now, because it loads TensorFlow.
        from btkeras.audit.shortcut_network import network_rows

        rows += network_rows(run, seen, split, lambda batches: _bar(batches, len(batches), "network"))
    return Shortcuts(str(dataset.root), split.group_by, dataset.classes, tuple(rows), broken)


def _bar(items: Iterable[_T], total: int, what: str) -> Iterable[_T]:
    return tqdm(items, what, total, file=sys.stderr, leave=False, disable=None)


def shortcut_table(found: Shortcuts) -> str:
    """The figures in percent, and sentences that say what they mean."""
    width = max(len(row.name) for row in found.rows) + 2
    head = (
        f"{'shown':{width}}{'accuracy':>9}{'chance':>8}{'balanced':>10}{'tumour or not':>15}{'chance':>8}  answered by"
    )
    lines = [f"{found.dataset}, split by {found.group_by}, {found.rows[0].images:,} test images; percent", "", head]
    for row in found.rows:
        no_tumor = f"{_percent(row.detection_accuracy):>15}{_percent(row.detection_chance):>8}"
        figures = f"{_percent(row.accuracy):>9}{_percent(row.chance):>8}{_percent(row.balanced_accuracy):>10}"
        lines.append(f"{row.name:{width}}{figures}{no_tumor}  {row.predicted_by}: {row.shows}")
    notes = [f"{found.broken} images could not be read and were left out."] if found.broken else []
    return "\n".join([*lines, "", *_sentences(found), *notes])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _sentences(found: Shortcuts) -> list[str]:
    outside = [row for row in found.rows if row.name in OUTSIDE]
    telling = [row for row in outside if row.detects_tumors]
    sentences = []
    if telling:
        best = max(telling, key=lambda row: row.detection_accuracy or 0)
        sentences.append(
            f"The {best.name} alone tells tumour from no tumour in {_percent(best.detection_accuracy)} % "
            f"(always the same answer: {_percent(best.detection_chance)} %), and is no sign of a tumour."
        )
    if guessing := [row for row in outside if row.beats_chance]:
        best = max(guessing, key=lambda row: row.accuracy)
        sentences.append(f"The {best.name} alone names the class in {_percent(best.accuracy)} % ({_chance(best)}).")
    if not (telling or guessing):
        names = ", ".join(row.name for row in outside)
        sentences.append(f"None of {names} predicts more than chance: no shortcut was found in them.")
    return [*sentences, *_of_boxes(found)]


def _of_boxes(found: Shortcuts) -> list[str]:
    rows = {row.name: row for row in found.rows}
    sentences = []
    if hidden := rows.get("box hidden"):
        sentences.append(
            f"With the tumour's box filled, a thumbnail of 16 x 16 still names the class in "
            f"{_percent(hidden.accuracy)} % ({_chance(hidden)}; the box's place alone: "
            f"{_percent(rows['box alone'].accuracy)} %)."
        )
    whole, without = rows.get("network"), rows.get("network, box hidden")
    if whole and without:
        sentences.append(
            f"The network is right in {_percent(whole.accuracy)} %, and without the tumour still in "
            f"{_percent(without.accuracy)} %: so much of its accuracy does not need the tumour."
        )
    put_in, taken_out = (rows.get(name) for name in EXCHANGED)
    if put_in and taken_out:
        sentences.append(
            f"Tumours exchanged between slices: one put in is seen in {_percent(put_in.detection_accuracy)} %, one taken "
            f"out is gone in {_percent(taken_out.detection_accuracy)} %. Near 0 % the network goes by the slice around "
            f"the tumour, near 100 % by the tumour."
        )
    return sentences


def _chance(row: Row) -> str:
    return f"always the most frequent class: {_percent(row.chance)} %"
