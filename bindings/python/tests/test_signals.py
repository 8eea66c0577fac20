"""Ctrl-C in a single long run, and in a search."""

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


def interrupted(code: str, *arguments: str) -> tuple[float, str]:
    """Seconds from SIGINT to the end of a process that says ``begun`` first, and what it printed."""
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "begun\n"
        time.sleep(1.0)
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
