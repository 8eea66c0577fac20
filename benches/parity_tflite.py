"""Outputs and accuracies of Lepton and the TensorFlow Lite interpreter on the same inputs.

Usage: python benches/parity_tflite.py ASSETS_FOLDER [--reference FOLDER] [MODEL ...]
Needs numpy, pillow, ai-edge-litert and lepton_ai (bindings/python). Prints a Markdown table: the
largest difference of any output from the interpreter with its delegate (XNNPACK) and from its own
kernels, in steps where the output is quantised, the share of outputs that differ, and accuracies.
With --reference, stores inputs and outputs of the first rows for the tests.
"""

import csv
import gzip
import io
import pathlib
import re
import sys
import tarfile
import wave

import numpy as np
from ai_edge_litert import interpreter as litert
from PIL import Image

import lepton_ai

REFERENCE_ROWS = 2


def images_and_labels(assets, file):
    data = np.load(assets / file)
    return data["images"], data["labels"].astype(int)


def resnet8(assets, details):
    return pixels(*images_and_labels(assets, "image/mlperf_tiny_resnet8/ic01_200_u8_nhwc.npz"), details, 1.0)


def person(assets, details):
    return pixels(*images_and_labels(assets, "image/mlperf_tiny_vww/vww01_240_u8_nhwc.npz"), details, 255.0)


def pixels(images, labels, details, divisor):
    """Bytes as the model wants them: reals from 0, or int8."""
    if details["dtype"] == np.int8:
        return [(images.astype(np.int16) - 128).astype(np.int8)], labels
    return [images.astype(np.float32) / np.float32(divisor)], labels


def keywords(assets, details):
    data = np.load(assets / "audio/mlperf_tiny_kws/kws01_mfcc_int8_1000.npz")
    x = data["features"][..., None]
    if details["dtype"] == np.float32:
        x = (x.astype(np.float32) - 83) * np.float32(0.58470291)
    return [x], data["labels"].astype(int)


def mnist(assets, details):
    folder = assets / "image/mnist"
    images = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    x = np.frombuffer(images[16:], np.uint8).reshape(-1, 28, 28)[:2000]
    labels = np.frombuffer(labels[8:], np.uint8)[:2000].astype(int)
    return [quantised(x.astype(np.float32) / 255, details)], labels


def quantised(x, details):
    if details["dtype"] == np.float32:
        return x
    scale, zero = details["quantization"]
    limits = np.iinfo(details["dtype"])
    return np.clip(np.round(x / scale) + zero, limits.min, limits.max).astype(details["dtype"])


def imagenet(assets, details):
    size, images, labels = details["shape"][1], [], []
    with tarfile.open(assets / "image/imagenet_tflite/imagenet_250_160px.tar.gz") as archive:
        for member in sorted(archive.getmembers(), key=lambda m: m.name):
            if member.isfile():
                image = Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")
                images.append(np.asarray(image.resize((size, size), Image.BILINEAR)))
                labels.append(int(re.search(r"(\d{4})", pathlib.Path(member.name).name)[1]) + 1)
    return [np.stack(images)], np.array(labels)


def speech(assets, details):
    data = np.load(assets / "audio/speech_commands/more_600.npz")
    names = (assets / "audio/keyword_transformer/labels.txt").read_text().split()
    own = (assets / "audio/speech_commands/labels.txt").read_text().split()
    labels = [names.index(own[label]) for label in data["labels"]]
    return [data["wave_i16"].astype(np.float32) / 32768], np.array(labels)


def sentiment(assets, details):
    folder = assets / "nlp/imdb_avgword_tflite"
    lines = (folder / "text_classification_vocab.txt").read_text().splitlines()
    vocabulary = {word: int(number) for word, number in (l.rsplit(" ", 1) for l in lines if " " in l)}
    rows, labels = [], []
    for line in (assets / "nlp/sst2/test.tsv").read_text().splitlines():
        text, label = line.rsplit("\t", 1)
        words = [w for w in re.split(r"[^a-z0-9']+|\s+", text.lower()) if w]
        ids = [vocabulary["<START>"]] + [vocabulary.get(w, vocabulary["<UNKNOWN>"]) for w in words]
        rows.append((ids + [0] * 256)[:256])
        labels.append(int(label))
    return [np.array(rows, np.float32)], np.array(labels)


def gestures(assets, details):
    with gzip.open(assets / "tabular/hand_gesture/keypoint.csv.gz", "rt") as file:
        rows = [[float(v) for v in row] for row in csv.reader(file)]
    rows = np.array(rows, np.float32)
    return [rows[:, 1:]], rows[:, 0].astype(int)


def bird(assets, details):
    image = Image.open(assets / "image/segmentation/bird_segmentation.bmp").convert("RGB")
    return [np.asarray(image.resize((513, 513), Image.BILINEAR))[None]], None


def faces(assets, details):
    files = sorted((assets / "image/ultraface/imgs").iterdir())[:4]
    load = lambda f: np.asarray(Image.open(f).convert("RGB").resize((320, 240), Image.BILINEAR))
    return [(np.stack([load(f) for f in files]).astype(np.float32) - 127) / 128], None


def noisy(assets, details):
    """Spectra, or samples, of a noisy recording, and random states."""
    with wave.open(str(assets / "audio/dtln/noisy_mix.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16) / np.float32(32768)
    frames = np.stack([samples[i : i + 512] for i in range(0, 512 * 20, 512)]).astype(np.float32)
    if details["shape"][2] == 257:
        frames = np.abs(np.fft.rfft(frames)).astype(np.float32)
    states = np.random.default_rng(0).normal(0, 0.5, (len(frames), 2, 128, 2)).astype(np.float32)
    return [frames[:, None], states], None


def anything(assets, details):
    """Values as wide as the model's calibration, no labels."""
    generator, shape = np.random.default_rng(0), (50, *details["shape"][1:])
    if details["dtype"] == np.int8:
        return [generator.integers(-128, 128, shape).astype(np.int8)], None
    return [generator.normal(0, 3, shape).astype(np.float32)], None


# Model, data, and the accuracy in the assets' catalogue, in per cent.
MODELS = [
    ("image/mlperf_tiny_resnet8/pretrainedResnet.tflite", resnet8, 85.5),
    ("image/mlperf_tiny_resnet8/pretrainedResnet_quant.tflite", resnet8, 85.0),
    ("image/mlperf_tiny_vww/vww_96_float.tflite", person, 87.1),
    ("image/mlperf_tiny_vww/vww_96_int8.tflite", person, 86.3),
    ("audio/mlperf_tiny_kws/kws_ref_model_float32.tflite", keywords, 90.0),
    ("audio/mlperf_tiny_kws/kws_ref_model.tflite", keywords, 90.2),
    ("audio/mlperf_tiny_ad/ad01_fp32.tflite", anything, None),
    ("audio/mlperf_tiny_ad/ad01_int8.tflite", anything, None),
    ("image/mnist_models/trained_lstm.tflite", mnist, 97.5),
    ("image/mnist_models/trained_lstm_int8.tflite", mnist, 97.45),
    ("image/mnist_models/keras_lstm_mnist_ptq.tflite", mnist, 97.1),
    ("image/imagenet_tflite/mobilenet_v1_0.25_128_quant.tflite", imagenet, 40.4),
    ("image/imagenet_tflite/mobilenet_v1_0.5_160_quant.tflite", imagenet, 66.0),
    ("image/segmentation/deeplabv3_mnv2_dm05_pascal_quant.tflite", bird, None),
    ("image/ultraface/version-RFB-320_without_postprocessing.tflite", faces, None),
    ("audio/keyword_transformer/kwt1_non_stream.tflite", speech, None),
    ("audio/micro_speech/micro_speech_quantized.tflite", anything, None),
    ("audio/dtln/model_quant_1.tflite", noisy, None),
    ("audio/dtln/model_quant_2.tflite", noisy, None),
    ("nlp/imdb_avgword_tflite/text_classification.tflite", sentiment, 75.6),
    ("tabular/hand_gesture/keypoint_classifier.tflite", gestures, 96.5),
]


class Interpreter:
    def __init__(self, path, resolver):
        self.it = litert.Interpreter(str(path), num_threads=1, experimental_op_resolver_type=resolver)
        self.it.allocate_tensors()
        self.inputs, self.outputs = self.it.get_input_details(), self.it.get_output_details()

    def run(self, row):
        self.it.reset_all_variables()
        for details, value in zip(self.inputs, row):
            self.it.set_tensor(details["index"], value)
        self.it.invoke()
        return [self.it.get_tensor(details["index"]).copy() for details in self.outputs]


def interpreters(path):
    kinds = litert.OpResolverType
    return [Interpreter(path, kinds.AUTO), Interpreter(path, kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES)]


def difference(ours, theirs):
    """The largest difference, absolute for reals and in steps for integers, and how many differ."""
    worst, count, differing, is_integer = 0.0, 0, 0, False
    for mine, other in zip(ours, theirs):
        is_integer |= mine.dtype != np.float32
        if mine.shape != other.shape or mine.dtype != other.dtype:
            raise SystemExit(f"{mine.dtype}{mine.shape} against {other.dtype}{other.shape}")
        apart = np.abs(mine.astype(np.float64) - other.astype(np.float64))
        worst, count = max(worst, apart.max()), count + apart.size
        differing += int((apart > 0).sum())
    return worst, differing / count, is_integer


def compare(path, load, assets):
    peers = interpreters(path)
    inputs, labels = load(assets, peers[0].inputs[0])
    session = lepton_ai.Session(str(path))
    rows = [[np.ascontiguousarray(column[i : i + 1]) for column in inputs] for i in range(len(inputs[0]))]
    results = [[], [], []]
    for row in rows:
        made = session.run(dict(zip((spec.name for spec in session.inputs), row)))
        results[0].append([np.array(made[spec.name]) for spec in session.outputs])
        for peer, made in zip(peers, results[1:]):
            made.append(peer.run(row))
    return rows, results, labels


def share(result, labels):
    right = [int(outputs[0].reshape(-1).argmax()) == label for outputs, label in zip(result, labels)]
    return 100 * float(np.mean(right))


def shown(result, reference):
    each = [difference(a, b) for a, b in zip(result, reference)]
    worst, differing = max(e[0] for e in each), np.mean([e[1] for e in each])
    text = f"{worst:.0f} step" if each[0][2] else f"{worst:.1e}"
    return text + (f" ({100 * differing:.2f} %)" if each[0][2] else "")


def store(folder, path, rows, results):
    arrays = {}
    for i in range(min(REFERENCE_ROWS, len(rows))):
        arrays |= {f"row{i}.input{k}": value for k, value in enumerate(rows[i])}
        arrays |= {f"row{i}.output{k}": value for k, value in enumerate(results[1][i])}
    np.savez_compressed(folder / f"{path.stem}.npz", **arrays)


def main():
    arguments = sys.argv[1:]
    reference = None
    if "--reference" in arguments:
        at = arguments.index("--reference")
        reference = pathlib.Path(arguments.pop(at + 1))
        arguments.pop(at)
    assets, wanted = pathlib.Path(arguments[0]), arguments[1:]
    print("| model | rows | from XNNPACK | from its own kernels | XNNPACK from own | catalogue % | XNNPACK % | own % | Lepton % |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, load, expected in MODELS:
        if wanted and not any(word in name for word in wanted):
            continue
        path = assets / name
        try:
            rows, results, labels = compare(path, load, assets)
        except (lepton_ai.LeptonError, RuntimeError, ValueError) as error:
            print(f"| {path.stem} | {error} |", flush=True)
            continue
        ours, fast, own = results
        shares = [share(r, labels) for r in (fast, own, ours)] if labels is not None else []
        figures = " | ".join(f"{s:.2f}" for s in shares) or " |  | "
        print(f"| {path.stem} | {len(rows)} | {shown(ours, fast)} | {shown(ours, own)} "
              f"| {shown(fast, own)} | {expected or ''} | {figures} |", flush=True)
        if reference:
            store(reference, path, rows, results)


if __name__ == "__main__":
    main()
