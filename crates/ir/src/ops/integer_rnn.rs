//! Long short-term memory in fixed point, as TensorFlow Lite's integer kernel defines it.

use lepton_tensor::{DType, Tensor};

use super::facets::facets;
use super::walk::require_rank;
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::fixed_point::{Multiplier, rounded_shift, sigmoid, tanh};
use crate::operator::{Arity, Cost, Operands, Operator, Quant};

attributes! {
    /// Long short-term memory over bytes with a cell of 16 bits: x `[T,N,I]` i8, w `[G·H,I]` i8,
    /// r `[G·H,P]` i8, b `[2·G·H]` i32 (what is added to x·wᵀ, then to h·rᵀ; the zero points of x
    /// and h times the rows' sums are part of it), optional peepholes `[(G−1)·H]` i16, optional
    /// projection `[P,H]` i8 with its bias `[P]` i32. Gates are i, o, f, c (G = 4), or o, f, c where
    /// the input gate is what the forget gate is not. Result y `[T,N,P]` i8. h and the cell start at
    /// zero; without a projection P is H. Sums of gates and the results of σ and tanh have 16 bits,
    /// Q3.12 and Q0.15; every scale is applied as a [`Multiplier`].
    pub struct IntegerLSTM {
        /// True if there is no input gate.
        pub coupled: bool = false,
        /// Scale from x·wᵀ to 2⁻¹², per gate.
        pub x_scales: Vec<f32> = Vec::new(),
        /// Scale from h·rᵀ to 2⁻¹², per gate.
        pub h_scales: Vec<f32> = Vec::new(),
        /// Scale from peephole times cell to 2⁻¹², per gate but the last.
        pub peephole_scales: Vec<f32> = Vec::new(),
        /// Scale from output gate times tanh of the cell (2⁻³⁰) to the integers of the hidden state.
        pub hidden_scale: f32 = 1.0,
        /// The hidden state's integer for zero.
        pub hidden_zero: i64 = 0,
        /// Scale from the projection's sums to y.
        pub projection_scale: f32 = 1.0,
        /// y's integer for zero, at which h starts.
        pub zero: i64 = 0,
        /// A step of the cell is two to this power, −15 to −9.
        pub cell_power: i64 = -12,
        /// What the cell is clamped to on both sides of zero, in its steps; 0 for no bounds.
        pub cell_bound: i64 = 0,
        /// What the projection is clamped to on both sides of 0; 0 for no bounds.
        pub bound: i64 = 0,
    }
}

/// Extents of a layer.
#[derive(Clone, Copy)]
struct Sizes {
    steps: usize,
    batch: usize,
    width: usize,
    gates: usize,
    hidden: usize,
    results: usize,
}

/// The operands of a layer and its scales.
struct Layer<'a> {
    op: &'a IntegerLSTM,
    sizes: Sizes,
    w: &'a [i8],
    r: &'a [i8],
    bias: &'a [i32],
    peepholes: &'a [i16],
    projection: Option<(&'a [i8], &'a [i32])>,
    from_x: Vec<Multiplier>,
    from_h: Vec<Multiplier>,
    from_cell: Vec<Multiplier>,
    to_hidden: Multiplier,
    to_result: Multiplier,
}

/// What one sequence keeps from step to step.
struct State {
    h: Vec<i8>,
    cell: Vec<i16>,
}

/// A product of bytes, in lanes that a compiler makes vectors of.
fn dot(a: &[i8], b: &[i8]) -> i32 {
    let products = a.iter().zip(b).map(|(&a, &b)| i32::from(i16::from(a) * i16::from(b)));
    products.fold(0, i32::wrapping_add)
}

fn saturated(x: i32) -> i16 {
    x.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

impl Layer<'_> {
    /// Gate `gate` of every unit before its function; the peephole sees `cell`.
    fn gate(&self, gate: usize, x: &[i8], state: &State, sums: &mut [i16]) {
        let Sizes { width, gates, hidden, results, .. } = self.sizes;
        for (unit, sum) in sums.iter_mut().enumerate() {
            let row = gate * hidden + unit;
            let own = dot(&self.w[row * width..][..width], x).wrapping_add(self.bias[row]);
            let recurrent = dot(&self.r[row * results..][..results], &state.h);
            let recurrent = recurrent.wrapping_add(self.bias[gates * hidden + row]);
            let first = saturated(self.from_x[gate].times(own));
            let second = self.from_h[gate].times(recurrent);
            *sum = saturated(second.saturating_add(i32::from(first)));
            if let Some(&peephole) = self.peepholes.get(row) {
                let seen = i32::from(peephole) * i32::from(state.cell[unit]);
                let seen = self.from_cell[gate].times(seen);
                *sum = saturated(seen.saturating_add(i32::from(*sum)));
            }
        }
    }

    /// One step: `x` is read, `y` written.
    fn step(&self, x: &[i8], state: &mut State, scratch: &mut [Vec<i16>; 2], y: &mut [i8]) {
        let (output, forget, cell) = match self.op.coupled {
            false => (1, 2, 3),
            true => (0, 1, 2),
        };
        let power = self.op.cell_power as i32;
        let [gate, next] = scratch;
        self.gate(forget, x, state, gate);
        gate.iter_mut().for_each(|value| *value = sigmoid(*value));
        self.gate(cell, x, state, next);
        next.iter_mut().for_each(|value| *value = tanh(*value, 3));
        // What is written, in its gate's share, then with what is kept.
        let mut inputs = vec![0i16; gate.len()];
        match self.op.coupled {
            true => inputs.iter_mut().zip(&*gate).for_each(|(i, &f)| *i = i16::MAX - f),
            false => {
                self.gate(0, x, state, &mut inputs);
                inputs.iter_mut().for_each(|value| *value = sigmoid(*value));
            }
        }
        let times = |a: i16, b: i16, shift: i32| {
            i32::from(rounded_shift(i32::from(a) * i32::from(b), shift) as i16)
        };
        for (unit, value) in state.cell.iter_mut().enumerate() {
            let kept = times(gate[unit], *value, 15);
            let written = times(inputs[unit], next[unit], 30 + power);
            *value = saturated(kept + written);
            if self.op.cell_bound > 0 {
                let bound = self.op.cell_bound as i16;
                *value = (*value).clamp(-bound, bound);
            }
        }
        self.gate(output, x, state, gate);
        for (unit, value) in gate.iter_mut().enumerate() {
            *value = sigmoid(*value);
            next[unit] = tanh(state.cell[unit], 15 + power);
        }
        self.results(gate, next, y);
        state.h.copy_from_slice(y);
    }

    /// The next h from the output gate and tanh of the cell.
    fn results(&self, gate: &[i16], cell: &[i16], y: &mut [i8]) {
        let hidden = gate.iter().zip(cell).map(|(&gate, &cell)| {
            let value = self.to_hidden.times(i32::from(gate) * i32::from(cell));
            value.saturating_add(self.op.hidden_zero as i32).clamp(-128, 127) as i8
        });
        let Some((projection, bias)) = self.projection else {
            y.iter_mut().zip(hidden).for_each(|(y, value)| *y = value);
            return;
        };
        let hidden: Vec<i8> = hidden.collect();
        let rows = projection.chunks_exact(hidden.len());
        for ((y, row), &bias) in y.iter_mut().zip(rows).zip(bias) {
            let sum = self.to_result.times(dot(row, &hidden).wrapping_add(bias));
            *y = sum.saturating_add(self.op.zero as i32).clamp(-128, 127) as i8;
            if self.op.bound > 0 {
                *y = (*y).clamp(-(self.op.bound as i8), self.op.bound as i8);
            }
        }
    }
}

impl IntegerLSTM {
    fn gates(&self) -> usize {
        if self.coupled { 3 } else { 4 }
    }

    fn check_attributes(&self, peepholes: bool) -> Result<(), Problem> {
        let positive = |scale: &f32| *scale > 0.0 && scale.is_finite();
        let gates = self.gates();
        let seen = if peepholes { gates - 1 } else { 0 };
        for (name, scales, count) in [
            ("x_scales", &self.x_scales, gates),
            ("h_scales", &self.h_scales, gates),
            ("peephole_scales", &self.peephole_scales, seen),
        ] {
            if scales.len() != count || !scales.iter().all(positive) {
                let why = format!("{count} positive numbers are needed, found {scales:?}");
                return Err(Problem::attribute(name, why));
            }
        }
        for (name, scale) in
            [("hidden_scale", self.hidden_scale), ("projection_scale", self.projection_scale)]
        {
            if !positive(&scale) {
                return Err(Problem::attribute(name, format!("{scale} is not positive")));
            }
        }
        for (name, value, range) in [
            ("hidden_zero", self.hidden_zero, -128..=127),
            ("zero", self.zero, -128..=127),
            ("cell_power", self.cell_power, -15..=-9),
            ("cell_bound", self.cell_bound, 0..=32767),
            ("bound", self.bound, 0..=127),
        ] {
            if !range.contains(&value) {
                return Err(Problem::attribute(name, format!("{value} is not in {range:?}")));
            }
        }
        Ok(())
    }

    fn layer<'a>(&'a self, inputs: Operands<'a, Tensor>) -> Result<Layer<'a>, Problem> {
        let (x, r) = (inputs.required(0, "x")?, inputs.required(2, "r")?);
        let gates = self.gates();
        let sizes = Sizes {
            steps: x.shape()[0],
            batch: x.shape()[1],
            width: x.shape()[2],
            gates,
            hidden: r.shape()[0] / gates,
            results: r.shape()[1],
        };
        let projection = match (inputs.optional(5), inputs.optional(6)) {
            (Some(w), Some(b)) => Some((w.as_slice::<i8>()?, b.as_slice::<i32>()?)),
            _ => None,
        };
        let all = |scales: &[f32]| scales.iter().map(|&scale| Multiplier::of(scale)).collect();
        Ok(Layer {
            op: self,
            sizes,
            w: inputs.required(1, "w")?.as_slice()?,
            r: r.as_slice()?,
            bias: inputs.required(3, "b")?.as_slice()?,
            peepholes: inputs.optional(4).map_or(Ok(&[][..]), Tensor::as_slice)?,
            projection,
            from_x: all(&self.x_scales),
            from_h: all(&self.h_scales),
            from_cell: all(&self.peephole_scales),
            to_hidden: Multiplier::of(self.hidden_scale),
            to_result: Multiplier::of(self.projection_scale),
        })
    }
}

impl Operator for IntegerLSTM {
    facets! {
        arity = Arity::between(4, 7),
        quant = Quant::NotApplicable,
        stops = "integers have no gradient",
        frozen = "rows of all gates belong together",
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        let (r, b) = (inputs.required(2, "r")?, inputs.required(3, "b")?);
        for (name, fact) in [("x", x), ("w", w), ("r", r)] {
            require_rank(name, fact, if name == "x" { 3 } else { 2 })?;
        }
        let gates = self.gates();
        let (rows, width) = (w.dims[0].as_usize(), w.dims[1].as_usize());
        let results = r.dims[1].as_usize();
        let (Some(rows), Some(width), Some(results)) = (rows, width, results) else {
            return Err(Problem::shape(format!("extents of w {w} and r {r} must be known")));
        };
        let hidden = rows / gates;
        if hidden * gates != rows || hidden == 0 {
            return Err(Problem::shape(format!("w {w} is not of {gates} gates")));
        }
        let check = |index: usize, name: &'static str, dtype: DType, extents: &[usize]| {
            let Some(fact) = inputs.optional(index) else { return Ok(()) };
            if fact.dtype != dtype {
                return Err(Problem::dtype(name, dtype.name(), fact.dtype));
            }
            match fact.shape() {
                Some(shape) if shape[..] == *extents => Ok(()),
                _ => Err(Problem::shape(format!("{name} {fact} where {extents:?} is needed"))),
            }
        };
        if x.dtype != DType::I8 || x.dims[2].as_usize().is_some_and(|extent| extent != width) {
            return Err(Problem::shape(format!("x {x} does not go with w {w}")));
        }
        check(1, "w", DType::I8, &[rows, width])?;
        check(2, "r", DType::I8, &[rows, results])?;
        check(3, "b", DType::I32, &[2 * rows])?;
        check(4, "peepholes", DType::I16, &[rows - hidden])?;
        check(5, "projection", DType::I8, &[results, hidden])?;
        check(6, "projection bias", DType::I32, &[results])?;
        let projects = [inputs.optional(5), inputs.optional(6)].map(|operand| operand.is_some());
        if projects[0] != projects[1] || !projects[0] && results != hidden {
            return Err(Problem::shape(format!(
                "r {r}, {hidden} units and b {b} need a projection"
            )));
        }
        self.check_attributes(inputs.optional(4).is_some())?;
        let dims = vec![x.dims[0].clone(), x.dims[1].clone(), r.dims[1].clone()];
        Ok(vec![Fact::new(DType::I8, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let facts: Vec<Option<Fact>> = inputs.0.iter().map(|t| t.map(Fact::of)).collect();
        let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
        self.infer(Operands(&facts))?;
        let layer = self.layer(inputs)?;
        let Sizes { steps, batch, width, hidden, results, .. } = layer.sizes;
        let x = inputs.required(0, "x")?;
        if x.shape()[2] != width {
            return Err(Problem::shape("the last extents of x and w differ"));
        }
        let x: &[i8] = x.as_slice()?;
        let mut y = vec![0i8; steps * batch * results];
        let mut scratch = [vec![0i16; hidden], vec![0i16; hidden]];
        for n in 0..batch {
            let mut state = State { h: vec![self.zero as i8; results], cell: vec![0; hidden] };
            for row in (0..steps).map(|t| t * batch + n) {
                let (x, y) = (&x[row * width..][..width], &mut y[row * results..][..results]);
                layer.step(x, &mut state, &mut scratch, y);
            }
        }
        Ok(vec![Tensor::from_slice([steps, batch, results], &y)?])
    }

    fn cost(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        let of = |index: usize| inputs.optional(index).map_or(Dim::known(0), Fact::count);
        let times = outputs[0].dims[0].clone() * outputs[0].dims[1].clone();
        let each = of(1) + of(2) + of(5);
        Cost { multiply_adds: times.clone() * each, element_ops: times * of(3) }
    }
}
