//! ONNX's operators that are functions of one, two or many elements, by their families.

use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::pool::PoolFunction as P;
use lepton_ir::ops::reduce::ReduceFunction as R;
use lepton_ir::ops::unary::UnaryFunction as U;

/// A parameter of a function: the attribute's name and default.
pub type Parameter = Option<(&'static str, f32)>;

/// Functions of one element: name, function, first and second parameter. Of two names for one
/// function the first is written.
pub const UNARY: &[(&str, U, Parameter, Parameter)] = &[
    ("Identity", U::Identity, None, None),
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
