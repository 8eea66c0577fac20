//! THE operators: one file each (families share one), and the one list of them.

use std::borrow::Borrow;
use std::fmt;

use lepton_tensor::{DType, Tensor};

use crate::attribute::{Attribute, Attributes, HasAttributes};
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Operands, Operator};

mod conv_grad;
mod facets;
mod matmul_grad;
mod reduce_grad;
mod unary_grad;
pub mod walk;
pub mod window;

/// How a variant holds its operator: `in Box` where it is so large that all others would take as much.
macro_rules! held {
    ($op:ty) => { $op };
    ($op:ty, $place:ident) => { $place<$op> };
}

macro_rules! operators {
    ($($module:ident :: { $($name:ident $(in $place:ident)?),* $(,)? })*) => {
        $(pub mod $module;)*

        /// Any operator.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum Op {
            $($(#[doc = concat!("See [`", stringify!($module), "::", stringify!($name), "`].")]
            $name(held!($module::$name $(, $place)?)),)*)*
        }

        $($(impl From<$module::$name> for Op {
            fn from(op: $module::$name) -> Op {
                Op::$name(op.into())
            }
        })*)*

        impl Op {
            /// The name of every operator, in order.
            pub const NAMES: &'static [&'static str] = &[$($(stringify!($name)),*),*];

            /// Its facets.
            pub fn operator(&self) -> &dyn Operator {
                match self { $($(Op::$name(op) => Borrow::<$module::$name>::borrow(op)),*),* }
            }

            /// Its name in the text form.
            pub fn name(&self) -> &'static str {
                match self { $($(Op::$name(_) => stringify!($name)),*),* }
            }

            /// Its attributes that are not at their default.
            pub fn attributes(&self) -> Attributes {
                match self { $($(Op::$name(op) => op.to_attributes()),*),* }
            }

            /// The operator of that name with the given attributes.
            pub fn from_parts(
                name: &str,
                attributes: &[(&str, Attribute)],
            ) -> Result<Op, Problem> {
                match name {
                    $($(stringify!($name) => {
                        <$module::$name>::from_attributes(attributes).map(Op::from)
                    })*)*
                    _ => Err(Problem::Unsupported(format!("there is no operator `{name}`"))),
                }
            }

            /// One of each operator with default attributes, in order.
            pub fn defaults() -> Vec<Op> {
                vec![$($(Op::from(<$module::$name>::default())),*),*]
            }
        }
    };
}

operators! {
    unary::{ Unary }
    binary::{ Binary }
    conv::{ Conv }
    matmul::{ MatMul, Gemm, Linear }
    reshape::{ Reshape, Flatten, Squeeze, Unsqueeze }
    split::{ Split }
    reduce::{ Reduce }
    sum_to::{ SumTo }
    transpose::{ Transpose }
    concat::{ Concat }
    softmax::{ Softmax }
    attention::{ Attention }
    pool::{ Pool }
    shape_of::{ Shape }
    quantize::{ QuantizeLinear, DequantizeLinear }
    integer::{ IntegerConv in Box, IntegerLinear }
    dynamic::{ DynamicConv, DynamicLinear }
    lookup::{ Lookup, IntegerBinary }
    slice::{ Slice }
    gather::{ Gather, GatherElements }
    scatter::{ ScatterElements, ScatterND, GatherND }
    pad::{ Pad }
    expand::{ Expand, Tile }
    moves::{ MoveBack }
    conv_transpose::{ ConvTranspose in Box, ConvWeightGrad }
    pool_grad::{ PoolGrad }
    pool_positions::{ PoolPositions }
    onnx_integer::{ DynamicQuantizeLinear, MatMulInteger, ConvInteger }
    order::{ Trilu, CumSum, Arg, TopK }
    resize::{ Resize }
    sample::{ GridSample, RoiAlign }
    find::{ NonZero, Unique, NonMaxSuppression }
    detection::{ DetectBoxes }
    bits::{ Bitwise, BitCast }
    algebra::{ Det }
    fourier::{ Fourier }
    ngram::{ Ngrams in Box }
    strings::{ StringNormalizer, StringConcat, StringSplit, RegexFullMatch, Tokenizer }
    labels::{ LabelEncoder in Box }
    image::{ ImageDecoder }
    random::{ Random, Draw }
    trees::{ TreeEnsemble in Box }
    couple::{ CouplePairs }
    branch::{ If in Box }
    repeat::{ Loop in Box, Scan in Box }
    rnn::{ LSTM, GRU, RNN }
    integer_rnn::{ IntegerLSTM in Box }
    select::{ Where, Not, Clip }
    cast::{ Cast }
    generate::{ ConstantOfShape, Range, Size }
    normalize::{ LayerNormalization, BatchNormalization, InstanceNormalization }
}

/// The operators that take tensors of strings. Those that move or compare elements see numbers of
/// words, which [`Op::eval`] makes words of one list.
const TAKE_STRINGS: &[&str] = &[
    "Unary",
    "Binary",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Split",
    "Transpose",
    "Concat",
    "Shape",
    "Size",
    "Slice",
    "Gather",
    "GatherElements",
    "GatherND",
    "ScatterElements",
    "ScatterND",
    "Pad",
    "Expand",
    "Tile",
    "Where",
    "Unique",
    "Cast",
    "If",
    "Loop",
    "Scan",
    "StringNormalizer",
    "StringConcat",
    "StringSplit",
    "RegexFullMatch",
    "Tokenizer",
    "LabelEncoder",
];

fn is_text(dtype: DType) -> bool {
    dtype == DType::Str
}

impl Op {
    fn takes_strings(&self) -> bool {
        match self {
            Op::Unary(op) => op.function == unary::UnaryFunction::Identity,
            Op::Binary(op) => op.function.compares_order(),
            _ => TAKE_STRINGS.contains(&self.name()),
        }
    }

    /// Types and extents of the results; strings only where the operator takes them.
    pub fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        if inputs.0.iter().flatten().any(|fact| is_text(fact.dtype)) && !self.takes_strings() {
            return Err(Problem::dtype("every operand", "numbers", DType::Str));
        }
        self.operator().infer(inputs)
    }

    /// The results, also where operands are tensors of strings.
    pub fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let given: Vec<&Tensor> = inputs.0.iter().copied().flatten().collect();
        let Some(first) = given.iter().position(|tensor| is_text(tensor.dtype())) else {
            return self.operator().eval(inputs);
        };
        if !self.takes_strings() {
            return Err(Problem::dtype("every operand", "numbers", DType::Str));
        }
        let shared = Tensor::with_shared_words(&given)?;
        let mut rest = shared.iter();
        let operands: Vec<Option<&Tensor>> =
            inputs.0.iter().map(|operand| operand.and_then(|_| rest.next())).collect();
        let made = self.operator().eval(Operands(&operands))?;
        Ok(made.into_iter().map(|tensor| tensor.with_words_of(&shared[first])).collect())
    }
}

/// The name, and for a family which member: `Conv`, `Unary(relu)`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let member = self.attributes().into_iter().find(|(name, _)| *name == "function");
        if let Some((_, Attribute::Text(word))) = member {
            write!(f, "({word})")?;
        }
        Ok(())
    }
}
