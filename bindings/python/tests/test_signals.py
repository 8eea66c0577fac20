"""Ctrl-C in a single long run, in one long step of it, and in a search."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from lepton_ai._onnx import graph, model, node, tensor

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")


def interrupted(code: str, *arguments: str, after_s: float = 1.0) -> tuple[float, str]:
    """Seconds from SIGINT to the end of a process that says ``begun`` first, and what it printed."""
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "begun\n"
        time.sleep(after_s)
        assert process.poll() is None, "it was done before it could be interrupted"
        sent = time.perf_counter()
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[0]
        return time.perf_counter() - sent, said
    finally:
        process.kill()


def test_one_long_run_ends(tmp_path):
    # Two thousand products of some milliseconds each, in one run that takes many seconds.
    count = 2000
    names = ["x", *(f"v{at}" for at in range(count))]
    nodes = [made for at in range(count) for made in (
        node("MatMul", [names[at], "x"], [f"m{at}"]), node("Tanh", [f"m{at}"], [names[at + 1]]))]
    path = tmp_path / "long.onnx"
    path.write_bytes(model(graph(nodes, {"x": (1, [700, 700])}, {names[-1]: (1, [700, 700])})))
    took_s, said = interrupted("""
        import sys, numpy, lepton_ai
        session = lepton_ai.Session(sys.argv[1])
        x = numpy.zeros((700, 700), numpy.float32)
        print("begun", flush=True)
        try:
            session.run(x)
            print("done")
        except KeyboardInterrupt:
            print("stopped")
    """, str(path))
    assert said == "stopped\n" and took_s < 2.0, f"{said!r} after {took_s:.1f} s"


def product() -> tuple[bytes, str]:
    """A product of two inputs: 216 thousand million multiply-adds."""
    return model(graph([node("MatMul", ["x", "x"], ["y"])], {"x": (1, [6000, 6000])}, {"y": (1, [6000, 6000])})), "6000, 6000"


def layer() -> tuple[bytes, str]:
    """A product with weights, of as much work."""
    weight = tensor("w", np.ones((2048, 2048), np.float32))
    made = graph([node("MatMul", ["x", "w"], ["y"])], {"x": (1, ["n", 2048])}, {"y": (1, ["n", 2048])}, [weight])
    return model(made), "50_000, 2048"


def recurrence() -> tuple[bytes, str]:
    """Twenty thousand steps of a recurrent layer."""
    hidden = 1024
    weights = [tensor("w", np.zeros((1, 4 * hidden, 8), np.float32)), tensor("r", np.zeros((1, 4 * hidden, hidden), np.float32))]
    made = node("LSTM", ["x", "w", "r"], ["y"], hidden_size=hidden)
    return model(graph([made], {"x": (1, ["n", 1, 8])}, {"y": (1, ["n", 1, 1, hidden])}, weights)), "20_000, 1, 8"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("made", [product, layer, recurrence])
def test_one_long_step_ends(tmp_path, made, threads):
    data, shape = made()
    path = tmp_path / "long.onnx"
    path.write_bytes(data)
    took_s, said = interrupted(f"""
        import sys, numpy, lepton_ai
        session = lepton_ai.Session(sys.argv[1], threads={threads})
        x = numpy.zeros(({shape}), numpy.float32)
        print("begun", flush=True)
        try:
            session.run(x)
            print("done")
        except KeyboardInterrupt:
            print("stopped")
    """, str(path), after_s=0.4)
    assert said == "stopped\n" and took_s < 1.0, f"{said!r} after {took_s:.1f} s"


def test_a_search_ends(tmp_path):
    weight = np.random.default_rng(0).normal(size=(1024, 1024)).astype(np.float32) / 32
    names = ["x", *(f"v{at}" for at in range(20))]
    nodes = [made for at in range(20) for made in (
        node("MatMul", [names[at], "w"], [f"m{at}"]), node("Tanh", [f"m{at}"], [names[at + 1]]))]
    path = tmp_path / "m.onnx"
    path.write_bytes(model(graph(nodes, {"x": (1, ["batch", 1024])}, {names[-1]: (1, ["batch", 1024])},
                                 [tensor("w", weight)])))
    took_s, said = interrupted("""
        import sys, numpy, lepton_ai
        rows = numpy.random.default_rng(0).normal(size=(2000, 1024)).astype(numpy.float32)
        print("begun", flush=True)
        try:
            lepton_ai.optimize(sys.argv[1], (rows, rows.argmax(1)), out=sys.argv[2], latency_time_s=30, progress=False)
            print("done")
        except KeyboardInterrupt:
            print("stopped")
    """, str(path), str(tmp_path / "out"))
    assert said == "stopped\n" and took_s < 5.0, f"{said!r} after {took_s:.1f} s"
