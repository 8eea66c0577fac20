//! Cutting a tensor into parts along an axis.

use lepton_tensor::Tensor;

use super::concat::Concat;
use super::walk::{known_integers, resolve_axis};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};

/// Most parts one node makes.
const MAX_PARTS: usize = 16384;

attributes! {
    /// Parts of x along `axis`, one after the other: of the lengths in `split`, or `parts` equal
    /// ones (the last may be shorter).
    pub struct Split {
        /// Axis; negative counts from the back.
        pub axis: i64 = 0,
        /// Number of parts where `split` is absent.
        pub parts: usize = 0,
    }
}

impl Split {
    fn lengths(&self, extent: &Dim, split: Option<&Fact>) -> Result<Vec<Dim>, Problem> {
        if let Some(split) = split {
            let lengths = split.integers.clone().or_else(|| {
                split.known_integers().map(|list| list.into_iter().map(Dim::known).collect())
            });
            let lengths = lengths.ok_or(Problem::NotConstant("split"))?;
            let total = lengths.iter().cloned().fold(Dim::known(0), |a, b| a + b);
            if let (Some(total), Some(extent)) = (total.as_known(), extent.as_known())
                && total != extent
            {
                return Err(Problem::shape(format!("parts sum to {total}, the axis has {extent}")));
            }
            return Ok(lengths);
        }
        if self.parts == 0 || self.parts > MAX_PARTS {
            return Err(Problem::attribute("parts", format!("{} parts", self.parts)));
        }
        let parts = Dim::from(self.parts);
        let each = extent.ceil_div(&parts);
        let rest = extent.clone() - each.clone() * Dim::from(self.parts - 1);
        if rest.as_known().is_some_and(|r| r < 0) {
            return Err(Problem::shape(format!("{extent} does not divide into {parts} parts")));
        }
        let mut lengths = vec![each; self.parts - 1];
        lengths.push(rest);
        Ok(lengths)
    }
}

/// The gradient of a concatenation: its parts.
pub(crate) fn grad_of_concat(
    op: &Concat,
    g: &mut Backward<'_>,
) -> Result<Vec<Option<ValueId>>, Stops> {
    let dy = g.output_grad()?;
    let rank = g.fact(dy).rank();
    let axis = resolve_axis(op.axis, rank).map_err(|_| Stops::Because("no such axis"))?;
    let lengths: Option<Vec<i64>> = g
        .inputs
        .iter()
        .map(|input| input.and_then(|id| g.graph.fact(id).dims[axis].as_known()))
        .collect();
    let lengths = lengths.ok_or(Stops::Because("the parts have unknown lengths"))?;
    let split = g.integers(&lengths);
    let parts = g.op_with(Split { axis: op.axis, parts: 0 }, &[Some(dy), Some(split)])?;
    Ok(parts.into_iter().map(Some).collect())
}

impl Operator for Split {
    fn arity(&self) -> Arity {
        Arity::between(1, 2).outputs(1, MAX_PARTS)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        let axis = resolve_axis(self.axis, x.rank())?;
        if x.rank() == 0 {
            return Err(Problem::shape("a scalar cannot be split"));
        }
        let lengths = self.lengths(&x.dims[axis], inputs.optional(1))?;
        let mut integers = x.integers.clone().map(Vec::into_iter);
        let part = |length: Dim| {
            let own = match (&mut integers, length.as_usize()) {
                (Some(rest), Some(count)) => Some(rest.by_ref().take(count).collect()),
                _ => None,
            };
            let mut dims = x.dims.clone();
            dims[axis] = length;
            Fact::new(x.dtype, dims).with_integers(own)
        };
        Ok(lengths.into_iter().map(part).collect())
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let axis = resolve_axis(self.axis, x.rank())?;
        let split = inputs.optional(1).map(Fact::of);
        if let Some(split) = &split {
            known_integers(split, "split")?;
        }
        let lengths = self.lengths(&Dim::from(x.shape()[axis]), split.as_ref())?;
        let inner = x.shape()[axis + 1..].iter().product::<usize>() * x.dtype().size();
        let rows: usize = x.shape()[..axis].iter().product();
        let row_size = x.shape()[axis] * inner;
        let mut start = 0;
        let mut parts = Vec::with_capacity(lengths.len());
        for length in lengths {
            let length =
                length.as_usize().ok_or_else(|| Problem::shape("a part has a negative length"))?;
            let mut shape = x.shape().to_vec();
            shape[axis] = length;
            let mut part = Tensor::zeros(x.dtype(), shape)?;
            let size = length * inner;
            for row in 0..if size == 0 { 0 } else { rows } {
                let from = row * row_size + start * inner;
                let source = &x.bytes()[from..from + size];
                part.bytes_mut()[row * size..(row + 1) * size].copy_from_slice(source);
            }
            parts.push(part);
            start += length;
        }
        Ok(parts)
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let mut grads = Vec::with_capacity(g.outputs.len());
        for (output, grad) in g.outputs.iter().zip(g.output_grads) {
            let id = match (grad, output) {
                (Some(id), _) => *id,
                (None, Some(output)) => {
                    let fact = g.graph.fact(*output).clone();
                    let shape = fact.shape().ok_or(Stops::Because("a part has unknown extents"))?;
                    let zeros = Tensor::zeros(fact.dtype, shape)
                        .map_err(|_| Stops::Because("a part is too large"))?;
                    g.graph.add_constant("", zeros)
                }
                (None, None) => return Err(Stops::Because("a part was removed as unused")),
            };
            grads.push(id);
        }
        let dx = g.op(Concat { axis: self.axis }, &grads)?;
        let mut result = vec![None; g.inputs.len()];
        result[0] = Some(dx);
        Ok(result)
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let Some(x) = inputs.optional(0) else { return Vec::new() };
        let Ok(cut) = resolve_axis(self.axis, x.rank()) else { return Vec::new() };
        let mut links = Vec::new();
        let mut start = 0;
        for (output, fact) in outputs.iter().enumerate() {
            for axis in 0..x.rank() {
                links.push(if axis == cut {
                    AxisLink::Offset {
                        output,
                        output_axis: axis,
                        input: 0,
                        input_axis: axis,
                        offset: -start,
                    }
                } else {
                    AxisLink::Same { output, output_axis: axis, input: 0, input_axis: axis }
                });
            }
            match fact.dims.get(cut).and_then(Dim::as_known) {
                Some(length) => start += length,
                None => break,
            }
        }
        links
    }

    fn quant(&self) -> Quant {
        Quant::SameAsInput
    }

    fn cost(&self, _inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Cost {
        Cost::free()
    }
}
