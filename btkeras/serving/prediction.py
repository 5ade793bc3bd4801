"""The answer for a file, whoever gives it. In a module of its own, which needs no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class FilePrediction:
    """The answer for one file: a label with its probabilities and what they are worth, or an error.

    Attributes:
        path: As it was given; with ``#`` and the slice's number if the file has several.
        label: The most probable class, whatever the answer; "" with an error.
        probabilities: By class name, in the network's order; empty with an error.
        error: Why the file could not be read, or None.
        answer: A class, ``uncertain`` or ``refused``, as ``evaluation.verdicts.Judge`` says; "" with an error.
        set: The classes that cannot be ruled out at the wanted coverage; None if that is not known.
        outlier: Percent of the validation slices that are at most as unlike the training slices; None if not known.
        reasons: Why the answer is no class, in plain words.
        file: The path without a slice's number.
        slice: Which slice of the file it is, from 0.
        slices: How many the file has; 0 with an error.
        axis: The view of a NIfTI volume, None otherwise.
    """

    path: str
    label: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    answer: str = ""
    set: tuple[str, ...] | None = None
    outlier: float | None = None
    reasons: tuple[str, ...] = ()
    file: str = ""
    slice: int = 0
    slices: int = 0
    axis: str | None = None
