//! Steps that many decompositions take, each one node of Lepton's graph.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
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
use lepton_tensor::{DType, Tensor};

use super::call::Call;
use crate::error::FormatError;

/// Most elements of a constant that a decomposition makes.
pub const LARGEST: usize = 1 << 26;

/// One value, or why there is none.
pub type Made = Result<ValueId, FormatError>;

impl Call<'_> {
    /// A constant of a type and shape.
    pub fn table(&mut self, dtype: DType, shape: &[usize], values: &[f64]) -> Made {
        let tensor = Tensor::from_f64_slice(dtype, shape, values);
        let tensor = tensor.map_err(|error| self.error(error.to_string()))?;
        Ok(self.constant(tensor))
    }

    /// An error if a constant of that shape would be too large to make.
    pub fn check_size(&self, shape: &[usize]) -> Result<(), FormatError> {
        let count = lepton_tensor::checked_product(shape).filter(|&count| count <= LARGEST);
        count.map(|_| ()).ok_or_else(|| self.error(format!("a constant of {shape:?} elements")))
    }

    /// The element type of a value.
    pub fn dtype(&self, x: ValueId) -> DType {
        self.graph.fact(x).dtype
    }

    /// The extents of a value, which must be known.
    pub fn extents(&self, x: ValueId) -> Result<Vec<usize>, FormatError> {
        let shape = self.graph.fact(x).shape();
        shape.ok_or_else(|| self.error("its extents must be known; fix the shapes of the inputs"))
    }

    /// The integers of operand `index`, which must be known.
    pub fn known(&self, index: usize) -> Result<Vec<i64>, FormatError> {
        let id = self.required(index)?;
        let tensor = super::folded::known(self.graph, id).map(|tensor| tensor.to_i64_vec());
        tensor.ok_or_else(|| self.error(format!("input {index} must be a constant")))
    }

    /// The numbers of operand `index`, which must be a constant.
    pub fn known_reals(&self, index: usize) -> Result<Vec<f64>, FormatError> {
        let tensor = self.graph.constant(self.required(index)?).map(Tensor::to_f64_vec);
        tensor.ok_or_else(|| self.error(format!("input {index} must be a constant")))
    }

    /// An axis counted from the front, of a tensor of `rank` axes.
    pub fn axis_of(&self, axis: i64, rank: usize) -> Result<usize, FormatError> {
        let from_front = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
        let found = usize::try_from(from_front).ok().filter(|&axis| axis < rank);
        found.ok_or_else(|| self.error(format!("axis {axis} of a tensor of rank {rank}")))
    }

    /// `x` under another shape; 0 keeps an extent, −1 is the rest.
    pub fn reshape(&mut self, x: ValueId, shape: &[i64]) -> Made {
        let shape = self.integers(shape);
        self.emit_one(Reshape::default(), &[Some(x), Some(shape)])
    }

    /// `x` under the shape in a value.
    pub fn reshape_as(&mut self, x: ValueId, shape: ValueId) -> Made {
        self.emit_one(Reshape { allow_zero: true }, &[Some(x), Some(shape)])
    }

    /// `x` with its axes in another order.
    pub fn transpose(&mut self, x: ValueId, order: &[usize]) -> Made {
        if order.iter().enumerate().all(|(i, &axis)| i == axis) {
            return Ok(x);
        }
        self.emit_one(Transpose { permutation: order.to_vec() }, &[Some(x)])
    }

    /// `x` with axes of extent 1 at `axes`.
    pub fn unsqueeze(&mut self, x: ValueId, axes: &[i64]) -> Made {
        let axes = self.integers(axes);
        self.emit_one(Unsqueeze {}, &[Some(x), Some(axes)])
    }

    /// `x` from `start` to before `end` along an axis.
    pub fn slice(&mut self, x: ValueId, axis: usize, start: i64, end: i64) -> Made {
        let bounds = [start, end, axis as i64].map(|v| Some(self.integers(&[v])));
        self.emit_one(Slice {}, &[Some(x), bounds[0], bounds[1], bounds[2]])
    }

    /// Values one after the other along an axis.
    pub fn concat(&mut self, parts: &[ValueId], axis: i64) -> Made {
        let parts: Vec<Option<ValueId>> = parts.iter().copied().map(Some).collect();
        self.emit_one(Concat { axis }, &parts)
    }

    /// `x` as another element type.
    pub fn cast(&mut self, x: ValueId, to: DType) -> Made {
        if self.dtype(x) == to {
            return Ok(x);
        }
        self.emit_one(Cast { to }, &[Some(x)])
    }

    /// `a` where `condition` holds, else `b`.
    pub fn select(&mut self, condition: ValueId, a: ValueId, b: ValueId) -> Made {
        self.emit_one(Where {}, &[Some(condition), Some(a), Some(b)])
    }

    /// A reduction over axes, which stay with extent 1 where `keep_dims`.
    pub fn reduced(
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
    pub fn product(&mut self, a: ValueId, b: ValueId) -> Made {
        self.emit_one(MatMul {}, &[Some(a), Some(b)])
    }

    /// `x·factor`.
    pub fn scaled(&mut self, x: ValueId, factor: f64) -> Made {
        let factor = self.scalar(self.dtype(x), factor)?;
        self.pair(B::Mul, x, factor)
    }

    /// `x + term`.
    pub fn shifted(&mut self, x: ValueId, term: f64) -> Made {
        let term = self.scalar(self.dtype(x), term)?;
        self.pair(B::Add, x, term)
    }

    /// Slices of `x` at constant positions along an axis.
    pub fn picked(&mut self, x: ValueId, axis: i64, positions: &[i64]) -> Made {
        let positions = self.integers(positions);
        self.emit_one(Gather { axis }, &[Some(x), Some(positions)])
    }

    /// The shape of `x` as i64.
    pub fn shape_of(&mut self, x: ValueId) -> Made {
        self.emit_one(Shape::default(), &[Some(x)])
    }

    /// The extent of an axis of `x` as an i64 scalar.
    pub fn extent_of(&mut self, x: ValueId, axis: usize) -> Made {
        if let Some(known) = self.graph.fact(x).dims.get(axis).and_then(|d| d.as_known()) {
            return Ok(self.constant(Tensor::scalar(known)));
        }
        let shape = self.shape_of(x)?;
        let axis = self.constant(Tensor::scalar(axis as i64));
        self.emit_one(Gather { axis: 0 }, &[Some(shape), Some(axis)])
    }

    /// `0, 1, …` to before an i64 scalar.
    pub fn counting(&mut self, limit: ValueId) -> Made {
        let [start, step] = [0i64, 1].map(|v| self.constant(Tensor::scalar(v)));
        self.emit_one(Range {}, &[Some(start), Some(limit), Some(step)])
    }

    /// `x` repeated to the shape in a value.
    pub fn expand(&mut self, x: ValueId, shape: ValueId) -> Made {
        self.emit_one(Expand {}, &[Some(x), Some(shape)])
    }
}
