#!/usr/bin/env bash
# In TensorFlow on CPUs with bfloat16 instructions, the gradients of a bfloat16 convolution take 30 to 50 times as long
# when its padding is given as numbers (padding=[[0, 0], [1, 1], [1, 1], [0, 0]]) as when the same images are padded
# by tf.pad first, or with "SAME": oneDNN's kernels are taken for "SAME" and "VALID" only, and what is left computes
# bfloat16 one value after the other. So do the gradients of a depthwise convolution with stride 2, of any padding: 10 to
# 30 times float32's time, where with stride 1 they take half of it. The forward convolution and all of float32 are as
# fast in each way, so that it shows in training with mixed_bfloat16 alone, as one that is slower than in float32.
#
# A reader expects: what is fast in float32 is not slower in bfloat16, and padding by numbers, which saves writing a
# padded copy, costs nothing.
# Versions: tensorflow-cpu 2.21.0, numpy 2.4.6; a processor with avx512_bf16 or amx_bf16. Source: the run below.
set -euo pipefail
grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo || { echo "this processor has no bfloat16 instructions"; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tensorflow-cpu==2.21.0 numpy==2.4.6
cd "$work"
cat >time_it.py <<'PYTHON'
import time

import tensorflow as tf

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
EDGES = [[0, 0], [1, 1], [1, 1], [0, 0]]
WAYS = {
    "padding by numbers": lambda x, k: tf.nn.conv2d(x, k, 2, EDGES),
    "tf.pad, then VALID": lambda x, k: tf.nn.conv2d(tf.pad(x, EDGES), k, 2, "VALID"),
}


def milliseconds(function, *arguments):
    """Processor time, least of three."""
    function(*arguments)
    taken = []
    for _ in range(3):
        start = time.process_time()
        function(*arguments)
        taken.append(time.process_time() - start)
    return 1000 * min(taken)


def gradients(way, x, k):
    with tf.GradientTape() as tape:
        tape.watch([x, k])
        total = tf.reduce_sum(way(x, k))
    return tape.gradient(total, [x, k])


def depthwise(stride):
    return lambda x, k: tf.nn.depthwise_conv2d(x, k[..., :1], [1, stride, stride, 1], "SAME")


images, kernel = tf.random.normal((8, 56, 56, 64)), tf.random.normal((3, 3, 64, 128))
found = {}
for dtype in ("float32", "bfloat16"):
    x, k = tf.cast(images, dtype), tf.cast(kernel, dtype)
    for name, way in WAYS.items():
        forward = tf.function(way, autograph=False)
        both = tf.function(lambda x, k, way=way: gradients(way, x, k), autograph=False)
        found[dtype, name] = milliseconds(forward, x, k), milliseconds(both, x, k)
        print(f"{dtype}, {name}: forward {found[dtype, name][0]:.1f} ms, with gradients {found[dtype, name][1]:.1f} ms")
for dtype, largest in (("float32", 2), ("bfloat16", None)):
    numbers, padded = (found[dtype, name] for name in WAYS)
    ratios = [one / other for one, other in zip(numbers, padded)]
    print(f"{dtype}: padding by numbers takes {ratios[0]:.2f} times as long forward, {ratios[1]:.1f} with gradients")
    assert ratios[0] < 2 and (ratios[1] < largest if largest else ratios[1] > 10), ratios
for stride in (1, 2):
    both = tf.function(lambda x, k, way=depthwise(stride): gradients(way, x, k), autograph=False)
    whole, half = (milliseconds(both, tf.cast(images, dtype), tf.cast(kernel, dtype)) for dtype in ("float32", "bfloat16"))
    print(f"depthwise, stride {stride}, with gradients: float32 {whole:.1f} ms, bfloat16 {half:.1f} ms")
    assert (half > 5 * whole) if stride == 2 else (half < 1.5 * whole), (stride, whole, half)
PYTHON
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python time_it.py 2>stderr.txt || { cat stderr.txt; exit 1; }
