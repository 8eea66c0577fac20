"""What users do with a PyTorch module while it is under compression, each way with its answer."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
import warnings

import numpy as np
import pytest

import lepton_ai
from lepton_ai import LeptonAI, Session

torch = pytest.importorskip("torch")
nn = torch.nn
STEPS = 120


@pytest.fixture(scope="module")
def task():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(512, 16, generator=generator)
    return rows, (rows @ torch.randn(16, 4, generator=generator)).argmax(1)


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 4))


def loss_of(model, task, step, size=64):
    at = torch.arange(step * size, step * size + size) % len(task[0])
    return nn.functional.cross_entropy(model(task[0][at]).float(), task[1][at])


def train(model, task, steps=STEPS, optimizer=None):
    optimizer = optimizer or torch.optim.Adam(model.parameters(), 3e-3)
    model.train()
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, task, step).backward()
        optimizer.step()
    model.eval()


def zeros(layer):
    return float((layer.state_dict()["weight"] == 0).float().mean())


def answers_alike(lepton, model, rows, path, atol=1e-4):
    """The exported file answers as the module does; the report of the export."""
    report = lepton.export(path)
    with torch.no_grad():
        expected = model.eval()(rows).float().numpy()
    np.testing.assert_allclose(Session(path).predict(rows), expected, atol=atol)
    return report


def compressed(task, ratio=30, **options):
    model = network()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model, LeptonAI(model, example_inputs=task[0][:2]).compress(ratio, **{"steps": STEPS, **options})


def pruned(model):
    return zeros(model[2]) > 0.85


def test_a_saved_module_loads_where_lepton_is_not(task, tmp_path):
    model, _ = compressed(task)
    train(model, task)
    torch.save(model, tmp_path / "module.pt")
    torch.save(model.state_dict(), tmp_path / "state.pt")
    with torch.no_grad():
        torch.save((task[0], model(task[0])), tmp_path / "answers.pt")
    (tmp_path / "load.py").write_text(
        "import sys\nsys.modules['lepton_ai'] = None\nimport torch\n"
        "model = torch.load('module.pt', weights_only=False)\nrows, answers = torch.load('answers.pt')\n"
        "assert type(model[0]) is torch.nn.Linear\n"
        "torch.testing.assert_close(model(rows), answers)\n"
        "keys = list(torch.load('state.pt'))\nassert keys == list(model.state_dict()), keys\n")
    ran = subprocess.run([sys.executable, "load.py"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_groups_of_parameters_and_clipping(task, tmp_path):
    model, lepton = compressed(task)
    optimizer = torch.optim.AdamW([
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 1e-2},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0, "lr": 1e-3},
    ], 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [1e-2, 1e-3], total_steps=STEPS)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, task, step).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    report = answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
    assert report.steps_done == STEPS and pruned(model)


def test_gradients_accumulate(task, tmp_path):
    model, lepton = compressed(task)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(4 * STEPS):
        (loss_of(model, task, step, 16) / 4).backward()
        if step % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
    report = answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
    assert report.steps_done == STEPS and pruned(model)


def test_autocast(task, tmp_path):
    model, lepton = compressed(task)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, task, step)
        loss.backward()
        optimizer.step()
    assert pruned(model) and next(model.parameters()).dtype is torch.float32
    answers_alike(lepton, model, task[0], tmp_path / "m.lepton")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_element_types_are_refused(task, tmp_path, dtype):
    model = network().to(dtype)
    with pytest.raises(lepton_ai.UsageError, match=f"(?s){dtype}, not float32.*autocast"):
        LeptonAI(model).compress(30, steps=STEPS)
    assert type(model[0]) is nn.Linear
    model, lepton = compressed(task)
    model.to(dtype)
    with pytest.raises(lepton_ai.UsageError, match="not float32"):
        lepton.export(tmp_path / "m.lepton")
    model.float()
    answers_alike(lepton, model, task[0], tmp_path / "m.lepton")


def test_compiled_modules(task, tmp_path):
    model, lepton = compressed(task)
    # Not the default back end, which needs a C++ compiler.
    faster = torch.compile(model, backend="aot_eager")
    train(faster, task)
    report = answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
    assert report.steps_done == STEPS and pruned(model)
    with torch.no_grad():
        torch.testing.assert_close(faster(task[0]), model(task[0]))


def test_a_compiled_module_is_compressed_as_the_one_within(task, tmp_path):
    model = network()
    faster = torch.compile(model, backend="aot_eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lepton = LeptonAI(faster, example_inputs=task[0][:2]).compress(30, steps=STEPS)
    train(faster, task)
    assert pruned(model)
    answers_alike(lepton, model, task[0], tmp_path / "m.lepton")


@pytest.mark.parametrize("wrapped_first", [True, False])
def test_wrappers(task, tmp_path, wrapped_first):
    model = network()
    wrapper = nn.DataParallel(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lepton = LeptonAI(wrapper if wrapped_first else model, example_inputs=task[0][:2]).compress(30, steps=STEPS)
    train(wrapper, task)
    report = answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
    assert report.steps_done == STEPS and pruned(model)


def test_processes_that_share_a_module(task, tmp_path):
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("torch without gloo")
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        model, lepton = compressed(task)
        train(nn.parallel.DistributedDataParallel(model), task)
        report = answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
        assert report.steps_done == STEPS and pruned(model)
    finally:
        distributed.destroy_process_group()


def test_tied_weights(task, tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside, self.first, self.second = nn.Linear(16, 64), nn.Linear(64, 64), nn.Linear(64, 64)
            self.second.weight = self.first.weight
            self.last = nn.Linear(64, 4)

        def forward(self, x):
            return self.last(self.second(self.first(self.inside(x).relu()).relu()).relu())

    torch.manual_seed(0)
    model = Tied()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lepton = LeptonAI(model, example_inputs=task[0][:2]).compress(20, steps=STEPS)
    train(model, task)
    report = answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
    assert model.first._parameters["weight"] is model.second._parameters["weight"]
    assert zeros(model.first) > 0.5 and report.steps_done == STEPS
    assert [layer.name for layer in report.layers] == ["inside", "first", "last"]


def test_an_embedding_tied_to_the_last_layer():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.last = nn.Embedding(200, 32), nn.Linear(32, 200, bias=False)
            self.last.weight = self.embedding.weight

        def forward(self, x):
            return self.last(self.embedding(x).mean(1))

    torch.manual_seed(0)
    model, words = Words(), torch.randint(200, (64, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        LeptonAI(model).compress(20, steps=40)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(words), words[:, 0]).backward()
        optimizer.step()
    assert model.embedding.weight is model.last._parameters["weight"] and zeros(model.embedding) > 0.5


def test_two_optimisers_take_turns(task, tmp_path):
    model, lepton = compressed(task)
    parts = [torch.optim.Adam(model[:2].parameters(), 3e-3), torch.optim.SGD(model[2:].parameters(), 0.05, momentum=0.9)]
    for step in range(STEPS):
        for optimizer in parts:
            optimizer.zero_grad()
        loss_of(model, task, step).backward()
        for optimizer in parts:
            optimizer.step()
    report = answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
    assert report.steps_done == STEPS and pruned(model)


def test_another_optimiser_goes_on(task, tmp_path):
    model, lepton = compressed(task)
    train(model, task, STEPS // 2)
    half = zeros(model[2])
    train(model, task, STEPS // 2, torch.optim.SGD(model.parameters(), 0.01))
    report = answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
    assert report.steps_done == STEPS and 0.1 < half < zeros(model[2]) and pruned(model)


def test_closures(task, tmp_path):
    model, lepton = compressed(task, steps=20)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    for step in range(20):
        def closure(step=step):
            optimizer.zero_grad()
            loss = loss_of(model, task, step)
            loss.backward()
            return loss
        optimizer.step(closure)
    answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
    assert pruned(model)


def test_frozen_layers_are_not_pruned(task, tmp_path):
    model = network()
    model[0].requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lepton = LeptonAI(model, example_inputs=task[0][:2]).compress(20, steps=STEPS)
    train(model, task, optimizer=torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3))
    assert zeros(model[0]) == 0 and zeros(model[2]) > 0.5
    answers_alike(lepton, model, task[0], tmp_path / "m.lepton")


def test_a_loop_that_is_broken_off_can_be_exported(task, tmp_path):
    model, lepton = compressed(task)
    train(model, task, 50)
    report = answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
    assert any("34 more steps" in note for note in report.notes), report.notes
    untrained = compressed(task)
    report = answers_alike(untrained[1], untrained[0], task[0], tmp_path / "m.lepton")
    assert any("not been trained" in note for note in report.notes), report.notes


def test_a_copy_is_trained_apart(task):
    model, _ = compressed(task)
    train(model, task, 60)
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        torch.testing.assert_close(twin.eval()(task[0]), model.eval()(task[0]))
        torch.testing.assert_close(average.eval()(task[0]), model(task[0]))


def test_a_checkpoint_comes_back(task):
    model, _ = compressed(task)
    train(model, task)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    with torch.no_grad():
        expected = model(task[0])
        for parameter in model.parameters():
            parameter.add_(1.0)
        file.seek(0)
        model.load_state_dict(torch.load(file))
        torch.testing.assert_close(model(task[0]), expected)


def test_traced_and_scripted_modules(task):
    model, _ = compressed(task)
    train(model, task)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.trace(model, task[0][:4])(task[0]), model(task[0]))
        exported = torch.export.export(model, (task[0],))
        torch.testing.assert_close(exported.module()(task[0]), model(task[0]))


def test_arguments_that_make_no_sense(task):
    model = network()
    with pytest.raises(lepton_ai.UsageError, match="no compressed layer"):
        LeptonAI(model).compress(20, steps=5, keep={"nowhere": 0.5})
    assert type(model[0]) is nn.Linear, "a refused compression leaves no traces"
