"""Measures Lepton beside TensorFlow Lite on the models of MLPerf Tiny, f32 and int8.

Usage: LEPTON_RELEASE=target/release LEPTON_ASSETS=... python benches/peers_tflite.py [ROUNDS [SECONDS]]
Needs numpy and ai-edge-litert. One thread; run it under `taskset -c 1`. Both take turns in rounds of
SECONDS; a row has the medians over the rounds, and the median, the 10th and the 90th percentile of the
ratios of each round (above 1: Lepton is faster). Both read the same file.
"""

import os
import pathlib
import statistics
import sys
import tempfile

import numpy as np

import peers_runtimes as runtimes

MODELS = [
    ("ad01 f32", "audio/mlperf_tiny_ad/ad01_fp32.tflite"),
    ("ad01 int8", "audio/mlperf_tiny_ad/ad01_int8.tflite"),
    ("kws f32 (int8 weights)", "audio/mlperf_tiny_kws/kws_ref_model_float32.tflite"),
    ("kws int8", "audio/mlperf_tiny_kws/kws_ref_model.tflite"),
    ("resnet8 f32", "image/mlperf_tiny_resnet8/pretrainedResnet.tflite"),
    ("resnet8 int8", "image/mlperf_tiny_resnet8/pretrainedResnet_quant.tflite"),
    ("vww f32", "image/mlperf_tiny_vww/vww_96_float.tflite"),
    ("vww int8", "image/mlperf_tiny_vww/vww_96_int8.tflite"),
]


def feed(path, name):
    peer = runtimes.TfLite(path, 1)
    random, made = np.random.default_rng(0), {}
    for details in peer.inputs:
        shape = details["shape"]
        if details["dtype"] == np.float32:
            made[name] = random.standard_normal(shape, dtype=np.float32)
        else:
            made[name] = random.integers(-128, 128, shape).astype(details["dtype"])
    return made


def input_name(path):
    """The name of the only input: a signature's, else the tensor's."""
    from ai_edge_litert import interpreter

    return interpreter.Interpreter(str(path)).get_input_details()[0]["name"]


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 0.5
    print("| model | TensorFlow Lite µs | Lepton µs | ratio (10 %, 90 %) |\n|---|---|---|---|")
    every = []
    with tempfile.TemporaryDirectory() as folder:
        for label, file in MODELS:
            path = pathlib.Path(os.environ["LEPTON_ASSETS"]) / file
            given, inputs = feed(path, input_name(path)), pathlib.Path(folder) / "in.npz"
            np.savez(inputs, **given)
            sides = [runtimes.TfLite(path, 1), runtimes.Lepton(path, 1, inputs)]
            times = [[side.median_us(given, seconds) for side in sides] for _ in range(rounds)]
            ratios = [theirs / ours for theirs, ours in times]
            every.append(statistics.median(ratios))
            theirs, ours = (statistics.median(column) for column in zip(*times))
            low, high = np.percentile(ratios, [10, 90])
            print(f"| {label} | {theirs:.1f} | {ours:.1f} | {every[-1]:.2f} ({low:.2f}, {high:.2f}) |", flush=True)
    print(f"\nGeometric mean of the ratios: {statistics.geometric_mean(every):.2f}")


if __name__ == "__main__":
    main()
