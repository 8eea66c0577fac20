"""What a network of 50 million weights loses and gains by ``compress(100)`` during its own training.

    python benches/promise.py --data lung-ct --seeds 1 --out ../../docs/promise.md

Trains the same network twice for each seed, plainly and under compression, an epoch of the one and an
epoch of the other in turn, on images resized to 224x224x3, and appends what was measured to ``--out``:
bytes of the exported file, its predictions against ``model.predict``, accuracy and recall on the test
images, time of an epoch, latency. Needs TensorFlow, onnx, tf2onnx, and the assets (``LEPTON_ASSETS``).
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import platform
import shlex
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import numpy as np  # noqa: E402

import lepton_ai  # noqa: E402
from lepton_ai import LeptonAI, Session  # noqa: E402

ASSETS = Path(os.environ.get("LEPTON_ASSETS", Path(__file__).parents[3].parent / "shared" / "assets"))
SIDE = 224
RATIO = 100


def lung_ct(train: int, test: int) -> tuple[Any, Any, Any, Any]:
    """Slices of lungs, 64x64 grey, label 1 is COVID; images are ``(rows, 224, 224, 3)`` float32 from 0 to 1."""
    folder = ASSETS / "medical" / "covid_ct"
    parts: list[Any] = []
    for name, count in (("train_64x64.npz", train), ("test_64x64.npz", test)):
        with np.load(folder / name) as file:
            images, labels = (file[key] for key in sorted(file.files, key=lambda key: -file[key].ndim)[:2])
        chosen = np.random.default_rng(7).permutation(len(labels))[:count]
        parts += [resized(images[chosen].reshape(len(chosen), 64, 64, 1)), labels[chosen].reshape(-1)]
    return parts[0], parts[1], parts[2], parts[3]


def cifar(train: int, test: int) -> tuple[Any, Any, Any, Any]:
    """CIFAR-10's cats (0) and dogs (1); images are ``(rows, 224, 224, 3)`` float32 from 0 to 1."""
    folder = ASSETS / "image" / "cifar10"
    parts: list[Any] = []
    for name, count in (("train_50k_jpeg.tar.gz", train), ("test_10k_jpeg.tar.gz", test)):
        images, labels = [], []
        with tarfile.open(folder / name) as archive:
            for member in archive:
                label = member.name.rpartition("_")[2].partition(".")[0]
                if label not in ("3", "5") or len(images) == count:
                    continue
                file = archive.extractfile(member)
                assert file is not None
                images.append(keras.utils.img_to_array(keras.utils.load_img(io.BytesIO(file.read()))))
                labels.append(int(label == "5"))
        parts += [resized(np.stack(images).astype(np.uint8)), np.array(labels)]
    return parts[0], parts[1], parts[2], parts[3]


DATA = {"lung-ct": lung_ct, "cats-dogs": cifar}


def resized(images: Any) -> Any:
    """``(rows, H, W, C)`` bytes as ``(rows, 224, 224, 3)`` float32 from 0 to 1."""
    large = keras.ops.image.resize(images.astype(np.float32) / 255, (SIDE, SIDE))
    return np.broadcast_to(keras.ops.convert_to_numpy(large), (*large.shape[:3], 3)).copy()


def network() -> Any:
    """The network of the promise."""
    layers = keras.layers
    return keras.Sequential([
        keras.Input((SIDE, SIDE, 3)), layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten(),
        layers.Dense(128, activation="relu"), layers.Dense(1, activation="sigmoid"),
    ])


def compiled(seed: int, rate: float) -> Any:
    """The network, with the seed's weights, ready to train."""
    keras.utils.set_random_seed(seed)
    model = network()
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def scores(predictions: Any, labels: Any) -> tuple[float, float]:
    """Accuracy and recall of class 1, of predictions from 0 to 1."""
    found = predictions.reshape(-1) > 0.5
    return float((found == labels).mean()), float(found[labels == 1].mean())


class _Clock(keras.callbacks.Callback):  # type: ignore[misc]
    """Seconds of each step but the first two, which trace."""

    def __init__(self) -> None:
        super().__init__()
        self.steps_s: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._begun = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps_s.append(time.perf_counter() - self._begun)


def trained(seed: int, data: Any, epochs: int, batch: int, rate: float) -> tuple[Any, Any, LeptonAI, list[float], list[float]]:
    """The plain and the compressed model after training, with the median step of each epoch in seconds.

    One epoch of the one, one of the other: what else the machine does falls on both.
    """
    rows, labels = data[:2]
    plain, model = compiled(seed, rate), compiled(seed, rate)
    lepton = LeptonAI(model)
    lepton.compress(RATIO, steps=-(-len(rows) // batch) * epochs)
    times: tuple[list[float], list[float]] = ([], [])
    for epoch in range(epochs):
        for one, seconds in zip((plain, model), times):
            keras.utils.set_random_seed(1000 * seed + epoch)
            clock = _Clock()
            one.fit(rows, labels, batch_size=batch, epochs=1, verbose=0, callbacks=[clock])
            seconds.append(statistics.fmean(clock.steps_s[1:]))
        print(f"seed {seed} epoch {epoch + 1}: {times[0][-1]:.3f} s, {times[1][-1]:.3f} s a step", flush=True)
    return plain, model, lepton, *times


def latency_ms(call: Any, runs: int = 15) -> float:
    """Median milliseconds of a call."""
    call()
    found = []
    for _ in range(runs):
        begun = time.perf_counter()
        call()
        found.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(found)


def measured(seed: int, data: Any, options: argparse.Namespace) -> dict[str, float]:
    """Everything about one seed."""
    plain, model, lepton, without, under = trained(seed, data, options.epochs, options.batch, options.rate)
    test, labels = data[2:]
    expected = model.predict(test, verbose=0)
    accuracy, recall = scores(expected, labels)
    plain_accuracy, plain_recall = scores(plain.predict(test, verbose=0), labels)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        report = lepton.export(Path(folder) / "model.lepton")
        export_s = time.perf_counter() - begun
        session = Session(report.file, threads=1)
        found = session.predict(test)
        one = test[:1]
        fast = latency_ms(lambda: session.run(one))
        saved = Path(folder) / "m.keras"
        model.save(saved)
        loaded = keras.models.load_model(saved)
        loads = float(type(loaded.layers[0]) is keras.layers.Conv2D
                      and np.abs(loaded.predict(test[:32], verbose=0) - expected[:32]).max() < 1e-3)
    weights_bytes = 4 * model.count_params()
    file_accuracy, file_recall = scores(found, labels)
    return {
        "seed": seed, "accuracy_plain": plain_accuracy, "accuracy": accuracy, "accuracy_file": file_accuracy,
        "recall_plain": plain_recall, "recall": recall, "recall_file": file_recall,
        "difference": float(np.abs(found - expected).max()), "file_bytes": float(report.file_bytes or 0),
        "ratio": weights_bytes / (report.file_bytes or 1), "time_ratio": statistics.median(
            b / a for a, b in zip(without[1:], under[1:])),
        "time_ratio_mean": sum(under[1:]) / sum(without[1:]), "step_plain_s": statistics.median(without[1:]),
        "predict_ms": latency_ms(lambda: plain.predict(one, verbose=0)), "session_ms": fast, "export_s": export_s,
        "plain_keras_loads": loads,
    }


def page(found: list[dict[str, float]], options: argparse.Namespace) -> str:
    """What was measured, as a section of Markdown."""
    import tensorflow

    machine = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                    if line.startswith("model name")), platform.machine())
    lines = [
        f"## {options.data}, {len(found)} seed{'s' if len(found) > 1 else ''}", "",
        f"{options.train} training and {options.test} test images, {options.epochs} epochs, batches of {options.batch}, "
        f"Adam {options.rate:g}; {network().count_params()} weights. {datetime.date.today()}, {machine}, "
        f"{os.cpu_count()} CPUs, Python {platform.python_version()}, Keras {keras.__version__}, TensorFlow "
        f"{tensorflow.__version__}, lepton_ai {lepton_ai.__version__}; load of the machine at the end, this run's "
        f"included: {os.getloadavg()[1]:.1f}.", "",
        f"`python benches/promise.py {shlex.join(sys.argv[1:])}`", "",
        "| seed | accuracy, recall without | under compression | the file | file bytes | smaller | "
        "largest difference from `model.predict` | training time | `model.predict` / file, ms | `.keras` loads |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        lines.append(
            f"| {row['seed']:.0f} | {row['accuracy_plain']:.4f}, {row['recall_plain']:.4f} | {row['accuracy']:.4f}, "
            f"{row['recall']:.4f} | {row['accuracy_file']:.4f}, {row['recall_file']:.4f} | {row['file_bytes']:.0f} | "
            f"{row['ratio']:.1f}x | {row['difference']:.1e} | {row['time_ratio_mean']:.2f}x (median epoch "
            f"{row['time_ratio']:.2f}x of {row['step_plain_s']:.3f} s a step) | {row['predict_ms']:.0f} / "
            f"{row['session_ms']:.0f} | {'yes' if row['plain_keras_loads'] else 'no'} |")
    if len(found) > 1:
        drop = [row["accuracy_file"] - row["accuracy_plain"] for row in found]
        recall = [row["recall_file"] - row["recall_plain"] for row in found]
        lines += ["", f"Accuracy of the file minus without: {statistics.fmean(drop):+.4f} ± {statistics.stdev(drop):.4f}; "
                  f"recall {statistics.fmean(recall):+.4f} ± {statistics.stdev(recall):.4f} (mean, deviation of seeds)."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=DATA, default="lung-ct")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=640)
    parser.add_argument("--test", type=int, default=345)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--out", type=Path, help="Markdown file to append to")
    options = parser.parse_args()
    data = DATA[options.data](options.train, options.test)
    found = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        found.append(measured(seed, data, options))
        print(json.dumps(found[-1]), flush=True)
    text = page(found, options)
    print(text)
    if options.out:
        begun = options.out.read_text() if options.out.exists() else (
            "# What `compress(100)` does to a network of 50 million weights\n\nMade by "
            "[promise.py](../bindings/python/benches/promise.py), which appends a section a run: the same network trained "
            "without compression and under it, epoch by epoch in turn, same seed, same images.\n")
        options.out.write_text(f"{begun}\n{text}")


if __name__ == "__main__":
    main()
