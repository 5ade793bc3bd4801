#!/usr/bin/env bash
# TensorBoard's HParams finds a session's metrics in its subfolders, but not if the session lies in the log directory
# itself: `tensorboard --logdir RUN` shows its settings with no metric, `--logdir` of the folder above shows them all.
#
# A reader expects: the same session has the same metrics, whichever folder above the events is named.
# Versions: TensorBoard 2.21.0 and TensorFlow 2.21.0, which writes the events.
# Source: the documentation of tensorboard/plugins/hparams/summary.py: metrics may be in a subfolder of the session's.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tensorflow-cpu==2.21.0 tensorboard==2.21.0
cd "$work"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - <<'PYTHON'
import tensorflow as tf
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api, api_pb2, backend_context, list_session_groups

with tf.summary.create_file_writer("logs/run").as_default():
    api.hparams({"learning_rate": 0.001})
with tf.summary.create_file_writer("logs/run/validation").as_default():
    tf.summary.scalar("accuracy", 0.5, step=1)


def shown(logdir):
    multiplexer = EventMultiplexer().AddRunsFromDirectory(logdir)
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, logdir)
    context = backend_context.Context(TBContext(logdir=logdir, data_provider=provider))
    wanted = api_pb2.ListSessionGroupsRequest(allowed_statuses=api_pb2.Status.values(), start_index=0, slice_size=10)
    (group,) = list_session_groups.Handler(RequestContext(), context, "", wanted).run().session_groups
    names = [f"{value.name.group}/{value.name.tag}" for value in group.sessions[0].metric_values]
    print(f"--logdir {logdir}: settings {sorted(group.hparams)}, metrics {names}")
    return names


assert shown("logs") == ["validation/accuracy"]
assert shown("logs/run") == []
PYTHON
