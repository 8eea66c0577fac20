"""Fresh exports of models people use, through Lepton and ONNX Runtime, as docs/real-models.md.

    pip install onnx onnxruntime onnxscript scikit-learn skl2onnx xgboost lightgbm onnxmltools pandas
    pip install torch torchvision transformers
    pip install tensorflow-cpu keras tf2onnx      # in another environment, where both do not fit
    python benches/real_models.py [NAME …]        # LEPTON_RELEASE: folder of the binary `lepton`

With names, only those rows of the page are made again. `--keep FOLDER` leaves the exports there and takes those that
it finds; `--keep FOLDER --speed` exports nothing and takes new times of the rows of the page whose exports are there.
Rows of exporters that are not installed stay as the page has them.

Weights are random (seed 0) and images small: what is asked is whether the operators that exporters
write today run and give the same numbers. Each row: the exporter, nodes of the file, the largest
difference of any output from ONNX Runtime's in units of that output's largest value (1 where a
string differs), and ONNX Runtime's time / Lepton's, one thread, medians of turns. Models on tables
and texts get 40 rows. A row without nodes says why the exporter refused the model.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
import traceback

import numpy as np

from real_classical import classical
from real_keras import keras_models

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEPTON = pathlib.Path(os.environ.get("LEPTON_RELEASE", ROOT / "target/release")) / "lepton"
CLASSIFIERS = ["alexnet", "vgg11_bn", "resnet18", "resnext50_32x4d", "wide_resnet50_2", "densenet121",
               "googlenet", "inception_v3", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small",
               "mnasnet0_5", "shufflenet_v2_x0_5", "regnet_y_400mf", "efficientnet_b0",
               "efficientnet_v2_s", "convnext_tiny", "vit_b_16", "swin_t", "swin_v2_t", "maxvit_t"]
SEGMENTERS = ["deeplabv3_mobilenet_v3_large", "fcn_resnet50", "lraspp_mobilenet_v3_large"]
DETECTORS = ["ssdlite320_mobilenet_v3_large", "ssd300_vgg16", "fasterrcnn_mobilenet_v3_large_320_fpn",
             "retinanet_resnet50_fpn", "maskrcnn_resnet50_fpn"]
IMAGE = {"alexnet": 224, "vgg11_bn": 224, "inception_v3": 96, "vit_b_16": 224, "maxvit_t": 224}


def torch_export(module, inputs, path, exporter, names=None, kwargs=None):
    import torch

    module.eval()
    options = {"dynamo": exporter == "dynamo", "input_names": names}
    if exporter == "script":
        options["opset_version"] = 17
    with torch.no_grad():
        torch.onnx.export(module, tuple(inputs), str(path), kwargs=kwargs or {}, verbose=False, **options)


def settle(module, images):
    """Gives layers that normalise the statistics of a batch: with those of an untrained network nothing of the image
    comes through."""
    import torch

    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    module.train()
    with torch.no_grad():
        return module(images)


def uneven(number, size):
    """Images that are not alike, as photographs are not. What noise alone makes of an untrained detector is so even
    that the variances of the last layers are next to nothing, and the next image is blown up."""
    import torch

    coarse = torch.nn.functional.interpolate(torch.rand(number, 3, 6, 6), size=size, mode="bilinear")
    return (coarse + torch.rand(number, 3, size, size)) / 2


def settle_detector(module, images):
    """As `settle`, without the losses that a detector in training wants boxes for."""
    images, _ = module.eval().transform(list(images))
    features = settle(module.backbone, images.tensors)
    if hasattr(module, "head"):
        settle(module.head, list(features.values()))


def detector(name, size):
    """The eight best boxes: an untrained detector is sure of nothing, an empty answer would show nothing, and the order
    of hundreds that are all but equal is a matter of last digits."""
    def make(path, exporter):
        import torch
        import torchvision

        torch.manual_seed(0)
        box = "box_" if "rcnn" in name else ""
        module = getattr(torchvision.models.detection, name)(
            weights=None, weights_backbone=None, **{f"{box}score_thresh": 0.0, f"{box}detections_per_img": 8})
        settle_detector(module, uneven(8, size))
        image = uneven(1, size)[0]
        torch_export(module, [[image]], path, exporter, ["image"])
        np.savez(path.with_suffix(".npz"), image=image.numpy())
    return make


def vision(builder, name, size):
    def make(path, exporter):
        import torch
        import torchvision

        torch.manual_seed(0)
        family = {"c": torchvision.models, "s": torchvision.models.segmentation}[builder]
        options = {"weights": None}
        if builder != "c":
            options["weights_backbone"] = None
        if name in ("googlenet", "inception_v3"):
            options |= {"aux_logits": False, "init_weights": False}
        module = getattr(family, name)(**options)
        settle(module, torch.rand(4, 3, size, size))
        torch_export(module, [torch.rand(1, 3, size, size)], path, exporter)
    return make


class Tensors:
    """Wraps a model of transformers so that it answers with tensors only."""

    def __new__(cls, module, pick):
        import torch

        class Wrapper(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.module = module

            def forward(self, *inputs):
                return pick(self.module, *inputs)

        return Wrapper()


def text(make_module, pick, inputs):
    def make(path, exporter):
        import torch
        import transformers

        torch.manual_seed(0)
        module = make_module(transformers).eval()
        torch_export(Tensors(module, pick), inputs(torch), path, exporter)
    return make


def ids(torch, length=16, vocabulary=90):
    return torch.randint(5, vocabulary, (1, length))


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
         "vocab_size": 100}


def gpt2_past(torch):
    past = [torch.randn(1, 4, 6, 8) for _ in range(4)]
    return [ids(torch, 1), *past]


def run_gpt2(module, tokens, k0, v0, k1, v1):
    from transformers.cache_utils import DynamicCache

    cache = DynamicCache()
    for layer, (k, v) in enumerate([(k0, v0), (k1, v1)]):
        cache.update(k, v, layer)
    made = module(input_ids=tokens, past_key_values=cache, use_cache=True)
    layers = made.past_key_values.layers
    return (made.logits, *[t for layer in layers for t in (layer.keys, layer.values)])


def transformers_models():
    encoder = lambda m, i, a: m(input_ids=i, attention_mask=a, return_dict=False)
    both = lambda torch: [ids(torch), torch.ones(1, 16, dtype=torch.long)]
    return {
        "bert": text(lambda t: t.BertModel(t.BertConfig(**SMALL)), encoder, both),
        "distilbert": text(lambda t: t.DistilBertModel(t.DistilBertConfig(
            dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=100)), encoder, both),
        "gpt2": text(lambda t: t.GPT2LMHeadModel(t.GPT2Config(
            n_embd=32, n_layer=2, n_head=4, vocab_size=100)),
            lambda m, i: m(input_ids=i, use_cache=False).logits, lambda torch: [ids(torch)]),
        "gpt2_past": text(lambda t: t.GPT2LMHeadModel(t.GPT2Config(
            n_embd=32, n_layer=2, n_head=4, vocab_size=100)), run_gpt2, gpt2_past),
        "llama": text(lambda t: t.LlamaForCausalLM(t.LlamaConfig(**SMALL, num_key_value_heads=2)),
                      lambda m, i: m(input_ids=i, use_cache=False).logits, lambda torch: [ids(torch)]),
        "t5": text(lambda t: t.T5Model(t.T5Config(
            d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=100)),
            lambda m, i, d: m(input_ids=i, decoder_input_ids=d, use_cache=False, return_dict=False)[0],
            lambda torch: [ids(torch), ids(torch, 5)]),
        "whisper": text(lambda t: t.WhisperModel(t.WhisperConfig(
            d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=100,
            max_source_positions=50, num_mel_bins=20, pad_token_id=0, bos_token_id=1,
            eos_token_id=2, decoder_start_token_id=1)),
            lambda m, f, d: m(input_features=f, decoder_input_ids=d, use_cache=False, return_dict=False)[0],
            lambda torch: [torch.randn(1, 20, 100), ids(torch, 5)]),
        "wav2vec2": text(lambda t: t.Wav2Vec2Model(t.Wav2Vec2Config(
            **SMALL, conv_dim=(16,) * 7, num_feat_extract_layers=7, num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4)),
            lambda m, x: m(x, return_dict=False)[0], lambda torch: [torch.randn(1, 4000)]),
        "clip": text(lambda t: t.CLIPModel(t.CLIPConfig(
            text_config={**SMALL, "eos_token_id": 2}, vision_config={**{k: v for k, v in SMALL.items() if k != "vocab_size"},
                                                  "image_size": 32, "patch_size": 8}, projection_dim=16)),
            lambda m, i, p: m(input_ids=i, pixel_values=p, return_dict=False)[:2],
            lambda torch: [ids(torch), torch.randn(1, 3, 32, 32)]),
    }


def all_models():
    """Name, exporter and maker of every row."""
    rows = []
    for exporter in ("script", "dynamo"):
        rows += [(n, exporter, vision("c", n, IMAGE.get(n, 64))) for n in CLASSIFIERS]
        rows += [(n, exporter, vision("s", n, 64)) for n in SEGMENTERS]
        rows += [(n, exporter, make) for n, make in transformers_models().items()]
        rows += [(n, exporter, detector(n, 96)) for n in DETECTORS]
    return rows + keras_models() + classical()


def feed_of(session, rng):
    kinds = {"tensor(float)": lambda s: rng.random(s, dtype=np.float32),
             "tensor(int64)": lambda s: rng.integers(5, 90, s), "tensor(double)": lambda s: rng.random(s)}
    return {i.name: kinds[i.type]([d if isinstance(d, int) else 1 for d in i.shape])
            for i in session.get_inputs()}


def as_array(output):
    """An output of ONNX Runtime, dictionaries of scores as a table of scores."""
    if isinstance(output, list) and output and isinstance(output[0], dict):
        return np.array([list(scores.values()) for scores in output])
    return np.asarray(output)


def difference(have, want):
    """The largest one, in units of the largest value."""
    if want.dtype.kind in "OU":
        return float((have.astype(str) != want.astype(str)).any())
    want, scale = want.astype(np.float64), max(float(np.abs(want.astype(np.float64)).max()), 1e-6)
    return float(np.abs(want - have).max()) / scale


def measured(path, folder, feed=None):
    """Difference and ratio of one file, on `feed`, or the arrays beside it, or made-up ones."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(str(path), options)
    beside = path.with_suffix(".npz")
    if feed is None:
        feed = dict(np.load(beside)) if beside.exists() else feed_of(session, np.random.default_rng(0))
    expected = session.run(None, feed)
    inputs, outputs = folder / "in.npz", folder / "out.npz"
    np.savez(inputs, **feed)
    bench = [LEPTON, "bench", path, "--input", inputs, "--seconds", "0.2", "--json", "--output", outputs]
    theirs, ours = [], []
    for _ in range(3):
        done = subprocess.run(bench, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        ours.append(json.loads(done.stdout)["latency"]["p50_us"])
        times, end = [], time.perf_counter() + 0.2
        while time.perf_counter() < end or not times:
            start = time.perf_counter()
            session.run(None, feed)
            times.append(time.perf_counter() - start)
        theirs.append(statistics.median(times) * 1e6)
    found = np.load(outputs)
    worst = 0.0
    for port, want in zip(session.get_outputs(), expected):
        have, want = found[port.name], as_array(want)
        if have.shape != want.shape:
            raise RuntimeError(f"output {port.name}: shape {have.shape}, expected {want.shape}")
        if want.size:
            worst = max(worst, difference(have, want))
    if not all(as_array(want).size for want in expected):
        raise RuntimeError("an output is empty: nothing is compared")
    nodes = len(onnx.load(path, load_external_data=False).graph.node)
    return {"nodes": nodes, "difference": worst, "ratio": statistics.median(theirs) / statistics.median(ours)}


COLUMNS = ["| model | exporter | nodes | largest difference | ONNX Runtime / Lepton |",
           "|---|---|---:|---:|---:|"]


def line_of(row):
    start = f"| {row['name']} | {row['exporter']} |"
    if "refused" in row:
        return f"{start} – | not exported: {row['refused']} | – |"
    if "error" in row:
        return f"{start} – | {row['error']} | – |"
    return f"{start} {row['nodes']} | {row['difference']:.1e} | {row['ratio']:.2f} |"


def row_of(line):
    """What a line of the page says."""
    name, exporter, nodes, second, ratio = [part.strip() for part in line.strip("| \n").split(" | ")]
    row = {"name": name, "exporter": exporter}
    if nodes == "–":
        refused = second.removeprefix("not exported: ")
        return row | ({"error": second} if refused == second else {"refused": refused})
    return row | {"nodes": int(nodes), "difference": float(second), "ratio": float(ratio)}


def halves(page):
    """The page up to its second heading, and what follows, which is written by hand."""
    text = page.read_text() if page.exists() else ""
    rows, heading, notes = text.partition("\n## ")
    return rows, heading + notes


def rows_of(page):
    """The rows that a page has, by name and exporter."""
    lines = halves(page)[0].splitlines()
    rows = [row_of(line) for line in lines if line.startswith("| ") and line != COLUMNS[0]]
    return {(row["name"], row["exporter"]): row for row in rows}


def page(rows, rough=True):
    exported = [r for r in rows if "refused" not in r]
    passed = [r for r in exported if r.get("difference", 1) <= 1e-3]
    told = ["# Real models", "", " ".join(__doc__.split("\n\n")[-1].split()), "",
            f"{len(passed)} of {len(exported)} agree within 1e-3. Made by `benches/real_models.py`" +
            ("; some rows were timed while other work kept the machine busy: the ratios are rough." if rough else
             ", all times one after another on one machine."), "", *COLUMNS]
    return "\n".join(told + [line_of(row) for row in rows]) + "\n"


def kept(before, row, arguments):
    """The row, with the difference of the page where only times are taken."""
    if arguments.speed and "difference" in before and "difference" in row:
        row["difference"] = before["difference"]
    return row


def reason(error):
    """The first line of what an exception came from."""
    while error.__cause__:
        error = error.__cause__
    why = next(iter(str(error).splitlines()), "") or type(error).__name__
    return re.sub(r"\x1b\[\d+m", "", why)[:150].replace("|", "/")


def made(name, exporter, make, folder, scratch):
    """A row: exports the model, unless that was done or refused before, and measures it."""
    path, row = folder / f"{name}-{exporter}.onnx", {"name": name, "exporter": exporter}
    refusal = path.with_suffix(".refused")
    if not path.exists() and not refusal.exists():
        try:
            make(path, exporter)
        except ModuleNotFoundError as error:
            return row | {"absent": str(error)}
        except Exception as error:  # the exporter's own limits are not Lepton's
            path.unlink(missing_ok=True)
            refusal.write_text(reason(error))
    if refusal.exists():
        return row | {"refused": refusal.read_text()}
    try:
        return row | measured(path, scratch)
    except Exception as error:
        if os.environ.get("TRACE"):
            traceback.print_exc()
        return row | {"error": str(error).splitlines()[0].replace(f"{folder}/", "")[:200].replace("|", "/")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--keep", help="folder in which exports stay")
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs/real-models.md")
    parser.add_argument("--speed", action="store_true", help="with --keep: only new times of rows whose exports are kept")
    arguments = parser.parse_args()
    if arguments.speed and not arguments.keep:
        parser.error("--speed wants --keep FOLDER with the exports of an earlier run")
    known, fresh, wrong = rows_of(arguments.page), {}, False
    models, rough = all_models(), bool(arguments.names) or not arguments.speed
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(arguments.keep or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name, exporter, make in models:
            there = (folder / f"{name}-{exporter}.onnx").exists() and (name, exporter) in known
            if arguments.names and name not in arguments.names or arguments.speed and not there:
                continue
            row = made(name, exporter, make, folder, pathlib.Path(scratch))
            row = kept(known.get((name, exporter), {}), row, arguments)
            print(json.dumps(row), flush=True)
            if "absent" in row:
                continue
            fresh[name, exporter] = row
            wrong |= "error" in row or row.get("difference", 0) > 1e-3
            rows = [fresh.get(model[:2]) or known.get(model[:2]) for model in models]
            arguments.page.write_text(page([row for row in rows if row], rough) + halves(arguments.page)[1])
    sys.exit(wrong)


if __name__ == "__main__":
    main()
