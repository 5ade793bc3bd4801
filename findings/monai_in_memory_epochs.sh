#!/usr/bin/env bash
# Five of MONAI's intensity transforms write into the array that they are given: RandCoarseDropout, RandCoarseShuffle,
# RandStdShiftIntensity, RandRicianNoise (channel_wise=True) and NormalizeIntensity (nonzero or channel_wise); the
# others make a new one. So images in memory (Dataset, or CacheDataset with copy_cache=False) keep each epoch's
# augmentation for the next: holes of 1.6 % of an image become a third of it in 30 epochs, and an image that is to be
# shifted by one standard deviation is shifted by 30. Worker processes take the damage with them when an epoch ends, so
# that num_workers and persistent_workers decide about the images, and no seed does. CacheDataset copies by default, and
# is right.
#
# A user expects: each epoch augments the images that were given to the dataset, whatever num_workers is.
# Versions: monai 1.6.1, torch 2.13.0, numpy 2.4.6. Source: the run below. MONAI's documentation of Transform says that
# one "may modify data in place"; https://github.com/Project-MONAI/MONAI/issues/2286 has that of metadata. Neither says
# which do it, nor that epochs add up. Seen (share of the image that is 0; mean in standard deviations above the first
# one):
#   Dataset, no workers: holes 1.6 % in epoch 1, 36.1 % in epoch 30; shift 1.0 and 30.0
#   Dataset, 1 worker: holes 1.6 % in epoch 1, 1.6 % in epoch 30; shift 1.0 and 1.0
#   Dataset, 1 persistent worker: holes 1.6 % in epoch 1, 36.1 % in epoch 30; shift 1.0 and 30.0
#   CacheDataset, no workers: holes 1.6 % in epoch 1, 1.6 % in epoch 30; shift 1.0 and 1.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet monai==1.6.1 torch==2.13.0 numpy==2.4.6
cd "$work"
venv/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt >&2; exit 1; }
import torch
from monai.data import CacheDataset, DataLoader, Dataset
from monai.transforms import (
    AdjustContrast,
    Compose,
    NormalizeIntensity,
    RandCoarseDropout,
    RandCoarseDropoutd,
    RandCoarseShuffle,
    RandGaussianNoise,
    RandHistogramShift,
    RandRicianNoise,
    RandScaleIntensity,
    RandShiftIntensity,
    RandStdShiftIntensity,
    RandStdShiftIntensityd,
    ScaleIntensity,
)

EPOCHS = 30
VOLUME = torch.rand((1, 16, 16, 16), generator=torch.Generator().manual_seed(0)) + 1


def writes(transform):
    given = VOLUME.clone()
    assert not torch.equal(torch.as_tensor(transform(given)), VOLUME), transform
    return not torch.equal(given, VOLUME)


in_place = [
    RandCoarseDropout(holes=1, spatial_size=4, prob=1),
    RandCoarseShuffle(holes=1, spatial_size=4, prob=1),
    RandStdShiftIntensity(factors=(1, 1), prob=1),
    RandRicianNoise(channel_wise=True, prob=1),
    NormalizeIntensity(channel_wise=True),
    NormalizeIntensity(nonzero=True),
]
anew = [
    RandRicianNoise(prob=1),
    NormalizeIntensity(),
    RandGaussianNoise(prob=1),
    RandShiftIntensity(offsets=(1, 1), prob=1),
    RandScaleIntensity(factors=(0.5, 0.5), prob=1),
    RandHistogramShift(prob=1),
    AdjustContrast(gamma=2),
    ScaleIntensity(),
]
assert [writes(transform) for transform in in_place + anew] == [True] * len(in_place) + [False] * len(anew)


def epochs(transform, measure, cache=False, **loader):
    """What an image is like in the first and the last epoch."""
    torch.manual_seed(0)
    items = [{"image": VOLUME.clone()}]
    transforms = Compose([transform]).set_random_state(0)
    dataset = CacheDataset(items, transforms, progress=False) if cache else Dataset(items, transforms)
    batches = DataLoader(dataset, batch_size=1, **loader)
    seen = [measure(batch["image"]) for _ in range(EPOCHS) for batch in batches]
    return seen[0], seen[-1]


def empty(image):
    return float((image == 0).float().mean())


def shift(image):
    return float((image.mean() - VOLUME.mean()) / VOLUME.std())


dropout = RandCoarseDropoutd("image", holes=1, spatial_size=4, fill_value=0, prob=1)
shifting = RandStdShiftIntensityd("image", factors=(1, 1), prob=1)
cases = {
    "Dataset, no workers": {},
    "Dataset, 1 worker": {"num_workers": 1},
    "Dataset, 1 persistent worker": {"num_workers": 1, "persistent_workers": True},
    "CacheDataset, no workers": {"cache": True},
}
for name, options in cases.items():
    holes, shifts = epochs(dropout, empty, **options), epochs(shifting, shift, **options)
    print(
        f"{name}: holes {100 * holes[0]:.1f} % in epoch 1, {100 * holes[1]:.1f} % in epoch {EPOCHS}; "
        f"shift {shifts[0]:.1f} and {shifts[1]:.1f}"
    )
    # A hole has 64 of 4096 voxels.
    assert holes[0] == 64 / 4096 and abs(shifts[0] - 1) < 0.01
    if name in ("Dataset, no workers", "Dataset, 1 persistent worker"):
        assert holes[1] > 0.25 and abs(shifts[1] - EPOCHS) < 0.1
    else:
        assert holes[1] == 64 / 4096 and abs(shifts[1] - 1) < 0.01
PYTHON
