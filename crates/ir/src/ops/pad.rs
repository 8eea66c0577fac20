//! Elements around the borders of a tensor.

use lepton_tensor::{Tensor, row_major_strides};

use super::facets::facets;
use super::moves::{Move, MoveBack, MoveFunction, Sources, eval_move, grad_of_move};
use super::walk::{for_each_index, known_integers, require_same, resolve_axis};
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Operands, Operator, Quant};
use crate::{attributes, words};

words! {
    /// What the added elements are.
    pub enum PadMode {
        /// The `value`.
        Constant = "constant",
        /// The mirror image, the border not repeated.
        Reflect = "reflect",
        /// The nearest element.
        Edge = "edge",
        /// The opposite end.
        Wrap = "wrap",
    }
}

attributes! {
    /// x with `pads` elements added: inputs x, pads (before each axis, then after each; negative
    /// removes), value (absent: 0), axes (absent: all).
    pub struct Pad {
        /// What is added.
        pub mode: PadMode = PadMode::Constant,
    }
}

impl Pad {
    /// Padding before and after every axis, or `None` where it depends on data.
    fn amounts(&self, inputs: Operands<'_, Fact>) -> Result<Option<Vec<(Dim, Dim)>>, Problem> {
        let (x, pads) = (inputs.required(0, "x")?, inputs.required(1, "pads")?);
        let known = || pads.known_integers().map(|v| v.into_iter().map(Dim::known).collect());
        let Some(pads): Option<Vec<Dim>> = pads.integers.clone().or_else(known) else {
            return Ok(None);
        };
        let axes = match inputs.optional(3) {
            Some(axes) => known_integers(axes, "axes")?,
            None => (0..x.rank() as i64).collect(),
        };
        if pads.len() != 2 * axes.len() {
            let (found, wanted) = (pads.len(), 2 * axes.len());
            return Err(Problem::shape(format!("pads has {found} numbers, needs {wanted}")));
        }
        let mut amounts = vec![(Dim::known(0), Dim::known(0)); x.rank()];
        for (i, &axis) in axes.iter().enumerate() {
            let axis = resolve_axis(axis, x.rank())?;
            let amount = amounts.get_mut(axis).ok_or_else(|| Problem::shape("x has no axes"))?;
            *amount = (pads[i].clone(), pads[axes.len() + i].clone());
        }
        Ok(Some(amounts))
    }

    /// Elements added before the first along every axis, where all are known; negative where
    /// elements are removed.
    pub fn added_before(&self, inputs: Operands<'_, Fact>) -> Result<Option<Vec<i64>>, Problem> {
        let amounts = self.amounts(inputs)?;
        Ok(amounts.and_then(|list| list.iter().map(|(before, _)| before.as_known()).collect()))
    }

    /// The index of x that position `i` shows, counted from the first element of x; `None` for one that
    /// is filled.
    pub fn source(&self, i: i64, extent: i64) -> Option<usize> {
        let inside = |i: i64| usize::try_from(i).ok().filter(|_| i < extent);
        if extent == 0 {
            return None;
        }
        match self.mode {
            PadMode::Constant => inside(i),
            PadMode::Edge => inside(i.clamp(0, extent - 1)),
            PadMode::Wrap => inside(i.rem_euclid(extent)),
            PadMode::Reflect => {
                let period = (2 * (extent - 1)).max(1);
                let folded = i.rem_euclid(period);
                inside(if folded < extent { folded } else { period - folded })
            }
        }
    }
}

impl Move for Pad {
    fn sources(&self, inputs: Operands<'_, Tensor>) -> Result<Sources, Problem> {
        let facts: Vec<Option<Fact>> = inputs.0.iter().map(|t| t.map(Fact::of)).collect();
        let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
        let amounts = self.amounts(Operands(&facts))?.ok_or(Problem::NotConstant("pads"))?;
        let x = inputs.required(0, "x")?;
        let mut shape = Vec::with_capacity(x.rank());
        let mut before = Vec::with_capacity(x.rank());
        for (amount, &extent) in amounts.iter().zip(x.shape()) {
            let total = Dim::from(extent) + amount.0.clone() + amount.1.clone();
            let negative = || Problem::shape("padding leaves a negative extent");
            shape.push(total.as_usize().ok_or_else(negative)?);
            before.push(amount.0.as_known().ok_or(Problem::NotConstant("pads"))?);
            if extent == 0 && total != Dim::known(0) && self.mode != PadMode::Constant {
                return Err(Problem::shape("an empty axis has nothing to repeat"));
            }
        }
        let strides = row_major_strides(x.shape());
        let mut from = Vec::new();
        for_each_index(&shape, |index| {
            let at = (0..index.len()).map(|axis| {
                let read = self.source(index[axis] as i64 - before[axis], x.shape()[axis] as i64);
                read.map(|i| i * strides[axis])
            });
            from.push(at.sum());
        });
        Ok(Sources { shape, from })
    }
}

impl Operator for Pad {
    facets! {
        arity = Arity::between(2, 4),
        quant = Quant::SameAsInput,
        element_ops = 0,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        if let Some(value) = inputs.optional(2) {
            require_same("value", x.dtype, value.dtype)?;
            if value.count().as_known().is_some_and(|n| n != 1) {
                return Err(Problem::shape(format!("value must be one element, found {value}")));
            }
        }
        let Some(amounts) = self.amounts(inputs)? else {
            return Ok(vec![Fact::new(x.dtype, vec![Dim::unknown(); x.rank()])]);
        };
        let mut dims = Vec::with_capacity(x.rank());
        for (dim, (before, after)) in x.dims.iter().zip(amounts) {
            let total = dim.clone() + before + after;
            if total.as_known().is_some_and(|t| t < 0) {
                return Err(Problem::shape("padding leaves a negative extent"));
            }
            dims.push(total);
        }
        Ok(vec![Fact::new(x.dtype, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let fill = inputs.optional(2).filter(|value| value.len() == 1);
        eval_move(self, inputs, fill)
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        if let Some(Some(value)) = g.inputs.get(2)
            && g.graph.constant(*value).is_none()
        {
            return Err(Stops::Because("a padding value that is computed is not trained"));
        }
        let function = MoveFunction::Pad;
        grad_of_move(MoveBack { function, mode: self.mode, ..MoveBack::default() }, g)
    }

    fn axes(&self, inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Vec<AxisLink> {
        let Ok(Some(amounts)) = self.amounts(inputs) else { return Vec::new() };
        let link = |(axis, (before, after)): (usize, &(Dim, Dim))| {
            let (output, input) = (0, 0);
            let (output_axis, input_axis) = (axis, axis);
            match (before.as_known()?, after.as_known()?) {
                (0, 0) => Some(AxisLink::Same { output, output_axis, input, input_axis }),
                (offset, _) if self.mode == PadMode::Constant => {
                    Some(AxisLink::Offset { output, output_axis, input, input_axis, offset })
                }
                _ => None,
            }
        };
        amounts.iter().enumerate().filter_map(link).collect()
    }
}
