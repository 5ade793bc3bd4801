#!/usr/bin/env bash
# Histogram standardisation after Nyul (intensity-normalization) makes infinite and missing values of an image of 8 bits
# whose air is noise of one or two grey levels, as JPEG slices have it: 40 % of the pixels here. Several of its eleven
# percentiles are then the same number, and it divides by their difference; NumPy warns, nothing is raised. Its default
# foreground is "above 0", which takes the air in. Fitting on such images works. With a mask of the head, or on the
# values before they were rounded, all is finite; of 50 JPEG slices of FigShare and Br35H 3 were spoilt.
#
# A reader expects: finite values for each image, since 8 bits are most of what this field shares (the guess before).
# Versions: intensity-normalization 3.0.1, numpy 2.4.6, scipy 1.17.1. Source: the run below.
#   as measured: 0 % of the pixels are not finite
#   whole numbers: 40 % of the pixels are not finite
#   whole numbers, with a mask: 0 % of the pixels are not finite
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet intensity-normalization==3.0.1 numpy==2.4.6 scipy==1.17.1
cd "$work"
venv/bin/python - <<'PYTHON'
import warnings

import numpy as np
from intensity_normalization import NyulNormalizer
from intensity_normalization.adapters.images import create_image

rng = np.random.default_rng(0)
rows, columns = np.mgrid[-1:1:200j, -1:1:200j]
head = (rows / 0.8) ** 2 + (columns / 0.65) ** 2 < 1


def scan():
    """A magnitude image: noise in the air, and a head whose signal changes slowly."""
    signal = head * (80 + 50 * np.sin(5 * rows + rng.uniform(0, 6)) * np.cos(4 * columns))
    return np.hypot(signal + rng.normal(0, 1, signal.shape), rng.normal(0, 1, signal.shape))


exact = [scan() for _ in range(5)]
whole = [np.rint(each) for each in exact]
shares = []
for name, images, masked in (
    ("as measured", exact, False),
    ("whole numbers", whole, False),
    ("whole numbers, with a mask", whole, True),
):
    wrapped = [create_image(each[..., None]) for each in images]
    mask = create_image(head[..., None].astype(float)) if masked else None
    normalizer = NyulNormalizer().fit_population(wrapped, [mask] * 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = np.asarray(normalizer.transform(wrapped[0], mask).get_data())
    shares.append(100 * float((~np.isfinite(found)).mean()))
    print(f"{name}: {shares[-1]:.0f} % of the pixels are not finite")
assert shares[0] == shares[2] == 0 and shares[1] > 20, shares
PYTHON
