"""Two versions of a model side by side."""

from __future__ import annotations

import json

import numpy as np
import pytest

import lepton_ai


@pytest.fixture
def labelled(linear):
    rows = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    return rows, lepton_ai.Session(linear).predict(rows).argmax(1)


def test_a_model_beside_itself(linear, labelled):
    rows, labels = labelled
    wrong = labels.copy()
    wrong[:50] = 1 - wrong[:50]
    found = lepton_ai.report(linear, linear, (rows, wrong), time_s=0.05)
    assert found.smaller == 1.0 and found.before.file_bytes == len(linear)
    assert found.before.metrics["top1"].value == found.after.metrics["top1"].value == 0.75
    assert found.before.metrics["recall"].low < found.before.metrics["recall"].value < 1
    assert 0 < found.before.latency_p50_us <= found.before.latency_p95_us
    assert found.speedup_low <= found.speedup <= found.speedup_high
    assert found.before.cost_usd_per_million > 0
    again = json.loads(json.dumps(found.to_dict()))
    assert again["before"]["metrics"]["top1"]["value"] == 0.75 and again["smaller"] == 1.0
    text, page = str(found), found._repr_html_()
    for name in ("size, bytes", "top1", "recall", "c7i.large", "median us"):
        assert name in text and name in page
    assert "+0.00 points" in text and "1.00x smaller" in page


def test_metrics_instance_and_price_list_are_chosen(linear, labelled, tmp_path):
    prices = tmp_path / "prices.toml"
    prices.write_text('[[price]]\ninstance = "mine"\nregion = "here"\narch = "x86_64"\nvcpu = 2\nmemory_gib = 1.0\n'
                      'usd_hour = 3.6\nas_of = "2026-11"\nsource = "https://example.org"\n')
    found = lepton_ai.report(linear, linear, labelled, metrics="auc", time_s=0.05, instance="mine", prices=prices)
    assert list(found.after.metrics) == ["auc"]
    # One core, busy half of the time: 3.6 dollars an hour are 0.001 a second.
    assert found.before.cost_usd_per_million == pytest.approx(found.before.latency_p50_us * 1e-3 / 0.5)
    assert lepton_ai.report(linear, linear, time_s=0.05).before.metrics == {}


def test_what_makes_no_sense_is_refused(linear, labelled):
    for options in ({"threads": 0}, {"instance": "none such"}, {"utilisation": 2.0}, {"time_s": -1.0}):
        with pytest.raises(lepton_ai.UsageError):
            lepton_ai.report(linear, linear, **{"time_s": 0.05, **options})
    with pytest.raises(lepton_ai.UsageError, match="none such"):
        lepton_ai.report(linear, linear, labelled, metrics="none such", time_s=0.05)
