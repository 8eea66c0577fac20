"""Writes the cases of `runtime_cases.tar.xz`: operators of `com.microsoft` and `ai.onnx.ml` with
random operands, and what ONNX Runtime 1.32 gives for them without optimisations.

    python make_runtime_cases.py runtime_cases.tar.xz
"""

import io
import lzma
import sys
import tarfile

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

random = np.random.default_rng(0)
files = {}


def reals(*shape):
    return random.normal(size=shape).astype(np.float32)


def bytes_(*shape):
    return random.integers(0, 256, size=shape).astype(np.uint8)


def signed(*shape):
    return random.integers(-128, 128, size=shape).astype(np.int8)


def real(value):
    return np.array(value, np.float32)


def byte(value):
    return np.array(value, np.uint8)


def options():
    made = onnxruntime.SessionOptions()
    made.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    made.log_severity_level = 4
    return made


def case(name, operator, inputs, results=("o0",), constants=(), domain="com.microsoft", **attributes):
    names = ["" if value is None else f"i{index}" for index, value in enumerate(inputs)]
    node = helper.make_node(operator, names, list(results), domain=domain, **attributes)
    given = [(n, v) for i, (n, v) in enumerate(zip(names, inputs)) if n and i not in constants]
    fixed = [numpy_helper.from_array(inputs[i], names[i]) for i in constants]
    declared = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in given
    ]
    outputs = [onnx.ValueInfoProto(name=result) for result in results if result]
    domains = [("", 21), ("com.microsoft", 1), ("ai.onnx.ml", 3)]
    opsets = [helper.make_opsetid(*domain) for domain in domains]
    graph = helper.make_graph([node], "g", declared, outputs, fixed)
    save(name, helper.make_model(graph, opset_imports=opsets, ir_version=10), given)


def save(name, model, given):
    """A case: the model, its inputs, and what ONNX Runtime gives for them."""
    model = model.SerializeToString()
    session = onnxruntime.InferenceSession(model, options(), providers=["CPUExecutionProvider"])
    found = session.run(None, dict(given))
    folder = f"cases/test_{name}"
    files[f"{folder}/model.onnx"] = model
    for kind, values in (("input", [v for _, v in given]), ("output", found)):
        for index, value in enumerate(values):
            path = f"{folder}/test_data_set_0/{kind}_{index}.pb"
            files[path] = numpy_helper.from_array(value).SerializeToString()


def activations():
    case("gelu", "Gelu", [reals(3, 4)])
    case("bias_gelu", "BiasGelu", [reals(3, 4), reals(4)])
    case("fast_gelu", "FastGelu", [reals(3, 4), reals(4)])
    case("fast_gelu_without_bias", "FastGelu", [reals(3, 4)])
    case("quick_gelu", "QuickGelu", [reals(3, 4)], alpha=1.702)


def products():
    parameters = {"LeakyRelu": [0.2], "Clip": [-0.5, 0.5], "HardSigmoid": [0.2, 0.5]}
    for name in ("Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid"):
        given = {"activation_params": parameters[name]} if name in parameters else {}
        operands = [reals(1, 3, 6, 6), reals(4, 3, 3, 3), reals(4)]
        case(f"fused_conv_{name}", "FusedConv", operands, activation=name, pads=[1] * 4, **given)
    operands = [reals(1, 3, 6, 6), reals(4, 3, 3, 3), reals(4), reals(1, 4, 4, 4)]
    case("fused_conv_sum", "FusedConv", operands, activation="Relu")
    case("fused_gemm", "FusedGemm", [reals(3, 4), reals(4, 5), reals(5)], activation="Relu")
    for a in (0, 1):
        for b in (0, 1):
            left = reals(2, 4, 3) if a else reals(2, 3, 4)
            right = reals(2, 5, 4) if b else reals(2, 4, 5)
            given = {"transA": a, "transB": b, "alpha": 0.5}
            case(f"fused_matmul_{a}{b}", "FusedMatMul", [left, right], **given)


def normalisations():
    x, skip, scale, bias = reals(2, 3, 8), reals(2, 3, 8), reals(8), reals(8)
    sums, small = ("y", "", "", "sum"), {"epsilon": 1e-5}
    case("simplified", "SimplifiedLayerNormalization", [x, scale], domain="", axis=-1, **small)
    case("skip", "SkipLayerNormalization", [x, skip, scale, bias, reals(8)], **small)
    case("skip_sum", "SkipLayerNormalization", [x, skip, scale, bias], sums, **small)
    case("skip_simplified", "SkipSimplifiedLayerNormalization", [x, skip, scale], sums, **small)
    words = random.integers(0, 10, size=(2, 4)).astype(np.int32)
    segments = random.integers(0, 2, size=(2, 4)).astype(np.int32)
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)
    tables = [reals(10, 8), reals(6, 8), reals(2, 8)]
    both = ("y", "mask")
    operands = [words, segments, *tables, scale, bias, mask]
    case("embed", "EmbedLayerNormalization", operands, both, **small)
    operands = [words, None, tables[0], tables[1], None, scale, bias]
    case("embed_words", "EmbedLayerNormalization", operands, both, **small)


def attentions():
    places = np.array([[0, 1, 2], [1, 2, 3]], np.int64)
    waves = [reals(8, 4), reals(8, 4)]
    x = reals(2, 3, 16)
    case("rotary", "RotaryEmbedding", [x, places, *waves])
    case("rotary_interleaved", "RotaryEmbedding", [x, places, *waves], interleaved=1)
    case("rotary_offset", "RotaryEmbedding", [x, np.array([2], np.int64), *waves])
    case("rotary_heads", "RotaryEmbedding", [reals(2, 2, 3, 8), places, *waves])
    three = [reals(2, 3, 8), reals(2, 5, 8), reals(2, 5, 8)]
    kept = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    lengths = np.array([3, 5], np.int32)
    heads = {"num_heads": 2}
    case("heads", "MultiHeadAttention", three, **heads)
    case("heads_bias", "MultiHeadAttention", [*three, reals(24)], **heads)
    case("heads_lengths", "MultiHeadAttention", [*three, None, lengths], **heads)
    case("heads_mask", "MultiHeadAttention", [*three, None, kept], **heads)
    case("heads_added", "MultiHeadAttention", [*three, None, None, reals(2, 2, 3, 5)], **heads)
    same = [reals(2, 4, 8), reals(2, 4, 8), reals(2, 4, 8)]
    case("heads_causal", "MultiHeadAttention", same, unidirectional=1, **heads)
    past = [reals(2, 2, 3, 4), reals(2, 2, 3, 4)]
    step = [reals(2, 1, 8), reals(2, 1, 8), reals(2, 1, 8), None, None, None, *past]
    case("heads_past", "MultiHeadAttention", step, ("y", "key", "value"), **heads)
    packed = [reals(2, 4, 6), reals(6, 24), reals(24)]
    case("attention", "Attention", packed, **heads)
    case("attention_mask", "Attention", [*packed, kept[:, 1:]], **heads)
    case("attention_lengths", "Attention", [*packed, np.array([3, 4], np.int32)], **heads)
    case("attention_causal", "Attention", packed, unidirectional=1, **heads)


def packed_attentions():
    heads = {"num_heads": 2}
    split = [reals(2, 3, 8), reals(2, 2, 5, 4), reals(2, 2, 5, 4)]
    case("heads_split", "MultiHeadAttention", split, **heads)
    given = [reals(2, 1, 6), reals(6, 24), reals(24)]
    past, both = reals(2, 2, 2, 3, 4), ("y", "present")
    case("attention_past", "Attention", [*given, None, past], both, **heads)
    mask = np.array([[1, 0, 1, 1], [1, 1, 1, 1]], np.int32)
    case("attention_past_mask", "Attention", [*given, mask, past], both, **heads)
    long = [reals(2, 3, 6), *given[1:]]
    case("attention_past_causal", "Attention", [*long, None, past], both, unidirectional=1, **heads)
    case("attention_present", "Attention", long, both, **heads)
    case("attention_added", "Attention", [*given, None, None, reals(2, 2, 1, 1)], **heads)


def group_queries():
    three = ("y", "key", "value")
    heads = {"num_heads": 4, "kv_num_heads": 2}
    waves = [reals(16, 8), reals(16, 8)]

    def group(name, length, before, ends, total, waves=(), packed=False, extra=(), **attributes):
        batch = len(ends)
        rows = [reals(batch, length, 128)] + [None] * 2 if packed else [
            reals(batch, length, 64), reals(batch, length, 32), reals(batch, length, 32)]
        past = [reals(batch, 2, before, 16), reals(batch, 2, before, 16)] if before is not None else [None] * 2
        sizes = [np.array(ends, np.int32), np.array(total, np.int32)]
        operands = [*rows, *past, *sizes, *waves, *extra]
        case(f"group_{name}", "GroupQueryAttention", operands, three, **heads, **attributes)

    group("prompt", 5, None, [4, 4], 5)
    group("empty", 5, 0, [4, 4], 5)
    group("step", 1, 6, [6, 6], 7)
    group("step_padded", 1, 6, [6, 3], 7)
    group("room", 1, 9, [6, 3], 7)
    group("packed", 1, 6, [6], 7, packed=True)
    group("rotary", 1, 6, [6, 4], 7, waves, do_rotary=1)
    group("rotary_prompt", 5, None, [4, 4], 5, waves, do_rotary=1, rotary_interleaved=1)
    group("window", 1, 6, [6, 4], 7, local_window_size=3)
    group("window_prompt", 6, None, [5, 5], 6, local_window_size=2)
    group("cap", 1, 6, [6, 4], 7, softcap=0.5, scale=0.3)
    group("smooth", 1, 6, [6, 4], 7, smooth_softmax=1)
    none = [None] * 3
    group("added", 1, 6, [6, 6], 7, extra=[*none, reals(2, 4, 1, 7)], softcap=1.5)
    group("sink", 3, None, [2, 2], 3, extra=[*none, None, reals(4)])


def vectors():
    ml, both = {"domain": "ai.onnx.ml"}, ("label", "scores")
    x = reals(6, 3)
    for kernel in ("LINEAR", "POLY", "RBF", "SIGMOID"):
        given = {"kernel_type": kernel, "kernel_params": [0.3, 0.2, 2.0], **ml}
        weights = {"coefficients": reals(4).tolist(), "support_vectors": reals(12).tolist()}
        case(f"svr_{kernel}", "SVMRegressor", [x], n_supports=4, rho=[0.1], **weights, **given)
        case(f"one_{kernel}", "SVMRegressor", [x], n_supports=4, rho=[0.1], one_class=1, **weights, **given)
        for classes in (2, 3):
            pairs = classes * (classes - 1) // 2
            weights = {"coefficients": reals(4 * classes * (classes - 1)).tolist(),
                       "support_vectors": reals(12 * classes).tolist(),
                       "vectors_per_class": [4] * classes, "rho": reals(pairs).tolist()}
            chances = {"prob_a": (-np.abs(reals(pairs))).tolist(), "prob_b": reals(pairs).tolist()}
            numbers = {"classlabels_ints": [3, 5, 9][:classes]}
            words = {"classlabels_strings": ["a", "b", "c"][:classes]}
            name = f"svc_{kernel}_{classes}"
            case(name, "SVMClassifier", [x], both, **weights, **numbers, **given)
            case(f"{name}_chances", "SVMClassifier", [x], both, **weights, **words, **chances, **given)
    weights = {"coefficients": reals(9).tolist(), "rho": [0.2], "classlabels_ints": [0, 1, 2]}
    case("svc_flat", "SVMClassifier", [x], both, kernel_type="LINEAR", kernel_params=[0.3, 0.2, 2.0], **weights, **ml)


def labels():
    ml, both = {"domain": "ai.onnx.ml"}, ("label", "scores")
    x, words = reals(6, 3), np.array([["a", "b"], ["x", ""]], dtype=object)
    case("encoder", "LabelEncoder", [words], keys_strings=["b", "a"], values_floats=[1.5, 2.5], default_float=9.0, **ml)
    numbers = np.array([1, 2, 7], np.int64)
    case("decoder", "LabelEncoder", [numbers], keys_int64s=[2, 1], values_strings=["two", "one"], **ml)
    case("categories", "CategoryMapper", [words], cats_strings=["a", "b"], cats_int64s=[4, 5], **ml)
    case("hot_words", "OneHotEncoder", [words], cats_strings=["a", "b", ""], **ml)
    case("hot_numbers", "OneHotEncoder", [numbers], cats_int64s=[1, 7], **ml)
    lines = np.array(["a cat, a dog", "", "naïve 12 x"], dtype=object)
    case("words", "Tokenizer", [lines], tokenexp="[a-zA-Z0-9_]+", mark=0, mincharnum=2, pad_value="#")
    case("words_between", "Tokenizer", [lines], separators=[" ", ","], mark=0, mincharnum=1, pad_value="")
    case("words_letters", "Tokenizer", [lines[:1]], separators=[""], mark=0, mincharnum=1, pad_value="#")
    gaps = reals(4, 3)
    gaps[1, 1], gaps[2, 0] = np.nan, np.nan
    case("imputer", "Imputer", [gaps], imputed_value_floats=[1.0, 2.0, 3.0], replaced_value_float=float("nan"), **ml)
    case("columns", "FeatureVectorizer", [reals(4, 2), reals(4, 1)], inputdimensions=[2, 1], **ml)
    given = {"coefficients": reals(9).tolist(), "intercepts": [0.1, 0.2, 0.3]}
    case("linear_words", "LinearClassifier", [x], both, classlabels_strings=["a", "b", "c"], **given, **ml)
    for last in ("NONE", "LOGISTIC"):
        for positive in (True, False):
            given = forest("class", 1)
            if not positive:
                given["class_weights"] = reals(len(given["class_weights"])).tolist()
            given |= {"post_transform": last, "classlabels_strings": ["no", "yes"], **ml}
            case(f"two_{last}_{positive}", "TreeEnsembleClassifier", [reals(8, 3)], both, **given)


def integers():
    a, b = [bytes_(3, 4), real(0.1), byte(120)], [bytes_(3, 4), real(0.05), byte(3)]
    case("scaled", "QLinearMul", [*a, *b, real(0.15), byte(100)])
    case("sum", "QLinearAdd", [*a, *b, real(0.15), byte(100)])
    one = [bytes_(3, 4), real(0.05), byte(120)]
    constants = (1, 2, 3, 4)
    case("sigmoid", "QLinearSigmoid", [*one, real(1 / 256), byte(0)], constants=constants)
    given = {"constants": constants, "alpha": 0.1}
    case("leaky", "QLinearLeakyRelu", [*one, real(0.04), byte(30)], **given)
    image = [bytes_(1, 3, 4, 4), real(0.05), byte(120), real(0.043), byte(110)]
    case("global_mean", "QLinearGlobalAveragePool", image, channels_last=0)
    case("mean", "QLinearAveragePool", image, kernel_shape=[2, 2], strides=[2, 2])
    parts = [bytes_(2, 3), real(0.05), byte(120), bytes_(2, 4), real(0.2), byte(7)]
    given = {"constants": (0, 1, 3, 4, 6, 7), "axis": 1}
    case("joined", "QLinearConcat", [real(0.1), byte(5), *parts], **given)
    zero = np.array(0, np.int8)
    bias = random.integers(-500, 500, size=(5,)).astype(np.int32)
    left = [bytes_(3, 4), real(0.02), byte(120)]
    operands = [*left, signed(5, 4), real(0.01), zero, bias, real(0.1), byte(128)]
    case("gemm", "QGemm", operands, transB=1)
    operands = [*left, signed(4, 5), real(0.01), zero, bias]
    case("gemm_to_reals", "QGemm", operands, constants=(1, 2, 4, 5))
    operands = [reals(3, 4), signed(4, 5), real(0.02), zero, reals(5)]
    case("dynamic", "DynamicQuantizeMatMul", operands)
    operands = [bytes_(3, 4), signed(4, 5), real(0.1), real(0.02), byte(100), zero, reals(5)]
    case("to_reals", "MatMulIntegerToFloat", operands)
    for name, k, bits, zeros in (("4", 32, 4, 0), ("4_zeros", 48, 4, 1), ("4_rest", 40, 4, 0), ("8", 32, 8, 0)):
        blocks = -(-k // 16)
        operands = [reals(3, k), bytes_(5, blocks, 2 * bits), np.abs(reals(5 * blocks))]
        operands += [bytes_(5 * -(-blocks // 2))] if zeros else []
        given = {"constants": tuple(range(1, len(operands))), "K": k, "N": 5, "bits": bits}
        case(f"bits_{name}", "MatMulNBits", operands, block_size=16, **given)


def forest(kind, results, mode="BRANCH_LEQ"):
    """Three trees of four leaves."""
    rows = [(tree, node) for tree in range(3) for node in range(7)]
    inner = [node < 3 for _, node in rows]
    leaves = [(tree, node, result) for tree, node in rows if node > 2 for result in range(results)]
    return {
        "nodes_treeids": [tree for tree, _ in rows],
        "nodes_nodeids": [node for _, node in rows],
        "nodes_featureids": [int(random.integers(0, 3)) if i else 0 for i in inner],
        "nodes_values": [float(random.normal()) if i else 0.0 for i in inner],
        "nodes_modes": [mode if i else "LEAF" for i in inner],
        "nodes_truenodeids": [2 * n + 1 if n < 3 else 0 for _, n in rows],
        "nodes_falsenodeids": [2 * n + 2 if n < 3 else 0 for _, n in rows],
        "nodes_missing_value_tracks_true": [int(random.integers(0, 2)) if i else 0 for i in inner],
        f"{kind}_treeids": [tree for tree, _, _ in leaves],
        f"{kind}_nodeids": [node for _, node, _ in leaves],
        f"{kind}_ids": [result for _, _, result in leaves],
        f"{kind}_weights": [float(abs(random.normal())) for _ in leaves],
    }


def classical():
    ml = {"domain": "ai.onnx.ml"}
    case("scaler", "Scaler", [reals(4, 3)], offset=[0.1, 0.2, 0.3], scale=[2.0, 3.0, 4.0], **ml)
    for norm in ("MAX", "L1", "L2"):
        case(f"norm_{norm}", "Normalizer", [reals(4, 3)], norm=norm, **ml)
    weights = {"coefficients": reals(6).tolist(), "intercepts": [0.1, 0.2], "targets": 2}
    case("linear", "LinearRegressor", [reals(4, 3)], **weights, **ml)
    both = ("label", "scores")
    for mode in ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"):
        given = forest("target", 2, mode)
        given.update(n_targets=2, base_values=[0.5, 0.25], **ml)
        case(f"trees_{mode}", "TreeEnsembleRegressor", [reals(8, 3)], **given)
    missing = reals(8, 3)
    missing[0, 0], missing[3] = np.nan, np.nan
    given = forest("target", 1)
    case("trees_missing", "TreeEnsembleRegressor", [missing], n_targets=1, **given, **ml)
    for how in ("AVERAGE", "MIN", "MAX"):
        given = {"n_targets": 2, "aggregate_function": how, **forest("target", 2), **ml}
        case(f"trees_{how}", "TreeEnsembleRegressor", [reals(8, 3)], **given)
    for last in ("NONE", "SOFTMAX", "LOGISTIC"):
        given = {"post_transform": last, **ml}
        labels = {"classlabels_ints": [3, 5, 9], "intercepts": [0.1, 0.2, 0.3]}
        weights = reals(9).tolist()
        case(f"linear_{last}", "LinearClassifier", [reals(6, 3)], both, coefficients=weights, **labels, **given)
        given.update(forest("class", 3), classlabels_int64s=[3, 5, 9])
        case(f"classes_{last}", "TreeEnsembleClassifier", [reals(8, 3)], both, **given)


def functions():
    own = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    node = helper.make_node

    def referring(made, name, kind):
        made.attribute.append(onnx.AttributeProto(name=name, ref_attr_name=name, type=kind))
        return made

    leaky = referring(node("LeakyRelu", ["x"], ["t"]), "alpha", onnx.AttributeProto.FLOAT)
    inner = helper.make_function("own", "Bent", ["x", "shift"], ["y", "t"], [leaky, node("Add", ["t", "shift"], ["y"])],
                                 own, attributes=[], attribute_protos=[helper.make_attribute("alpha", 0.5)])
    outer = helper.make_function(
        "own", "Twice", ["a", "b"], ["y"],
        [node("Bent", ["a", "b"], ["m", "n"], domain="own"), node("Bent", ["m", "a"], ["t", "u"], domain="own", alpha=0.1),
         node("Mul", ["t", "u"], ["y"])], own)
    branches = {key: helper.make_graph([node("Twice", ["x", "z"], ["r"], domain="own")] if key == "then_branch" else
                                       [node("Neg", ["x"], ["r"])], key, [], [onnx.ValueInfoProto(name="r")])
                for key in ("then_branch", "else_branch")}
    nodes = [node("Twice", ["x", "z"], ["t"], domain="own"), node("ReduceSum", ["x"], ["sum"], keepdims=0),
             node("Greater", ["sum", "zero"], ["go"]), node("If", ["go"], ["chosen"], **branches)]
    x, z = reals(3, 4), reals(4)
    declared = [helper.make_tensor_value_info(n, 1, v.shape) for n, v in (("x", x), ("z", z))]
    outputs = [onnx.ValueInfoProto(name=name) for name in ("t", "chosen")]
    graph = helper.make_graph(nodes, "g", declared, outputs, [numpy_helper.from_array(real(0), "zero")])
    model = helper.make_model(graph, opset_imports=own, ir_version=10, functions=[inner, outer])
    save("functions", model, [("x", x), ("z", z)])
    save("functions_other_branch", model, [("x", -np.abs(x)), ("z", z)])


for family in (activations, products, normalisations, attentions, packed_attentions, group_queries, integers, classical, vectors,
               labels, functions):
    family()
packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
    for path, content in files.items():
        entry = tarfile.TarInfo(path)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
with open(sys.argv[1], "wb") as file:
    file.write(lzma.compress(packed.getvalue()))
