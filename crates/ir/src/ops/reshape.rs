//! Operators that only give the same elements another shape.

use lepton_tensor::{DType, Tensor};

use super::walk::{known_integers, resolve_axes, unknown_dims};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};
use crate::ops::shape_of::Shape;

attributes! {
    /// The elements of x under the extents in `shape`: −1 is what is left over, 0 copies the
    /// extent of x at that position unless `allow_zero`.
    pub struct Reshape {
        /// True if 0 means an empty axis.
        pub allow_zero: bool = false,
    }
}

attributes! {
    /// x as a matrix: axes before `axis` become rows, the others columns.
    pub struct Flatten {
        /// The first axis of the columns; negative counts from the back.
        pub axis: i64 = 1,
    }
}

attributes! {
    /// x without the axes in `axes`, whose extents are 1; without `axes`, all of extent 1.
    pub struct Squeeze {}
}

attributes! {
    /// x with axes of extent 1 inserted, so that they are at `axes` of the result.
    pub struct Unsqueeze {}
}

/// A Reshape back to the shape of the forward operand, which is the gradient of all of them.
fn reshape_back(g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
    let dy = g.output_grad()?;
    let x = g.input(0);
    let shape = g.op(Shape::default(), &[x])?;
    let dx = g.op(Reshape { allow_zero: true }, &[dy, shape])?;
    let mut grads = vec![None; g.inputs.len()];
    grads[0] = Some(dx);
    Ok(grads)
}

/// Links of a reshape: leading axes that agree, then one block of merged or split axes.
fn reshape_axes(inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
    let Some(x) = inputs.optional(0) else { return Vec::new() };
    let (from, to) = (&x.dims, &outputs[0].dims);
    let mut links = Vec::new();
    let same =
        |output_axis, input_axis| AxisLink::Same { output: 0, output_axis, input: 0, input_axis };
    let (mut i, mut j) = (0, 0);
    while i < from.len() && j < to.len() {
        if from[i] == to[j] {
            links.push(same(j, i));
            (i, j) = (i + 1, j + 1);
        } else if from[i].is(1) {
            i += 1;
        } else if to[j].is(1) {
            j += 1;
        } else if let Some((end, block)) = merged(&from[i..], &to[j]) {
            // Axes i..i+end become one; its coarse part is axis i.
            links.push(AxisLink::Block {
                output: 0,
                output_axis: j,
                input: 0,
                input_axis: i,
                block,
                merges: true,
            });
            (i, j) = (i + end, j + 1);
        } else if let Some((end, block)) = merged(&to[j..], &from[i]) {
            links.push(AxisLink::Block {
                output: 0,
                output_axis: j,
                input: 0,
                input_axis: i,
                block,
                merges: false,
            });
            (i, j) = (i + 1, j + end);
        } else {
            break;
        }
    }
    links
}

/// How many leading `parts` multiply to `whole`, and the product of all but the first.
fn merged(parts: &[Dim], whole: &Dim) -> Option<(usize, Dim)> {
    let mut product = parts.first()?.clone();
    let mut block = Dim::known(1);
    for (count, part) in parts.iter().enumerate().skip(1) {
        product = product * part.clone();
        block = block * part.clone();
        if product == *whole {
            return Some((count + 1, block));
        }
    }
    None
}

macro_rules! shape_only_facets {
    () => {
        fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
            reshape_back(g)
        }

        fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
            reshape_axes(inputs, outputs)
        }

        fn quant(&self) -> Quant {
            Quant::SameAsInput
        }

        fn cost(&self, _inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Cost {
            Cost::free()
        }

        fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
            eval_by_inference(self, inputs)
        }
    };
}

/// The shape comes from inference over the concrete operands.
fn eval_by_inference(
    op: &dyn Operator,
    inputs: Operands<'_, Tensor>,
) -> Result<Vec<Tensor>, Problem> {
    let facts: Vec<Option<Fact>> = inputs.0.iter().map(|t| t.map(Fact::of)).collect();
    let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
    let made = op.infer(Operands(&facts))?;
    let shape =
        made[0].shape().ok_or_else(|| Problem::shape("the result has a negative extent"))?;
    Ok(vec![inputs.required(0, "x")?.reshaped(shape)?])
}

impl Operator for Reshape {
    fn arity(&self) -> Arity {
        Arity::exactly(2)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, shape) = (inputs.required(0, "x")?, inputs.required(1, "shape")?);
        if shape.dtype != DType::I64 {
            return Err(Problem::dtype("shape", "i64", shape.dtype));
        }
        let Some(wanted) = &shape.integers else {
            return Ok(vec![Fact::new(x.dtype, unknown_dims(shape, "shape")?)]);
        };
        let dims = resolve_shape(x, wanted, self.allow_zero)?;
        Ok(vec![Fact::new(x.dtype, dims).with_integers(x.integers.clone())])
    }

    shape_only_facets!();
}

fn resolve_shape(x: &Fact, wanted: &[Dim], allow_zero: bool) -> Result<Vec<Dim>, Problem> {
    let mut dims = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (position, dim) in wanted.iter().enumerate() {
        if dim.is(-1) {
            if open.replace(position).is_some() {
                return Err(Problem::shape("more than one −1 in the shape"));
            }
            dims.push(Dim::known(1));
        } else if dim.is(0) && !allow_zero {
            let copied = x.dims.get(position).cloned();
            dims.push(copied.ok_or_else(|| {
                Problem::shape(format!("0 at position {position} has no axis of x to copy"))
            })?);
        } else if dim.as_known().is_some_and(|d| d < 0) {
            return Err(Problem::shape(format!("negative extent {dim} in the shape")));
        } else {
            dims.push(dim.clone());
        }
    }
    let have = x.count();
    let given = dims.iter().cloned().fold(Dim::known(1), |a, b| a * b);
    if let Some(open) = open {
        dims[open] = match (have.as_known(), given.as_known()) {
            (Some(0), Some(0)) => Dim::known(0),
            (Some(h), Some(g)) if g == 0 || h % g != 0 => {
                return Err(Problem::shape(format!("{h} elements do not divide by {g}")));
            }
            _ => have.floor_div(&given),
        };
    } else if let (Some(h), Some(g)) = (have.as_known(), given.as_known())
        && h != g
    {
        return Err(Problem::shape(format!("{h} elements do not fill a shape of {g}")));
    }
    Ok(dims)
}

impl Operator for Flatten {
    fn arity(&self) -> Arity {
        Arity::exactly(1)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        let rank = x.rank() as i64;
        let axis = if self.axis < 0 { self.axis + rank } else { self.axis };
        if !(0..=rank).contains(&axis) {
            return Err(Problem::attribute("axis", format!("{axis} is outside rank {rank}")));
        }
        let product = |d: &[Dim]| d.iter().cloned().fold(Dim::known(1), |a, b| a * b);
        let (rows, columns) = x.dims.split_at(axis as usize);
        Ok(vec![Fact::new(x.dtype, vec![product(rows), product(columns)])])
    }

    shape_only_facets!();
}

impl Operator for Squeeze {
    fn arity(&self) -> Arity {
        Arity::between(1, 2)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        let axes = match inputs.optional(1) {
            Some(axes) => resolve_axes(&known_integers(axes, "axes")?, x.rank())?,
            None => (0..x.rank()).filter(|&axis| x.dims[axis].is(1)).collect(),
        };
        // A scalar has no axis that could go, although it may be named.
        let stays = |&&axis: &&usize| {
            x.dims.get(axis).is_none_or(|dim| dim.as_known().is_some_and(|extent| extent != 1))
        };
        if let Some(&axis) = axes.iter().find(stays) {
            return Err(Problem::shape(format!("axis {axis} of {x} is not 1")));
        }
        let kept = (0..x.rank()).filter(|axis| !axes.contains(axis));
        let dims = kept.map(|axis| x.dims[axis].clone()).collect();
        Ok(vec![Fact::new(x.dtype, dims).with_integers(x.integers.clone())])
    }

    shape_only_facets!();
}

impl Operator for Unsqueeze {
    fn arity(&self) -> Arity {
        Arity::exactly(2)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, axes) = (inputs.required(0, "x")?, inputs.required(1, "axes")?);
        let axes = known_integers(axes, "axes")?;
        let rank = x.rank() + axes.len();
        let axes = resolve_axes(&axes, rank)?;
        let mut rest = x.dims.iter().cloned();
        let dim = |axis| {
            if axes.contains(&axis) { Dim::known(1) } else { rest.next().unwrap_or_default() }
        };
        let dims = (0..rank).map(dim).collect();
        Ok(vec![Fact::new(x.dtype, dims).with_integers(x.integers.clone())])
    }

    shape_only_facets!();
}
