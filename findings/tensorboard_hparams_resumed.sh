#!/usr/bin/env bash
# TensorBoard's HParams keep the first settings and the first end of a session for good: a training that failed, was
# resumed with another learning rate and succeeded in the same folder stays a failure with the old learning rate.
#
# A reader expects: the newest record counts, as it does for scalars and images of the same folder.
# Versions: TensorBoard 2.21.0 and TensorFlow 2.21.0, which writes the events.
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
from tensorboard.plugins.hparams.summary import session_end_pb


def train(learning_rate, status):
    with tf.summary.create_file_writer("logs/run").as_default():
        api.hparams({"learning_rate": learning_rate})
        tf.summary.scalar("learning_rate", learning_rate, step=0)
        tf.summary.experimental.write_raw_pb(session_end_pb(status).SerializeToString(), step=0)


train(0.5, api_pb2.STATUS_FAILURE)
train(0.25, api_pb2.STATUS_SUCCESS)
multiplexer = EventMultiplexer().AddRunsFromDirectory("logs")
multiplexer.Reload()
provider = MultiplexerDataProvider(multiplexer, "logs")
context = backend_context.Context(TBContext(logdir="logs", data_provider=provider))
wanted = api_pb2.ListSessionGroupsRequest(allowed_statuses=api_pb2.Status.values(), start_index=0, slice_size=10)
(group,) = list_session_groups.Handler(RequestContext(), context, "", wanted).run().session_groups
(session,) = group.sessions
shown = group.hparams["learning_rate"].number_value, api_pb2.Status.Name(session.status)
newest = tf.make_ndarray(multiplexer.Tensors("run", "learning_rate")[-1].tensor_proto).item()
print(f"HParams: learning rate {shown[0]}, {shown[1]}; the scalar of the same name: {newest}")
assert shown == (0.5, "STATUS_FAILURE") and newest == 0.25
PYTHON
