"""Every `.onnx` of the assets through Lepton and ONNX Runtime, as docs/asset-models.md.

    pip install numpy onnx onnxruntime
    python benches/asset_models.py [--speed] [NAME …]   # LEPTON_RELEASE: folder of the binary `lepton`

LEPTON_ASSETS is the folder of the assets. With names, only rows whose path has one of them in it are
made again; `--speed` keeps the differences.

Inputs are made up (seed 0), one row each: numbers from 0 to 1 for reals, ids below 90 for words,
bytes for bytes. Each row: nodes of the file, the largest difference of any output from ONNX
Runtime's in units of that output's largest value, and ONNX Runtime's time / Lepton's, one thread,
medians of turns.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile

import numpy as np

from real_models import ROOT, measured

ASSETS = pathlib.Path(os.environ.get("LEPTON_ASSETS", ROOT / "../shared/assets")).resolve()
PAGE = ROOT / "docs/asset-models.md"
HEAD = "| model | nodes | largest difference | ONNX Runtime / Lepton |"
MAGIKA = """Magika takes a variance as E[x²] − E[x]² in f32. Of inputs that are alike from place to place rounding
leaves little of it: on zeros and ones at random ONNX Runtime is 3.7e-3 from the same model in f64, Lepton 2.1e-3, and
they are 3.8e-3 apart (in f32 with the mean taken off first it would be 2.3e-5); on ids below 0 it is 9.7e-4, 1.4e-4
and 9.7e-4. On random bytes they are within 4e-6."""
SAMPLE_RATE = 16000
EXTENTS = {"seq": 16, "past": 15, "length": 256, "sequence": 512}
"""What symbolic extents are, by name; others are 1."""
UNNAMED = {"silero_vad.onnx": 512}
"""The last extent of inputs that do not name it."""


def made_up(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    rng, feed = np.random.default_rng(0), {}
    for port in onnxruntime.InferenceSession(str(path), options).get_inputs():
        shape = [d if isinstance(d, int) else EXTENTS.get(d, 1) for d in port.shape]
        if path.name in UNNAMED and port.shape and port.shape[-1] is None:
            shape[-1] = UNNAMED[path.name]
        kind = port.type
        if not shape:
            feed[port.name] = np.array(SAMPLE_RATE, np.int64)
        elif kind == "tensor(float)":
            feed[port.name] = rng.random(shape, dtype=np.float32)
        elif kind == "tensor(uint8)":
            feed[port.name] = rng.integers(0, 256, shape).astype(np.uint8)
        else:
            feed[port.name] = rng.integers(5, 90, shape).astype(np.int32 if "int32" in kind else np.int64)
    return feed


def row_of(line):
    name, nodes, difference, ratio = [part.strip() for part in line.strip("| \n").split(" | ")]
    if nodes == "–":
        return {"name": name, "error": difference}
    return {"name": name, "nodes": int(nodes), "difference": float(difference), "ratio": float(ratio)}


def line_of(row):
    if "error" in row:
        return f"| {row['name']} | – | {row['error']} | – |"
    return f"| {row['name']} | {row['nodes']} | {row['difference']:.1e} | {row['ratio']:.2f} |"


def known_rows():
    lines = PAGE.read_text().splitlines() if PAGE.exists() else []
    return {row["name"]: row for row in map(row_of, (l for l in lines if l.startswith("| ") and l != HEAD))}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--speed", action="store_true", help="keep the differences of the page")
    arguments = parser.parse_args()
    known, rows = known_rows(), []
    for path in sorted(ASSETS.rglob("*.onnx")):
        name = str(path.relative_to(ASSETS))
        if arguments.names and not any(part in name for part in arguments.names):
            rows += [known[name]] if name in known else []
            continue
        row = {"name": name}
        with tempfile.TemporaryDirectory() as folder:
            try:
                row |= measured(path, pathlib.Path(folder), made_up(path))
            except Exception as error:
                row["error"] = str(error).splitlines()[0].replace(str(ASSETS) + "/", "")[:200].replace("|", "/")
        if arguments.speed and "difference" in known.get(name, {}) and "difference" in row:
            row["difference"] = known[name]["difference"]
        print(json.dumps(row), flush=True)
        rows.append(row)
    passed = sum(row.get("difference", 1) <= 1e-3 for row in rows)
    told = ["# Models of the assets", "", " ".join(__doc__.split("\n\n")[-1].split()), "",
            f"{passed} of {len(rows)} agree within 1e-3. Made by `benches/asset_models.py`.", "",
            HEAD, "|---|---:|---:|---:|", *map(line_of, rows), "", MAGIKA]
    PAGE.write_text("\n".join(told) + "\n")
    sys.exit(passed < len(rows))


if __name__ == "__main__":
    main()
