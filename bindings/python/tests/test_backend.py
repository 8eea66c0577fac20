"""ONNX's backend interface, and ONNX's own node cases through it."""

from __future__ import annotations

import tarfile
from pathlib import PurePosixPath

import numpy as np
import pytest

import lepton_ai

onnx = pytest.importorskip("onnx")

PASSING = 1825
"""Node cases that pass; the number may only grow. The others are refused with an error that says why,
but for those that differ, which are the engine's own (crates/lepton/tests/conformance/failures.txt)."""

DIFFERING = 22
"""Node cases whose numbers differ, six of them draws at random; the number may only shrink."""


def test_the_interface(linear):
    from lepton_ai import backend

    model = onnx.load_from_string(linear)
    rows = np.ones((1, 3), np.float32)
    expected = lepton_ai.Session(linear).run(rows)["y"]
    for answer in (backend.run_model(model, [rows]), backend.prepare(model, "CPU").run([rows]),
                   backend.run_model(model, {"x": rows}), backend.prepare(model, threads=2).run(rows)):
        np.testing.assert_array_equal(answer[0], expected)
        np.testing.assert_array_equal(answer["y"], expected)
    assert backend.supports_device("CPU") and not backend.supports_device("CUDA")
    with pytest.raises(lepton_ai.UsageError, match="CPU"):
        backend.prepare(model, "CUDA:0")
    with pytest.raises(lepton_ai.UsageError, match="2 arrays for 1 inputs"):
        backend.run_model(model, [rows, rows])
    node = onnx.helper.make_node("Add", ["a", "b"], ["c"])
    assert backend.run_node(node, [rows, rows])[0].tolist() == [[2.0, 2.0, 2.0]]


def test_operands_may_be_inputs():
    from lepton_ai import backend

    node = onnx.helper.make_node("Squeeze", ["x", "axes"], ["y"])
    rows = np.zeros((1, 3, 1), np.float32)
    for axes in ([0], [2], [0, 2]):
        assert backend.run_node(node, [rows, np.array(axes)])[0].shape == np.squeeze(rows, tuple(axes)).shape
    node = onnx.helper.make_node("Nowhere", ["x"], ["y"], domain="none")
    with pytest.raises(lepton_ai.UnsupportedError):
        backend.run_node(node, [rows], opset_version=1)


def _cases(path):
    """Name to the files of each case."""
    cases = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile():
                _, case, *rest = PurePosixPath(member.name).parts
                cases.setdefault(case, {})["/".join(rest)] = archive.extractfile(member).read()
    return cases


def _tensors(files, data_set, kind):
    found = []
    while (name := f"test_data_set_{data_set}/{kind}_{len(found)}.pb") in files:
        tensor = onnx.TensorProto.FromString(files[name])
        found.append(onnx.numpy_helper.to_array(tensor))
    return found


def _passes(files) -> str:
    """What a case comes to: ``passes``, ``refused`` with one of our errors, or ``differs``."""
    from lepton_ai import backend

    try:
        prepared = backend.prepare(onnx.ModelProto.FromString(files["model.onnx"]))
        data_set = 0
        while any(name.startswith(f"test_data_set_{data_set}/") for name in files):
            expected = _tensors(files, data_set, "output")
            found = prepared.run(_tensors(files, data_set, "input"))
            if len(found) != len(expected):
                return "differs"
            for x, y in zip(found, expected):
                if x.dtype != y.dtype or x.shape != y.shape:
                    return "differs"
                if y.dtype.kind in "biuOUS":
                    same = np.array_equal(x, y)
                else:
                    same = np.allclose(x.astype(np.float64), y.astype(np.float64), 1e-3, 1e-7, equal_nan=True)
                if not same:
                    return "differs"
            data_set += 1
    except lepton_ai.LeptonError:
        return "refused"
    return "passes"


def test_node_cases(asset):
    cases = _cases(asset("conformance/onnx_1.23.2_node_tests_1884.tar.xz"))
    outcomes = {"passes": 0, "refused": 0, "differs": 0, "unreadable": 0}
    differing = []
    for name, files in sorted(cases.items()):
        try:
            outcome = _passes(files)
        except (ValueError, TypeError, AttributeError, KeyError, onnx.checker.ValidationError) as error:
            # Inputs that are no tensors (sequences, optionals, text), which NumPy has no arrays for.
            outcome = "unreadable"
            print(name, type(error).__name__, str(error)[:80])
        outcomes[outcome] += 1
        if outcome == "differs":
            differing.append(name)
    print(f"{outcomes} of {len(cases)}; differing: {differing}")
    assert len(cases) == 1884 and outcomes["passes"] >= PASSING
    assert outcomes["differs"] <= DIFFERING and outcomes["unreadable"] <= 5
