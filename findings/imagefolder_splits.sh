#!/usr/bin/env bash
# Hugging Face's load_dataset("imagefolder") drops 99 of 100 slices without a word if one name holds the word "dev",
# "val", "test" or "eval". Kaggle's folders Training/ and Testing/ become one training split, since the words are
# looked for in lower case only, and in CLASS/PATIENT/SLICE.png the patients are the labels.
#
# A reader expects: all files, the class folder as label, the test folder as test split.
# Versions: datasets 5.2.0, pillow 12.1.0. Source: https://github.com/huggingface/datasets/issues/5021 (the first part),
# https://huggingface.co/docs/hub/datasets-file-names-and-splits
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet datasets==5.2.0 pillow==12.1.0
cd "$work"
HF_HOME="$work/cache" HF_DATASETS_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 venv/bin/python - <<'PYTHON'
import datasets
from pathlib import Path
from PIL import Image

datasets.disable_progress_bars()


def load(name, paths):
    for path in paths:
        file = Path(name, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (64, 64)).save(file)
    found = datasets.load_dataset("imagefolder", data_dir=name)
    seen = {}
    for split, rows in found.items():
        label = rows.features.get("label")
        seen[split] = (len(rows), label.names if label else None)
    print(f"{name}: {len(paths)} files -> {seen}")
    return seen


slices = [f"{label}/{number:03d}.png" for label in ("glioma", "no_tumor") for number in range(50)]
assert load("plain", slices) == {"train": (100, ["glioma", "no_tumor"])}
# The same, with a device's name in one file's.
named = [*slices[:-1], "no_tumor/099_dev-2.png"]
assert load("one-name", named) == {"validation": (1, None)}
kaggle = ["Training/glioma/1.png", "Training/no_tumor/2.png", "Testing/glioma/3.png", "Testing/no_tumor/4.png"]
assert load("capitals", kaggle) == {"train": (4, ["glioma", "no_tumor"])}
assert set(load("lower-case", [path.lower() for path in kaggle])) == {"train", "test"}
patients = ["glioma/p1/1.png", "glioma/p2/1.png", "no_tumor/p3/1.png"]
assert load("patients", patients) == {"train": (3, ["p1", "p2", "p3"])}
PYTHON
