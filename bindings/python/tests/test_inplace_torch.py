"""PyTorch modules under compression while their own loop trains them."""

from __future__ import annotations

import copy
import io
import warnings

import numpy as np
import pytest

import lepton_ai
from lepton_ai import LeptonAI, Session
from lepton_ai._average import Mean

torch = pytest.importorskip("torch")

STEPS = 240


@pytest.fixture(scope="module")
def task():
    """Rows of 16 numbers and the class a fixed teacher gives them."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1024, 16, generator=generator)
    return rows, (rows @ torch.randn(16, 4, generator=generator)).argmax(1)


def network():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(16, 128), torch.nn.ReLU(), torch.nn.BatchNorm1d(128),
                               torch.nn.Linear(128, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))


def train(model, task, steps=STEPS, each=lambda: None):
    rows, labels = task
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    model.train()
    for step in range(steps):
        at = torch.arange(step * 128, step * 128 + 128) % len(rows)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(rows[at]), labels[at]).backward()
        optimizer.step()
        each()
    model.eval()


def accuracy(model, task):
    with torch.no_grad():
        return (model(task[0]).argmax(1) == task[1]).float().mean().item()


def test_a_loop_trains_under_the_compression(task, tmp_path):
    model = network()
    keys, names = list(model.state_dict()), [type(m).__name__ for m in model.modules()]
    lepton = LeptonAI(model, example_inputs=task[0][:256]).compress(20, steps=STEPS)
    assert list(model.state_dict()) == keys and [type(m).__name__ for m in model.modules()] == names
    assert all(isinstance(m, torch.nn.Linear) for m in (model[0], model[3], model[5]))
    densities = []

    def look():
        densities.append(float((model[3].state_dict()["weight"] != 0).float().mean()))

    train(model, task, each=look)
    falling = densities[: int(0.7 * STEPS)]
    assert densities[0] > 0.9 and falling == sorted(falling, reverse=True)
    assert densities[-1] == pytest.approx(lepton._attachment.shares["3"].density, abs=1e-3)
    assert accuracy(model, task) > 0.9
    report = lepton.export(tmp_path / "model.lepton")
    assert report.steps_done == STEPS and len(report.layers) == 3
    assert report.file_bytes == (tmp_path / "model.lepton").stat().st_size < report.dense_bytes
    assert any("the file reaches" in note for note in report.notes) and "smaller than" in str(report)
    session = Session(tmp_path / "model.lepton")
    found = session.predict(task[0]).argmax(1)
    assert (found == task[1].numpy()).mean() > accuracy(model, task) - 0.03
    assert accuracy(model, task) > 0.9, "export leaves the model under compression"
    assert type(model[0]).__mro__[1].__name__ == "_OnGrid"


def test_means_count_the_last_step_whatever_is_skipped():
    mean = Mean(100)
    assert not mean.due(90) and mean.due(91)
    for done in (91, 97, 100):
        assert mean.due(done) and not mean.take(done - 1)
        mean.add(done, [np.float32([done, 0.0]), np.array(1.0)])
    (taken, scalar) = mean.take(100)
    assert taken.tolist() == [96.0, 0.0] and scalar == 1.0
    assert not mean.due(101) and not mean.take(101)
    long = Mean(10_000)
    assert sum(long.due(done) and (long.add(done, [np.ones(1)]) or True) for done in range(1, 10_001)) <= 13


@pytest.mark.parametrize("average", [True, False])
def test_the_loop_ends_with_the_mean_of_its_last_tenth(task, average):
    model = network()
    LeptonAI(model).compress(20, steps=STEPS, average=average)
    found = []
    train(model, task, STEPS - 1, lambda: found.append(model[2].running_mean.clone()))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    model.train()
    model(task[0][:128]).sum().backward()
    last = model[2].running_mean.clone()
    optimizer.step()
    assert STEPS == 240, "of the last 24 steps every second one counts"
    read = [*found[STEPS - 23 :: 2], last]
    wanted = torch.stack(read).mean(0) if average else last
    torch.testing.assert_close(model[2].running_mean, wanted)
    assert float((last - found[-4]).abs().max()) > 1e-4, "it still moves"


@pytest.mark.parametrize("ratio", [20, 100])
def test_the_file_is_as_small_as_asked(ratio, tmp_path):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(512, 300, generator=generator)
    labels = (rows[:, :40] @ torch.randn(40, 4, generator=generator)).argmax(1)
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(300, 1000), torch.nn.ReLU(), torch.nn.Linear(1000, 300), torch.nn.ReLU(),
                                torch.nn.Linear(300, 4))
    lepton = LeptonAI(model, example_inputs=rows[:1]).compress(ratio, steps=80)
    train(model, (rows, labels), 80)
    assert ratio <= lepton.export(tmp_path / "model.lepton").file_ratio <= 1.06 * ratio


def test_reports_measure_before_and_after(task, tmp_path):
    model = network()
    train(model, task)
    before, state = accuracy(model, task), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lepton = LeptonAI(model, example_inputs=task[0][:1]).compress(4)
    with pytest.raises(lepton_ai.UsageError, match="call export first"):
        lepton.report((task[0].numpy(), task[1].numpy()))
    train(model, task, 20)
    lepton.export(tmp_path / "model.lepton")
    changed = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = lepton.report((task[0].numpy(), task[1].numpy()), time_s=0.05)
    assert all(torch.equal(tensor, changed[name]) for name, tensor in model.state_dict().items())
    assert any(not torch.equal(tensor, changed[name]) for name, tensor in state.items())
    assert report.versions.before.metrics["top1"].value == pytest.approx(before, abs=2e-3)
    assert report.versions.after.metrics["top1"].value == pytest.approx(accuracy(model, task), abs=2e-3)
    assert report.to_dict()["versions"]["smaller"] == report.versions.smaller > 2
    assert "recall" in str(report) and "recall" in report._repr_html_()


def test_the_model_as_it_was_teaches(task):
    model = network()
    train(model, task, 200)
    rows, labels = task
    with torch.no_grad():
        before = model(rows)
    lepton = LeptonAI(model).compress(4, distil=1.0)
    outputs = model(rows)
    loss = lepton.distilled(torch.tensor(5.0), outputs, rows)
    assert 0 < loss.item() < 1
    torch.testing.assert_close(lepton.distilled(torch.tensor(5.0), before, rows), torch.tensor(0.0), atol=1e-5, rtol=0)
    loss.backward()
    assert model[0]._parameters["weight"].grad.abs().sum() > 0
    # With wrong labels, and nothing but the teacher in the loss, it stays as right as it was.
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        outputs = model(rows)
        lepton.distilled(torch.nn.functional.cross_entropy(outputs, (labels + 1) % 4), outputs, rows).backward()
        optimizer.step()
    assert (model(rows).argmax(1) == before.argmax(1)).float().mean() > 0.97
    for bad in (-0.1, 2, True, "a"):
        with pytest.raises(lepton_ai.UsageError, match="distil"):
            LeptonAI(network()).compress(4, distil=bad)
    with pytest.raises(lepton_ai.UsageError, match="nobody"):
        LeptonAI(network()).compress(4).distilled(loss, outputs, rows)


def test_kept_weights_lie_on_the_grid():
    model = network()
    latent = model[3].weight.detach().clone()
    LeptonAI(model).compress(8)
    seen = model[3].weight.detach()
    assert not torch.equal(seen, latent) and torch.equal(model.state_dict()["3.weight"], latent)
    assert max(len(row.unique()) for row in seen) <= 15
    assert (seen - latent).abs().max() <= latent.abs().max() / 7 / 2 + 1e-6
    model[3](torch.ones(1, 128)).sum().backward()
    assert torch.equal(model[3]._parameters["weight"].grad, torch.ones(64, 128))


def test_copies_and_files(task):
    model = network()
    LeptonAI(model).compress(8)
    train(model, task, 20)
    with torch.no_grad():
        expected = model(task[0])
    twin = copy.deepcopy(model)
    assert torch.equal(twin(task[0]), expected) and type(twin[0]) is type(model[0])
    train(twin, task, 5)
    assert not torch.equal(twin(task[0]), expected) and torch.equal(model(task[0]), expected)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert type(loaded[0]) is torch.nn.Linear and list(loaded.state_dict()) == list(model.state_dict())
    torch.testing.assert_close(loaded(task[0]), expected)
    plain = network()
    plain.load_state_dict(model.state_dict())
    model.load_state_dict(plain.state_dict())
    assert torch.equal(model(task[0]), expected)


def test_other_models_are_not_touched(task):
    model, other = network(), network()
    LeptonAI(model).compress(50, steps=1)
    train(other, task, 2)
    assert float((other[3].weight != 0).float().mean()) == 1.0
    train(model, task, 2)
    assert float((model.state_dict()["3.weight"] != 0).float().mean()) < 0.1


def test_convolutions_and_what_is_left(tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(),
                                torch.nn.Linear(8 * 36, 5))
    example = torch.rand(40, 3, 8, 8)
    lepton = LeptonAI(model, example).compress(4)
    report = lepton.export(tmp_path / "m.lepton")
    model.eval()
    np.testing.assert_allclose(Session(tmp_path / "m.lepton").predict(example), model(example).detach(), atol=0.05)
    assert [layer.name for layer in report.layers] == ["0", "3"]
    recurrent = torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Linear(4, 4))
    left = LeptonAI(recurrent).compress(2).report().left
    assert left[0][0] == "0" and "Embedding" in left[0][1]


def test_what_makes_no_sense_is_refused(tmp_path):
    model = network()
    for ratio in (0.5, float("nan"), "20", 5000, True):
        with pytest.raises(lepton_ai.UsageError, match="ratio"):
            LeptonAI(model).compress(ratio)
    with pytest.raises(lepton_ai.UsageError, match="how long"):
        LeptonAI(model).compress(20)
    with pytest.raises(lepton_ai.UsageError, match="steps"):
        LeptonAI(model).compress(20, steps=0)
    with pytest.raises(lepton_ai.UsageError, match="not under compression"):
        LeptonAI(model).export(tmp_path / "m")
    with pytest.raises(lepton_ai.UsageError, match="no Linear"):
        LeptonAI(torch.nn.ReLU()).compress(4)
    assert type(model[0]) is torch.nn.Linear
    LeptonAI(model).compress(4)
    with pytest.raises(lepton_ai.UsageError, match="already"):
        LeptonAI(model).compress(4)
    with pytest.raises(lepton_ai.UsageError, match="example_inputs"):
        LeptonAI(model).export(tmp_path / "m")
    with pytest.raises(lepton_ai.UnsupportedError):
        LeptonAI(object())
    with pytest.warns(UserWarning, match="outweigh"):
        LeptonAI(torch.nn.Linear(4, 4)).compress(2)


@pytest.mark.parametrize("ratio, bits", [(3, 8), (5, 6), (6, 5), (8, 4)])
def test_grids_are_as_fine_as_the_file_allows(ratio, bits, tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 256))
    for layer in (model[0], model[2]):
        torch.nn.init.normal_(layer.weight)
    lepton = LeptonAI(model, example_inputs=torch.zeros(1, 256)).compress(ratio)
    report = lepton.export(tmp_path / "m.lepton")
    assert report.file_ratio >= ratio and {layer.bits for layer in report.layers} == {report.plan.bits} == {bits}


def test_plans_invert_the_rule_of_thumb():
    for ratio, density in [(39, 0.10), (69, 0.05), (107, 0.03), (151, 0.02)]:
        assert lepton_ai.Plan.of(ratio).density == pytest.approx(density, rel=0.03)
    assert (lepton_ai.Plan.of(4).bits, lepton_ai.Plan.of(8).bits) == (8, 4)
    densities = [lepton_ai.Plan.of(r).density for r in (1, 4, 8, 9, 10, 20, 50, 1000)]
    assert densities == sorted(densities, reverse=True)


def test_a_dropped_model_is_let_go(task):
    import gc
    import weakref

    model = network()
    gone = weakref.ref(model)
    with warnings.catch_warnings():
        LeptonAI(model).compress(8)
    del model
    gc.collect()
    assert gone() is None


def test_a_hook_converts_while_it_trains(task, tmp_path):
    import importlib.util

    from lepton_ai.torch import ConversionHook

    model, (rows, labels) = network(), task
    LeptonAI(model).compress(20, steps=40)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    log = str(tmp_path / "log") if importlib.util.find_spec("tensorboard") else None
    with ConversionHook(model, optimizer, every=10, validation=task, log_dir=log, runs=3) as hook:
        for _ in range(40):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(rows), labels).backward()
            optimizer.step()
    optimizer.step()
    assert [c.step for c in hook.conversions] == [10, 20, 30, 40]
    assert hook.conversions[-1].file_bytes < hook.conversions[0].file_bytes
    assert hook.conversions[-1].metric == pytest.approx(accuracy(model.eval(), task), abs=0.02)
    assert log is None or b"lepton/metric" in b"".join(p.read_bytes() for p in (tmp_path / "log").iterdir())


def test_the_file_answers_as_the_module(task, tmp_path):
    model = network()
    lepton = LeptonAI(model, example_inputs=task[0][:4]).compress(20, steps=60, keep={"0": 0.5})
    train(model, task, 60)
    lepton.export(tmp_path / "m.lepton")
    with torch.no_grad():
        expected = model.eval()(task[0]).numpy()
    np.testing.assert_allclose(Session(tmp_path / "m.lepton").predict(task[0]), expected, atol=1e-4)
