#!/usr/bin/env python3
"""Classifies PNG or JPEG slices through TensorFlow Serving's REST interface. Needs Python alone.

    python deploy/clients/rest.py http://localhost:8501 btkeras slice.png other.jpg
    python deploy/clients/rest.py http://localhost:8501 btkeras/labels/stable slice.png

The second argument is the model's name, with /versions/N or /labels/LABEL behind it if one is wanted. The environment
variable BTKERAS_TOKEN is sent as bearer token, for servers that want one. Prints a JSON object a line.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def classify(server: str, model: str, images: Sequence[bytes]) -> list[dict[str, Any]]:
    """Sends encoded images in one request and returns the model's outputs for each.

    Raises:
        RuntimeError: If the server cannot be reached, or refuses the request; with its message.
    """
    body = {"instances": [{"image_bytes": {"b64": base64.b64encode(image).decode()}} for image in images]}
    headers = {"Content-Type": "application/json"}
    if token := os.environ.get("BTKERAS_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    url = f"{server.rstrip('/')}/v1/models/{model}:predict"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            predictions: list[dict[str, Any]] = json.load(response)["predictions"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{url} answered {error.code}: {error.read().decode()}") from None
    except OSError as error:
        raise RuntimeError(f"{url} cannot be reached: {error}") from None
    return predictions


def main(server: str, model: str, *files: str) -> None:
    """Prints the predictions for files."""
    predictions = classify(server, model, [Path(file).read_bytes() for file in files])
    for file, outputs in zip(files, predictions, strict=True):
        probabilities = dict(zip(outputs["classes"], outputs["probabilities"], strict=True))
        # `btkeras serve` alone decides: a label is the most probable class, however improbable.
        decided = {name: outputs[name] for name in ("decision", "reasons") if name in outputs}
        print(json.dumps({"file": file, **decided, "label": outputs["label"], "probabilities": probabilities}))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (OSError, RuntimeError) as problem:
        sys.exit(str(problem))
