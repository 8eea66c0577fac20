//! THE operators: one file each (families share one), and the one list of them.

use std::fmt;

use crate::attribute::{Attribute, Attributes, HasAttributes};
use crate::error::Problem;
use crate::operator::Operator;

mod conv_grad;
mod facets;
mod matmul_grad;
mod reduce_grad;
mod unary_grad;
pub mod walk;
pub mod window;

macro_rules! operators {
    ($($module:ident :: { $($name:ident),* $(,)? })*) => {
        $(pub mod $module;)*

        /// Any operator.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum Op {
            $($(#[doc = concat!("See [`", stringify!($module), "::", stringify!($name), "`].")]
            $name($module::$name),)*)*
        }

        $($(impl From<$module::$name> for Op {
            fn from(op: $module::$name) -> Op {
                Op::$name(op)
            }
        })*)*

        impl Op {
            /// The name of every operator, in order.
            pub const NAMES: &'static [&'static str] = &[$($(stringify!($name)),*),*];

            /// Its facets.
            pub fn operator(&self) -> &dyn Operator {
                match self { $($(Op::$name(op) => op),*),* }
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
                attributes: &[(String, Attribute)],
            ) -> Result<Op, Problem> {
                match name {
                    $($(stringify!($name) => {
                        <$module::$name>::from_attributes(attributes).map(Op::$name)
                    })*)*
                    _ => Err(Problem::Unsupported(format!("there is no operator `{name}`"))),
                }
            }

            /// One of each operator with default attributes, in order.
            pub fn defaults() -> Vec<Op> {
                vec![$($(Op::$name(<$module::$name>::default())),*),*]
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
    integer::{ IntegerConv, IntegerLinear }
    dynamic::{ DynamicConv, DynamicLinear }
    lookup::{ Lookup, IntegerBinary }
    slice::{ Slice }
    gather::{ Gather, GatherElements }
    scatter::{ ScatterElements, ScatterND, GatherND }
    pad::{ Pad }
    expand::{ Expand, Tile }
    moves::{ MoveBack }
    conv_transpose::{ ConvTranspose, ConvWeightGrad }
    pool_grad::{ PoolGrad }
    pool_positions::{ PoolPositions }
    onnx_integer::{ DynamicQuantizeLinear, MatMulInteger, ConvInteger }
    order::{ Trilu, CumSum, Arg, TopK }
    resize::{ Resize }
    sample::{ GridSample, RoiAlign }
    find::{ NonZero, Unique, NonMaxSuppression }
    bits::{ Bitwise, BitCast }
    algebra::{ Det }
    ngram::{ Ngrams }
    trees::{ TreeEnsemble }
    branch::{ If }
    repeat::{ Loop, Scan }
    rnn::{ LSTM, GRU, RNN }
    select::{ Where, Not, Clip }
    cast::{ Cast }
    generate::{ ConstantOfShape, Range, Size }
    normalize::{ LayerNormalization, BatchNormalization, InstanceNormalization }
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
