"""Latency of Lepton and ONNX Runtime in alternating rounds on one core.

Usage: taskset -c 1 python benches/onnxruntime_rounds.py LEPTON_BINARY ORIGINAL.onnx [MODEL ...]
ONNX Runtime runs ORIGINAL at one thread; Lepton runs ORIGINAL and every other MODEL. Each round
measures each of them for half a second and keeps its median; the table has the median over rounds
and the ratio ONNX Runtime / Lepton with its range. Needs numpy and onnxruntime.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np
import onnxruntime

ROUNDS = 15
SECONDS = 0.5


def onnxruntime_median(session, feed):
    times, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def lepton_median(binary, model):
    command = [binary, "bench", model, "--seconds", str(SECONDS), "--json"]
    done = subprocess.run(command, check=True, capture_output=True)
    return json.loads(done.stdout)["latency"]["p50_us"]


def main():
    binary, original, models = sys.argv[1], sys.argv[2], sys.argv[2:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(original, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feed = {}
    for given in session.get_inputs():
        shape = [d if isinstance(d, int) else 1 for d in given.shape]
        integer = "int" in given.type
        feed[given.name] = (
            rng.integers(0, 2, shape) if integer else rng.random(shape, np.float32)
        )
    theirs, ours = [], {model: [] for model in models}
    for _ in range(ROUNDS):
        theirs.append(onnxruntime_median(session, feed))
        for model in models:
            ours[model].append(lepton_median(binary, model))
    print(f"ONNX Runtime {onnxruntime.__version__}: {statistics.median(theirs):.1f} us")
    for model, times in ours.items():
        ratios = sorted(t / o for t, o in zip(theirs, times))
        print(
            f"Lepton {pathlib.Path(model).name}: {statistics.median(times):.1f} us, ratio "
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
