//! The text form of a graph: what passes are tested against and people read.
//!
//! ```text
//! graph "tiny" {
//!   input %x: f32[batch,2]
//!   const %w: f32[2,1] = [0.5, -1]
//!   %y: f32[batch,1] = MatMul(%x, %w) "the node's name"
//!   output %y
//! }
//! ```
//! Attributes follow the operands in braces: `{strides=[2, 2], activation="relu"}`; an absent
//! operand is `_`. Printing and parsing are inverse.

mod lexer;
mod parse;
mod print;

pub use parse::parse;
pub use print::{print, print_brief};
