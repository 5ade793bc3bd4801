"""``btkeras push`` and ``btkeras pull``."""

from __future__ import annotations

from pathlib import Path

import click

from btkeras.cli.common import PATH

_repository = click.argument("repository", metavar="OWNER/NAME")


@click.command(short_help="Publish an exported model on the Hugging Face Hub.")
@click.argument("model", type=PATH)
@_repository
@click.option("--private", is_flag=True, help="A new repository can be seen by its owner only.")
@click.option("--license", "license_name", metavar="ID", help="For the card, as the Hub names it: cc-by-4.0.")
def push(model: Path, repository: str, private: bool, license_name: str | None) -> None:
    """Upload the highest version of MODEL, an exported model, to OWNER/NAME on the Hugging Face Hub.

    All files go up in one commit, with the model card as the Hub reads it. Nothing of a dataset is uploaded but digests
    and hashes of the split's images, by which a model recognizes its own. Log in before: `hf auth login`, or $HF_TOKEN.

    \b
    Examples:
      btkeras push saved_models/cpu someone/brain-tumour-mri --private
      btkeras push saved_models/cpu someone/brain-tumour-mri --license cc-by-4.0
    """
    from btkeras.inference.hub import push as push_model

    click.echo(push_model(model, repository, private=private, license_name=license_name))


@click.command(short_help="Fetch an exported model from the Hugging Face Hub.")
@_repository
@click.option("--out", required=True, type=PATH, help="The model's folder to put the version in, saved_models/NAME.")
@click.option("--version", type=click.IntRange(1), help="Its number.  [default: the highest]")
@click.option("--revision", metavar="REVISION", help="Branch, tag or commit.  [default: the newest]")
def pull(repository: str, out: Path, version: int | None, revision: str | None) -> None:
    """Download a version of a model that `btkeras push` has published, to OUT/VERSION/.

    The folder appears when all files are there and have the digests of the export. A model is a program: fetch those of
    people you trust.

    \b
    Examples:
      btkeras pull someone/brain-tumour-mri --out saved_models/theirs
      btkeras predict slice.png --model saved_models/theirs
    """
    from btkeras.inference.hub import pull as pull_model

    click.echo(pull_model(repository, out, version=version, revision=revision).folder)
