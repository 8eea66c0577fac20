//! Joining tensors along an axis.

use lepton_tensor::Tensor;

use super::walk::{require_same, resolve_axis};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};

attributes! {
    /// The inputs one after the other along `axis`; all other extents agree.
    pub struct Concat {
        /// Axis; negative counts from the back.
        pub axis: i64 = 0,
    }
}

impl Operator for Concat {
    fn arity(&self) -> Arity {
        Arity::between(1, usize::MAX)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let first = inputs.required(0, "x")?;
        let axis = resolve_axis(self.axis, first.rank())?;
        if first.rank() == 0 {
            return Err(Problem::shape("scalars have no axis to be joined along"));
        }
        let mut dims = first.dims.clone();
        let mut integers = first.integers.clone();
        for index in 1..inputs.len() {
            let next = inputs.required(index, "x")?;
            require_same("every operand", first.dtype, next.dtype)?;
            if next.rank() != first.rank() {
                return Err(Problem::shape(format!("ranks differ: {first} and {next}")));
            }
            for (other, dim) in next.dims.iter().enumerate().filter(|(a, _)| *a != axis) {
                match (dims[other].as_known(), dim.as_known()) {
                    (Some(x), Some(y)) if x != y => {
                        let why = format!("extents of axis {other} differ: {first} and {next}");
                        return Err(Problem::shape(why));
                    }
                    (None, Some(_)) => dims[other] = dim.clone(),
                    _ => {}
                }
            }
            dims[axis] = dims[axis].clone() + next.dims[axis].clone();
            integers = integers.zip(next.integers.clone()).map(|(mut a, b)| {
                a.extend(b);
                a
            });
        }
        Ok(vec![Fact::new(first.dtype, dims).with_integers(integers)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let first = inputs.required(0, "x")?;
        let axis = resolve_axis(self.axis, first.rank())?;
        let tensors: Vec<&Tensor> =
            (0..inputs.len()).map(|i| inputs.required(i, "x")).collect::<Result<_, _>>()?;
        let mut shape = first.shape().to_vec();
        shape[axis] = tensors.iter().map(|t| t.shape()[axis]).sum();
        let rows: usize = shape[..axis].iter().product();
        let mut made = Tensor::zeros(first.dtype(), shape)?;
        let mut parts = Vec::with_capacity(made.bytes().len());
        for row in 0..rows {
            for tensor in &tensors {
                let size = tensor.bytes().len() / rows;
                parts.extend_from_slice(&tensor.bytes()[row * size..(row + 1) * size]);
            }
        }
        made.bytes_mut().copy_from_slice(&parts);
        Ok(vec![made])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        super::split::grad_of_concat(self, g)
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let Ok(joined) = resolve_axis(self.axis, outputs[0].rank()) else { return Vec::new() };
        let mut links = Vec::new();
        let mut start = Dim::known(0);
        for input in 0..inputs.len() {
            let Some(fact) = inputs.optional(input) else { continue };
            for axis in 0..fact.rank() {
                if axis != joined {
                    links.push(AxisLink::Same {
                        output: 0,
                        output_axis: axis,
                        input,
                        input_axis: axis,
                    });
                } else if let Some(offset) = start.as_known() {
                    links.push(AxisLink::Offset {
                        output: 0,
                        output_axis: axis,
                        input,
                        input_axis: axis,
                        offset,
                    });
                }
            }
            start = start + fact.dims[joined].clone();
        }
        links
    }

    fn quant(&self) -> Quant {
        Quant::Requantise
    }

    fn cost(&self, _inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Cost {
        Cost::free()
    }
}
