"""Trains the example's network on the digits of scikit-learn and writes model and data.

Usage: python examples/digits/make.py
Needs numpy, onnx and scikit-learn. Writes digits.onnx (a small residual network, float32),
train.npz (900 images and labels, which the network is trained on) and test.npz (897, which it never
sees).

The network: conv 1-32, conv 32-64, max pooling, conv 64-64, conv 64-64 with a residual, dense 10;
all convolutions 3x3 with ReLU. Adam, cosine learning rate, random shifts by a pixel.
"""

import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

FOLDER = pathlib.Path(__file__).parent
EPOCHS = 30
BATCH = 64
RATE = 2e-3
LAYERS = {
    "conv1": (32, 1, 3, 3),
    "conv2": (64, 32, 3, 3),
    "conv3": (64, 64, 3, 3),
    "conv4": (64, 64, 3, 3),
    "dense": (1024, 10),
}


def start(rng):
    weights = {}
    for name, shape in LAYERS.items():
        inputs = shape[0] if name == "dense" else int(np.prod(shape[1:]))
        outputs = shape[1] if name == "dense" else shape[0]
        weights[f"{name}.weight"] = rng.normal(0, np.sqrt(2 / inputs), shape).astype(np.float32)
        weights[f"{name}.bias"] = np.zeros(outputs, np.float32)
    return weights


def windows(x):
    """[N,C,H,W] to [N·H·W, C·9], zero padding."""
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    view = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return view.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, c * 9)


def conv(x, weight, bias):
    n, _, h, w = x.shape
    columns = windows(x)
    y = columns @ weight.reshape(len(weight), -1).T + bias
    return y.reshape(n, h, w, -1).transpose(0, 3, 1, 2), columns


def conv_back(dy, columns, weight, shape):
    n, c, h, w = shape
    flat = dy.transpose(0, 2, 3, 1).reshape(-1, len(weight))
    dw = (flat.T @ columns).reshape(weight.shape)
    turned = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    dx = windows(dy) @ turned.reshape(c, -1).T
    return dx.reshape(n, h, w, c).transpose(0, 3, 1, 2), dw, flat.sum(0)


def forward(p, x):
    a1, m1 = conv(x, p["conv1.weight"], p["conv1.bias"])
    r1 = np.maximum(a1, 0)
    a2, m2 = conv(r1, p["conv2.weight"], p["conv2.bias"])
    r2 = np.maximum(a2, 0)
    n, c, h, w = r2.shape
    blocks = r2.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5)
    blocks = blocks.reshape(n, c, h // 2, w // 2, 4)
    pooled = blocks.max(-1)
    a3, m3 = conv(pooled, p["conv3.weight"], p["conv3.bias"])
    r3 = np.maximum(a3, 0)
    a4, m4 = conv(r3, p["conv4.weight"], p["conv4.bias"])
    r4 = np.maximum(a4 + pooled, 0)
    flat = r4.reshape(n, -1)
    logits = flat @ p["dense.weight"] + p["dense.bias"]
    return logits, (x, r1, r2, blocks, pooled, r3, r4, flat, m1, m2, m3, m4)


def gradients(p, x, labels):
    logits, (x, r1, r2, blocks, pooled, r3, r4, flat, m1, m2, m3, m4) = forward(p, x)
    n = len(x)
    soft = np.exp(logits - logits.max(1, keepdims=True))
    soft /= soft.sum(1, keepdims=True)
    d = soft.copy()
    d[np.arange(n), labels] -= 1
    d /= n
    g = {"dense.weight": flat.T @ d, "dense.bias": d.sum(0)}
    d4 = (d @ p["dense.weight"].T).reshape(r4.shape) * (r4 > 0)
    d3, g["conv4.weight"], g["conv4.bias"] = conv_back(d4, m4, p["conv4.weight"], r3.shape)
    d3 = d3 * (r3 > 0)
    dp, g["conv3.weight"], g["conv3.bias"] = conv_back(d3, m3, p["conv3.weight"], pooled.shape)
    dp = dp + d4
    first = blocks.argmax(-1)[..., None] == np.arange(4)
    db = (dp[..., None] * first).reshape(*pooled.shape, 2, 2).transpose(0, 1, 2, 4, 3, 5)
    d2 = db.reshape(r2.shape) * (r2 > 0)
    d1, g["conv2.weight"], g["conv2.bias"] = conv_back(d2, m2, p["conv2.weight"], r1.shape)
    d1 = d1 * (r1 > 0)
    _, g["conv1.weight"], g["conv1.bias"] = conv_back(d1, m1, p["conv1.weight"], x.shape)
    loss = -np.log(soft[np.arange(n), labels] + 1e-9).mean()
    return loss, g


def shifted(x, rng):
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.empty_like(x)
    for i, (dy, dx) in enumerate(rng.integers(0, 3, (len(x), 2))):
        out[i] = padded[i, :, dy : dy + 8, dx : dx + 8]
    return out


def train(x, labels, rng):
    p = start(rng)
    first = {k: np.zeros_like(v) for k, v in p.items()}
    second = {k: np.zeros_like(v) for k, v in p.items()}
    steps = EPOCHS * (len(x) // BATCH)
    step = 0
    for epoch in range(EPOCHS):
        order = rng.permutation(len(x))
        for at in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[at : at + BATCH]
            loss, g = gradients(p, shifted(x[rows], rng), labels[rows])
            step += 1
            rate = RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
            for k in p:
                first[k] = 0.9 * first[k] + 0.1 * g[k]
                second[k] = 0.999 * second[k] + 0.001 * g[k] ** 2
                m, v = first[k] / (1 - 0.9**step), second[k] / (1 - 0.999**step)
                p[k] = (p[k] - rate * m / (np.sqrt(v) + 1e-8)).astype(np.float32)
        print(f"epoch {epoch + 1}: loss {loss:.4f}", flush=True)
    return p


def model(p):
    def conv_node(x, name, y):
        inputs = [x, f"{name}.weight", f"{name}.bias"]
        return helper.make_node("Conv", inputs, [y], name, kernel_shape=[3, 3], pads=[1] * 4)

    nodes = [
        conv_node("image", "conv1", "a1"),
        helper.make_node("Relu", ["a1"], ["r1"], "relu1"),
        conv_node("r1", "conv2", "a2"),
        helper.make_node("Relu", ["a2"], ["r2"], "relu2"),
        helper.make_node("MaxPool", ["r2"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        conv_node("p", "conv3", "a3"),
        helper.make_node("Relu", ["a3"], ["r3"], "relu3"),
        conv_node("r3", "conv4", "a4"),
        helper.make_node("Add", ["a4", "p"], ["s4"], "add"),
        helper.make_node("Relu", ["s4"], ["r4"], "relu4"),
        helper.make_node("Flatten", ["r4"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "dense.weight", "dense.bias"], ["logits"], "dense"),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(v, k) for k, v in p.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def main():
    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, None]
    labels = digits.target.astype(np.uint8)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    images, labels = images[order], labels[order]
    x = images.astype(np.float32) / 16
    p = train(x[:900], labels[:900].astype(int), rng)
    right = forward(p, x[900:])[0].argmax(1) == labels[900:]
    print(f"test accuracy: {100 * right.mean():.2f} %")
    onnx.save(model(p), FOLDER / "digits.onnx")
    np.savez_compressed(FOLDER / "train.npz", image=images[:900], labels=labels[:900])
    np.savez_compressed(FOLDER / "test.npz", image=images[900:], labels=labels[900:])


if __name__ == "__main__":
    main()
