"""The models of the peer benchmark, and inputs for them."""

import dataclasses
import os
import pathlib
import zlib

import numpy as np


@dataclasses.dataclass
class Model:
    name: str
    path: pathlib.Path
    # Name of each input, its shape ("N" is the batch), and how it is filled.
    inputs: list
    # True if static int8 quantisation makes sense and the batch is free.
    quantises: bool = True
    batches: bool = True
    # Of a TensorFlow Lite model, its file at each precision; its inputs are told by them.
    files: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Row:
    model: Model
    precision: str
    threads: int
    batch: int

    def path(self):
        return self.model.files.get(self.precision, self.model.path)

    def feed(self):
        """Its inputs by name."""
        return tflite_feed(self.path()) if self.model.files else feed(self.model, self.batch)

    def exists(self):
        if not self.path().exists():
            print(f"skipped: {self.path()} does not exist")
            return False
        if self.model.files:
            return self.precision in self.model.files and self.batch == 1
        return (self.precision != "int8" or self.model.quantises) and (
            self.batch == 1 or self.model.batches)


IMAGE = [("x", ["N", 3, 224, 224], "normal")]
TEXT = [("input_ids", ["N", 128], "tokens"), ("attention_mask", ["N", 128], "ones")]


# MLPerf Tiny: name, folder, file of f32 and of int8. That of kws has weights of int8 in both.
TINY = [
    ("ad01", "audio/mlperf_tiny_ad", "ad01_fp32", "ad01_int8"),
    ("kws", "audio/mlperf_tiny_kws", "kws_ref_model_float32", "kws_ref_model"),
    ("resnet8", "image/mlperf_tiny_resnet8", "pretrainedResnet", "pretrainedResnet_quant"),
    ("vww", "image/mlperf_tiny_vww", "vww_96_float", "vww_96_int8"),
]


def tiny(assets, name, folder, *files):
    """A model of MLPerf Tiny."""
    paths = [assets / folder / f"{file}.tflite" for file in files]
    return Model(name, paths[0], [], files=dict(zip(["f32", "int8"], paths)))


def tflite_feed(path):
    """Inputs by name for a TensorFlow Lite file."""
    from ai_edge_litert import interpreter

    random, made = np.random.default_rng(0), {}
    for details in interpreter.Interpreter(str(path)).get_input_details():
        shape, kind = details["shape"], details["dtype"]
        made[details["name"]] = (
            random.standard_normal(shape, dtype=np.float32) if kind == np.float32
            else random.integers(-128, 128, shape).astype(kind))
    return made


def all_models():
    """In the order of the table."""
    zoo = pathlib.Path(os.environ["LEPTON_ZOO_FILLED"])
    assets = pathlib.Path(os.environ["LEPTON_ASSETS"])
    return [
        Model("resnet50", zoo / "resnet50.onnx", IMAGE),
        Model("mobilenet_v2", zoo / "mobilenet_v2.onnx", IMAGE),
        Model("mobilenet_v3_large", zoo / "mobilenet_v3_large.onnx", IMAGE),
        Model("efficientnet_b0", zoo / "efficientnet_b0.onnx", IMAGE),
        Model("minilm_l6", zoo / "minilm_l6.onnx", TEXT),
        Model("bert_base", zoo / "bert_base.onnx", TEXT),
        Model("lstm_speech", zoo / "lstm_speech.onnx", [("x", [1, 200, 80], "normal")],
              quantises=False, batches=False),
        Model("gru_speech", recurrent(zoo.parent / "gru_speech.onnx", "GRU", 200, 2),
              [("x", [200, 1, 80], "normal")], quantises=False, batches=False),
        Model("lstm_layer", recurrent(zoo.parent / "lstm_layer.onnx", "LSTM", 100, 1),
              [("x", [100, 1, 80], "normal")], quantises=False, batches=False),
        Model("silero_vad", assets / "audio/silero_vad/silero_vad_16k_op15.onnx",
              [("input", [1, 576], "normal"), ("state", [2, 1, 128], "normal"),
               ("sr", [], "rate")], quantises=False, batches=False),
        Model("ultraface", assets / "image/ultraface/version-RFB-320_without_postprocessing.onnx",
              [("input", [1, 3, 240, 320], "normal")], batches=False),
        *[tiny(assets, *names) for names in TINY],
        Model("chain_1000", chain(zoo.parent / "chain_1000.onnx"),
              [("x", [1, 16], "normal")], quantises=False, batches=False),
    ]


def recurrent(path, op, steps, layers, width=80, hidden=256, classes=40):
    """Recurrent layers as PyTorch exports them (the reset gate of a GRU after the product), then
    a linear layer: a twin of lstm_speech with made-up weights."""
    if path.exists():
        return path
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(7)
    gates = {"LSTM": 4, "GRU": 3}[op]
    attributes = {"hidden_size": hidden} | ({"linear_before_reset": 1} if op == "GRU" else {})
    weights, nodes, last = [], [], "x"

    def weight(name, shape):
        bound = hidden ** -0.5
        values = random.uniform(-bound, bound, shape).astype(np.float32)
        weights.append(numpy_helper.from_array(values, name))
        return name

    weights.append(numpy_helper.from_array(np.array([1]), "axis"))
    for i in range(layers):
        w = weight(f"w{i}", [1, gates * hidden, hidden if i else width])
        r = weight(f"r{i}", [1, gates * hidden, hidden])
        b = weight(f"b{i}", [1, 2 * gates * hidden])
        nodes.append(helper.make_node(op, [last, w, r, b], [f"y{i}"], **attributes))
        nodes.append(helper.make_node("Squeeze", [f"y{i}", "axis"], [f"s{i}"]))
        last = f"s{i}"
    nodes.append(helper.make_node("MatMul", [last, weight("f", [hidden, classes])], ["y"]))
    value = lambda name, size: helper.make_tensor_value_info(
        name, TensorProto.FLOAT, [steps, 1, size])
    graph = helper.make_graph(nodes, op, [value("x", width)], [value("y", classes)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def chain(path, length=1000):
    """A chain of tiny operators that no runtime can fold into one: what a step costs. Each adds
    the running value to a rotation of it, so neither a product nor an identity remains."""
    if path.exists():
        return path
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, last = [], "x"
    for i in range(length // 2):
        nodes.append(helper.make_node("Tanh", [last], [f"t{i}"]))
        nodes.append(helper.make_node("Add", [f"t{i}", f"{'x' if i % 2 else last}"], [f"a{i}"]))
        last = f"a{i}"
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16])
    graph = helper.make_graph(nodes, "chain", [value("x")], [value(last)], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def feed(model, batch, seed=0):
    """Inputs by name, the same on every machine."""
    filled = {}
    for name, shape, kind in model.inputs:
        shape = [batch if extent == "N" else extent for extent in shape]
        rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
        filled[name] = {
            "normal": lambda: rng.standard_normal(shape, dtype=np.float32),
            "tokens": lambda: rng.integers(100, 20000, shape, dtype=np.int64),
            "ones": lambda: np.ones(shape, np.int64),
            "rate": lambda: np.array(16000, np.int64),
        }[kind]()
    return filled
