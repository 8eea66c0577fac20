//! The table: ONNX's operators and what becomes of each.

use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::pool::PoolFunction as P;
use lepton_ir::ops::reduce::ReduceFunction as R;
use lepton_ir::ops::unary::UnaryFunction as U;
use lepton_ir::{Op, ops::pool::Pool};

use super::call::{Call, Results};
use super::{rows, values};

/// A parameter of a function: the attribute's name and default.
pub type Parameter = Option<(&'static str, f32)>;

/// Functions of one element: name, function, first and second parameter.
pub const UNARY: &[(&str, U, Parameter, Parameter)] = &[
    ("Identity", U::Identity, None, None),
    ("Dropout", U::Identity, None, None),
    ("Neg", U::Neg, None, None),
    ("Abs", U::Abs, None, None),
    ("Sqrt", U::Sqrt, None, None),
    ("Reciprocal", U::Reciprocal, None, None),
    ("Exp", U::Exp, None, None),
    ("Log", U::Log, None, None),
    ("Sigmoid", U::Sigmoid, None, None),
    ("Tanh", U::Tanh, None, None),
    ("Relu", U::Relu, None, None),
    ("LeakyRelu", U::LeakyRelu, Some(("alpha", 0.01)), None),
    ("Elu", U::Elu, Some(("alpha", 1.0)), None),
    ("Selu", U::Selu, Some(("alpha", 1.673_263_2)), Some(("gamma", 1.050_701))),
    ("HardSigmoid", U::HardSigmoid, Some(("alpha", 0.2)), Some(("beta", 0.5))),
    ("HardSwish", U::HardSwish, None, None),
    ("Swish", U::Silu, Some(("alpha", 1.0)), None),
    ("Mish", U::Mish, None, None),
    ("Softplus", U::Softplus, None, None),
    ("Softsign", U::Softsign, None, None),
    ("Erf", U::Erf, None, None),
    ("Floor", U::Floor, None, None),
    ("Ceil", U::Ceil, None, None),
    ("Round", U::Round, None, None),
    ("Sign", U::Sign, None, None),
    ("Sin", U::Sin, None, None),
    ("Cos", U::Cos, None, None),
    ("Tan", U::Tan, None, None),
    ("Asin", U::Asin, None, None),
    ("Acos", U::Acos, None, None),
    ("Atan", U::Atan, None, None),
    ("Sinh", U::Sinh, None, None),
    ("Cosh", U::Cosh, None, None),
    ("Asinh", U::Asinh, None, None),
    ("Acosh", U::Acosh, None, None),
    ("Atanh", U::Atanh, None, None),
    ("ThresholdedRelu", U::ThresholdedRelu, Some(("alpha", 1.0)), None),
    ("Shrink", U::Shrink, Some(("lambd", 0.5)), Some(("bias", 0.0))),
];

/// Functions of two elements.
pub const BINARY: &[(&str, B)] = &[
    ("Add", B::Add),
    ("Sub", B::Sub),
    ("Mul", B::Mul),
    ("Div", B::Div),
    ("Pow", B::Pow),
    ("Max", B::Max),
    ("Min", B::Min),
    ("Sum", B::Add),
    ("PRelu", B::Prelu),
    ("Equal", B::Equal),
    ("Less", B::Less),
    ("LessOrEqual", B::LessOrEqual),
    ("Greater", B::Greater),
    ("GreaterOrEqual", B::GreaterOrEqual),
    ("And", B::And),
    ("Or", B::Or),
    ("Xor", B::Xor),
];

/// Reductions.
pub const REDUCE: &[(&str, R)] = &[
    ("ReduceSum", R::Sum),
    ("ReduceMean", R::Mean),
    ("ReduceMax", R::Max),
    ("ReduceMin", R::Min),
    ("ReduceProd", R::Prod),
    ("ReduceL1", R::L1),
    ("ReduceL2", R::L2),
    ("ReduceSumSquare", R::SumSquare),
    ("ReduceLogSum", R::LogSum),
    ("ReduceLogSumExp", R::LogSumExp),
];

/// Pooling: name, function, over the whole image or not.
pub const POOL: &[(&str, P, bool)] = &[
    ("MaxPool", P::Max, false),
    ("AveragePool", P::Average, false),
    ("LpPool", P::Lp, false),
    ("GlobalMaxPool", P::Max, true),
    ("GlobalAveragePool", P::Average, true),
    ("GlobalLpPool", P::Lp, true),
];

/// A translation that is a function of its own, and the operator it needs.
pub struct Row {
    /// ONNX's name.
    pub name: &'static str,
    /// The Lepton operator without which it cannot be translated.
    pub needs: &'static str,
    /// Adds the nodes.
    pub translate: fn(&mut Call<'_>) -> Results,
}

const fn row(
    name: &'static str,
    needs: &'static str,
    translate: fn(&mut Call<'_>) -> Results,
) -> Row {
    Row { name, needs, translate }
}

/// Every other operator.
pub const ROWS: &[Row] = &[
    row("Conv", "Conv", rows::conv),
    row("MatMul", "MatMul", rows::matmul),
    row("Gemm", "Gemm", rows::gemm),
    row("Reshape", "Reshape", rows::reshape),
    row("Flatten", "Flatten", rows::flatten),
    row("Squeeze", "Squeeze", rows::squeeze),
    row("Unsqueeze", "Unsqueeze", rows::unsqueeze),
    row("Split", "Split", rows::split),
    row("Transpose", "Transpose", rows::transpose),
    row("Concat", "Concat", rows::concat),
    row("Softmax", "Softmax", rows::softmax),
    row("LogSoftmax", "Softmax", rows::softmax),
    row("Shape", "Shape", rows::shape),
    row("QuantizeLinear", "QuantizeLinear", rows::quantize),
    row("DequantizeLinear", "DequantizeLinear", rows::dequantize),
    row("Mod", "Binary", rows::modulo),
    row("Clip", "Binary", rows::clip),
    row("Gelu", "Unary", rows::gelu),
    row("Slice", "Slice", rows::slice),
    row("Gather", "Gather", rows::gather),
    row("GatherElements", "GatherElements", rows::gather),
    row("Pad", "Pad", rows::pad),
    row("Expand", "Expand", rows::plain),
    row("Tile", "Tile", rows::plain),
    row("Where", "Where", rows::plain),
    row("Range", "Range", rows::plain),
    row("Size", "Size", rows::plain),
    row("Not", "Not", rows::plain),
    row("BatchNormalization", "BatchNormalization", rows::normalise),
    row("InstanceNormalization", "InstanceNormalization", rows::normalise),
    row("LayerNormalization", "LayerNormalization", values::layer_norm),
    row("Cast", "Cast", values::cast),
    row("ConstantOfShape", "ConstantOfShape", values::constant_of_shape),
    row("Trilu", "Trilu", values::trilu),
    row("CumSum", "CumSum", values::cum_sum),
    row("ArgMax", "Arg", values::arg),
    row("ArgMin", "Arg", values::arg),
    row("LSTM", "LSTM", values::recurrent),
    row("GRU", "GRU", values::recurrent),
];

/// True if the table has that operator of ONNX's own domain and Lepton can express it.
pub fn is_known(name: &str) -> bool {
    operator_names().any(|known| known == name)
}

/// The ONNX operators that can be read, in the order of the table.
pub fn operator_names() -> impl Iterator<Item = &'static str> {
    let unary = UNARY.iter().map(|(name, ..)| *name);
    let binary = BINARY.iter().map(|(name, _)| *name);
    let reduce = REDUCE.iter().map(|(name, _)| *name);
    let pool = POOL.iter().map(|(name, ..)| *name);
    let rows = ROWS.iter().filter(|row| Op::NAMES.contains(&row.needs)).map(|row| row.name);
    unary.chain(binary).chain(reduce).chain(pool).chain(rows).chain(["Constant"])
}

/// Adds what the node means to its graph and gives its results.
pub fn translate(call: &mut Call<'_>) -> Results {
    let name = call.proto.op_type.clone().unwrap_or_default();
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
        return rows::pool(call, Pool { function, global, ..Pool::default() });
    }
    match ROWS.iter().find(|row| row.name == name) {
        Some(row) => (row.translate)(call),
        None => Err(call.error("no such operator in the table")),
    }
}
