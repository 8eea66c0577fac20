"""One small model for each operator of TensorFlow Lite, with inputs and the interpreter's outputs.

Usage: python make_cases.py cases.tar.xz
Needs numpy, flatbuffers and ai-edge-litert; the cases of the repository were made with version 2.3.0,
its own kernels, no delegate but for those whose names begin with `delegate`, which must be met in every byte. A case is a folder: model.tflite, and inputs and outputs as raw bytes in
files whose names give number, element type and shape: `input0.f32.2x3`.
"""

import io
import sys
import tarfile

import flatbuffers
import numpy as np
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

# Versions of operators whose first version is not 1.
OLDEST = {"BROADCAST_TO": 2}
RANDOM = np.random.default_rng(1)
TYPES = {
    np.float32: ("FLOAT32", "f32"), np.int32: ("INT32", "i32"), np.int64: ("INT64", "i64"),
    np.uint8: ("UINT8", "u8"), np.int8: ("INT8", "i8"), np.int16: ("INT16", "i16"),
    np.bool_: ("BOOL", "bool"), np.float16: ("FLOAT16", "f16"),
}


def real(*shape):
    return RANDOM.normal(0, 1, shape).astype(np.float32)


def positive(*shape):
    return np.abs(real(*shape)) + np.float32(0.1)


def integers(low, high, *shape, dtype=np.int32):
    return RANDOM.integers(low, high, shape).astype(dtype)


def truths(*shape):
    return RANDOM.integers(0, 2, shape).astype(np.bool_)


class Const:
    """An operand that is stored in the file; `scale` and `zero` if it is quantised."""

    def __init__(self, value, scale=None, zero=None, axis=0, dtype=np.int32):
        self.value = value if isinstance(value, np.ndarray) else np.array(value, dtype)
        self.scale, self.zero, self.axis = scale, zero, axis


class Given(Const):
    """An operand that is an input of the model."""


class Variable(Const):
    """An operand that keeps its contents."""


class Builder:
    def __init__(self):
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.graph = schema.SubGraphT()
        self.graph.name, self.graph.tensors = "main", []
        self.graph.inputs, self.graph.outputs, self.graph.operators = [], [], []
        self.model.subgraphs, self.model.operatorCodes, self.given = [self.graph], [], []

    def tensor(self, name, dtype, shape, data=None, scale=None, zero=None, axis=0, variable=False):
        made = schema.TensorT()
        made.name, made.shape = name, list(shape)
        made.type = getattr(schema.TensorType, TYPES[np.dtype(dtype).type][0])
        made.buffer, made.isVariable = 0, variable
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            made.buffer = len(self.model.buffers) - 1
        if scale is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale = np.atleast_1d(scale).astype(np.float32)
            made.quantization.zeroPoint = np.atleast_1d(zero if zero is not None else 0).astype(np.int64)
            if made.quantization.zeroPoint.size < made.quantization.scale.size:
                made.quantization.zeroPoint = np.zeros(made.quantization.scale.size, np.int64)
            made.quantization.quantizedDimension = axis
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def operand(self, value):
        if value is None:
            return -1
        if isinstance(value, int):
            return value
        if isinstance(value, np.ndarray):
            value = Given(value)
        array, q = value.value, (value.scale, value.zero, value.axis)
        number = len(self.graph.tensors)
        if isinstance(value, Variable):
            return self.tensor(f"state{number}", array.dtype, array.shape, None, *q, variable=True)
        if isinstance(value, Given):
            self.given.append(array)
            self.graph.inputs.append(self.tensor(f"x{number}", array.dtype, array.shape, None, *q))
            return self.graph.inputs[-1]
        return self.tensor(f"c{number}", array.dtype, array.shape, array, *q)

    def node(self, name, operands, results, kind, options, intermediates=()):
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = OLDEST.get(name, 1)
        self.model.operatorCodes.append(code)
        return self.of_code(operands, results, kind, options, intermediates)

    def custom(self, name, operands, results, options):
        """A node that is not built in."""
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode, code.version = name, 1
        self.model.operatorCodes.append(code)
        node = self.of_code(operands, results, None, {})
        node.customOptions = list(flexbuffers.Dumps(options))

    def of_code(self, operands, results, kind, options, intermediates=()):
        """A node of the last operator code."""
        node = schema.OperatorT()
        node.opcodeIndex = len(self.model.operatorCodes) - 1
        node.inputs, node.outputs = [self.operand(o) for o in operands], results
        if intermediates:
            node.intermediates = list(intermediates)
        if kind:
            node.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            node.builtinOptions = getattr(schema, kind + "T")()
            for key, value in options.items():
                setattr(node.builtinOptions, key, value)
        self.graph.operators.append(node)
        return node

    def subgraph(self, name):
        """Starts another graph; what follows belongs to it."""
        self.graph = schema.SubGraphT()
        self.graph.name, self.graph.tensors = name, []
        self.graph.inputs, self.graph.outputs, self.graph.operators = [], [], []
        self.model.subgraphs.append(self.graph)

    def resource(self, name):
        """A tensor that names a variable, and the node that makes it."""
        made = self.tensor(f"handle{len(self.graph.tensors)}", np.int32, [])
        self.graph.tensors[made].type = schema.TensorType.RESOURCE
        self.node("VAR_HANDLE", [], [made], "VarHandleOptions", dict(container="", sharedName=name))
        return made

    def bytes(self):
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def case(name, operands, kind=None, out=np.float32, results=1, scale=None, zero=None, shape=(), **options):
    """Bytes of a model of one node, its inputs and its outputs."""
    builder = Builder()
    types = out if isinstance(out, list) else [out] * results
    made = [builder.tensor(f"y{i}", t, shape, None, scale, zero) for i, t in enumerate(types)]
    builder.graph.outputs = made
    builder.node(name, operands, made, kind, options)
    return builder.bytes(), builder.given


def run(content, given, delegate):
    kinds = litert.OpResolverType
    resolver = kinds.AUTO if delegate else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    it = litert.Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    it.allocate_tensors()
    for details, value in zip(it.get_input_details(), given):
        it.set_tensor(details["index"], value)
    it.invoke()
    return [it.get_tensor(details["index"]).copy() for details in it.get_output_details()]


WINDOW = dict(padding=0, strideW=2, strideH=1, filterWidth=3, filterHeight=2)
SLICES = dict(beginMask=0, endMask=0, ellipsisMask=0, newAxisMask=0, shrinkAxisMask=0)


def image(*shape):
    return real(*shape)


def byte_conv():
    w = Const(integers(-127, 128, 4, 3, 3, 2, dtype=np.int8), 0.01 * np.arange(1, 5), np.zeros(4))
    bias = Const(integers(-500, 500, 4), 0.0005 * np.arange(1, 5), np.zeros(4))
    x = Given(integers(-128, 128, 1, 6, 5, 2, dtype=np.int8), 0.05, 3)
    return [x, w, bias]


def older_conv(filters, height):
    w = Const(integers(0, 256, *filters, dtype=np.uint8), 0.01, 140)
    bias = Const(integers(-500, 500, filters[0] if filters[0] > 1 else filters[3]), 0.0005, 0)
    x = Given(integers(0, 256, 1, height, 5, 2, dtype=np.uint8), 0.05, 120)
    return [x, w, bias]


def lstm(coupled=False, peepholes=False):
    gates = [None if coupled and i in (0, 4, 8) else i for i in range(12)]
    weights = [Const(real(4, 3)) if gates[i] is not None else None for i in range(4)]
    weights += [Const(real(4, 4)) if gates[4 + i] is not None else None for i in range(4)]
    cells = [Const(real(4)) if peepholes and gates[8 + i] is not None else None for i in range(3)]
    biases = [Const(real(4)) if i or not coupled else None for i in range(4)]
    state = [Variable(np.zeros((2, 4), np.float32)) for _ in range(2)]
    return [real(2, 5, 3), *weights, *cells, *biases, None, None, *state] + [None] * 4


def cases():
    yield from elementwise()
    yield from products()
    yield from images()
    yield from orders()
    yield from shapes()
    yield from parts()
    yield from selections()
    yield from recurrent()
    yield from control()
    yield from detections()
    yield from delegate()


def elementwise():
    for name in ["ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "HARD_SWISH", "LOGISTIC", "NEG", "RELU",
                 "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "ROUND", "SIGN", "SIN", "SQUARE", "TANH"]:
        yield name.lower(), case(name, [3 * real(2, 3, 4)])
    for name in ["LOG", "RSQRT", "SQRT"]:
        yield name.lower(), case(name, [positive(2, 5)])
    yield "gelu", case("GELU", [real(2, 5)], "GeluOptions", approximate=False)
    yield "gelu_tanh", case("GELU", [real(2, 5)], "GeluOptions", approximate=True)
    yield "leaky_relu", case("LEAKY_RELU", [real(2, 5)], "LeakyReluOptions", alpha=0.3)
    yield "logical_not", case("LOGICAL_NOT", [truths(2, 5)], out=np.bool_)
    for name, kind in [("ADD", "AddOptions"), ("SUB", "SubOptions"), ("MUL", "MulOptions"), ("DIV", "DivOptions")]:
        yield name.lower(), case(name, [real(2, 3, 4), positive(3, 1)], kind, fusedActivationFunction=0)
        yield name.lower() + "_relu", case(name, [real(2, 3), positive(2, 3)], kind, fusedActivationFunction=1)
    yield "add_relu6", case("ADD", [4 * real(2, 9), real(2, 9)], "AddOptions", fusedActivationFunction=3)
    yield "add_unit", case("ADD", [4 * real(2, 9), real(2, 9)], "AddOptions", fusedActivationFunction=2)
    for name in ["MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"]:
        yield name.lower(), case(name, [real(2, 3), real(3)])
    yield "pow", case("POW", [positive(2, 3), real(3)])
    yield "prelu", case("PRELU", [real(1, 2, 3, 4), Const(real(1, 1, 4))])
    yield "add_n", case("ADD_N", [real(2, 3), real(2, 3), real(2, 3)])
    for name in ["EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"]:
        yield name.lower(), case(name, [integers(0, 3, 4, 5), integers(0, 3, 4, 5)], out=np.bool_)
    for name in ["LOGICAL_AND", "LOGICAL_OR"]:
        yield name.lower(), case(name, [truths(4, 5), truths(4, 5)], out=np.bool_)
    for name in ["FLOOR_DIV", "FLOOR_MOD"]:
        yield name.lower(), case(name, [5 * real(4, 5), positive(4, 5)])
        yield name.lower() + "_integers", case(name, [integers(-9, 10, 4, 5), Const([[-3, 2, 4, -5, 1]])], out=np.int32)
    yield "cast", case("CAST", [5 * real(2, 5)], "CastOptions", out=np.int32, inDataType=0, outDataType=2)
    yield "cast_truth", case("CAST", [truths(2, 5)], "CastOptions", inDataType=6, outDataType=0)
    yield "dequantize", case("DEQUANTIZE", [Given(integers(0, 256, 2, 5, dtype=np.uint8), 0.1, 7)])
    yield "quantize", case("QUANTIZE", [real(2, 5)], out=np.int8, scale=0.02, zero=-3)
    yield "fake_quant", case("FAKE_QUANT", [2 * real(3, 5)], "FakeQuantOptions", min=-1.5, max=2.0, numBits=8)


def products():
    conv = dict(padding=0, strideW=2, strideH=1, dilationWFactor=1, dilationHFactor=1, fusedActivationFunction=1)
    operands = [image(2, 6, 5, 3), Const(real(4, 3, 2, 3)), Const(real(4))]
    yield "conv_2d", case("CONV_2D", operands, "Conv2DOptions", **conv)
    valid = conv | dict(padding=1, strideW=1, dilationWFactor=2, dilationHFactor=3, fusedActivationFunction=0)
    yield "conv_2d_dilated", case(
        "CONV_2D", [image(1, 9, 8, 2), Const(real(3, 3, 2, 2)), Const(real(3))], "Conv2DOptions", **valid)
    depth = conv | dict(depthMultiplier=2, strideW=2, strideH=2)
    operands = [image(1, 6, 6, 3), Const(real(1, 3, 3, 6)), Const(real(6))]
    yield "depthwise", case("DEPTHWISE_CONV_2D", operands, "DepthwiseConv2DOptions", **depth)
    steps = dict(scale=0.2, zero=-5)
    yield "conv_2d_int8", case("CONV_2D", byte_conv(), "Conv2DOptions", out=np.int8, **steps, **conv)
    steps = dict(scale=0.3, zero=100)
    yield "conv_2d_uint8", case("CONV_2D", older_conv((4, 3, 3, 2), 6), "Conv2DOptions", out=np.uint8, **steps, **conv)
    depth["depthMultiplier"] = 1
    yield "depthwise_uint8", case("DEPTHWISE_CONV_2D", older_conv((1, 3, 3, 2), 6), "DepthwiseConv2DOptions",
                                  out=np.uint8, **steps, **depth)
    shape = Const([1, 8, 9, 2])
    transposed = dict(padding=0, strideW=2, strideH=2)
    operands = [shape, Const(real(2, 3, 3, 4)), image(1, 4, 5, 4)]
    yield "transpose_conv", case("TRANSPOSE_CONV", operands, "TransposeConvOptions", **transposed)
    operands = [Const([1, 9, 11, 2]), Const(real(2, 3, 3, 4)), image(1, 4, 5, 4)]
    yield "transpose_conv_valid", case("TRANSPOSE_CONV", operands, "TransposeConvOptions", **(transposed | dict(padding=1)))
    volume = dict(padding=0, strideD=1, strideH=2, strideW=1, dilationDFactor=1, dilationHFactor=1, dilationWFactor=1)
    operands = [image(1, 3, 4, 5, 2), Const(real(2, 2, 3, 2, 4)), Const(real(4))]
    yield "conv_3d", case("CONV_3D", operands, "Conv3DOptions", **volume)
    full = dict(fusedActivationFunction=0, weightsFormat=0, keepNumDims=False)
    operands = [real(2, 3, 4), Const(real(5, 4)), Const(real(5))]
    yield "fully_connected", case("FULLY_CONNECTED", operands, "FullyConnectedOptions", **full)
    full |= dict(keepNumDims=True, fusedActivationFunction=1)
    yield "fully_connected_kept", case("FULLY_CONNECTED", operands, "FullyConnectedOptions", **full)
    yield "batch_matmul", case("BATCH_MATMUL", [real(2, 3, 4), real(2, 4, 5)], "BatchMatMulOptions", adjX=False, adjY=False)
    yield "batch_matmul_t", case("BATCH_MATMUL", [real(2, 4, 3), real(2, 5, 4)], "BatchMatMulOptions", adjX=True, adjY=True)


def images():
    for name in ["AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"]:
        yield name.lower(), case(name, [image(2, 5, 6, 3)], "Pool2DOptions", **WINDOW)
        yield name.lower() + "_valid", case(name, [image(2, 5, 6, 3)], "Pool2DOptions", **(WINDOW | dict(padding=1)))
    x = Given(integers(-128, 128, 1, 6, 6, 4, dtype=np.int8), 0.1, -4)
    yield "average_pool_int8", case("AVERAGE_POOL_2D", [x], "Pool2DOptions", out=np.int8, scale=0.1, zero=-4, **WINDOW)
    local = dict(radius=2, bias=1.5, alpha=0.4, beta=0.75)
    yield "local_response", case("LOCAL_RESPONSE_NORMALIZATION", [image(1, 2, 3, 7)], "LocalResponseNormalizationOptions", **local)
    for name, kind in [("RESIZE_BILINEAR", "ResizeBilinearOptions"), ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions")]:
        for align, half in [(False, False), (True, False), (False, True)]:
            for size in ([7, 9], [3, 2]):
                yield f"{name}_{align}_{half}_{size[0]}".lower(), case(
                    name, [image(2, 4, 5, 3), Const(size)], kind, alignCorners=align, halfPixelCenters=half)
    yield "depth_to_space", case("DEPTH_TO_SPACE", [image(2, 3, 2, 8)], "DepthToSpaceOptions", blockSize=2)
    yield "space_to_depth", case("SPACE_TO_DEPTH", [image(2, 4, 6, 3)], "SpaceToDepthOptions", blockSize=2)
    yield "space_to_batch", case("SPACE_TO_BATCH_ND", [image(2, 4, 5, 3), Const([2, 3]), Const([[0, 0], [1, 0]])])
    yield "batch_to_space", case("BATCH_TO_SPACE_ND", [image(12, 2, 2, 3), Const([2, 3]), Const([[0, 1], [1, 0]])])


def orders():
    for name in ["MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"]:
        yield name.lower(), case(name, [real(2, 3, 4), Const([1, -1])], "ReducerOptions", keepDims=False)
        yield name.lower() + "_kept", case(name, [real(2, 3, 4), Const([0])], "ReducerOptions", keepDims=True)
    for name in ["REDUCE_ANY", "REDUCE_ALL"]:
        yield name.lower(), case(name, [truths(4, 3), Const([1])], "ReducerOptions", out=np.bool_, keepDims=False)
    yield "arg_max", case("ARG_MAX", [real(3, 5), Const([1])], "ArgMaxOptions", out=np.int64, outputType=4)
    yield "arg_min", case("ARG_MIN", [real(3, 5), Const([0])], "ArgMinOptions", out=np.int32, outputType=2)
    yield "cumsum", case("CUMSUM", [real(3, 5), Const(1)], "CumsumOptions", exclusive=True, reverse=True)
    yield "l2_normalization", case("L2_NORMALIZATION", [real(3, 5)], "L2NormOptions", fusedActivationFunction=0)
    yield "softmax", case("SOFTMAX", [real(3, 5)], "SoftmaxOptions", beta=0.7)
    yield "log_softmax", case("LOG_SOFTMAX", [real(3, 5)])
    yield "topk", case("TOPK_V2", [real(3, 5), Const(2)], out=[np.float32, np.int32])
    yield "unique", case("UNIQUE", [Const(integers(0, 4, 9)), ], "UniqueOptions", out=[np.int32, np.int32], idxOutType=2)


def shapes():
    yield "broadcast_to", case("BROADCAST_TO", [real(3, 1), Const([2, 3, 4])])
    yield "concatenation", case("CONCATENATION", [real(2, 3), real(2, 1)], "ConcatenationOptions", axis=-1, fusedActivationFunction=0)
    yield "expand_dims", case("EXPAND_DIMS", [real(2, 3), Const(-1)])
    yield "fill", case("FILL", [Const([2, 3]), Const(np.array(1.5, np.float32))])
    yield "pack", case("PACK", [real(2, 3), real(2, 3)], "PackOptions", valuesCount=2, axis=1)
    yield "range", case("RANGE", [Const(1), Const(9), Const(3)], out=np.int32)
    yield "rank", case("RANK", [real(2, 3)], out=np.int32)
    yield "reshape", case("RESHAPE", [real(2, 6), Const([3, -1])])
    yield "reshape_options", case("RESHAPE", [real(2, 6)], "ReshapeOptions", newShape=[4, 3])
    yield "shape", case("SHAPE", [real(2, 3)], "ShapeOptions", out=np.int32, outType=2)
    yield "split", case("SPLIT", [Const(1), real(2, 6)], "SplitOptions", results=3, numSplits=3)
    yield "split_v", case("SPLIT_V", [real(2, 6), Const([1, -1, 2]), Const(1)], "SplitVOptions", results=3, numSplits=3)
    yield "squeeze", case("SQUEEZE", [real(1, 2, 1, 3)], "SqueezeOptions", squeezeDims=[0])
    yield "tile", case("TILE", [real(2, 3), Const([2, 1])])
    yield "transpose", case("TRANSPOSE", [real(2, 3, 4), Const([2, 0, 1])])
    yield "unpack", case("UNPACK", [real(2, 3)], "UnpackOptions", results=3, num=3, axis=-1)
    yield "zeros_like", case("ZEROS_LIKE", [real(2, 3)])


def strided(x, begin, end, step, **masks):
    return case("STRIDED_SLICE", [x, Const(begin), Const(end), Const(step)], "StridedSliceOptions", **(SLICES | masks))


def parts():
    yield "pad", case("PAD", [real(2, 3), Const([[1, 0], [2, 1]])])
    yield "padv2", case("PADV2", [real(2, 3), Const([[1, 0], [2, 1]]), Const(np.array(0.5, np.float32))])
    yield "mirror_pad", case("MIRROR_PAD", [real(3, 4), Const([[1, 2], [0, 1]])], "MirrorPadOptions", mode=0)
    yield "mirror_pad_whole", case("MIRROR_PAD", [real(3, 4), Const([[1, 2], [0, 4]])], "MirrorPadOptions", mode=1)
    yield "reverse", case("REVERSE_V2", [real(3, 4), Const([1])])
    yield "slice", case("SLICE", [real(3, 4), Const([1, 0]), Const([-1, 3])])
    yield "strided", strided(real(4, 5), [0, 4], [4, 0], [2, -1])
    yield "strided_masks", strided(real(4, 5), [1, 2], [3, 1], [1, 1], beginMask=1, endMask=2)
    yield "strided_shrink", strided(real(4, 5, 6), [-1, 0, 1], [0, 5, 5], [1, 2, 3], shrinkAxisMask=1)
    yield "strided_ellipsis", strided(real(4, 5, 6), [0, 0, 1], [0, 0, 3], [1, 1, 1], ellipsisMask=1, newAxisMask=2)


def selections():
    yield "embedding", case("EMBEDDING_LOOKUP", [integers(0, 5, 3), Const(real(5, 4))])
    yield "gather", case("GATHER", [real(3, 5), integers(0, 5, 2, 2)], "GatherOptions", axis=1)
    yield "gather_batch", case("GATHER", [real(3, 5, 2), integers(0, 5, 3, 2)], "GatherOptions", axis=1, batchDims=1)
    yield "gather_nd", case("GATHER_ND", [real(3, 5), Const([[0, 1], [2, 4]])])
    yield "scatter_nd", case("SCATTER_ND", [Const([[1], [3], [1]]), real(3, 2), Const([5, 2])])
    options = dict(axis=-1)
    operands = [integers(0, 4, 5), Const(4), Const(np.array(2, np.float32)), Const(np.array(-1, np.float32))]
    yield "one_hot", case("ONE_HOT", operands, "OneHotOptions", **options)
    yield "select", case("SELECT", [truths(3), real(3, 2), real(3, 2)])
    yield "select_v2", case("SELECT_V2", [truths(3, 1), real(3, 2), real(2)])
    yield "where", case("WHERE", [Const(np.array([[True, False], [True, True]]))], out=np.int64)


def recurrent():
    options = dict(fusedActivationFunction=4, cellClip=0.5, projClip=0.0, timeMajor=False)
    kind, name = "UnidirectionalSequenceLSTMOptions", "UNIDIRECTIONAL_SEQUENCE_LSTM"
    yield "lstm", case(name, lstm(), kind, **options)
    yield "lstm_coupled", case(name, lstm(coupled=True), kind, **(options | dict(cellClip=0.0)))
    yield "lstm_peepholes", case(name, lstm(peepholes=True), kind, **options)
    yield "lstm_bytes", byte_lstm()
    yield "lstm_bytes_coupled", byte_lstm(coupled=True, clip=1.5)
    yield "lstm_bytes_peepholes", byte_lstm(peepholes=True)
    yield "lstm_bytes_projected", byte_lstm(projection=4)
    operands = [real(2, 5, 3), Const(real(4, 3)), Const(real(4, 4)), Const(real(4)), Variable(np.zeros((2, 4), np.float32))]
    yield "rnn", case("UNIDIRECTIONAL_SEQUENCE_RNN", operands, "SequenceRNNOptions", timeMajor=False, fusedActivationFunction=4)
    operands = [real(2, 3), Const(real(4, 3)), Const(real(4, 4)), Const(real(4)), Variable(np.zeros((2, 4), np.float32))]
    yield "rnn_cell", case("RNN", operands, "RNNOptions", fusedActivationFunction=1)
    operands = [real(2, 3), Const(real(6, 3)), Const(real(6, 4)), Const(real(3)), Variable(np.zeros((2, 24), np.float32))]
    yield "svdf", case("SVDF", operands, "SVDFOptions", rank=2, fusedActivationFunction=0)


def byte_lstm(coupled=False, peepholes=False, projection=None, clip=0.0):
    """A layer of 6 units in fixed point over bytes."""
    builder, units, width = Builder(), 6, 5
    results, steps = projection or units, 0.0078

    def weights(*shape):
        return Const(integers(-127, 128, *shape, dtype=np.int8), RANDOM.uniform(0.004, 0.012))

    x = Given(integers(-128, 128, 2, 7, width, dtype=np.int8), 0.02, -7)
    first = 1 if coupled else 0
    absent = [None] * first
    from_x = absent + [weights(units, width) for _ in range(first, 4)]
    from_h = absent + [weights(units, results) for _ in range(first, 4)]
    cells = [None] * 3
    if peepholes:
        cells = absent + [Const(integers(-32000, 32000, units, dtype=np.int16), 2e-5 * (i + 1)) for i in range(first, 3)]
    bias = absent + [Const(integers(-3000, 3000, units), 0.02 * from_x[i].scale) for i in range(first, 4)]
    projected = [weights(projection, units), Const(integers(-2000, 2000, projection), 1e-4)] if projection else [None, None]
    state = [Variable(np.zeros((2, results), np.int8), steps, 3), Variable(np.zeros((2, units), np.int16), 2.0**-11, 0)]
    y = builder.tensor("y", np.int8, [], None, steps, 3)
    builder.graph.outputs = [y]
    middle = [builder.tensor(f"gate{i}", np.float32, [0]) for i in range(4)]
    middle.append(builder.tensor("hidden", np.int8, [0], None, *((0.0071, -4) if projection else (steps, 3))))
    options = dict(fusedActivationFunction=4, cellClip=clip, projClip=0.8 if projection else 0.0, timeMajor=False)
    operands = [x, *from_x, *from_h, *cells, *bias, *projected, *state] + [None] * 4
    builder.node("UNIDIRECTIONAL_SEQUENCE_LSTM", operands, [y], "UnidirectionalSequenceLSTMOptions", options, middle)
    return builder.bytes(), builder.given


def branch(condition):
    """x·2 if the condition holds, else x + x·x."""
    builder = Builder()
    y = builder.tensor("y", np.float32, [2, 3])
    builder.graph.outputs = [y]
    options = dict(thenSubgraphIndex=1, elseSubgraphIndex=2)
    builder.node("IF", [condition, real(2, 3)], [y], "IfOptions", options)
    for name in ["then", "else"]:
        builder.subgraph(name)
        x, made = (builder.tensor(f"{name}.{part}", np.float32, [2, 3]) for part in "xy")
        builder.graph.inputs, builder.graph.outputs = [x], [made]
        if name == "then":
            builder.node("ADD", [x, x], [made], "AddOptions", dict(fusedActivationFunction=0))
        else:
            square = builder.tensor("else.square", np.float32, [2, 3])
            builder.node("MUL", [x, x], [square], "MulOptions", dict(fusedActivationFunction=0))
            builder.node("ADD", [square, x], [made], "AddOptions", dict(fusedActivationFunction=0))
    return builder.bytes(), builder.given


def loop():
    """Doubles a value until a counter is at an input."""
    builder = Builder()
    outputs = [builder.tensor(f"y{i}", t, s) for i, (t, s) in enumerate([(np.int32, []), (np.float32, [3])])]
    builder.graph.outputs = outputs
    options = dict(condSubgraphIndex=1, bodySubgraphIndex=2)
    builder.node("WHILE", [np.array(2, np.int32), real(3)], outputs, "WhileOptions", options)
    builder.subgraph("condition")
    count, x = builder.tensor("c.count", np.int32, []), builder.tensor("c.x", np.float32, [3])
    going = builder.tensor("c.going", np.bool_, [])
    builder.graph.inputs, builder.graph.outputs = [count, x], [going]
    builder.node("LESS", [count, Const(5)], [going], None, {})
    builder.subgraph("body")
    count, x = builder.tensor("b.count", np.int32, []), builder.tensor("b.x", np.float32, [3])
    next_count, next_x = builder.tensor("b.next", np.int32, []), builder.tensor("b.y", np.float32, [3])
    builder.graph.inputs, builder.graph.outputs = [count, x], [next_count, next_x]
    builder.node("ADD", [count, Const(1)], [next_count], "AddOptions", dict(fusedActivationFunction=0))
    builder.node("ADD", [x, x], [next_x], "AddOptions", dict(fusedActivationFunction=0))
    return builder.bytes(), builder.given


def variable():
    """A running sum that starts at zero: one run."""
    builder = Builder()
    builder.node("CALL_ONCE", [], [], "CallOnceOptions", dict(initSubgraphIndex=1))
    handle = builder.resource("sum")
    before, after = builder.tensor("before", np.float32, [3]), builder.tensor("after", np.float32, [3])
    builder.node("READ_VARIABLE", [handle], [before], "ReadVariableOptions", {})
    builder.node("ADD", [before, real(3)], [after], "AddOptions", dict(fusedActivationFunction=0))
    builder.node("ASSIGN_VARIABLE", [handle, after], [], "AssignVariableOptions", {})
    builder.graph.outputs = [after]
    builder.subgraph("first")
    handle = builder.resource("sum")
    builder.node("ASSIGN_VARIABLE", [handle, Const(np.zeros(3, np.float32))], [], "AssignVariableOptions", {})
    return builder.bytes(), builder.given


def detector(regular, classes=3, background=1, bytes=False, each=1, least=0.3):
    builder, boxes = Builder(), 40
    encoded, scores = real(1, boxes, 4), RANDOM.uniform(0, 1, (1, boxes, classes + background)).astype(np.float32)
    anchors = np.concatenate([RANDOM.uniform(0, 1, (boxes, 2)), RANDOM.uniform(0.2, 0.6, (boxes, 2))], 1)
    anchors = Const(anchors.astype(np.float32))
    if bytes:
        anchors = Const(integers(60, 256, boxes, 4, dtype=np.uint8), 1 / 256, 0)
        encoded = Given(integers(0, 256, 1, boxes, 4, dtype=np.uint8), 0.02, 128)
        scores = Given(integers(0, 256, 1, boxes, classes + background, dtype=np.uint8), 1 / 256, 0)
    options = dict(max_detections=7, max_classes_per_detection=each, detections_per_class=4, use_regular_nms=regular,
                   nms_score_threshold=least, nms_iou_threshold=0.4, num_classes=classes,
                   y_scale=10.0, x_scale=10.0, h_scale=5.0, w_scale=5.0)
    results = [builder.tensor(f"y{i}", np.float32, []) for i in range(4)]
    builder.graph.outputs = results
    builder.custom("TFLite_Detection_PostProcess", [encoded, scores, anchors], results, options)
    return builder.bytes(), builder.given


def detections():
    yield "detections_fast", detector(False)
    yield "detections_fast_each", detector(False, classes=4, each=3)
    yield "detections_regular", detector(True)
    yield "detections_few", detector(True, least=0.98)
    yield "detections_plain", detector(True, background=0)
    yield "detections_bytes", detector(False, bytes=True)


def delegate():
    """What XNNPACK rounds in a way of its own: factors between bytes, halves."""
    for dtype, low, zero in [(np.uint8, 0, 0), (np.int8, -128, -125)]:
        x = Given(np.arange(low, low + 256, dtype=np.int64).astype(dtype).reshape(1, 256), 0.0122984, low)
        kind = np.dtype(dtype).name
        for name, scale in [("smaller", 0.029083), ("larger", 0.0041), ("same", 0.0122984)]:
            yield f"delegate_quantize_{kind}_{name}", case("QUANTIZE", [x], out=dtype, scale=scale, zero=zero)
        for name, scale in [("near", 0.04), ("far", 0.3), ("fine", 0.004)]:
            x = Given(np.arange(low, low + 256, dtype=np.int64).astype(dtype).reshape(1, 256), scale, low + 100)
            yield f"delegate_hard_swish_{kind}_{name}", case("HARD_SWISH", [x], out=dtype, scale=scale / 2, zero=zero + 15)
    # Sums that come to halves once they are multiplied by f32(f32(x scale * w scale) / y scale).
    scale = 0.023529462516307831
    x = Given(np.zeros((1, 2, 2, 3), np.uint8), scale, 0)
    w = Const(np.full((1, 1, 1, 3), 121, np.uint8), 0.010316184721887112, 120)
    bias = Const(np.array([18660, 18659, 30000], np.int32), 0.00024273427, 0)
    depth = dict(padding=0, strideW=1, strideH=1, dilationWFactor=1, dilationHFactor=1, depthMultiplier=1)
    for name, activation in [("plain", 0), ("relu", 1), ("relu6", 3)]:
        made = case("DEPTHWISE_CONV_2D", [x, w, bias], "DepthwiseConv2DOptions", out=np.uint8, scale=scale, zero=0,
                    shape=(1, 2, 2, 3), fusedActivationFunction=activation, **depth)
        yield f"delegate_depthwise_{name}", made


def control():
    yield "if_true", branch(np.array(True))
    yield "if_false", branch(np.array(False))
    yield "while", loop()
    yield "variable", variable()


def add(archive, name, content):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def main():
    count, refused = 0, []
    with tarfile.open(sys.argv[1], "w:xz") as archive:
        for name, (content, given) in cases():
            try:
                outputs = run(content, given, name.startswith("delegate"))
            except (RuntimeError, ValueError) as error:
                refused.append(f"{name}: {str(error).splitlines()[0]}")
                continue
            add(archive, f"{name}/model.tflite", content)
            for kind, arrays in [("input", given), ("output", outputs)]:
                for i, array in enumerate(arrays):
                    shape = "x".join(map(str, array.shape))
                    file = f"{name}/{kind}{i}.{TYPES[array.dtype.type][1]}.{shape}"
                    add(archive, file, np.ascontiguousarray(array).tobytes())
            count += 1
    print(f"{count} cases; refused by the interpreter:", *refused, sep="\n  ")


if __name__ == "__main__":
    main()
