"""ONNX's own backend suite through ``lepton_ai.backend``, counted by category.

    python benches/onnx_suite.py --out ../../docs/onnx-backend.md

The runner, the cases and the tolerances are those of the package ``onnx`` (``onnx.backend.test``). Cases of
``real`` models that it would download are not run.
"""

from __future__ import annotations

import argparse
import datetime
import re
import unittest
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnx.backend.test

import lepton_ai
from lepton_ai.backend import LeptonBackend


class Outcomes(unittest.TestResult):
    """What each case came to: ``passed``, ``refused`` with an error of ours, ``different`` or ``not run``."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, tuple[str, str]] = {}

    def addSuccess(self, test: Any) -> None:
        self.found[test.id()] = "passed", ""

    def addSkip(self, test: Any, reason: str) -> None:
        self.found[test.id()] = "not run", reason

    def addFailure(self, test: Any, error: Any) -> None:
        self.found[test.id()] = "different", str(error[1]).strip().splitlines()[0]

    def addError(self, test: Any, error: Any) -> None:
        refused = issubclass(error[0], lepton_ai.LeptonError)
        said = str(error[1]).strip().splitlines() or [error[0].__name__]
        self.found[test.id()] = "refused" if refused else "different", said[0]


def run() -> dict[str, dict[str, tuple[str, str]]]:
    """Outcome and error of each case by category."""
    suite = onnx.backend.test.BackendTest(LeptonBackend, __name__)
    # They are archives on the network.
    suite.exclude(r"^test_(bvlc_alexnet|densenet121|inception_v1|inception_v2|resnet50|shufflenet|squeezenet|vgg19|zfnet512)_")
    outcomes = Outcomes()
    categories = {}
    for name, case in sorted(suite.test_cases.items()):
        before = set(outcomes.found)
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(outcomes)
        new = {key.rpartition(".")[2]: outcomes.found[key] for key in outcomes.found if key not in before}
        # Each case is there once more for CUDA.
        categories[name] = {key: value for key, value in new.items() if key.endswith("_cpu")}
    return {name: cases for name, cases in categories.items() if cases}


def page(categories: dict[str, dict[str, tuple[str, str]]]) -> str:
    """The counts and what did not pass, as Markdown."""
    lines = [
        "# ONNX's backend suite through Python", "",
        f"Made by [onnx_suite.py](../bindings/python/benches/onnx_suite.py): the runner of onnx {onnx.__version__} "
        f"(`onnx.backend.test.BackendTest`) on `lepton_ai.backend`, lepton_ai {lepton_ai.__version__}, "
        f"{datetime.date.today()}. Refused cases end with an error of Lepton's that says why; different ones answer "
        "otherwise than the runner expects, or hand over what is no array. Real models the runner would download are "
        "not run.", "",
        "| category | cases | passed | refused | different | not run |", "|---|---:|---:|---:|---:|---:|",
    ]
    total: Counter[str] = Counter()
    for name, cases in categories.items():
        count = Counter(outcome for outcome, _ in cases.values())
        total += count
        lines.append(_row(re.sub("OnnxBackend(.*)Test", r"\1", name), count))
    lines += [_row("**all**", total), ""]
    for outcome in ("different", "refused"):
        why: dict[str, list[str]] = {}
        for cases in categories.values():
            for case, (found, said) in cases.items():
                if found == outcome:
                    why.setdefault(_reason(said), []).append(case.removesuffix("_cpu"))
        lines += [f"## {outcome.capitalize()}", ""]
        for said, cases_of in sorted(why.items(), key=lambda item: -len(item[1])):
            shown = ", ".join(f"`{case}`" for case in cases_of[:6]) + (" …" if len(cases_of) > 6 else "")
            lines.append(f"- {len(cases_of)}: {said}: {shown}")
        lines.append("")
    return "\n".join(lines)


def _reason(said: str) -> str:
    """An error's first line without what differs from case to case."""
    kind = re.sub(r"^\S+\.onnx: |; its inputs are .*|; export the model without them", "", said)
    kind = re.sub(r" \(ai\.onnx[^)]*\)", "", kind)
    return re.sub(r"`[^`]*`|\d+(\.\d+)?(e[-+]?\d+)?", "…", kind)[:160]


def _row(name: str, count: Counter[str]) -> str:
    cells = [sum(count.values()), *(count[key] for key in ("passed", "refused", "different", "not run"))]
    return f"| {name} | " + " | ".join(str(cell) for cell in cells) + " |"


def main() -> None:
    """Runs and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    text = page(run())
    options.out.write_text(text)
    print(text[:2000])


if __name__ == "__main__":
    main()
