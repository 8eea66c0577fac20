//! The table: ONNX's operators and what each is in Lepton, for reading and for writing.

use super::call::Call;
use super::emit::{Emit, Written};
use super::families::{BINARY, POOL, REDUCE, UNARY};
use super::link::{AUTO_PAD, Fixed, Form, Link, link};
use super::proto::NodeProto;
use super::{
    attention, classical, contrib, contrib_attention, contrib_integer, decomposed, einsum, fused,
    group_query, labels, losses, normalised, quantised, random, rows, sequence, shaped, spectral,
    trees, values, vectors,
};
use crate::steps::{Results, Steps};

/// An operator whose attributes go over one by one.
pub struct Row {
    /// ONNX's name.
    pub name: &'static str,
    /// Lepton's name.
    pub operator: &'static str,
    /// Attributes of Lepton's operator that follow from ONNX's name.
    pub fixed: &'static [(&'static str, Fixed)],
    /// Attributes that both have.
    pub links: &'static [Link],
    /// ONNX's attributes that `read` treats itself, or that change nothing.
    pub also: &'static [&'static str],
    /// Adds the nodes to Lepton's graph.
    pub read: fn(&mut Call<'_>, &Row) -> Results,
    /// Adds the nodes to ONNX's graph.
    pub write: fn(&mut Emit<'_>, &Row) -> Written,
}

const fn row(name: &'static str, operator: &'static str, links: &'static [Link]) -> Row {
    let (read, write) = (rows::direct, fused::direct);
    Row { name, operator, fixed: &[], links, also: &[], read, write }
}

impl Row {
    const fn fixed(mut self, fixed: &'static [(&'static str, Fixed)]) -> Row {
        self.fixed = fixed;
        self
    }

    const fn also(mut self, also: &'static [&'static str]) -> Row {
        self.also = also;
        self
    }

    const fn read(mut self, read: fn(&mut Call<'_>, &Row) -> Results) -> Row {
        self.read = read;
        self
    }

    const fn write(mut self, write: fn(&mut Emit<'_>, &Row) -> Written) -> Row {
        self.write = write;
        self
    }
}

/// Attributes of a convolution.
pub const WINDOW: &[Link] = &[
    link("strides", "strides", Form::Ints),
    link("pads", "pads", Form::Ints),
    link("dilations", "dilations", Form::Ints),
    link("group", "group", Form::Int(1)),
    link("auto_pad", "auto_pad", Form::Words(AUTO_PAD)),
];
const TRANSPOSED_WINDOW: &[Link] = &[
    link("strides", "strides", Form::Ints),
    link("pads", "pads", Form::Ints),
    link("dilations", "dilations", Form::Ints),
    link("group", "group", Form::Int(1)),
    link("auto_pad", "auto_pad", Form::Words(AUTO_PAD)),
    link("output_padding", "output_padding", Form::Ints),
    link("output_shape", "output_shape", Form::Ints),
];
const AXIS_FIRST: &[Link] = &[link("axis", "axis", Form::Int(0))];
const AXIS_SECOND: &[Link] = &[link("axis", "axis", Form::Int(1))];
const AXIS_LAST: &[Link] = &[link("axis", "axis", Form::Int(-1))];
const EPSILON: &[Link] = &[link("epsilon", "epsilon", Form::Float(1e-5))];
const ARG: &[Link] = &[
    link("axis", "axis", Form::Int(0)),
    link("keepdims", "keep_dims", Form::Int(1)),
    link("select_last_index", "last", Form::Int(0)),
];
const DIRECTION: Form = Form::Words(&[
    ("forward", "forward"),
    ("reverse", "reverse"),
    ("bidirectional", "bidirectional"),
]);
const RECURRENT: &[&str] =
    &["hidden_size", "activations", "output_sequence", "layout", "input_forget"];
const RESIZE: &[Link] = &[
    link(
        "mode",
        "mode",
        Form::Words(&[("nearest", "nearest"), ("linear", "linear"), ("cubic", "cubic")]),
    ),
    link(
        "coordinate_transformation_mode",
        "coordinates",
        Form::Words(&[
            ("half_pixel", "half_pixel"),
            ("pytorch_half_pixel", "pytorch_half_pixel"),
            ("half_pixel_symmetric", "half_pixel_symmetric"),
            ("align_corners", "align_corners"),
            ("asymmetric", "asymmetric"),
            ("tf_crop_and_resize", "crop"),
        ]),
    ),
    link(
        "nearest_mode",
        "nearest",
        Form::Words(&[
            ("round_prefer_floor", "round_prefer_floor"),
            ("round_prefer_ceil", "round_prefer_ceil"),
            ("floor", "floor"),
            ("ceil", "ceil"),
        ]),
    ),
    link("cubic_coeff_a", "cubic_a", Form::Float(-0.75)),
    link("exclude_outside", "exclude_outside", Form::Int(0)),
    link("antialias", "antialias", Form::Int(0)),
    link("extrapolation_value", "extrapolation", Form::Float(0.0)),
];

const REDUCTION: Form = Form::Words(&[
    ("none", "replace"),
    ("add", "add"),
    ("mul", "mul"),
    ("max", "max"),
    ("min", "min"),
]);
const SCATTER: &[Link] =
    &[link("axis", "axis", Form::Int(0)), link("reduction", "reduction", REDUCTION)];
const SHIFT: Form = Form::Words(&[("", "and"), ("LEFT", "left"), ("RIGHT", "right")]);
const GRID_SAMPLE: &[Link] = &[
    link(
        "mode",
        "mode",
        Form::Words(&[
            ("linear", "linear"),
            ("nearest", "nearest"),
            ("cubic", "cubic"),
            ("bilinear", "linear"),
            ("bicubic", "cubic"),
        ]),
    ),
    link(
        "padding_mode",
        "outside",
        Form::Words(&[("zeros", "zeros"), ("border", "border"), ("reflection", "reflection")]),
    ),
    link("align_corners", "align_corners", Form::Int(0)),
];
const ROI_ALIGN: &[Link] = &[
    link("mode", "function", Form::Words(&[("avg", "mean"), ("max", "max")])),
    link("output_height", "height", Form::Int(1)),
    link("output_width", "width", Form::Int(1)),
    link("sampling_ratio", "samples", Form::Int(0)),
    link("spatial_scale", "spatial_scale", Form::Float(1.0)),
    link(
        "coordinate_transformation_mode",
        "centres",
        Form::Words(&[("half_pixel", "halves"), ("output_half_pixel", "wholes")]),
    ),
];

const STRING_NORMALIZER: &[Link] = &[
    link(
        "case_change_action",
        "case",
        Form::Words(&[("NONE", "kept"), ("LOWER", "lower"), ("UPPER", "upper")]),
    ),
    link("is_case_sensitive", "case_sensitive", Form::Int(0)),
    link("stopwords", "stop_words", Form::Texts),
];

/// The operators whose attributes go over one by one.
pub const ROWS: &[Row] = &[
    row("Conv", "Conv", WINDOW).also(&["kernel_shape"]).read(rows::conv).write(fused::conv),
    row("QLinearConv", "Conv", WINDOW).also(&["kernel_shape"]).read(quantised::conv),
    row("ConvInteger", "ConvInteger", WINDOW).also(&["kernel_shape"]),
    row("ConvTranspose", "ConvTranspose", TRANSPOSED_WINDOW).also(&["kernel_shape"]),
    row("MatMul", "MatMul", &[]),
    row("MatMulInteger", "MatMulInteger", &[]),
    row("DynamicQuantizeLinear", "DynamicQuantizeLinear", &[]),
    row(
        "Gemm",
        "Gemm",
        &[
            link("alpha", "alpha", Form::Float(1.0)),
            link("beta", "beta", Form::Float(1.0)),
            link("transA", "trans_a", Form::Int(0)),
            link("transB", "trans_b", Form::Int(0)),
        ],
    )
    .also(&["broadcast"]),
    row("Reshape", "Reshape", &[link("allowzero", "allow_zero", Form::Int(0))]),
    row("Flatten", "Flatten", AXIS_SECOND),
    row("Squeeze", "Squeeze", &[]).also(&["axes"]).read(rows::axes),
    row("Unsqueeze", "Unsqueeze", &[]).also(&["axes"]).read(rows::axes),
    row(
        "Split",
        "Split",
        &[link("axis", "axis", Form::Int(0)), link("num_outputs", "parts", Form::Int(0))],
    )
    .also(&["split"])
    .read(rows::split)
    .write(fused::split),
    row("Transpose", "Transpose", &[link("perm", "permutation", Form::Ints)]),
    row("Concat", "Concat", &[link("axis", "axis", Form::Required)]),
    row("Softmax", "Softmax", AXIS_LAST).fixed(&[("log", Fixed::Int(0))]).read(rows::softmax),
    row("LogSoftmax", "Softmax", AXIS_LAST).fixed(&[("log", Fixed::Int(1))]).read(rows::softmax),
    row(
        "Shape",
        "Shape",
        &[link("start", "start", Form::Int(0)), link("end", "end", Form::Int(i64::MAX))],
    ),
    row(
        "QuantizeLinear",
        "QuantizeLinear",
        &[
            link("axis", "axis", Form::Int(1)),
            link("output_dtype", "dtype", Form::Type(Some(lepton_tensor::DType::U8))),
        ],
    )
    .also(&["block_size", "saturate", "precision"])
    .read(rows::quantize)
    .write(fused::quantize),
    row("DequantizeLinear", "DequantizeLinear", AXIS_SECOND)
        .also(&["block_size", "output_dtype"])
        .read(rows::quantize)
        .write(fused::quantize),
    row("Slice", "Slice", &[]).also(&["starts", "ends", "axes"]).read(rows::slice),
    row("Gather", "Gather", AXIS_FIRST),
    row("GatherElements", "GatherElements", AXIS_FIRST),
    row(
        "Pad",
        "Pad",
        &[link(
            "mode",
            "mode",
            Form::Words(&[
                ("constant", "constant"),
                ("reflect", "reflect"),
                ("edge", "edge"),
                ("wrap", "wrap"),
            ]),
        )],
    )
    .also(&["pads", "value"])
    .read(rows::pad),
    row("ScatterElements", "ScatterElements", SCATTER),
    row("Scatter", "ScatterElements", AXIS_FIRST),
    row("ScatterND", "ScatterND", &[link("reduction", "reduction", REDUCTION)]),
    row("GatherND", "GatherND", &[link("batch_dims", "batch_dims", Form::Int(0))]),
    row("NonZero", "NonZero", &[]),
    row(
        "Unique",
        "Unique",
        &[link("axis", "axis", Form::Int(i64::MAX)), link("sorted", "sorted", Form::Int(1))],
    ),
    row(
        "NonMaxSuppression",
        "NonMaxSuppression",
        &[link("center_point_box", "centres", Form::Int(0))],
    ),
    row("GridSample", "GridSample", GRID_SAMPLE),
    row("RoiAlign", "RoiAlign", ROI_ALIGN).read(values::roi_align),
    row("Det", "Det", &[]),
    row(
        "ImageDecoder",
        "ImageDecoder",
        &[link(
            "pixel_format",
            "colours",
            Form::Words(&[("RGB", "rgb"), ("BGR", "bgr"), ("Grayscale", "grey")]),
        )],
    ),
    row("StringConcat", "StringConcat", &[]),
    row(
        "com.microsoft.Tokenizer",
        "Tokenizer",
        &[
            link("tokenexp", "word", Form::Text),
            link("separators", "separators", Form::Texts),
            link("mincharnum", "shortest", Form::Int(1)),
            link("pad_value", "fill", Form::Text),
        ],
    )
    .also(&["mark"])
    .read(labels::tokenizer),
    row("RegexFullMatch", "RegexFullMatch", &[link("pattern", "pattern", Form::Text)]),
    row(
        "StringSplit",
        "StringSplit",
        &[link("delimiter", "delimiter", Form::Text), link("maxsplit", "most", Form::Int(-1))],
    ),
    row("StringNormalizer", "StringNormalizer", STRING_NORMALIZER).also(&["locale"]),
    row("BitCast", "BitCast", &[link("to", "to", Form::Type(Some(lepton_tensor::DType::I32)))])
        .write(fused::newer),
    row("BitwiseAnd", "Bitwise", &[]).fixed(&[("function", Fixed::Word("and"))]),
    row("BitwiseOr", "Bitwise", &[]).fixed(&[("function", Fixed::Word("or"))]),
    row("BitwiseXor", "Bitwise", &[]).fixed(&[("function", Fixed::Word("xor"))]),
    row("BitShift", "Bitwise", &[link("direction", "function", SHIFT)]).write(fused::shift),
    row("Expand", "Expand", &[]),
    row("Tile", "Tile", &[]),
    row("Where", "Where", &[]),
    row("Range", "Range", &[]),
    row("Size", "Size", &[]),
    row("Not", "Not", &[]),
    row("Clip", "Clip", &[]).also(&["min", "max"]).read(rows::clip),
    row("BatchNormalization", "BatchNormalization", EPSILON)
        .also(&["momentum", "spatial", "training_mode", "is_test"])
        .read(rows::batch_norm)
        .write(fused::channels_last),
    row("InstanceNormalization", "InstanceNormalization", EPSILON),
    row(
        "LayerNormalization",
        "LayerNormalization",
        &[link("axis", "axis", Form::Int(-1)), link("epsilon", "epsilon", Form::Float(1e-5))],
    )
    .also(&["stash_type"])
    .read(normalised::layer),
    row("Cast", "Cast", &[link("to", "to", Form::Type(None))])
        .also(&["saturate", "round_mode"])
        .read(rows::cast),
    row("ConstantOfShape", "ConstantOfShape", &[link("value", "value", Form::Tensor)]),
    row("Trilu", "Trilu", &[link("upper", "upper", Form::Int(1))]),
    row(
        "CumSum",
        "CumSum",
        &[link("exclusive", "exclusive", Form::Int(0)), link("reverse", "reverse", Form::Int(0))],
    )
    .fixed(&[("product", Fixed::Int(0))]),
    row(
        "CumProd",
        "CumSum",
        &[link("exclusive", "exclusive", Form::Int(0)), link("reverse", "reverse", Form::Int(0))],
    )
    .fixed(&[("product", Fixed::Int(1))])
    .write(fused::newer),
    row("ArgMax", "Arg", ARG).fixed(&[("function", Fixed::Word("max"))]),
    row("ArgMin", "Arg", ARG).fixed(&[("function", Fixed::Word("min"))]),
    row(
        "TopK",
        "TopK",
        &[link("axis", "axis", Form::Int(-1)), link("largest", "largest", Form::Int(1))],
    )
    .also(&["sorted", "k"])
    .read(values::top_k),
    row("Resize", "Resize", RESIZE)
        .also(&["keep_aspect_ratio_policy", "axes"])
        .read(values::resize),
    row("LSTM", "LSTM", &[link("direction", "direction", DIRECTION)])
        .also(RECURRENT)
        .read(values::recurrent)
        .write(fused::recurrent),
    row("RNN", "RNN", &[link("direction", "direction", DIRECTION)])
        .also(RECURRENT)
        .read(values::recurrent)
        .write(fused::recurrent),
    row(
        "GRU",
        "GRU",
        &[
            link("direction", "direction", DIRECTION),
            link("linear_before_reset", "linear_before_reset", Form::Int(0)),
        ],
    )
    .also(RECURRENT)
    .read(values::recurrent)
    .write(fused::recurrent),
];

/// Adds what a node means to Lepton's graph.
type Translate = fn(&mut Call<'_>) -> Results;

/// Operators that are read as several of Lepton's, and never written.
pub const DECOMPOSED: &[(&str, Translate)] = &[
    ("Gelu", decomposed::gelu),
    ("Mod", decomposed::modulo),
    ("Mean", decomposed::mean),
    ("Erfc", decomposed::erfc),
    ("IsNaN", decomposed::is_nan),
    ("IsInf", decomposed::is_inf),
    ("Celu", decomposed::celu),
    ("CastLike", decomposed::cast_like),
    ("DepthToSpace", decomposed::depth_to_space),
    ("SpaceToDepth", decomposed::space_to_depth),
    ("Upsample", decomposed::upsample),
    ("Hardmax", decomposed::hardmax),
    ("OneHot", decomposed::one_hot),
    ("RMSNormalization", normalised::root_mean_square),
    ("LpNormalization", normalised::norm),
    ("MeanVarianceNormalization", normalised::mean_variance),
    ("GroupNormalization", normalised::group),
    ("QLinearMatMul", quantised::matmul),
    ("Attention", attention::attention),
    ("Dropout", decomposed::dropout),
    ("RandomUniform", random::uniform),
    ("RandomNormal", random::normal),
    ("RandomUniformLike", random::uniform_like),
    ("RandomNormalLike", random::normal_like),
    ("Bernoulli", random::bernoulli),
    ("Multinomial", random::multinomial),
    ("BitwiseNot", decomposed::bitwise_not),
    ("SwiGLU", decomposed::swiglu),
    ("LRN", shaped::local_response),
    ("EyeLike", shaped::eye_like),
    ("Compress", shaped::compress),
    ("ReverseSequence", shaped::reverse_sequence),
    ("Col2Im", shaped::col2im),
    ("MaxUnpool", shaped::max_unpool),
    ("CenterCropPad", shaped::center_crop_pad),
    ("AffineGrid", shaped::affine_grid),
    ("TensorScatter", shaped::tensor_scatter),
    ("DeformConv", shaped::deform_conv),
    ("HannWindow", spectral::hann),
    ("HammingWindow", spectral::hamming),
    ("BlackmanWindow", spectral::blackman),
    ("MelWeightMatrix", spectral::mel_weights),
    ("DFT", spectral::dft),
    ("STFT", spectral::stft),
    ("Einsum", einsum::einsum),
    ("NegativeLogLikelihoodLoss", losses::negative_log_likelihood),
    ("SoftmaxCrossEntropyLoss", losses::softmax_cross_entropy),
    ("ai.onnx.preview.training.Adagrad", losses::adagrad),
    ("ai.onnx.preview.training.Adam", losses::adam),
    ("ai.onnx.preview.training.Momentum", losses::momentum),
    ("RotaryEmbedding", sequence::rotary_embedding),
    ("CausalConvWithState", sequence::causal_conv),
    ("LinearAttention", sequence::linear_attention),
    ("TfIdfVectorizer", classical::tf_idf),
    ("ai.onnx.ml.ArrayFeatureExtractor", classical::array_features),
    ("ai.onnx.ml.Binarizer", classical::binarizer),
    ("ai.onnx.ml.LabelEncoder", labels::label_encoder),
    ("ai.onnx.ml.CategoryMapper", labels::category_mapper),
    ("ai.onnx.ml.OneHotEncoder", labels::one_hot_encoder),
    ("ai.onnx.ml.Imputer", labels::imputer),
    ("ai.onnx.ml.FeatureVectorizer", labels::feature_vectorizer),
    ("ai.onnx.ml.ZipMap", labels::zip_map),
    ("ai.onnx.ml.TreeEnsemble", trees::ensemble),
    ("ai.onnx.ml.TreeEnsembleRegressor", trees::regressor),
    ("ai.onnx.ml.TreeEnsembleClassifier", trees::classifier),
    ("ai.onnx.ml.SVMRegressor", vectors::regressor),
    ("ai.onnx.ml.SVMClassifier", vectors::classifier),
    ("ai.onnx.ml.LinearRegressor", trees::linear_regressor),
    ("ai.onnx.ml.LinearClassifier", trees::linear_classifier),
    ("ai.onnx.ml.Scaler", trees::scaler),
    ("ai.onnx.ml.Normalizer", trees::normalizer),
    ("com.microsoft.Gelu", contrib::gelu),
    ("com.microsoft.BiasGelu", contrib::gelu),
    ("com.microsoft.FastGelu", contrib::fast_gelu),
    ("com.microsoft.QuickGelu", contrib::quick_gelu),
    ("com.microsoft.FusedConv", contrib::fused_conv),
    ("com.microsoft.FusedGemm", contrib::fused_gemm),
    ("com.microsoft.FusedMatMul", contrib::fused_matmul),
    ("SimplifiedLayerNormalization", contrib::simplified_norm),
    ("com.microsoft.SkipLayerNormalization", contrib::skip_norm),
    ("com.microsoft.SkipSimplifiedLayerNormalization", contrib::skip_simplified_norm),
    ("com.microsoft.EmbedLayerNormalization", contrib::embed_norm),
    ("com.microsoft.RotaryEmbedding", contrib::rotary_embedding),
    ("com.microsoft.MultiHeadAttention", contrib_attention::multi_head),
    ("com.microsoft.Attention", contrib_attention::attention),
    ("com.microsoft.GroupQueryAttention", group_query::attention),
    ("com.microsoft.QLinearAdd", contrib_integer::add),
    ("com.microsoft.QLinearMul", contrib_integer::mul),
    ("com.microsoft.QLinearSigmoid", contrib_integer::sigmoid),
    ("com.microsoft.QLinearLeakyRelu", contrib_integer::leaky_relu),
    ("com.microsoft.QLinearAveragePool", contrib_integer::average_pool),
    ("com.microsoft.QLinearGlobalAveragePool", contrib_integer::global_average_pool),
    ("com.microsoft.QLinearConcat", contrib_integer::concat),
    ("com.microsoft.QGemm", contrib_integer::gemm),
    ("com.microsoft.DynamicQuantizeMatMul", contrib_integer::dynamic_matmul),
    ("com.microsoft.MatMulIntegerToFloat", contrib_integer::matmul_to_float),
    ("com.microsoft.MatMulNBits", contrib_integer::matmul_bits),
];

/// Operators that the reader itself understands: they define values, hold graphs, or work on
/// lists of values.
const STRUCTURAL: &[&str] = &["Constant", "If", "Loop", "Scan", super::gradient::OPERATOR];

/// Operators that mean the same in every operator set, also in those before 6.
const UNCHANGED: &[&str] = &["Not", "Identity", "Constant", "Flatten", "Transpose"];

/// True if the operator means the same in every operator set.
pub fn is_unchanged(name: &str) -> bool {
    UNCHANGED.contains(&name)
}

/// The name of a node's operator; one outside ONNX's own domain after its domain and a dot.
pub fn qualified(node: &NodeProto) -> String {
    let operator = node.op_type.as_deref().unwrap_or_default();
    match node.domain.as_deref() {
        None | Some("" | "ai.onnx") => operator.to_string(),
        Some(domain) => format!("{domain}.{operator}"),
    }
}

/// True if the reader itself understands that operator.
pub fn is_structural(name: &str) -> bool {
    STRUCTURAL.iter().chain(super::lists::OPERATORS).any(|known| *known == name)
}

/// True if Lepton can express that operator.
pub fn is_known(name: &str) -> bool {
    operator_names().any(|known| known == name)
}

/// The operators that can be read, in the order of the tables.
pub fn operator_names() -> impl Iterator<Item = &'static str> {
    let unary = UNARY.iter().map(|(name, ..)| *name);
    let binary = BINARY.iter().map(|(name, _)| *name);
    let reduce = REDUCE.iter().map(|(name, _)| *name);
    let pool = POOL.iter().map(|(name, ..)| *name);
    let rows = ROWS.iter().map(|row| row.name);
    let decomposed = DECOMPOSED.iter().map(|(name, _)| *name);
    let functions = unary.chain(binary).chain(reduce).chain(pool);
    let structural = STRUCTURAL.iter().chain(super::lists::OPERATORS).copied();
    functions.chain(rows).chain(decomposed).chain(structural)
}

/// Adds what the node means to its graph and gives its results.
pub fn translate(call: &mut Call<'_>) -> Results {
    let name = qualified(call.proto);
    if let Some(&(_, function, alpha, beta)) = UNARY.iter().find(|row| row.0 == name) {
        return rows::unary(call, function, alpha, beta);
    }
    if let Some(&(_, function)) = BINARY.iter().find(|row| row.0 == name) {
        return rows::binary(call, function);
    }
    if let Some(&(_, function)) = REDUCE.iter().find(|row| row.0 == name) {
        return rows::reduce(call, function);
    }
    if let Some(&(_, function, global)) = POOL.iter().find(|row| row.0 == name) {
        return rows::pool(call, function, global);
    }
    if let Some(row) = ROWS.iter().find(|row| row.name == name) {
        call.check_attributes(row.links, row.also)?;
        return (row.read)(call, row);
    }
    match DECOMPOSED.iter().find(|row| row.0 == name) {
        Some((_, translate)) => translate(call),
        None => Err(call.error("no such operator in the table")),
    }
}
