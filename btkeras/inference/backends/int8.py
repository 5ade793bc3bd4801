"""A LiteRT file's network with weights of 8 bits, made in memory from its floating-point ones.

Kernels of convolutions get whole numbers and a scale for each output channel, and LiteRT quantizes what comes in for
each image (dynamic range), as its converter writes it with ``Optimize.DEFAULT``
(https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quantization). Everything else stays
as it is.

LiteRT multiplies several channels of 8 bits at once, so a kernel of one channel would take longer than in float32. Its
image gets the neighbours in a row as channels, and the kernel is then one pixel wide: the same products and sums.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.inference.model_folder import require_engine

Floats = NDArray[np.float32]

# Smaller kernels stay: they cost no time.
_LEAST = 1024
_LARGEST = 127
# The first version of the operation that takes such kernels with a scale per channel.
_VERSION = 5
_IDENTIFIER = b"TFL3"


def with_int8_kernels(content: bytes) -> bytes:
    """Makes the network of a LiteRT file's content, float32 or float16, one with kernels of 8 bits."""
    return _changed(content, _Graph.quantize)


def with_rows_as_channels(content: bytes) -> bytes:
    """Makes a network with kernels of 8 bits faster where these have one channel."""
    return _changed(content, _Graph.take_rows_as_channels)


def _changed(content: bytes, change: Callable[[_Graph], None]) -> bytes:
    schema, flatbuffers = (
        require_engine(name, "litert") for name in ("ai_edge_litert.schema_py_generated", "flatbuffers")
    )
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for graph in model.subgraphs:
        change(_Graph(schema, model, graph))
    builder = flatbuffers.Builder(len(content) // 2)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


class _Graph:
    def __init__(self, schema: Any, model: Any, graph: Any) -> None:
        self._schema, self._model, self._graph = schema, model, graph
        kinds = schema.BuiltinOperator
        codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
        self._convolutions = [each for each in graph.operators if codes[each.opcodeIndex] == kinds.CONV_2D]
        # Of constants in float16: what makes them float32, by its output.
        self._casts = {each.outputs[0]: each for each in graph.operators if codes[each.opcodeIndex] == kinds.DEQUANTIZE}

        # Constants that others stand for.
        self._replaced: set[int] = set()

    def quantize(self) -> None:
        for convolution in self._convolutions:
            image, number, *others = convolution.inputs
            kernel = self._constant(number)
            if kernel is not None and kernel.size >= _LEAST:
                # XNNPACK takes a bias beside such a kernel only as it is.
                biases = [self._float32(other) for other in others]
                convolution.inputs = [image, self._int8(kernel, number), *biases]
                self._model.operatorCodes[convolution.opcodeIndex].version = _VERSION
        self._remove_unused()
        self.take_rows_as_channels()

    def take_rows_as_channels(self) -> None:
        for convolution in self._convolutions:
            tensor = self._graph.tensors[convolution.inputs[1]]
            count, height, width, channels = tensor.shape
            if tensor.type == self._schema.TensorType.INT8 and channels == 1 < width:
                kernel = copy.copy(tensor)
                kernel.shape = [count, height, 1, width]
                biases = convolution.inputs[2:]
                convolution.inputs = [self._rows(convolution, width), self._numbered(kernel), *biases]

    def _rows(self, convolution: Any, width: int) -> int:
        """What a kernel of this width is multiplied with in each row, as channels: its number.

        A convolution makes it, which has what the given one does along rows.
        """
        tensors, (image, number, *_) = self._graph.tensors, convolution.inputs
        added, made = copy.deepcopy(convolution), copy.deepcopy(tensors[convolution.outputs[0]])
        options, others = added.builtinOptions, convolution.builtinOptions
        options.strideH = options.dilationHFactor = others.strideW = others.dilationWFactor = 1
        options.fusedActivationFunction = self._schema.ActivationFunctionType.NONE
        for name in ("shape", "shapeSignature"):
            if (shape := getattr(made, name)) is not None:
                shape[1], shape[3] = getattr(tensors[image], name)[1], width
        chosen = self._added(np.eye(width, dtype=np.float32).reshape(width, 1, width, 1), number)
        added.inputs = [image, chosen, self._added(np.zeros(width, np.float32), number)]
        added.outputs = [self._numbered(made)]
        self._graph.operators.insert(self._graph.operators.index(convolution), added)
        return added.outputs[0]

    def _constant(self, number: int) -> Floats | None:
        """A tensor's values; None of what is computed."""
        tensor = self._graph.tensors[self._stored(number)]
        types = self._schema.TensorType
        dtype = {types.FLOAT32: np.float32, types.FLOAT16: np.float16}.get(tensor.type)
        data = self._model.buffers[tensor.buffer].data
        if dtype is None or data is None:
            return None
        return np.frombuffer(data, dtype).reshape(tensor.shape).astype(np.float32)

    def _stored(self, number: int) -> int:
        """The tensor that holds a constant, which may be cast."""
        return int(self._casts[number].inputs[0]) if number in self._casts else number

    def _float32(self, number: int) -> int:
        """A tensor without a cast before it."""
        values = self._constant(number) if number in self._casts else None
        return number if values is None else self._added(values, number)

    def _int8(self, kernel: Floats, number: int) -> int:
        """The quantized kernel ``[output, height, width, input]`` of a tensor."""
        scales = np.maximum(np.abs(kernel).max(axis=(1, 2, 3)) / _LARGEST, np.finfo(np.float32).tiny)
        quantization = self._schema.QuantizationParametersT()
        quantization.scale, quantization.zeroPoint = scales.astype(np.float32), np.zeros(len(scales), np.int64)
        values = np.rint(kernel / scales[:, None, None, None]).astype(np.int8)
        return self._added(values, number, self._schema.TensorType.INT8, quantization)

    def _added(self, values: NDArray[Any], old: int, kind: int | None = None, quantization: Any = None) -> int:
        """Adds a constant in place of a tensor: its number. By default it is float32."""
        schema, model, tensors = self._schema, self._model, self._graph.tensors
        self._replaced.add(self._stored(old))
        buffer, tensor = schema.BufferT(), schema.TensorT()
        buffer.data = values.ravel().view(np.uint8)
        tensor.shape, tensor.name, tensor.quantization = list(values.shape), tensors[old].name, quantization
        tensor.type = schema.TensorType.FLOAT32 if kind is None else kind
        tensor.buffer = len(model.buffers)
        model.buffers.append(buffer)
        return self._numbered(tensor)

    def _numbered(self, tensor: Any) -> int:
        number = len(self._graph.tensors)
        # OpenVINO knows tensors by their names.
        tensor.name = b"%b;%d" % (tensor.name, number)
        self._graph.tensors.append(tensor)
        return number

    def _remove_unused(self) -> None:
        """Removes casts that nothing takes any more, and the values of constants that nothing takes."""
        used = self._used()
        unused = [each.outputs[0] for each in self._casts.values() if each.outputs[0] not in used]
        self._graph.operators = [each for each in self._graph.operators if each.outputs[0] not in unused]
        used = self._used()
        tensors = dict(enumerate(self._graph.tensors))
        # Equal constants share a buffer.
        needed = {tensors[number].buffer for number in used}
        for number in self._replaced - used:
            if tensors[number].buffer not in needed:
                self._model.buffers[tensors[number].buffer].data = None

    def _used(self) -> set[int]:
        return {int(number) for each in self._graph.operators for number in each.inputs if number >= 0}
