"""Measures Lepton beside ONNX Runtime, OpenVINO and TensorFlow Lite, and writes benches/RESULTS.md.

`cargo xtask bench-peers` calls it with everything prepared. Each row is a model at a precision, a
number of threads and a batch. All runtimes get the same inputs. They take turns in rounds, with one
and with two threads if both are asked for: in each round each of them runs for --seconds, and its
median counts. A row has the median over rounds, the
10th and 90th percentile, the ratio to the fastest peer (median of the ratios of each round), and
the largest difference of any output from ONNX Runtime's f32, in units of its largest value; models
of TensorFlow Lite have its interpreter with XNNPACK beside them, and are compared with it.
Peers have their best settings: all graph optimisations, one stream, f32 pinned where the row says
f32 (OpenVINO would take bf16 otherwise; its bf16 has a column of its own).
"""

import argparse
import datetime
import os
import pathlib
import statistics
import sys
import time

import numpy as np

import peers_models as models
import peers_report as report
import peers_runtimes as runtimes


def outputs_difference(reference, outputs):
    """Largest difference in units of the largest reference value, over all outputs."""
    worst = 0.0
    for expected, found in zip(reference, outputs):
        expected, found = np.asarray(expected, np.float64), np.asarray(found, np.float64)
        if expected.shape != found.shape:
            return float("inf")
        if expected.size:
            scale = max(np.abs(expected).max(), 1e-12)
            worst = max(worst, float(np.abs(expected - found).max() / scale))
    return worst


def open_sides(row, folder):
    """The runtimes of a row, each with its difference from the reference, or why it failed."""
    feed = row.feed()
    inputs = folder / f"{row.model.name}-{row.batch}{'-' + row.precision if row.model.files else ''}.npz"
    np.savez(inputs, **feed)
    reference = runtimes.reference(row).run(feed)
    sides = {}
    for name, make in runtimes.sides(row, folder, inputs).items():
        try:
            side = make()
            found = side.run(feed)
        except Exception as error:  # a runtime that cannot take a model is a result
            told = str(error).splitlines()[0].replace(f"{row.model.path.parent}/", "")
            print(f"  {name}: {told[:300]}", flush=True)
            sides[name] = {"failed": told.replace(f"{folder}/", "")[:200]}
            continue
        sides[name] = {"side": side, "times": [], "difference": outputs_difference(reference, found)}
    return feed, sides


def measure_rows(rows, arguments, folder):
    """Rows that differ in threads alone, in the same rounds, as dictionaries."""
    opened = [open_sides(row, folder) for row in rows]
    names = list(opened[0][1])
    for _ in range(arguments.rounds):
        for name in names:
            for feed, sides in opened:
                if "side" in sides[name]:
                    time_of = sides[name]["side"].median_us
                    sides[name]["times"].append(time_of(feed, arguments.seconds))
                    time.sleep(0.02)  # spinning workers of one side must not slow the next
    when = datetime.datetime.now().isoformat(timespec="seconds")
    return [as_result(row, sides, when) for row, (_, sides) in zip(rows, opened)]


def as_result(row, sides, when):
    """What is kept of a row; those of the same rounds have the same time."""
    result = {"model": row.model.name, "precision": row.precision, "threads": row.threads,
              "batch": row.batch, "rounds_ended": when, "sides": {}}
    for name, s in sides.items():
        if "side" not in s:
            result["sides"][name] = s
            continue
        times = s["times"]
        result["sides"][name] = {
            "us": statistics.median(times), "low": np.percentile(times, 10),
            "high": np.percentile(times, 90), "times": times, "difference": s["difference"],
            "load_ms": s["side"].load_ms, "first_ms": s["side"].first_ms,
            "bytes": s["side"].bytes(),
            "numerics": s["side"].numerics(),
        }
    return result


def ratios(result):
    """Ratio of the best peer of the same precision to Lepton, per round: median, low, high."""
    ours = result["sides"].get("Lepton", {}).get("times")
    theirs = [s["times"] for name, s in result["sides"].items()
              if name in runtimes.SAME_PRECISION and "times" in s]
    if not ours or not theirs:
        return None
    best = min(theirs, key=statistics.median)
    each = [peer / own for peer, own in zip(best, ours)]
    return [float(np.percentile(each, p)) for p in (50, 10, 90)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [m.name for m in models.all_models()]
    parser.add_argument("--models", default=",".join(names), help="names, separated by commas")
    parser.add_argument("--precisions", default="f32", help="of: f32,bf16,int8")
    parser.add_argument("--threads", default="1",
                        help="such as 1,2: numbers of threads, measured in the same rounds")
    parser.add_argument("--batches", default="1")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each side in each round")
    parser.add_argument("--out", default="benches/RESULTS.md", help="rows are merged into it")
    parser.add_argument("--sessions", default="mobilenet_v2",
                        help="models of which two sessions run at once; empty for none")
    parser.add_argument("--fresh", action="store_true", help="forget rows measured before")
    arguments = parser.parse_args()
    folder = pathlib.Path(os.environ["LEPTON_ZOO_FILLED"]).parent / "work"
    folder.mkdir(exist_ok=True)
    chosen = arguments.models.split(",")
    unknown = [name for name in chosen if name not in names]
    if unknown:
        sys.exit(f"no model {unknown}; there are {names}")
    store = report.Store(pathlib.Path(arguments.out), arguments.fresh)
    threads = [int(t) for t in arguments.threads.split(",")]
    for precision in arguments.precisions.split(","):
        for batch in map(int, arguments.batches.split(",")):
            for model in models.all_models():
                rows = [models.Row(model, precision, t, batch) for t in threads]
                if model.name not in chosen or not rows[0].exists():
                    continue
                print(f"{model.name} {precision} threads={arguments.threads} batch={batch}", flush=True)
                for result in measure_rows(rows, arguments, folder):
                    result["ratio"] = ratios(result)
                    store.add(result, sys.argv[1:])
                    print("  " + report.line(result), flush=True)
    for name in filter(None, arguments.sessions.split(",")):
        path = next(m.path for m in models.all_models() if m.name == name)
        store.add_sessions(name, runtimes.sessions(path))
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
