"""What a network of 50 million weights loses and gains by ``compress(100)`` during its own training.

    python benches/promise.py --task lung-ct --prepare lung-ct.npz
    KERAS_BACKEND=torch python benches/promise.py --data lung-ct.npz --seeds 5 --out benches/promise.jsonl
    python benches/promise.py --render ../../docs/promise.md

The first writes the images, as they are, to a file that can be carried to another machine. The second trains
the same network twice for each seed, plainly and under compression, an epoch of the one and an epoch of the
other in turn, on images enlarged to 224x224x3, and appends a line of JSON a seed. The third makes the page of
``benches/promise.jsonl``. Works with every back end of Keras; needs onnx, and Pillow to prepare CIFAR-10.

``--validate`` measures on images held out of the training split instead of the test split: settings are
chosen by it, and by nothing else.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import io
import json
import math
import os
import platform
import shlex
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402

ASSETS = Path(os.environ.get("LEPTON_ASSETS", Path(__file__).parents[3].parent / "shared" / "assets"))
RESULTS = Path(__file__).with_suffix(".jsonl")
SIDE = 224
RATIO = 100
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t at 97.5 % for 1, 2, … degrees of freedom."""


def lung_ct(assets: Path, train: int, test: int) -> dict[str, Any]:
    """Slices of lungs, 64x64 grey, label 1 is COVID."""
    found: dict[str, Any] = {}
    for name, count in (("train", train), ("test", test)):
        with np.load(assets / "medical" / "covid_ct" / f"{name}_64x64.npz") as file:
            chosen = np.random.default_rng(7).permutation(len(file["labels"]))[:count]
            found[f"{name}_images"] = file["images"][chosen][..., None]
            found[f"{name}_labels"] = file["labels"][chosen].astype(np.int64)
    return found


def cifar_10(assets: Path, train: int, test: int) -> dict[str, Any]:
    """CIFAR-10, 32x32 in colour, the first rows of its shuffled archives; label 1 is a vehicle, 0 an animal."""
    image = importlib.import_module("PIL.Image")
    found: dict[str, Any] = {}
    for name, archive_name, count in (("train", "train_50k_jpeg", train), ("test", "test_10k_jpeg", test)):
        images, labels = [], []
        with tarfile.open(assets / "image" / "cifar10" / f"{archive_name}.tar.gz") as archive:
            for member in archive:
                if not member.name.endswith(".jpg") or len(images) == count:
                    continue
                file = archive.extractfile(member)
                assert file is not None
                images.append(np.asarray(image.open(io.BytesIO(file.read())).convert("RGB")))
                labels.append(int(member.name.rpartition("_")[2].partition(".")[0]))
        vehicles = np.isin(labels, (0, 1, 8, 9))
        found[f"{name}_images"], found[f"{name}_labels"] = np.stack(images), vehicles.astype(np.int64)
    return found


TASKS: dict[str, tuple[Callable[[Path, int, int], dict[str, Any]], int, int]] = {
    "lung-ct": (lung_ct, 3217, 690),
    "cifar-10": (cifar_10, 8000, 2000),
}
"""What reads a task's images, and how many for training and test by default. Each has two classes."""


def resized(images: Any) -> Any:
    """``(rows, H, W, C)`` bytes as ``(rows, 224, 224, 3)`` float32 from 0 to 1, bilinear, the same everywhere."""
    large = np.empty((len(images), SIDE, SIDE, 3), np.float32)
    down, across = (_bilinear(extent) for extent in images.shape[1:3])
    for row, image in enumerate(images):
        for channel in range(3):
            plane = image[..., channel % image.shape[-1]].astype(np.float32) / 255
            large[row, ..., channel] = down @ plane @ across.T
    return large


def _bilinear(extent: int) -> Any:
    """``(224, extent)``: what each row of the enlarged image takes of the rows of the image."""
    at = np.clip((np.arange(SIDE) + 0.5) * extent / SIDE - 0.5, 0, extent - 1)
    below = np.minimum(at.astype(int), extent - 2)
    weights = np.zeros((SIDE, extent), np.float32)
    weights[np.arange(SIDE), below] = 1 - (at - below)
    weights[np.arange(SIDE), below + 1] = at - below
    return weights


def rows_of(options: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """Images and labels to train with, and to measure with."""
    train, test = options.train, options.test
    if options.data.suffix == ".npz":
        with np.load(options.data) as file:
            found = {key: file[key] for key in file.files}
        options.task = str(found.pop("task"))
    else:
        found = TASKS[options.task][0](options.data, train or TASKS[options.task][1], test or TASKS[options.task][2])
    images, labels = found["train_images"][:train], found["train_labels"][:train]
    if options.validate:
        held = len(images) // 6
        return resized(images[held:]), labels[held:], resized(images[:held]), labels[:held]
    return resized(images), labels, resized(found["test_images"][:test]), found["test_labels"][:test]


def prepare(options: argparse.Namespace) -> None:
    """Writes the images of a task as bytes, in the size they come in, to one file."""
    read, train, test = TASKS[options.task]
    found = read(options.data, options.train or train, options.test or test)
    np.savez_compressed(options.prepare, task=np.array(options.task), **found)
    shapes = {name: array.shape for name, array in found.items()}
    print(f"{options.prepare}: {options.prepare.stat().st_size} bytes, {shapes}")


def network() -> Any:
    """The network of the promise."""
    import keras

    layers = keras.layers
    return keras.Sequential([
        keras.Input((SIDE, SIDE, 3)), layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten(),
        layers.Dense(128, activation="relu"), layers.Dense(1, activation="sigmoid"),
    ])


def compiled(seed: int, rate: float) -> Any:
    """The network, with the seed's weights, ready to train."""
    import keras

    keras.utils.set_random_seed(seed)
    model = network()
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def scores(predictions: Any, labels: Any) -> tuple[float, float]:
    """Accuracy, and recall of class 1."""
    found = predictions.reshape(-1) > 0.5
    return float((found == labels).mean()), float(found[labels == 1].mean())


def averaging(steps: int) -> Any:
    """A callback that averages the weights of plain training as ``compress`` does, without setting them."""
    import keras
    from lepton_ai._average import Mean

    class Averaging(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.done, self.seconds = Mean(steps), 0, 0.0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.done += 1
            if not self.mean.due(self.done):
                return
            begun = time.perf_counter()
            if keras.backend.backend() == "jax":
                self.model.jax_state_sync()
            self.mean.add(self.done, [keras.ops.convert_to_numpy(weight) for weight in self.model.weights])
            self.seconds += time.perf_counter() - begun

    return Averaging()


def trained(seed: int, data: Any, options: argparse.Namespace) -> tuple[Any, Any, Any, Any, list[float], list[float]]:
    """The plain and the compressed model after training, what averages the plain one's weights, and the seconds a
    step of each epoch.

    One epoch of the one, one of the other: what else the machine does falls on both.
    """
    import keras
    from lepton_ai import LeptonAI

    rows, labels = data[:2]
    plain, model = compiled(seed, options.rate), compiled(seed, options.rate)
    steps = -(-len(rows) // options.batch)
    lepton = LeptonAI(model).compress(RATIO, steps=steps * options.epochs)
    average = averaging(steps * options.epochs)
    times: tuple[list[float], list[float]] = ([], [])
    for epoch in range(options.epochs):
        said = []
        for one, seconds in zip((plain, model), times):
            keras.utils.set_random_seed(1000 * seed + epoch)
            begun = time.perf_counter()
            average.seconds = 0.0
            callbacks = [average] if one is plain else []
            history = one.fit(rows, labels, batch_size=options.batch, epochs=1, verbose=0, callbacks=callbacks).history
            seconds.append((time.perf_counter() - begun - average.seconds) / steps)
            said.append(f"loss {history['loss'][-1]:.4f} accuracy {history['accuracy'][-1]:.4f}")
            if options.validate:
                accuracy, recall = scores(one.predict(data[2], verbose=0), data[3])
                said.append(f"held out {accuracy:.4f} recall {recall:.4f}")
        print(f"seed {seed} epoch {epoch + 1}: {times[0][-1]:.3f} s, {times[1][-1]:.3f} s a step; {'; '.join(said)}",
              file=sys.stderr, flush=True)
    return plain, model, lepton, average.mean.take(average.done), *times


def latency_ms(call: Any, runs: int = 15) -> float:
    """Median milliseconds of a call."""
    call()
    found = []
    for _ in range(runs):
        begun = time.perf_counter()
        call()
        found.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(found)


def measured(seed: int, data: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Everything about one seed."""
    plain, model, lepton, mean, without, under = trained(seed, data, options)
    test, labels = data[2:]
    expected = model.predict(test, verbose=0)
    accuracy, recall = scores(expected, labels)
    plain_accuracy, plain_recall = scores(plain.predict(test, verbose=0), labels)
    one = test[:1]
    predict_ms = latency_ms(lambda: plain.predict(one, verbose=0))
    plain.set_weights(mean)
    mean_accuracy, mean_recall = scores(plain.predict(test, verbose=0), labels)
    found = {
        "seed": seed, "accuracy_plain": plain_accuracy, "accuracy": accuracy, "recall_plain": plain_recall,
        "recall": recall, "step_plain_s": statistics.median(without[1:] or without),
        "time_ratio": sum(under[1:] or under) / sum(without[1:] or without),
        "accuracy_plain_mean": mean_accuracy, "recall_plain_mean": mean_recall,
        "predict_ms": predict_ms, "weights": model.count_params(),
    }
    return found | of_file(model, lepton, expected, test, labels)


def of_file(model: Any, lepton: Any, expected: Any, test: Any, labels: Any) -> dict[str, Any]:
    """What the exported file answers and weighs, and whether Keras' own file is one of plain layers."""
    import keras

    from lepton_ai import Session

    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        report = lepton.export(Path(folder) / "model.lepton")
        export_s = time.perf_counter() - begun
        found = Session(report.file, threads=min(os.cpu_count() or 1, 8)).predict(test)
        session, one = Session(report.file, threads=1), test[:1]
        fast = latency_ms(lambda: session.run(one))
        saved = Path(folder) / "m.keras"
        model.save(saved)
        loaded = keras.models.load_model(saved)
        loads = (type(loaded.layers[0]) is keras.layers.Conv2D
                 and np.abs(loaded.predict(test[:32], verbose=0) - expected[:32]).max() < 1e-3)
    accuracy, recall = scores(found, labels)
    return {
        "accuracy_file": accuracy, "recall_file": recall, "difference": float(np.abs(found - expected).max()),
        "file_bytes": report.file_bytes, "ratio": 4 * model.count_params() / (report.file_bytes or 1),
        "session_ms": fast, "export_s": export_s, "plain_keras_loads": bool(loads),
    }


def setting(data: Any, options: argparse.Namespace) -> dict[str, Any]:
    """What a seed's line says about how it was made."""
    import keras

    import lepton_ai

    backend = keras.backend.backend()
    library = importlib.import_module(backend)
    device = "CPU"
    if backend == "torch" and library.cuda.is_available():
        device = library.cuda.get_device_name()
    elif backend == "jax":
        device = library.devices()[0].device_kind
    elif backend == "tensorflow" and library.config.list_physical_devices("GPU"):
        device = "GPU"
    machine = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                    if line.startswith("model name")), platform.machine())
    return {
        "task": options.task, "part": "validation" if options.validate else "test", "train": len(data[1]),
        "test": len(data[3]), "epochs": options.epochs, "batch": options.batch, "rate": options.rate,
        "asked": RATIO, "date": str(datetime.date.today()), "machine": f"{machine}, {os.cpu_count()} CPUs",
        "device": device, "versions": f"Python {platform.python_version()}, Keras {keras.__version__}, {backend} "
        f"{library.__version__}, lepton_ai {lepton_ai.__version__}", "load": os.getloadavg()[1],
        "command": f"KERAS_BACKEND={backend} python benches/promise.py {shlex.join(sys.argv[1:])}",
    }


def measure(options: argparse.Namespace) -> None:
    """Measures the seeds, and appends a line for each."""
    data = rows_of(options)
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        line = json.dumps(setting(data, options) | measured(seed, data, options))
        print(line, flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(line + "\n")


def interval(differences: list[float]) -> str:
    """The mean, and between what it lies with 95 %, of differences of pairs by Student's t, in points."""
    mean = 100 * statistics.fmean(differences)
    if len(differences) < 2:
        return f"{mean:+.2f} points (one seed: no interval)"
    quantile = T_QUANTILES[min(len(differences) - 1, len(T_QUANTILES)) - 1]
    half = 100 * quantile * statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{mean:+.2f} points (95 %: {mean - half:+.2f} to {mean + half:+.2f})"


_SAME = ("task", "part", "train", "test", "epochs", "batch", "rate", "asked", "machine", "device", "versions")
"""What the seeds of one section have in common."""


def section(found: list[dict[str, Any]]) -> str:
    """What was measured in one setting, as Markdown."""
    first = found[0]
    many = len(found) > 1
    lines = [
        f"## {first['task']}, {len(found)} seed{'s' if many else ''}, {first['versions'].split(', ')[2]}", "",
        f"{first['train']} images to train, {first['test']} of the {first['part']} split to measure, {first['epochs']} "
        f"epochs, batches of {first['batch']}, Adam {first['rate']:g}; {first['weights']} weights, {first['asked']}x asked. "
        f"{first['date']}, {first['machine']}, trained on {first['device']}; {first['versions']}. "
        f"Load of the machine: {min(row['load'] for row in found):.1f} to {max(row['load'] for row in found):.1f}.", "",
        f"`{first['command']}`", "",
        f"Accuracy of the file minus that without compression: "
        f"{interval([row['accuracy_file'] - row['accuracy_plain'] for row in found])}; recall: "
        f"{interval([row['recall_file'] - row['recall_plain'] for row in found])}. Files are "
        f"{min(row['ratio'] for row in found):.1f} to {max(row['ratio'] for row in found):.1f} times smaller than the "
        f"float32 weights; the training took {statistics.median(row['time_ratio'] for row in found):.2f} times as long. "
        "A training under compression ends with the mean of the weights of its last tenth. Beside a training without "
        "compression that is averaged in the same way, which Keras does not do by itself, the file's accuracy is "
        f"{interval([row['accuracy_file'] - row['accuracy_plain_mean'] for row in found])}, its recall "
        f"{interval([row['recall_file'] - row['recall_plain_mean'] for row in found])}.", "",
        "| seed | accuracy, recall without | without, averaged | under compression | of the file | file bytes | smaller | largest "
        "difference of the file | a step without | training time | `predict` on the device / file, 1 thread | `.keras` loads |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(found, key=lambda row: row["seed"]):
        lines.append(
            f"| {row['seed']} | {row['accuracy_plain']:.4f}, {row['recall_plain']:.4f} | "
            f"{row['accuracy_plain_mean']:.4f}, {row['recall_plain_mean']:.4f} | {row['accuracy']:.4f}, "
            f"{row['recall']:.4f} | {row['accuracy_file']:.4f}, {row['recall_file']:.4f} | {row['file_bytes']} | "
            f"{row['ratio']:.1f}x | {row['difference']:.1e} | {1e3 * row['step_plain_s']:.0f} ms | {row['time_ratio']:.2f}x | "
            f"{row['predict_ms']:.0f} / {row['session_ms']:.0f} ms | {'yes' if row['plain_keras_loads'] else 'no'} |")
    return "\n".join(lines) + "\n"


def page(lines: list[str]) -> str:
    """The page of all results."""
    settings: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in lines:
        row = json.loads(line)
        settings.setdefault(tuple(row[key] for key in _SAME), []).append(row)
    parts = [
        f"# What `compress({RATIO})` does to a network of 50 million weights\n\nMade by "
        "[promise.py](../bindings/python/benches/promise.py) of [its results](../bindings/python/benches/promise.jsonl): "
        "the same network trained without compression and under it, an epoch of each in turn, same seed, same images. "
        "Recall is that of class 1: COVID, a vehicle. Intervals are Student's t over the "
        "seeds' paired differences. Rate and epochs were chosen on images held out of the training split.\n",
        *(section(found) for found in settings.values()),
    ]
    return "\n".join(parts)


def main() -> None:
    """Prepares, measures or renders."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=TASKS, default="lung-ct", help="an .npz says itself what it is of")
    parser.add_argument("--data", type=Path, default=ASSETS, help="folder of the assets, or a prepared .npz")
    parser.add_argument("--prepare", type=Path, help="write the images to this .npz and end")
    parser.add_argument("--render", type=Path, help=f"write the page of {RESULTS.name} to this file and end")
    parser.add_argument("--validate", action="store_true", help="hold a sixth of the training split out, and measure on it")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--train", type=int, help="images to train with; default: all")
    parser.add_argument("--test", type=int, help="images to measure with; default: all")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3, help="of Adam; Keras' own by default")
    parser.add_argument("--out", type=Path, help="file to append the lines of JSON to")
    options = parser.parse_args()
    if options.prepare:
        prepare(options)
    elif options.render:
        options.render.write_text(page(RESULTS.read_text().splitlines()))
    else:
        measure(options)


if __name__ == "__main__":
    main()
