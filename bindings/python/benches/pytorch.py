"""What real PyTorch models lose by ``compress(ratio)`` in a training loop of their user's.

    python benches/pytorch.py --model lenet-300-100 --ratio 50 --out benches/pytorch.jsonl
    python benches/pytorch.py --render ../../docs/pytorch.md

The first takes a trained model, trains it on, once plainly and once under compression, with the same steps and
the same seed, and appends what the test images say of both, and of the exported file, as a line of JSON. The
second makes the page of ``benches/pytorch.jsonl``. Models and data are the assets' (``LEPTON_ASSETS``); nothing is
chosen by the test images: with ``--validate`` a network trained from its beginnings on five sixths of the training
images takes the trained one's place, and the last sixth that of the test images. Needs torch, onnx, and Pillow for
CIFAR-10.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import gzip
import io
import json
import os
import platform
import shlex
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

ASSETS = Path(os.environ.get("LEPTON_ASSETS", Path(__file__).parents[3].parent / "shared" / "assets"))
RESULTS = Path(__file__).with_suffix(".jsonl")


def mnist() -> tuple[Any, Any, Any, Any]:
    """Images ``(rows, 1, 28, 28)`` float32 from 0 to 1 and labels, to train and to test with."""
    found = []
    for part in ("train", "t10k"):
        for kind, skip in (("images-idx3", 16), ("labels-idx1", 8)):
            raw = gzip.decompress((ASSETS / "image" / "mnist" / f"{part}-{kind}-ubyte.gz").read_bytes())
            array = np.frombuffer(raw, np.uint8, offset=skip)
            found.append(array.reshape(-1, 1, 28, 28).astype(np.float32) / 255 if skip == 16 else array.astype(np.int64))
    return found[0], found[1], found[2], found[3]


def cifar() -> tuple[Any, Any, Any, Any]:
    """Images ``(rows, 3, 32, 32)`` float32, normalised as the checkpoint wants them, and labels."""
    from PIL import Image

    found: list[Any] = []
    for name in ("train_50k_jpeg", "test_10k_jpeg"):
        images, labels = [], []
        with tarfile.open(ASSETS / "image" / "cifar10" / f"{name}.tar.gz") as archive:
            for member in archive:
                if member.name.endswith(".jpg"):
                    file = archive.extractfile(member)
                    assert file is not None
                    images.append(np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")))
                    labels.append(int(member.name.rpartition("_")[2].partition(".")[0]))
        scaled = np.stack(images).astype(np.float32) / 255
        mean, deviation = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
        found += [np.ascontiguousarray(((scaled - mean) / deviation).transpose(0, 3, 1, 2)), np.array(labels)]
    return found[0], found[1], found[2], found[3]


def lenet_300_100() -> Any:
    """Two hidden layers, 266,610 numbers."""
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))


def lenet_5() -> Any:
    """Caffe's LeNet-5, 431,080 numbers."""
    from torch import nn

    return nn.Sequential(nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))


def resnet_20() -> Any:
    """He and others' ResNet-20 for CIFAR-10; shortcuts without weights take every second pixel."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, inputs: int, channels: int) -> None:
            super().__init__()
            self.stride = 1 if inputs == channels else 2
            self.conv1 = nn.Conv2d(inputs, channels, 3, self.stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(channels)
            self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(channels)

        def forward(self, x: Any) -> Any:
            beside = x
            if self.stride == 2:
                zeros = torch.zeros_like(x[:, : x.shape[1] // 2, ::2, ::2])
                beside = torch.cat([zeros, x[:, :, ::2, ::2], zeros], 1)
            inner = functional.relu(self.bn1(self.conv1(x)))
            return functional.relu(self.bn2(self.conv2(inner)) + beside)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
            for at, (inputs, channels) in enumerate([(16, 16), (16, 32), (32, 64)], 1):
                blocks = [Block(inputs, channels), Block(channels, channels), Block(channels, channels)]
                setattr(self, f"layer{at}", nn.Sequential(*blocks))
            self.linear = nn.Linear(64, 10)

        def forward(self, x: Any) -> Any:
            x = functional.relu(self.bn1(self.conv1(x)))
            return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))

    return Network()


@dataclass(frozen=True)
class Model:
    """A trained model, its data, and how it is trained on."""

    build: Callable[[], Any]
    weights: str
    data: Callable[[], tuple[Any, Any, Any, Any]]
    rate: float
    epochs: int
    moved: int = 0
    """By how many pixels images are moved at most."""
    mirrored: bool = False
    """Whether every second image is mirrored."""


MODELS = {
    "lenet-300-100": Model(lenet_300_100, "image/mnist_models/lenet_300_100.pt", mnist, 1e-3, 30),
    "lenet-5": Model(lenet_5, "image/mnist_models/lenet5_caffe.pt", mnist, 1e-3, 12),
    "resnet-20": Model(resnet_20, "image/resnet_cifar10/resnet20_jpeg_finetuned.pt", cifar, 1e-3, 8, 4, True),
}


def changed(images: Any, chosen: Model, generator: Any) -> Any:
    """A batch moved, and mirrored, at random."""
    import torch

    most, side = chosen.moved, images.shape[-1]
    padded = torch.nn.functional.pad(images, (most, most, most, most))
    down, right, mirrored = (torch.randint(n, (len(images),), generator=generator) for n in (2 * most + 1, 2 * most + 1, 2))
    places = padded.unfold(2, side, 1).unfold(3, side, 1)
    images = places[torch.arange(len(images)), :, down, right]
    return torch.where(mirrored.bool()[:, None, None, None], images.flip(-1), images) if chosen.mirrored else images


def train(network: Any, rows: Any, labels: Any, chosen: Model, options: argparse.Namespace, lepton: Any = None) -> float:
    """The user's loop: cross entropy, Adam, cosine; seconds it took."""
    import torch

    generator = torch.Generator().manual_seed(options.seed)
    optimizer = torch.optim.Adam(network.parameters(), chosen.rate)
    steps = options.epochs * (len(rows) // options.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    begun = time.perf_counter()
    for epoch in range(options.epochs):
        order = torch.randperm(len(rows), generator=generator)
        for at in range(0, len(rows) - options.batch + 1, options.batch):
            batch = rows[order[at : at + options.batch]]
            if chosen.moved:
                batch = changed(batch, chosen, generator)
            optimizer.zero_grad()
            outputs = network(batch)
            loss = torch.nn.functional.cross_entropy(outputs, labels[order[at : at + options.batch]])
            if lepton is not None and options.distil:
                loss = lepton.distilled(loss, outputs, batch)
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss of the last batch {loss.item():.4f}, {time.perf_counter() - begun:.0f} s",
              file=sys.stderr, flush=True)
    network.eval()
    return time.perf_counter() - begun


def accuracy(network: Any, rows: Any, labels: Any) -> float:
    """Share of right classes."""
    import torch

    with torch.no_grad():
        found = torch.cat([network(part).argmax(1) for part in rows.split(500)])
    return float((found == labels).float().mean())


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """One model, one ratio, one seed."""
    import torch

    import lepton_ai

    chosen = MODELS[options.model]
    options.epochs = options.epochs or chosen.epochs
    chosen = replace(chosen, moved=chosen.moved if options.moved is None else options.moved, rate=options.rate or chosen.rate)
    rows, labels, test, test_labels = (torch.from_numpy(array) for array in chosen.data())
    if options.validate:
        at = len(rows) * 5 // 6
        rows, test, labels, test_labels = rows[:at], rows[at:], labels[:at], labels[at:]
    rows, labels = rows[: options.train], labels[: options.train]
    torch.manual_seed(options.seed)
    plain = chosen.build()
    if options.validate:
        train(plain, rows, labels, chosen, options)
    else:
        plain.load_state_dict(torch.load(ASSETS / chosen.weights, map_location="cpu", weights_only=True))
    plain.eval()
    before = accuracy(plain, test, test_labels)
    under = copy.deepcopy(plain)
    keys = list(plain.state_dict())
    lepton = lepton_ai.LeptonAI(under, example_inputs=test[:1])
    lepton.compress(options.ratio, steps=options.epochs * (len(rows) // options.batch), distil=options.distil)
    times = [train(network, rows, labels, chosen, options, of) for network, of in ((plain, None), (under, lepton))]
    with tempfile.TemporaryDirectory() as folder:
        report = lepton.export(Path(folder) / "model.lepton")
        found = lepton_ai.Session(report.file).predict(test.numpy()).argmax(1)
        sides = lepton_ai.report(plain, report.file, time_s=2.0, example_inputs=test[:1])
    processor = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                      if line.startswith("model name")), platform.machine())
    return {
        "model": options.model, "asked": options.ratio, "seed": options.seed, "epochs": options.epochs,
        "batch": options.batch, "rate": chosen.rate, "distil": options.distil, "moved": chosen.moved,
        "validated": options.validate, "numbers": sum(p.numel() for p in plain.parameters()),
        "before": before, "plain": accuracy(plain, test, test_labels), "under": accuracy(under, test, test_labels),
        "file": float((found == test_labels.numpy()).mean()), "train": len(rows), "test": len(test), "file_bytes": report.file_bytes,
        "ratio": report.file_ratio, "kept": sum(x.density * x.weights for x in report.layers) / sum(x.weights for x in report.layers),
        "time_ratio": times[1] / times[0], "keys_unchanged": list(under.state_dict()) == keys,
        "before_us": sides.before.latency_p50_us, "after_us": sides.after.latency_p50_us, "speedup": sides.speedup,
        "date": str(datetime.date.today()), "machine": f"{processor}, {os.cpu_count()} CPUs",
        "versions": f"torch {torch.__version__}, lepton_ai {lepton_ai.__version__}",
        "command": f"python benches/pytorch.py {shlex.join(sys.argv[1:])}",
    }


def _times(row: dict[str, Any]) -> str:
    """How much longer the training took; a machine that did other work by turns says nothing of it."""
    return "not measured" if row.get("busy") else f"{row['time_ratio']:.2f}x"


def page(lines: list[str]) -> str:
    """The page of all results."""
    rows = [json.loads(line) for line in lines]
    order = sorted(rows, key=lambda row: (list(MODELS).index(row["model"]), row["asked"], row["seed"]))
    parts = [
        "# PyTorch models under `compress`\n\nMade by [pytorch.py](../bindings/python/benches/pytorch.py) of "
        "[its results](../bindings/python/benches/pytorch.jsonl). A trained model is trained on, plainly and under "
        "compression, with the same steps, seed and loss; nothing is chosen by the test images. Errors are on all "
        "test images. `state_dict` keys stay the same.\n",
        "| model | asked | smaller | file bytes | weights left | error as it came | trained on plainly | under compression | "
        "of the file | training time | speed of the file | seed |", "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in order:
        errors = [f"{100 * (1 - row[key]):.2f} %" for key in ("before", "plain", "under", "file")]
        parts.append(
            f"| {row['model']} ({row['numbers']:,}) | {row['asked']:g}x | {row['ratio']:.1f}x | {row['file_bytes']} | "
            f"{row['kept']:.1%} | {' | '.join(errors)} | {_times(row)} | {row['speedup']:.2f}x | {row['seed']} |")
    parts.append("")
    for row in order:
        parts.append(f"- {row['model']} {row['asked']:g}x, seed {row['seed']}: {row['epochs']} epochs of {row['train']} images, batches of {row['batch']}, "
                     f"Adam {row['rate']:g}, distilled {row.get('distil', 0.0):g}, moved by up to {row.get('moved', MODELS[row['model']].moved)} pixels, {row['test']} test images; {row['date']}, {row['machine']}, {row['versions']}; "
                     f"`{row['command']}`")
    return "\n".join(parts) + "\n"


def main() -> None:
    """Measures or renders."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="lenet-300-100")
    parser.add_argument("--ratio", type=float, default=20)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--train", type=int, help="images to train with; default: all")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--distil", type=float, default=0.0, help="see LeptonAI.compress")
    parser.add_argument("--rate", type=float, help="of Adam, at its beginning")
    parser.add_argument("--moved", type=int, help="pixels that images are moved by in training, at most")
    parser.add_argument("--validate", action="store_true", help="measure on held-out training images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file to append the line of JSON to")
    parser.add_argument("--render", type=Path, help=f"write the page of {RESULTS.name} to this file and end")
    options = parser.parse_args()
    if options.render:
        options.render.write_text(page(RESULTS.read_text().splitlines()))
        return
    line = json.dumps(measured(options))
    print(line)
    if options.out:
        with options.out.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
