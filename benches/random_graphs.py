"""Random graphs through Lepton and ONNX Runtime: says how many agree, and which do not.

    cargo run --release -p lepton --example random_graphs -- FOLDER 1000
    python benches/random_graphs.py FOLDER
"""

import collections
import pathlib
import sys

import numpy as np
import onnxruntime

# Of the largest value of an output; a step of 8 bits may fall to the other side of a boundary.
TOLERANCES = {"f": 1e-3, "q": 0.2}


def difference(expected, found):
    if expected.shape != found.shape:
        return float("inf")
    scale = max(1e-3, float(np.abs(expected).max(initial=0)))
    return float(np.abs(expected.astype(np.float64) - found).max(initial=0) / scale)


def main():
    counts, worst = collections.Counter(), collections.Counter()
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.onnx")):
        kind = path.name[0]
        arrays = np.load(path.with_suffix(".npz"))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = onnxruntime.InferenceSession(str(path), options)
            feed = {i.name: arrays[i.name] for i in session.get_inputs()}
            found = session.run(None, feed)
        except Exception as error:
            counts["refused by ONNX Runtime"] += 1
            print(f"{path.name}: {str(error).splitlines()[0][:160]}")
            continue
        each = [difference(arrays[o.name], y) for o, y in zip(session.get_outputs(), found)]
        largest = max(each, default=0.0)
        worst[kind] = max(worst[kind], largest)
        agrees = largest <= TOLERANCES[kind]
        counts["agree" if agrees else "differ"] += 1
        if not agrees:
            print(f"{path.name}: differs by {largest:.1e}")
    print(dict(counts), {kind: f"largest difference {d:.1e}" for kind, d in worst.items()})
    sys.exit(counts["differ"] > 0)


if __name__ == "__main__":
    main()
