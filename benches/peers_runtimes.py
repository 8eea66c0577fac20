"""One class for each runtime: `run(feed)`, `median_us(feed, seconds)`, times and bytes of loading."""

import json
import mmap
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

import peers_quantise as quantise

# Columns that compete at the precision of the row; the others stand beside.
SAME_PRECISION = ["ONNX Runtime", "OpenVINO", "TensorFlow Lite"]

# Times a model is loaded; the median counts.
STARTS = 7


# Bytes that are touched and given back before a model is loaded.
MET_BEFORE = 256 << 20
LARGE_PAGE = 2 << 20


def meet_memory():
    """The host of a virtual machine takes back large pages that are free. Whoever meets one first waits
    4 ms for it, and which loads do is luck: after this, none."""
    memory = mmap.mmap(-1, MET_BEFORE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    for page in range(0, MET_BEFORE, LARGE_PAGE):
        memory[page] = 1
    memory.close()


def milliseconds(start):
    return (time.perf_counter() - start) * 1e3


class InProcess:
    """A runtime called from Python. `call` runs once with inputs that are already its own."""

    def timed_load(self, load):
        times = []
        for _ in range(STARTS):
            loaded = None
            meet_memory()
            start = time.perf_counter()
            loaded = load()
            times.append(milliseconds(start))
        self.load_ms, self.first_ms = statistics.median(times), None
        return loaded

    def run(self, feed):
        start = time.perf_counter()
        outputs = self.call(feed)
        self.first_ms = self.first_ms or milliseconds(start)
        return [np.array(o) for o in outputs]

    def median_us(self, feed, seconds):
        times, end = [], time.perf_counter() + seconds
        self.call(feed)
        while time.perf_counter() < end or len(times) < 3:
            start = time.perf_counter()
            self.call(feed)
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e6

    def bytes(self):
        return None

    def numerics(self):
        """What it does to numbers that its user can forbid."""
        return []


class OnnxRuntime(InProcess):
    def __init__(self, path, threads):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = self.timed_load(lambda: onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]))
        self.feed = None

    def call(self, feed):
        return self.session.run(None, feed)


class OpenVino(InProcess):
    def __init__(self, path, threads, feed_shapes, hint):
        import openvino

        def load():
            core = openvino.Core()
            model = core.read_model(str(path))
            model.reshape({name: list(shape) for name, shape in feed_shapes.items()})
            return core.compile_model(model, "CPU", {
                "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": hint})

        self.compiled = self.timed_load(load)
        self.request, self.bound = self.compiled.create_infer_request(), None

    def call(self, feed):
        import openvino

        if self.bound is not feed:
            for name, array in feed.items():
                self.request.set_tensor(name, openvino.Tensor(np.ascontiguousarray(array)))
            self.bound = feed
        self.request.infer()
        return [self.request.get_output_tensor(i).data for i in range(len(self.compiled.outputs))]


class TfLite(InProcess):
    """The interpreter of ai-edge-litert with XNNPACK, as it comes."""

    def __init__(self, path, threads):
        from ai_edge_litert import interpreter

        self.interpreter = self.timed_load(
            lambda: interpreter.Interpreter(str(path), num_threads=threads))
        self.interpreter.allocate_tensors()
        self.inputs = self.interpreter.get_input_details()
        self.outputs, self.bound = self.interpreter.get_output_details(), None

    def call(self, feed):
        if self.bound is not feed:
            for details, value in zip(self.inputs, feed.values()):
                self.interpreter.set_tensor(details["index"], value)
            self.bound = feed
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(details["index"]) for details in self.outputs]


class Lepton:
    """The command line on a prepared file; its clock is only around runs."""

    def __init__(self, path, threads, inputs):
        self.binary = pathlib.Path(os.environ["LEPTON_INSTALLED"])
        self.arguments = [str(path), "--threads", str(threads), "--input", str(inputs)]
        self.inputs, self.last = inputs, None

    def bench(self, *more):
        command = [self.binary, "bench", *self.arguments, "--json", *more]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip() or f"exit code {done.returncode}")
        self.last = json.loads(done.stdout)
        return self.last

    def run(self, feed):
        out = pathlib.Path(self.inputs).with_suffix(".out.npz")
        source = pathlib.Path(self.arguments[0])
        prepared = out.with_name(f"{source.stem}{source.suffix}.prepared.lepton")
        convert = [self.binary, "convert", source, "--prepare", "-o", prepared]
        subprocess.run(convert, capture_output=True, check=True)
        self.arguments[0] = str(prepared)
        starts = []
        for _ in range(STARTS):
            meet_memory()
            told = self.bench("--seconds", "0.01", "--output", str(out))
            starts.append((told["load_us"] / 1e3, told["first_run_us"] / 1e3))
        self.load_ms, self.first_ms = sorted(starts, key=sum)[STARTS // 2]
        with np.load(out) as arrays:
            return [arrays[name] for name in arrays.files]

    def median_us(self, feed, seconds):
        return self.bench("--seconds", str(seconds))["latency"]["p50_us"]

    def bytes(self):
        return self.last["arena_bytes"] + self.last["weight_bytes"]

    def numerics(self):
        return self.last["numerics"]


def sessions(path):
    """Two sessions of one process beside each other, and one that does nothing."""
    tool = pathlib.Path(os.environ["LEPTON_RELEASE"]) / "examples/sessions"
    return json.loads(subprocess.run([tool, path], capture_output=True, check=True).stdout)


def reference(row):
    """The runtime whose answer the others are compared with."""
    return TfLite(row.path(), 1) if row.model.files else OnnxRuntime(row.model.path, 1)


def sides(row, folder, inputs):
    """Makers of the runtimes of a row, in the order they take turns and have columns."""
    model, threads = row.model, row.threads
    if model.files:
        return {
            "Lepton": lambda: Lepton(row.path(), threads, inputs),
            "TensorFlow Lite": lambda: TfLite(row.path(), threads),
        }
    shapes = {n: a.shape for n, a in row.feed().items()}
    if row.precision == "f32":
        return {
            "Lepton": lambda: Lepton(model.path, threads, inputs),
            "ONNX Runtime": lambda: OnnxRuntime(model.path, threads),
            "OpenVINO": lambda: OpenVino(model.path, threads, shapes, "f32"),
            "OpenVINO bf16": lambda: OpenVino(model.path, threads, shapes, "bf16"),
        }
    files = quantise.Files(model, folder)
    if row.precision == "bf16":
        return {
            "Lepton": lambda: Lepton(files.lepton_bf16(), threads, inputs),
            "OpenVINO": lambda: OpenVino(model.path, threads, shapes, "bf16"),
        }
    return {
        "Lepton": lambda: Lepton(files.lepton(), threads, inputs),
        "ONNX Runtime": lambda: OnnxRuntime(files.onnxruntime(), threads),
        "OpenVINO": lambda: OpenVino(files.openvino(), threads, shapes, "f32"),
        "Lepton, ORT's file": lambda: Lepton(files.onnxruntime(), threads, inputs),
    }
