//! The intermediate representation: a typed graph with symbolic dimensions, and THE operators.
//!
//! An operator is defined once, in `ops/`, with all its facets ([`Operator`]); every other part
//! of Lepton derives what it needs from there. No `unsafe`, no input or output.
#![forbid(unsafe_code)]
// Errors carry the node, its operands and the problem; they are rare and made once.
#![allow(clippy::result_large_err)]

pub mod attribute;
pub mod dim;
mod edit;
pub mod error;
pub mod fact;
pub mod fixed_point;
pub mod gradient;
pub mod graph;
mod infer;
pub mod interpret;
pub mod operator;
pub mod ops;
mod packed;
pub mod text;
mod users;
mod verify;

pub use attribute::{Attribute, Attributes};
pub use dim::Dim;
pub use error::{GraphError, Problem};
pub use fact::Fact;
pub use gradient::{Backward, Stops};
pub use graph::{Graph, Node, NodeId, Value, ValueId};
pub use operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};
pub use ops::Op;
pub use packed::StoredPack;
pub use users::{Users, identical};
