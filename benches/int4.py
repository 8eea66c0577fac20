"""ONNX Runtime's MatMulNBits beside Lepton: weights in groups of 4 bits, one thread.

Usage: taskset -c 1 python benches/int4.py LEPTON_BINARY OUT.md
Writes OUT.md: milliseconds of each, in rounds that take turns, and the largest difference from the
product of the same weights in f64. Needs numpy, onnx and onnxruntime.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

ROUNDS = 7
SECONDS = 0.5
SIZES = [(4096, 4096), (4096, 11008)]
GROUPS = [32, 128]
ROWS = [1, 4, 128]
# 0 leaves the choice to ONNX Runtime, 1 asks for f32; 4 rounds the activations to bytes.
LEVELS = [0, 1, 4]


def weights(depth, columns, group):
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 16, (columns, depth // group, group), dtype=np.uint8)
    scales = rng.random((columns, depth // group), dtype=np.float32) * 0.01 + 0.002
    return codes, scales


def model(path, codes, scales, rows, level):
    columns, blocks, group = codes.shape
    packed = codes[:, :, 0::2] | codes[:, :, 1::2] << 4
    attributes = {"K": blocks * group, "N": columns, "bits": 4, "block_size": group}
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft",
        accuracy_level=level, **attributes,
    )
    graph = helper.make_graph(
        [node],
        "int4",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, blocks * group])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, columns])],
        [
            helper.make_tensor("w", TensorProto.UINT8, packed.shape, packed.tobytes(), raw=True),
            helper.make_tensor("s", TensorProto.FLOAT, [scales.size], scales.tobytes(), raw=True),
        ],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def theirs(session, x):
    times, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end or not times:
        start = time.perf_counter()
        session.run(None, {"x": x})
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def ours(binary, path):
    command = [binary, "bench", path, "--threads", "1", "--seconds", str(SECONDS), "--json"]
    done = subprocess.run(command, check=True, capture_output=True)
    return json.loads(done.stdout)["latency"]["p50_us"] / 1e3


def answer(binary, path, x, folder):
    np.savez(folder / "x.npz", x=x)
    command = [binary, "run", path, "--input", folder / "x.npz", "--output", folder / "y.npz"]
    subprocess.run(command, check=True, capture_output=True)
    return np.load(folder / "y.npz")["y"]


def measure(binary, folder, depth, columns, group, rows):
    codes, scales = weights(depth, columns, group)
    real = (codes.astype(np.float64) - 8) * scales[:, :, None].astype(np.float64)
    x = np.random.default_rng(2).standard_normal((rows, depth)).astype(np.float32)
    wanted = x.astype(np.float64) @ real.reshape(columns, depth).T
    sessions = {}
    for level in LEVELS:
        path = folder / f"{level}.onnx"
        model(path, codes, scales, rows, level)
        sessions[level] = session(path)
    own = folder / f"{LEVELS[0]}.onnx"
    error = lambda found: float(np.abs(found - wanted).max() / np.abs(wanted).max())
    errors = {level: error(s.run(None, {"x": x})[0]) for level, s in sessions.items()}
    errors["lepton"] = error(answer(binary, own, x, folder))
    times = {key: [] for key in errors}
    for _ in range(ROUNDS):
        for level, one in sessions.items():
            times[level].append(theirs(one, x))
        times["lepton"].append(ours(binary, own))
    return times, errors


def main():
    binary, out = sys.argv[1], pathlib.Path(sys.argv[2])
    lines = [
        "# Weights in groups of 4 bits",
        "",
        f"`benches/int4.py`: ONNX Runtime {onnxruntime.__version__}'s MatMulNBits at accuracy levels "
        "0 (its choice), 1 (f32) and 4 (activations rounded to bytes), and Lepton, whose "
        "activations stay f32; one thread, milliseconds, medians of rounds that take turns; ratio: "
        "the fastest of levels 0 and 1 over Lepton in the same round [least–most]; error: largest "
        "difference from the product in f64 over the largest result.",
        "",
        "| K × N | group | rows | level 0 | level 1 | level 4 | Lepton | ratio | errors: 0, 4, Lepton |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for depth, columns in SIZES:
            for group in GROUPS:
                for rows in ROWS:
                    times, errors = measure(
                        binary, pathlib.Path(folder), depth, columns, group, rows
                    )
                    ratios = sorted(
                        min(a, b) / c for a, b, c in zip(times[0], times[1], times["lepton"])
                    )
                    middle = {key: statistics.median(each) for key, each in times.items()}
                    lines.append(
                        f"| {depth} × {columns} | {group} | {rows} | {middle[0]:.2f} | "
                        f"{middle[1]:.2f} | {middle[4]:.2f} | {middle['lepton']:.2f} | "
                        f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}–{ratios[-1]:.2f}] | "
                        f"{errors[0]:.1e}, {errors[4]:.1e}, {errors['lepton']:.1e} |"
                    )
                    print(lines[-1], flush=True)
    out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
