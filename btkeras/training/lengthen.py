"""More epochs for a finished run."""

from __future__ import annotations

from btkeras.checksums import recorded_file
from btkeras.config import ExperimentConfig
from btkeras.config_io import changed_keys, dump_config
from btkeras.errors import RunError
from btkeras.files import write_text
from btkeras.locks import only_writer
from btkeras.runs import Run
from btkeras.training.checkpoint import has_weights, load_progress


@only_writer
def lengthen(run: Run, config: ExperimentConfig | None) -> None:
    """Gives a finished run more epochs, if ``config`` asks for these and nothing else; it is unfinished then.

    The learning rate goes on as the schedule of all epochs has it: with a constant one, a lengthened run is the same as
    one that had as many from the start.

    Raises:
        RunError: If the run did not keep its state.
    """
    own = run.config()
    if not config or changed_keys(own, config) != ["train.epochs"] or not run.state_file.is_file():
        return
    if config.train.epochs < own.train.epochs or not load_progress(run.state_file).finished:
        return
    if not has_weights(run.state_file):
        raise RunError(
            "A finished run can be lengthened if it kept its state",
            received=f"{run.path}, which kept its best checkpoint only",
            remedy=f"Start a new one with train.epochs={config.train.epochs}, and with --set train.keep_state=true if "
            "it may become longer",
        )
    # First: a run without a number of epochs is unfinished.
    run.update_manifest(epochs=None)
    write_text(run.config_file, dump_config(config), recorded_file)
