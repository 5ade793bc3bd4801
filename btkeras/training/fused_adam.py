"""Adam in one pass over a variable and its moments, by TensorFlow's kernel."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class _OnePass:
    """Replaces the dozen operations, each a pass over memory, of ``keras.optimizers.Adam.update_step``.

    The same state, and the same formula (Kingma and Ba, "Adam: A Method for Stochastic Optimization", section 2).
    """

    def update_step(self: Any, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        step = tf.cast(self.iterations + 1, tf.float32)
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=tf.pow(tf.constant(self.beta_1, tf.float32), step),
            beta2_power=tf.pow(tf.constant(self.beta_2, tf.float32), step),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, tf.float32),
        )


def _handle(variable: Any) -> tf.Tensor:
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


class FusedAdam(_OnePass, keras.optimizers.Adam):
    """``keras.optimizers.Adam``."""


class FusedAdamW(_OnePass, keras.optimizers.AdamW):
    """``keras.optimizers.AdamW``."""
