//! Steps that the translation of one operator of a file takes, each one node of Lepton's graph.

use std::cell::Cell;

use lepton_ir::ops::binary::{Binary, BinaryFunction};
use lepton_ir::ops::cast::Cast;
use lepton_ir::ops::concat::Concat;
use lepton_ir::ops::expand::Expand;
use lepton_ir::ops::gather::Gather;
use lepton_ir::ops::generate::Range;
use lepton_ir::ops::matmul::MatMul;
use lepton_ir::ops::reduce::{Reduce, ReduceFunction};
use lepton_ir::ops::reshape::{Reshape, Unsqueeze};
use lepton_ir::ops::select::Where;
use lepton_ir::ops::shape_of::Shape;
use lepton_ir::ops::slice::Slice;
use lepton_ir::ops::transpose::Transpose;
use lepton_ir::ops::unary::{Unary, UnaryFunction};
use lepton_ir::{Attribute, Dim, Graph, Op, ValueId};
use lepton_tensor::{DType, Tensor};

use crate::error::FormatError;

/// Elements of the constants that decompositions may still make of a file, which says little about
/// how large they are.
#[derive(Debug)]
pub struct Budget(Cell<usize>);

impl Default for Budget {
    fn default() -> Self {
        Budget(Cell::new(1 << 23))
    }
}

impl Budget {
    /// Takes a constant of that shape; false if that is more than is left.
    pub fn take(&self, shape: &[usize]) -> bool {
        let left = lepton_tensor::checked_product(shape).and_then(|n| self.0.get().checked_sub(n));
        left.inspect(|&left| self.0.set(left)).is_some()
    }
}

/// Most elements of what is computed while reading, operands and results each.
pub const MOST_KNOWN: usize = 1024;

/// The elements of a small value, if it is a constant or its integers follow from extents.
pub fn known(graph: &Graph, id: ValueId) -> Option<Tensor> {
    let fact = graph.fact(id);
    if let Some(tensor) = graph.constant(id) {
        return Some(tensor.clone()).filter(|tensor| tensor.len() <= MOST_KNOWN);
    }
    let integers: Vec<i64> =
        fact.integers.as_ref()?.iter().map(Dim::as_known).collect::<Option<_>>()?;
    Tensor::from_i64_slice(fact.dtype, fact.shape()?, &integers).ok()
}

/// One value, or why there is none.
pub type Made = Result<ValueId, FormatError>;

/// The results of a translated operator.
pub type Results = Result<Vec<ValueId>, FormatError>;

/// An operator of a file while it is translated.
pub trait Steps {
    /// The graph that grows.
    fn graph_ref(&self) -> &Graph;

    /// The graph that grows, for writing.
    fn graph_mut(&mut self) -> &mut Graph;

    /// The name that the nodes it becomes get; may be empty.
    fn node_name(&self) -> String;

    /// What constants may still be made.
    fn budget(&self) -> &Budget;

    /// An error that names the operator.
    fn error(&self, why: impl Into<String>) -> FormatError;

    /// A constant without a name.
    fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph_mut().add_constant("", tensor)
    }

    /// A constant list of integers.
    fn integers(&mut self, values: &[i64]) -> ValueId {
        self.constant(Tensor::vector(values))
    }

    /// Adds a node with the file's node name.
    fn emit(&mut self, op: impl Into<Op>, inputs: &[Option<ValueId>]) -> Results {
        let name = self.node_name();
        Ok(self.graph_mut().add_node(name, op, inputs)?)
    }

    /// Adds a node with one result and gives that result.
    fn emit_one(
        &mut self,
        op: impl Into<Op>,
        inputs: &[Option<ValueId>],
    ) -> Result<ValueId, FormatError> {
        let made = self.emit(op, inputs)?;
        made.first().copied().ok_or_else(|| self.error("it has no result"))
    }

    /// A constant scalar of a type.
    fn scalar(&mut self, dtype: DType, value: f64) -> Result<ValueId, FormatError> {
        let tensor = Tensor::from_f64_slice(dtype, Vec::new(), &[value]);
        let tensor = tensor.map_err(|error| self.error(error.to_string()))?;
        Ok(self.constant(tensor))
    }

    /// A function of one element as a node.
    fn map(&mut self, f: UnaryFunction, x: ValueId) -> Result<ValueId, FormatError> {
        self.emit_one(Unary::new(f), &[Some(x)])
    }

    /// A function of two elements as a node.
    fn pair(&mut self, f: BinaryFunction, a: ValueId, b: ValueId) -> Result<ValueId, FormatError> {
        self.emit_one(Binary::new(f), &[Some(a), Some(b)])
    }

    /// The operator of that name, by attributes.
    fn op(&self, name: &str, attributes: &[(&str, Attribute)]) -> Result<Op, FormatError> {
        Op::from_parts(name, attributes).map_err(|problem| self.error(problem.to_string()))
    }

    /// A constant of a type and shape.
    fn table(&mut self, dtype: DType, shape: &[usize], values: &[f64]) -> Made {
        let tensor = Tensor::from_f64_slice(dtype, shape, values);
        let tensor = tensor.map_err(|error| self.error(error.to_string()))?;
        Ok(self.constant(tensor))
    }

    /// Takes a constant of that shape from the budget; an error if it is too large.
    fn check_size(&self, shape: &[usize]) -> Result<(), FormatError> {
        if self.budget().take(shape) {
            return Ok(());
        }
        Err(self.error(format!("it needs a constant of {shape:?} elements, which is too large")))
    }

    /// The element type of a value.
    fn dtype(&self, x: ValueId) -> DType {
        self.graph_ref().fact(x).dtype
    }

    /// The extents of a value, which must be known.
    fn extents(&self, x: ValueId) -> Result<Vec<usize>, FormatError> {
        let shape = self.graph_ref().fact(x).shape();
        shape.ok_or_else(|| self.error("its extents must be known; fix the shapes of the inputs"))
    }

    /// An axis counted from the front, of a tensor of `rank` axes.
    fn axis_of(&self, axis: i64, rank: usize) -> Result<usize, FormatError> {
        let from_front = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
        let found = usize::try_from(from_front).ok().filter(|&axis| axis < rank);
        found.ok_or_else(|| self.error(format!("axis {axis} of a tensor of rank {rank}")))
    }

    /// `x` under another shape; 0 keeps an extent, −1 is the rest.
    fn reshape(&mut self, x: ValueId, shape: &[i64]) -> Made {
        let shape = self.integers(shape);
        self.emit_one(Reshape::default(), &[Some(x), Some(shape)])
    }

    /// `x` under the shape in a value.
    fn reshape_as(&mut self, x: ValueId, shape: ValueId) -> Made {
        self.emit_one(Reshape { allow_zero: true }, &[Some(x), Some(shape)])
    }

    /// `x` with its axes in another order.
    fn transpose(&mut self, x: ValueId, order: &[usize]) -> Made {
        if order.iter().enumerate().all(|(i, &axis)| i == axis) {
            return Ok(x);
        }
        self.emit_one(Transpose { permutation: order.to_vec() }, &[Some(x)])
    }

    /// `x` with axes of extent 1 at `axes`.
    fn unsqueeze(&mut self, x: ValueId, axes: &[i64]) -> Made {
        let axes = self.integers(axes);
        self.emit_one(Unsqueeze {}, &[Some(x), Some(axes)])
    }

    /// `x` from `start` to before `end` along an axis.
    fn slice(&mut self, x: ValueId, axis: usize, start: i64, end: i64) -> Made {
        let bounds = [start, end, axis as i64].map(|v| Some(self.integers(&[v])));
        self.emit_one(Slice {}, &[Some(x), bounds[0], bounds[1], bounds[2]])
    }

    /// Values one after the other along an axis.
    fn concat(&mut self, parts: &[ValueId], axis: i64) -> Made {
        let parts: Vec<Option<ValueId>> = parts.iter().copied().map(Some).collect();
        self.emit_one(Concat { axis }, &parts)
    }

    /// `x` as another element type.
    fn cast(&mut self, x: ValueId, to: DType) -> Made {
        if self.dtype(x) == to {
            return Ok(x);
        }
        self.emit_one(Cast { to }, &[Some(x)])
    }

    /// `a` where `condition` holds, else `b`.
    fn select(&mut self, condition: ValueId, a: ValueId, b: ValueId) -> Made {
        self.emit_one(Where {}, &[Some(condition), Some(a), Some(b)])
    }

    /// A reduction over axes, which stay with extent 1 where `keep_dims`.
    fn reduced(
        &mut self,
        function: ReduceFunction,
        x: ValueId,
        axes: &[i64],
        keep_dims: bool,
    ) -> Made {
        let axes = self.integers(axes);
        let op = Reduce { keep_dims, ..Reduce::new(function) };
        self.emit_one(op, &[Some(x), Some(axes)])
    }

    /// A matrix product.
    fn product(&mut self, a: ValueId, b: ValueId) -> Made {
        self.emit_one(MatMul {}, &[Some(a), Some(b)])
    }

    /// `x·factor`.
    fn scaled(&mut self, x: ValueId, factor: f64) -> Made {
        let dtype = self.dtype(x);
        let factor = self.scalar(dtype, factor)?;
        self.pair(BinaryFunction::Mul, x, factor)
    }

    /// `x + term`.
    fn shifted(&mut self, x: ValueId, term: f64) -> Made {
        let dtype = self.dtype(x);
        let term = self.scalar(dtype, term)?;
        self.pair(BinaryFunction::Add, x, term)
    }

    /// Slices of `x` at constant positions along an axis.
    fn picked(&mut self, x: ValueId, axis: i64, positions: &[i64]) -> Made {
        let positions = self.integers(positions);
        self.emit_one(Gather { axis }, &[Some(x), Some(positions)])
    }

    /// The shape of `x` as i64.
    fn shape_of(&mut self, x: ValueId) -> Made {
        self.emit_one(Shape::default(), &[Some(x)])
    }

    /// The extent of an axis of `x` as an i64 scalar.
    fn extent_of(&mut self, x: ValueId, axis: usize) -> Made {
        if let Some(known) = self.graph_ref().fact(x).dims.get(axis).and_then(|d| d.as_known()) {
            return Ok(self.constant(Tensor::scalar(known)));
        }
        let shape = self.shape_of(x)?;
        let axis = self.constant(Tensor::scalar(axis as i64));
        self.emit_one(Gather { axis: 0 }, &[Some(shape), Some(axis)])
    }

    /// `0, 1, …` to before an i64 scalar.
    fn counting(&mut self, limit: ValueId) -> Made {
        let [start, step] = [0i64, 1].map(|v| self.constant(Tensor::scalar(v)));
        self.emit_one(Range {}, &[Some(start), Some(limit), Some(step)])
    }

    /// `x` repeated to the shape in a value.
    fn expand(&mut self, x: ValueId, shape: ValueId) -> Made {
        self.emit_one(Expand {}, &[Some(x), Some(shape)])
    }
}
