"""Exported models on the Hugging Face Hub: a repository holds versions, as a model's folder does, and a card.

Account, server and offline mode are set as ``huggingface_hub`` documents it: ``hf auth login``, ``$HF_TOKEN``,
``$HF_ENDPOINT``, ``$HF_HUB_OFFLINE``.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from btkeras.errors import ModelError
from btkeras.files import read_json, temporary_folder
from btkeras.inference.model_folder import CARD, EXTRA, MANIFEST, latest_version, model_file, require_engine
from btkeras.inference.selftest import check_files
from btkeras.logging import logger

_CARD = "README.md"
_TAGS = ("brain-tumor", "mri", "medical-imaging", "research-only")


class Pulled(NamedTuple):
    """What was fetched: the version's folder here, and the commit that it is of."""

    folder: Path
    commit: str


def push(model: Path, repository: str, *, private: bool = False, license_name: str | None = None) -> str:
    """Uploads the highest version of an exported model, and its model card, in one commit.

    Args:
        model: The model's folder, or a version's.
        repository: ``OWNER/NAME``; made if it is not there.
        private: Whether a new repository can be seen by its owner only.
        license_name: The Hub's identifier of a licence, as ``cc-by-4.0``, for the card.

    Returns:
        The commit's address.

    Raises:
        ModelError: If there is no such model, a file of it was changed since its export, the repository has that
            version already, the Hub refuses, or ``huggingface_hub`` is not installed.
    """
    _check_name(repository)
    hub, version = _library(), latest_version(model) or model
    if model_file(version) is None:
        raise ModelError(
            "What is published must be an exported model",
            received=f"{model}, {'which is none' if model.exists() else 'which does not exist'}",
            remedy="Export a run first: btkeras export RUN --out saved_models/NAME",
        )
    check_files(version)
    files = sorted(path for path in version.rglob("*") if path.is_file())
    with _said(repository):
        api = _api(hub)
        api.create_repo(repository, private=private, exist_ok=True)
        if version.name in _versions(api, repository, None):
            raise ModelError(
                "A version on the Hub must stay what it is",
                received=f"{repository}, which has version {version.name}",
                remedy="Export the run again, as the next version",
            )
        logger.info(f"uploading {_size(path.stat().st_size for path in files)} to {repository}")
        operations = [
            hub.CommitOperationAdd(f"{version.name}/{path.relative_to(version).as_posix()}", path) for path in files
        ]
        card = hub_card(version, repository, license_name).encode()
        message = f"Version {version.name}"
        operations.append(hub.CommitOperationAdd(_CARD, card))
        return str(api.create_commit(repository, operations, commit_message=message).commit_url)


def pull(repository: str, out: Path, *, version: int | None = None, revision: str | None = None) -> Pulled:
    """Downloads a version to ``out/VERSION/``, which appears when all its files are there as they were exported.

    Args:
        repository: ``OWNER/NAME``.
        out: The model's folder.
        version: Its number; by default the highest.
        revision: Branch, tag or commit; by default the newest.

    Raises:
        ModelError: If ``out`` has that version, the repository has not, a file differs from the export's digests, the
            Hub refuses, or ``huggingface_hub`` is not installed.
    """
    _check_name(repository)
    hub = _library()
    with _said(repository):
        api = _api(hub)
        versions = _versions(api, repository, revision)
        name = str(version or max(map(int, versions), default=1))
        if name not in versions:
            found = f"version {', '.join(sorted(versions, key=int))}" if versions else "no exported model"
            raise ModelError(f"The Hub must have version {name}", received=f"{repository} with {found}")
        target = out / name
        if target.exists():
            raise ModelError(
                "A version that is downloaded must be new here",
                received=f"{target}, which exists",
                remedy="Choose another --out, or remove it",
            )
        commit = str(api.model_info(repository, revision=revision).sha)
        logger.info(f"downloading {_size(versions[name])} of {repository}, version {name}, commit {commit}")
        try:
            with temporary_folder(target) as scratch:
                api.snapshot_download(repository, revision=commit, allow_patterns=f"{name}/*", local_dir=scratch)
                check_files(scratch / name)
                (scratch / name).rename(target)
        finally:
            # A model's folder that was made for nothing.
            with contextlib.suppress(OSError):
                out.rmdir()
    return Pulled(target, commit)


def hub_card(version: Path, repository: str, license_name: str | None = None) -> str:
    """The card of a version's folder with the Hub's metadata in front: task, tags, licence, test metrics."""
    hub, manifest = _library(), read_json(version / MANIFEST)
    name = version.resolve().parent.name
    data = hub.ModelCardData(
        license=license_name,
        library_name="btkeras",
        pipeline_tag="image-classification",
        tags=[*_TAGS, *sorted(manifest["formats"])],
        model_name=name,
        eval_results=_results(hub, manifest),
    )
    file = version / EXTRA / CARD
    text = file.read_text(encoding="utf-8") if file.is_file() else f"# {name}\n\nA model that btkeras exported.\n"
    usage = f"```bash\nbtkeras pull {repository} --out saved_models/{name}\n```"
    return f"---\n{data.to_yaml()}\n---\n\n{text.rstrip()}\n\n## From the Hub\n\n{usage}\n"


def _check_name(repository: str) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ModelError("A repository of the Hub must be OWNER/NAME", received=repr(repository))


def _results(hub: Any, manifest: Mapping[str, Any]) -> list[Any] | None:
    test = manifest.get("test")
    if not test:
        return None
    values = {"accuracy": test["accuracy"], "recall": test["macro"]["recall"], "f1": test["macro"]["f1"]}
    dataset = manifest["dataset"]
    return [
        hub.EvalResult(
            task_type="image-classification",
            dataset_type=dataset,
            dataset_name=f"{dataset}, split by {manifest['split']['group_by']}",
            dataset_split="test",
            metric_type=metric,
            metric_name=metric if metric == "accuracy" else f"macro {metric}",
            metric_value=round(value, 4),
        )
        for metric, value in values.items()
    ]


def _versions(api: Any, repository: str, revision: str | None) -> dict[str, list[int]]:
    """The sizes of the files of each version in a repository."""
    found: dict[str, list[int]] = {}
    for entry in api.list_repo_tree(repository, revision=revision, recursive=True):
        folder = PurePosixPath(entry.path).parts[0]
        if folder.isdecimal() and hasattr(entry, "size"):
            found.setdefault(folder, []).append(entry.size)
    return found


def _size(sizes: Any) -> str:
    sizes = list(sizes)
    return f"{len(sizes)} files, {sum(sizes) / 1e6:.1f} MB,"


def _library() -> Any:
    return require_engine("huggingface_hub", "hub")


def _api(hub: Any) -> Any:
    # The library reads the variable once, when it is imported.
    return hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


@contextlib.contextmanager
def _said(repository: str) -> Iterator[None]:
    """Turns the library's errors into one message."""
    # Of httpx or httpx2, by the library's version.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except (HTTPError, OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None:
            # A full disk, and not the Hub.
            raise
        first = str(error).strip().splitlines()
        raise ModelError(
            "The Hugging Face Hub must have the repository, and allow this",
            received=f"{repository} ({type(error).__name__}: {first[0] if first else ''})",
            remedy="Check its name, the network, and that you are logged in: hf auth login",
        ) from error
