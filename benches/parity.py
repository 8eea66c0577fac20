"""Outputs and accuracies of Lepton and ONNX Runtime on the same inputs.

Usage: python benches/parity.py LEPTON_BINARY ASSETS_FOLDER [MODEL ...]
Needs numpy, onnxruntime and pillow. Prints a Markdown table: accuracy of both, largest difference
of the first output.
"""

import gzip
import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile

import numpy as np
import onnxruntime
from PIL import Image

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)


def cifar(assets):
    images, labels = [], []
    with tarfile.open(assets / "image/cifar10/test_10k_jpeg.tar.gz") as archive:
        for member in archive:
            if member.isfile():
                image = Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")
                pixels = np.asarray(image, np.float32).transpose(2, 0, 1) / 255
                images.append((pixels - MEAN) / STD)
                labels.append(int(pathlib.Path(member.name).stem.split("_")[1]))
    return np.stack(images), np.array(labels)


def mnist(assets):
    folder = assets / "image/mnist"
    images = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images[16:], np.uint8).reshape(-1, 1, 28, 28)
    return pixels.astype(np.float32) / 255, np.frombuffer(labels[8:], np.uint8).astype(np.int64)


def lung_ct(assets):
    data = np.load(assets / "medical/covid_ct/test_64x64.npz")
    images, labels = first(data, "x", "images", "test_images"), first(data, "y", "labels")
    return images.reshape(-1, 1, 64, 64).astype(np.float32) / 255, labels.astype(np.int64).ravel()


def fraud(assets):
    data = np.load(assets / "finance/ulb_creditcard_sample/fraud_mlp_test.npz")
    return first(data, "x", "features").astype(np.float32), first(data, "y", "labels").ravel()


def sst2(assets):
    data = np.load(assets / "nlp/sst2/sst2_transformer_test_ids.npz")
    return first(data, "ids", "x", "input_ids"), first(data, "y", "labels").ravel()


def first(data, *names):
    for name in names:
        if name in data:
            return data[name]
    raise SystemExit(f"none of {names} in {list(data)}")


MODELS = {
    "image/resnet_cifar10/resnet20_jpeg_finetuned.onnx": cifar,
    "image/resnet_cifar10/resnet32.onnx": cifar,
    "image/mnist_models/lenet_300_100.onnx": mnist,
    "image/mnist_models/lenet5_caffe.onnx": mnist,
    "medical/covid_ct/ct_cnn.onnx": lung_ct,
    "finance/ulb_creditcard_sample/fraud_mlp.onnx": fraud,
    "nlp/sst2/sst2_transformer.onnx": sst2,
}


def accuracy(logits, labels):
    """Share of right classes; one column is the logit of the second of two classes."""
    columns = logits.reshape(len(labels), -1)
    found = columns.argmax(1) if columns.shape[1] > 1 else (columns[:, 0] > 0).astype(int)
    return 100 * float(np.mean(found == labels))


def run_lepton(binary, model, name, x, folder):
    given, made = folder / "in.npz", folder / "out.npz"
    np.savez(given, **{name: x})
    command = [binary, "run", str(model), "--input", str(given), "--output", str(made)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return np.load(made)


def main():
    binary, assets = sys.argv[1], pathlib.Path(sys.argv[2])
    wanted = sys.argv[3:]
    print("| model | samples | ONNX Runtime % | Lepton % | largest difference | largest output |")
    print("|---|---|---|---|---|---|")
    for path, load in MODELS.items():
        if wanted and not any(word in path for word in wanted):
            continue
        x, labels = load(assets)
        session = onnxruntime.InferenceSession(assets / path, providers=["CPUExecutionProvider"])
        given = session.get_inputs()[0]
        if given.type == "tensor(int64)":
            x = x.astype(np.int64)
        output = session.get_outputs()[0].name
        fixed = given.shape[0] if isinstance(given.shape[0], int) else 500
        theirs, ours = [], []
        with tempfile.TemporaryDirectory() as folder:
            for start in range(0, len(x), fixed):
                part = np.ascontiguousarray(x[start : start + fixed])
                theirs.append(session.run([output], {given.name: part})[0])
                done = run_lepton(binary, assets / path, given.name, part, pathlib.Path(folder))
                ours.append(done[output])
        theirs, ours = np.concatenate(theirs), np.concatenate(ours)
        print(
            f"| {pathlib.Path(path).stem} | {len(x)} | {accuracy(theirs, labels):.2f} "
            f"| {accuracy(ours, labels):.2f} | {np.abs(theirs - ours).max():.2e} "
            f"| {np.abs(theirs).max():.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
