"""RESULTS.md: a table for people, and the rows as JSON beside it so that runs can be merged."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import subprocess

import numpy as np

COLUMNS = ["Lepton", "ONNX Runtime", "OpenVINO", "OpenVINO bf16", "TensorFlow Lite",
           "Lepton, ORT's file"]


def machine():
    cpu = "unknown"
    for text in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("model name"):
            cpu = text.split(":")[1].strip()
    flags = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
             if f in pathlib.Path("/proc/cpuinfo").read_text()]
    return f"{cpu}, {os.cpu_count()} cores, {' '.join(flags)}"


def versions():
    names = ["onnxruntime", "openvino", "nncf", "ai-edge-litert", "numpy"]
    told = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return f"lepton {commit.stdout.strip()}, {told}"


def cell(side):
    if not side:
        return ""
    if "failed" in side:
        return "failed"
    digits = 0 if side["us"] >= 1000 else 1
    return f"{side['us']:.{digits}f} [{side['low']:.{digits}f}–{side['high']:.{digits}f}]"


def ratio_text(ratio):
    if not ratio:
        return ""
    spread = f" [{ratio[1]:.2f}–{ratio[2]:.2f}]" if len(ratio) > 1 else ""
    return f"{ratio[0]:.2f}{spread}"


def gain(one, two, name):
    """Time with one thread / with two: median, low and high of the rounds they share, or of medians."""
    before, after = one["sides"][name], two["sides"][name]
    if not one.get("rounds_ended") or one["rounds_ended"] != two.get("rounds_ended"):
        return [before["us"] / after["us"]]
    each = [b / a for b, a in zip(before["times"], after["times"])]
    return [float(np.percentile(each, p)) for p in (50, 10, 90)]


def line(result):
    told = [f"{name} {cell(side)}" for name, side in result["sides"].items()]
    return "; ".join(told) + "; ratio " + ratio_text(result["ratio"])


def start_cells(ours, theirs):
    """Load and first answer of both, their ratio, and the ratio of what a warm run has not."""
    start = lambda s: s["load_ms"] + s["first_ms"] if "load_ms" in s else None
    own, other = start(ours), start(theirs)
    told = [f"{t:.1f}" if t else "–" for t in (own, other)]
    if not own or not other:
        return " | ".join([*told, "–"])
    beyond = [max(t - s["us"] / 1e3, 1e-3) for t, s in ((own, ours), (other, theirs))]
    return " | ".join([*told, f"{other / own:.1f} ({beyond[1] / beyond[0]:.0f})"])


class Store:
    """Rows in RESULTS.json beside the table; a row measured again on the same machine replaces the
    older one."""

    def __init__(self, path, fresh):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.json = path, path.with_suffix(".json")
        known = {} if fresh or not self.json.exists() else json.loads(self.json.read_text())
        self.rows, self.sessions = known.get("rows", []), known.get("sessions", {})

    def add(self, result, arguments):
        key = lambda r: (r["machine"], r["precision"], r["threads"], r["batch"], r["model"])
        result["machine"] = machine()
        result["date"] = datetime.date.today().isoformat()
        result["command"] = "cargo xtask bench-peers " + " ".join(arguments)
        result["versions"] = versions()
        for side in result["sides"].values():
            if "times" in side:
                side["times"] = [round(t, 1) for t in side["times"]]
        same = [i for i, r in enumerate(self.rows) if key(r) == key(result)]
        if same:
            self.rows[same[0]] = result
        else:
            self.rows.append(result)
        self.write()

    def add_sessions(self, model, measured):
        self.sessions.setdefault(machine(), {})[model] = measured
        self.write()

    def write(self):
        known = {"rows": self.rows, "sessions": self.sessions}
        self.json.write_text(json.dumps(known, indent=1) + "\n")
        self.path.write_text(self.text())

    def text(self):
        told = ["# Lepton beside its peers", "",
                "Rows carry their own date, versions and command in "
                "RESULTS.json. How it is measured: head of `benches/peers.py`. Times in "
                "microseconds: median of rounds [10th–90th percentile]; ratio: fastest peer of the "
                "same precision / Lepton, above 1 Lepton is faster; difference: from ONNX "
                "Runtime's f32, in units of the largest output; numerics: what Lepton does to numbers "
                "beyond the order of sums, which `--exact` forbids; start: load and first answer "
                "in milliseconds, Lepton's from a prepared `.lepton`, with the ratio "
                "to ONNX Runtime's, and of that what is beyond a warm run.", ""]
        latest = {}
        for row in self.rows:
            latest[row["machine"]] = max(row["date"], latest.get(row["machine"], ""))
        for name in sorted(latest, key=latest.get, reverse=True):
            told += [f"## {name}", ""] + self.of_machine(name)
        told += ["Measured by programs of their own: weights of 4 bits (int4.md), blocks of zeros (sparsity.md).", ""]
        latest = max(self.rows, key=lambda r: r["date"])
        told += [f"Last: {latest['date']}, {latest['versions']}, `{latest['command']}`.", ""]
        return "\n".join(told)

    def of_machine(self, name):
        """All tables of one machine."""
        mine = [r for r in self.rows if r["machine"] == name]
        told = []
        for group in sorted({(r["precision"], r["threads"], r["batch"]) for r in mine}):
            rows = [r for r in mine if (r["precision"], r["threads"], r["batch"]) == group]
            told += [f"### {group[0]}, {group[1]} thread(s), batch {group[2]}", ""]
            told += self.table(rows)
        return told + self.scaling(mine) + self.beside(self.sessions.get(name, {}))

    @staticmethod
    def scaling(mine):
        """What two threads gain over one, Lepton beside the fastest peer and the one that gains most."""
        rows = {(r["precision"], r["threads"], r["batch"], r["model"]): r for r in mine}
        told = []
        for (precision, threads, batch, model), two in rows.items():
            one = rows.get((precision, 1, batch, model))
            if threads != 2 or not one:
                continue
            gains = {name: gain(one, two, name) for name in two["sides"]
                     if "us" in two["sides"][name] and "us" in one["sides"].get(name, {})}
            ours = gains.pop("Lepton", None)
            gains = {name: g for name, g in gains.items()
                     if not name.startswith("Lepton") and name != "OpenVINO bf16"}
            if not ours or not gains:
                continue
            fastest = min(gains, key=lambda name: two["sides"][name]["us"])
            most = max(gains, key=lambda name: gains[name][0])
            cells = [f"{ratio_text(gains[name])} ({name})" for name in (fastest, most)]
            told.append(f"| {model} | {precision} | {batch} | {ratio_text(ours)} | "
                        + " | ".join(cells) + " |")
        if not told:
            return []
        return ["### Two threads", "",
                "Time with one thread / time with two: median of rounds [10th–90th percentile], "
                "of medians where the two were measured in different runs.", "",
                "| model | precision | batch | Lepton | fastest peer | peer that gains most |",
                "|---|---|---|---|---|---|", *told, ""]

    @staticmethod
    def beside(sessions):
        """Two sessions at once, and an idle one."""
        if not sessions:
            return []
        told = ["### Sessions beside each other", "",
                "One process, two cores: a session alone, two at once with a thread each; "
                "processor time of a session of two threads that does nothing.", "",
                "| model | alone us | two at once us | loss | idle ms per second |",
                "|---|---|---|---|---|"]
        for model, s in sessions.items():
            told.append(f"| {model} | {s['alone_us']:.0f} | {s['together_us']:.0f} | "
                        f"{s['loss']:.1%} | {s['idle_processor_ms_per_s']} |")
        return told + [""]

    @staticmethod
    def table(rows):
        columns = [c for c in COLUMNS if any(c in r["sides"] for r in rows)]
        told = ["| model | " + " | ".join(columns) + " | ratio | difference | numerics | start ms | ONNX Runtime's | ratio (beyond a run) | MB |",
                "|---|" + "---|" * (len(columns) + 7)]
        for r in rows:
            ours = r["sides"].get("Lepton", {})
            best = r["sides"].get("ONNX Runtime", {})
            cells = [cell(r["sides"].get(c)) for c in columns]
            difference = f"{ours['difference']:.1e}" if "difference" in ours else "–"
            size = f"{ours['bytes'] / 1e6:.1f}" if ours.get("bytes") else "–"
            told.append(f"| {r['model']} | " + " | ".join(cells) + f" | {ratio_text(r['ratio'])} | "
                        f"{difference} | {', '.join(ours.get('numerics', [])) or '–'} | "
                        f"{start_cells(ours, best)} | {size} |")
        known = [r["ratio"][0] for r in rows if r["ratio"]]
        if known:
            mean = float(np.exp(np.mean(np.log(known))))
            told += ["", f"Geometric mean of the ratios: {mean:.2f}; smallest {min(known):.2f}."]
        return told + [""]
