//! The table: TensorFlow Lite's operators and what each is in Lepton.

use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::reduce::ReduceFunction as R;
use lepton_ir::ops::unary::UnaryFunction as U;

use super::call::{Call, Results};
use super::names::{CUSTOM, NAMES};
use super::schema::Code;
use super::{
    blocks, control, detection, elements, products, recurrent, reductions, rounded, select, shapes,
    slices, windows,
};

/// What an operator is in Lepton.
pub enum Meaning {
    /// A function of one element, with its parameters.
    Function(U, f32, f32),
    /// A function of two elements, perhaps with an activation after it.
    Pair(B),
    /// A reduction.
    Reduction(R),
    /// Anything else.
    Nodes(fn(&mut Call<'_, '_>) -> Results),
}

/// An operator that can be read.
pub struct Row {
    /// Its name in the schema, or the name it is registered with where it is not built in.
    pub name: &'static str,
    /// The newest version of it that is known.
    pub newest: i32,
    /// What it is.
    meaning: Meaning,
}

const fn function(name: &'static str, newest: i32, function: U) -> Row {
    Row { name, newest, meaning: Meaning::Function(function, 0.0, 0.0) }
}

const fn with(name: &'static str, newest: i32, function: U, alpha: f32, beta: f32) -> Row {
    Row { name, newest, meaning: Meaning::Function(function, alpha, beta) }
}

const fn pair(name: &'static str, newest: i32, function: B) -> Row {
    Row { name, newest, meaning: Meaning::Pair(function) }
}

const fn reduction(name: &'static str, newest: i32, function: R) -> Row {
    Row { name, newest, meaning: Meaning::Reduction(function) }
}

const fn nodes(name: &'static str, newest: i32, read: fn(&mut Call<'_, '_>) -> Results) -> Row {
    Row { name, newest, meaning: Meaning::Nodes(read) }
}

/// Every operator that can be read.
pub const ROWS: &[Row] = &[
    // Products.
    nodes("CONV_2D", 8, products::convolution),
    nodes("DEPTHWISE_CONV_2D", 7, products::depthwise),
    nodes("TRANSPOSE_CONV", 5, products::transposed_convolution),
    nodes("CONV_3D", 1, products::convolution_3d),
    nodes("FULLY_CONNECTED", 13, products::fully_connected),
    nodes("BATCH_MATMUL", 4, products::batch_product),
    // Functions of one element.
    function("ABS", 5, U::Abs),
    function("CEIL", 1, U::Ceil),
    function("COS", 1, U::Cos),
    with("ELU", 1, U::Elu, 1.0, 0.0),
    function("EXP", 2, U::Exp),
    function("FLOOR", 1, U::Floor),
    nodes("GELU", 2, elements::gelu),
    nodes("HARD_SWISH", 1, rounded::hard_swish),
    nodes("LEAKY_RELU", 2, elements::leaky_relu),
    function("LOG", 2, U::Log),
    nodes("LOGICAL_NOT", 1, elements::not),
    function("LOGISTIC", 3, U::Sigmoid),
    function("NEG", 1, U::Neg),
    function("RELU", 3, U::Relu),
    with("RELU6", 3, U::Clip, 0.0, 6.0),
    with("RELU_0_TO_1", 1, U::Clip, 0.0, 1.0),
    with("RELU_N1_TO_1", 1, U::Clip, -1.0, 1.0),
    function("ROUND", 1, U::Round),
    nodes("RSQRT", 3, elements::reciprocal_root),
    function("SIGN", 2, U::Sign),
    function("SIN", 1, U::Sin),
    function("SQRT", 1, U::Sqrt),
    nodes("SQUARE", 1, elements::square),
    function("TANH", 3, U::Tanh),
    // Functions of two elements.
    pair("ADD", 5, B::Add),
    nodes("ADD_N", 1, elements::add_all),
    pair("DIV", 2, B::Div),
    pair("EQUAL", 4, B::Equal),
    nodes("FLOOR_DIV", 3, elements::floor_quotient),
    pair("FLOOR_MOD", 2, B::Mod),
    pair("GREATER", 2, B::Greater),
    pair("GREATER_EQUAL", 3, B::GreaterOrEqual),
    pair("LESS", 3, B::Less),
    pair("LESS_EQUAL", 3, B::LessOrEqual),
    pair("LOGICAL_AND", 1, B::And),
    pair("LOGICAL_OR", 1, B::Or),
    pair("MAXIMUM", 4, B::Max),
    pair("MINIMUM", 4, B::Min),
    pair("MUL", 7, B::Mul),
    nodes("NOT_EQUAL", 3, elements::not_equal),
    pair("POW", 1, B::Pow),
    pair("PRELU", 1, B::Prelu),
    nodes("SQUARED_DIFFERENCE", 2, elements::squared_difference),
    pair("SUB", 5, B::Sub),
    // Types and integers that stand for reals.
    nodes("CAST", 7, elements::cast),
    nodes("DEQUANTIZE", 6, elements::dequantise),
    nodes("FAKE_QUANT", 2, elements::fake_quantise),
    nodes("QUANTIZE", 3, rounded::quantise),
    // Windows and images.
    nodes("AVERAGE_POOL_2D", 3, windows::average),
    nodes("L2_POOL_2D", 1, windows::root_mean_square),
    nodes("LOCAL_RESPONSE_NORMALIZATION", 1, windows::local_response),
    nodes("MAX_POOL_2D", 3, windows::max),
    nodes("RESIZE_BILINEAR", 4, windows::resize_bilinear),
    nodes("RESIZE_NEAREST_NEIGHBOR", 4, windows::resize_nearest),
    nodes("BATCH_TO_SPACE_ND", 4, blocks::batch_to_space),
    nodes("DEPTH_TO_SPACE", 2, blocks::depth_to_space),
    nodes("SPACE_TO_BATCH_ND", 4, blocks::space_to_batch),
    nodes("SPACE_TO_DEPTH", 2, blocks::space_to_depth),
    // Reductions and orders.
    nodes("ARG_MAX", 3, reductions::arg_max),
    nodes("ARG_MIN", 3, reductions::arg_min),
    nodes("CUMSUM", 1, reductions::running_sum),
    nodes("L2_NORMALIZATION", 2, reductions::unit_length),
    nodes("LOG_SOFTMAX", 2, reductions::log_softmax),
    reduction("MEAN", 3, R::Mean),
    nodes("REDUCE_ALL", 1, reductions::all),
    nodes("REDUCE_ANY", 2, reductions::any),
    reduction("REDUCE_MAX", 3, R::Max),
    reduction("REDUCE_MIN", 3, R::Min),
    reduction("REDUCE_PROD", 2, R::Prod),
    nodes("SOFTMAX", 3, reductions::softmax),
    reduction("SUM", 2, R::Sum),
    nodes("TOPK_V2", 3, reductions::largest),
    nodes("UNIQUE", 1, reductions::unique),
    // Shapes.
    nodes("BROADCAST_TO", 3, shapes::broadcast_to),
    nodes("CONCATENATION", 4, shapes::concatenation),
    nodes("EXPAND_DIMS", 1, shapes::expand_dims),
    nodes("FILL", 4, shapes::fill),
    nodes("PACK", 4, shapes::pack),
    nodes("RANGE", 2, shapes::range),
    nodes("RANK", 1, shapes::rank),
    nodes("RESHAPE", 1, shapes::reshape),
    nodes("SHAPE", 1, shapes::shape),
    nodes("SPLIT", 4, shapes::split),
    nodes("SPLIT_V", 2, shapes::split_at),
    nodes("SQUEEZE", 2, shapes::squeeze),
    nodes("TILE", 3, shapes::tile),
    nodes("TRANSPOSE", 6, shapes::transpose),
    nodes("UNPACK", 4, shapes::unpack),
    nodes("ZEROS_LIKE", 1, shapes::zeros_like),
    // Parts.
    nodes("MIRROR_PAD", 3, slices::mirror_pad),
    nodes("PAD", 4, slices::pad),
    nodes("PADV2", 4, slices::pad),
    nodes("REVERSE_V2", 3, slices::reverse),
    nodes("SLICE", 6, slices::slice),
    nodes("STRIDED_SLICE", 8, slices::strided),
    // Selection.
    nodes("EMBEDDING_LOOKUP", 4, select::embedding),
    nodes("GATHER", 7, select::gather),
    nodes("GATHER_ND", 5, select::gather_nd),
    nodes("ONE_HOT", 1, select::one_hot),
    nodes("SCATTER_ND", 1, select::scatter_nd),
    nodes("SELECT", 4, select::choose),
    nodes("SELECT_V2", 2, select::choose),
    nodes("WHERE", 2, select::positions),
    // Recurrent layers.
    nodes("RNN", 3, recurrent::rnn_cell),
    nodes("SVDF", 4, recurrent::filter),
    nodes("UNIDIRECTIONAL_SEQUENCE_LSTM", 5, recurrent::lstm),
    nodes("UNIDIRECTIONAL_SEQUENCE_RNN", 4, recurrent::rnn),
    // Detections.
    nodes("TFLite_Detection_PostProcess", 1, detection::boxes),
    // Graphs inside.
    nodes("CALL_ONCE", 1, control::call_once),
    nodes("IF", 1, control::branch),
    nodes("WHILE", 1, control::repeat),
    nodes("ASSIGN_VARIABLE", 1, control::assign_variable),
    nodes("READ_VARIABLE", 1, control::read_variable),
    nodes("VAR_HANDLE", 1, control::variable),
];

/// The operator's name.
pub fn name(code: &Code) -> String {
    match usize::try_from(code.builtin).ok().and_then(|number| NAMES.get(number)) {
        Some(_) if code.builtin == CUSTOM => code.custom.clone(),
        Some(name) => name.to_string(),
        None => format!("operator number {}", code.builtin),
    }
}

/// The row of an operator.
pub fn find(code: &Code) -> Option<&'static Row> {
    let name = name(code);
    let built_in = |row: &Row| NAMES.contains(&row.name) != (code.builtin == CUSTOM);
    ROWS.iter().find(|row| row.name == name && built_in(row))
}

/// Every operator that can be read, with the newest version of it that is known.
pub fn operator_names() -> Vec<(&'static str, i32)> {
    ROWS.iter().map(|row| (row.name, row.newest)).collect()
}

/// Adds the nodes of an operator; gives its results.
pub fn translate(call: &mut Call<'_, '_>, code: &Code) -> Results {
    match find(code).map(|row| &row.meaning) {
        Some(&Meaning::Function(function, alpha, beta)) => {
            elements::function(call, function, alpha, beta)
        }
        Some(&Meaning::Pair(function)) => elements::pair(call, function),
        Some(&Meaning::Reduction(function)) => reductions::reduced(call, function),
        Some(Meaning::Nodes(read)) => read(call),
        None => Err(crate::steps::Steps::error(call, "there is no such operator")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_and_unique() {
        for (index, row) in ROWS.iter().enumerate() {
            let built_in = NAMES.contains(&row.name);
            assert!(built_in || row.name.chars().any(char::is_lowercase), "{}", row.name);
            assert!(ROWS[..index].iter().all(|other| other.name != row.name), "{}", row.name);
        }
    }
}
