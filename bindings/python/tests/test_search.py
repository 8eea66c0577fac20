"""optimize and evaluate: the same report as the command line, from arrays."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import WEIGHT

import lepton_ai

QUICK = {"latency_time_s": 0.02, "progress": False}


@pytest.fixture(scope="module")
def labelled():
    rows = np.random.default_rng(1).normal(size=(400, 3)).astype(np.float32)
    return rows, (rows @ WEIGHT).argmax(1)


def test_a_search_writes_what_the_command_line_writes(linear, labelled, tmp_path):
    told = []
    frontier = lepton_ai.optimize(
        linear, labelled, max_drop=5, out=tmp_path, latency_time_s=0.02, progress=lambda *a: told.append(a)
    )
    for name in ["report.html", "report.json", "journal.jsonl", "best.lepton"]:
        assert (tmp_path / name).stat().st_size > 0
    assert json.loads((tmp_path / "report.json").read_text()) == frontier.report
    assert frontier.met and frontier.best is not None and frontier.best.verdict == "chosen"
    assert told and len(told[0]) == 4
    assert frontier["original"].estimates[0].value == 1.0 and frontier["original"].speedup is None
    assert len(frontier) == len(list(frontier)) >= 1 and frontier[0] in frontier.candidates
    assert all(c.verdict in ("chosen", "on_frontier") for c in frontier)
    assert "<iframe" in frontier._repr_html_() and "svg" in frontier._repr_html_()
    assert "candidates" in repr(frontier)
    answer = frontier.best.session().run(labelled[0])["y"]
    assert (answer.argmax(1) == labelled[1]).mean() > 0.9
    with pytest.raises(KeyError, match="original"):
        frontier["no such"]


def test_a_stopped_search_goes_on(linear, labelled, tmp_path):
    class Enough(Exception):
        pass

    def stop(done, total, step, candidate):
        raise Enough

    with pytest.raises(Enough):
        lepton_ai.optimize(linear, labelled, out=tmp_path, latency_time_s=0.02, progress=stop)
    first = lepton_ai.optimize(linear, labelled, out=tmp_path, **QUICK)
    again = lepton_ai.optimize(linear, labelled, out=tmp_path, **QUICK)
    assert first.new_steps > 0
    assert again.new_steps == 0 and again.resumed_steps >= first.new_steps
    assert again.report == first.report


def test_data_without_labels_is_compared_with_the_original(linear, labelled, tmp_path):
    frontier = lepton_ai.optimize(linear, {"x": labelled[0]}, max_drop=5, out=tmp_path, **QUICK)
    assert frontier.report["metric"] == "agreement"


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"metric": "none such"}, "unknown metric"),
        ({"target": "none such"}, "there are latency, size, cost"),
        ({"max_drop": -1}, "max-drop"),
        ({"max_drop": float("nan")}, "max-drop"),
        ({"latency_time_s": -1.0}, "latency_time_s"),
        ({"time_budget_s": float("inf")}, "time_budget_s"),
        ({"instance": "none such"}, "c7i.large"),
        ({"threads": 0}, "threads"),
    ],
)
def test_goals_that_make_no_sense(linear, labelled, tmp_path, changes, said):
    with pytest.raises(lepton_ai.UsageError, match=said):
        lepton_ai.optimize(linear, labelled, out=tmp_path, **{**QUICK, **changes})


def test_data_that_does_not_fit(linear, labelled, tmp_path):
    rows, labels = labelled
    for bad in [(rows, labels[:5]), {"z": rows}, rows[:, :2], tmp_path / "none.npz", (rows, ["a"] * 400), 5]:
        with pytest.raises(lepton_ai.LeptonError) as caught:
            lepton_ai.optimize(linear, bad, out=tmp_path, **QUICK)
        assert caught.value.code in ("data", "usage", "input.shape")


def test_evaluate(linear, labelled, tmp_path):
    (top1, mse) = lepton_ai.evaluate(linear, labelled, ["top1", "recall"])
    assert (top1.metric, top1.value) == ("top1", 1.0) and top1.low < 1.0 and mse.metric == "recall"
    np.savez(tmp_path / "d.npz", x=labelled[0], labels=1 - labelled[1])
    assert lepton_ai.evaluate(linear, tmp_path / "d.npz")[0].value == 0.0
    with pytest.raises(lepton_ai.UsageError, match="train, test, all"):
        lepton_ai.evaluate(linear, labelled, part="none such")
    with pytest.raises(lepton_ai.DataError, match="no labels"):
        lepton_ai.evaluate(linear, labelled[0])
    assert "auc" in lepton_ai.metrics()


def test_real_model(asset, tmp_path):
    folder = asset("finance/ulb_creditcard_sample")
    frontier = lepton_ai.optimize(
        folder / "fraud_mlp.onnx", folder / "fraud_mlp_test.npz", metric="auc", max_drop=1, out=tmp_path, **QUICK
    )
    assert frontier.met and frontier["original"].estimates[0].value > 0.94


def test_data_frames(linear, labelled, tmp_path):
    frontier = lepton_ai.optimize(linear, labelled, max_drop=5, out=tmp_path, **QUICK)
    try:
        import pandas
    except ImportError:
        with pytest.raises(lepton_ai.MissingPackageError, match="pip install pandas"):
            frontier.to_dataframe()
        return
    table = frontier.to_dataframe()
    assert isinstance(table, pandas.DataFrame) and len(table) == len(frontier.candidates)
    assert table.loc["original", "top1"] == 1.0
