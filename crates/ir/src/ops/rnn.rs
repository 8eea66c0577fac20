//! Recurrent layers as ONNX defines them, with their usual activations.

use lepton_tensor::{DType, Tensor};

use super::conv::product_operand;
use super::facets::facets;
use super::walk::{require_float, require_rank, require_same};
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, Cost, Operands, Operator, Quant};
use crate::{attributes, words};

words! {
    /// Which way the sequence is read.
    pub enum Direction {
        /// From its first element.
        Forward = "forward",
        /// From its last element.
        Reverse = "reverse",
        /// Both ways.
        Bidirectional = "bidirectional",
    }
}

attributes! {
    /// Long short-term memory (Hochreiter and Schmidhuber 1997): x `[T,N,I]`, w `[D,4H,I]`,
    /// r `[D,4H,H]` (gates i, o, f, c), optional b `[D,8H]`, optional sequence lengths `[N]`,
    /// optional initial h and c `[D,N,H]`, optional peepholes `[D,3H]` (of c into the gates i, o,
    /// f; Gers and Schmidhuber 2000). Results y `[T,D,N,H]` (zero after the end of a sequence),
    /// last h and last c `[D,N,H]`. w and r may be bf16 while the others are f32: x is then rounded
    /// to bf16 before its product, h is not.
    pub struct LSTM {
        /// Which way.
        pub direction: Direction = Direction::Forward,
        /// What c is clamped to on both sides of zero; 0 for no bounds.
        pub cell_clip: f32 = 0.0,
    }
}

attributes! {
    /// Gated recurrent unit (Cho et al. 2014): operands and results of [`LSTM`] with 3H for 4H,
    /// 6H for 8H (gates z, r, h) and without c.
    pub struct GRU {
        /// Which way.
        pub direction: Direction = Direction::Forward,
        /// True if the reset gate scales the product with r rather than h.
        pub linear_before_reset: bool = false,
    }
}

words! {
    /// The activation of a plain recurrent layer.
    pub enum RecurrentActivation {
        /// Hyperbolic tangent
        Tanh = "tanh",
        /// max(x, 0)
        Relu = "relu",
        /// 1/(1 + e⁻ˣ)
        Sigmoid = "sigmoid",
    }
}

attributes! {
    /// Plain recurrence (Elman 1990): operands and results of [`LSTM`] with H for 4H, 2H for 8H
    /// and without c.
    pub struct RNN {
        /// Which way.
        pub direction: Direction = Direction::Forward,
        /// What is applied to the sum of both products.
        pub activation: RecurrentActivation = RecurrentActivation::Tanh,
    }
}

/// Results of a layer of `gates` gates.
fn infer(
    inputs: Operands<'_, Fact>,
    direction: Direction,
    gates: i64,
    states: usize,
) -> Result<Vec<Fact>, Problem> {
    let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
    let r = inputs.required(2, "r")?;
    require_float("x", x.dtype)?;
    for (name, fact) in [("x", x), ("w", w), ("r", r)] {
        require_rank(name, fact, 3)?;
        if (x.dtype, fact.dtype) != (DType::F32, DType::BF16) || name == "x" {
            require_same(name, x.dtype, fact.dtype)?;
        }
    }
    let directions = Dim::known(if direction == Direction::Bidirectional { 2 } else { 1 });
    let hidden = r.dims[2].clone();
    let rows = hidden.clone() * Dim::known(gates);
    let state = vec![directions.clone(), x.dims[1].clone(), hidden.clone()];
    let check = |name: &str, fact: &Fact, wanted: &[Dim]| {
        let differs =
            |(a, b): (&Dim, &Dim)| a.as_known().is_some() && b.as_known().is_some() && a != b;
        if fact.rank() != wanted.len() || fact.dims.iter().zip(wanted).any(differs) {
            return Err(Problem::shape(format!("{name} {fact} does not go with x {x}, r {r}")));
        }
        Ok(())
    };
    check("w", w, &[directions.clone(), rows.clone(), x.dims[2].clone()])?;
    check("r", r, &[directions.clone(), rows.clone(), hidden.clone()])?;
    if let Some(b) = inputs.optional(3) {
        check("b", b, &[directions.clone(), rows * Dim::known(2)])?;
    }
    if let Some(lengths) = inputs.optional(4) {
        check("sequence lengths", lengths, std::slice::from_ref(&x.dims[1]))?;
    }
    if let Some(peepholes) = inputs.optional(7) {
        check("peepholes", peepholes, &[directions.clone(), hidden.clone() * Dim::known(3)])?;
    }
    for (index, name) in [(5, "initial h"), (6, "initial c")] {
        inputs.optional(index).map_or(Ok(()), |fact| check(name, fact, &state))?;
    }
    let y = vec![x.dims[0].clone(), directions, x.dims[1].clone(), hidden];
    let mut facts = vec![Fact::new(x.dtype, y)];
    facts.resize(1 + states, Fact::new(x.dtype, state));
    Ok(facts)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// What one step of one sequence works with: rows of `x·wᵀ + b` and of `h·rᵀ`, apart.
struct Step<'a> {
    from_x: Vec<f64>,
    from_h: Vec<f64>,
    b_h: &'a [f64],
    /// 3·H of them; empty where there are none.
    peepholes: &'a [f64],
    /// Row `gate·H + j` of r, times a vector.
    recur: &'a dyn Fn(usize, &[f64]) -> f64,
}

/// Runs every direction and sequence; `cell` takes h and c to their next values.
fn run(
    inputs: Operands<'_, Tensor>,
    direction: Direction,
    gates: usize,
    states: usize,
    cell: impl Fn(&Step<'_>, &mut Vec<f64>, &mut Vec<f64>),
) -> Result<Vec<Tensor>, Problem> {
    let facts: Vec<Option<Fact>> = inputs.0.iter().map(|t| t.map(Fact::of)).collect();
    let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
    infer(Operands(&facts), direction, gates as i64, states)?;
    let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
    let r = inputs.required(2, "r")?;
    let (steps, batch, width) = (x.shape()[0], x.shape()[1], x.shape()[2]);
    let (directions, hidden) = (w.shape()[0], r.shape()[2]);
    let rows = gates * hidden;
    let (xv, wv, rv) = (product_operand(x, w.dtype()), w.to_f64_vec(), r.to_f64_vec());
    let zeros = |count: usize| vec![0.0; count];
    let given = |index: usize, count: usize| {
        inputs.optional(index).map_or(zeros(count), Tensor::to_f64_vec)
    };
    let bias = given(3, directions * rows * 2);
    let peepholes = inputs.optional(7).map(Tensor::to_f64_vec);
    let lengths = lengths(inputs, steps, batch)?;
    let mut h_all = given(5, directions * batch * hidden);
    let mut c_all = given(6, directions * batch * hidden);
    let mut y = zeros(steps * directions * batch * hidden);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for d in 0..directions {
        let backward = direction == Direction::Reverse || d == 1;
        let (b_x, b_h) = bias[d * 2 * rows..(d + 1) * 2 * rows].split_at(rows);
        let recur = |row: usize, h: &[f64]| dot(&rv[(d * rows + row) * hidden..][..hidden], h);
        let peepholes: &[f64] = match &peepholes {
            Some(all) => &all[d * 3 * hidden..(d + 1) * 3 * hidden],
            None => &[],
        };
        for n in 0..batch {
            let own = (d * batch + n) * hidden..(d * batch + n + 1) * hidden;
            let (mut h, mut c) = (h_all[own.clone()].to_vec(), c_all[own.clone()].to_vec());
            for step in 0..lengths[n] {
                let t = if backward { lengths[n] - 1 - step } else { step };
                let now = &xv[(t * batch + n) * width..][..width];
                let row = |i: usize| dot(&wv[(d * rows + i) * width..][..width], now) + b_x[i];
                let from_x = (0..rows).map(row).collect();
                let from_h = (0..rows).map(|i| recur(i, &h)).collect();
                cell(&Step { from_x, from_h, b_h, peepholes, recur: &recur }, &mut h, &mut c);
                y[((t * directions + d) * batch + n) * hidden..][..hidden].copy_from_slice(&h);
            }
            h_all[own.clone()].copy_from_slice(&h);
            c_all[own].copy_from_slice(&c);
        }
    }
    let state = [directions, batch, hidden];
    let mut results =
        vec![Tensor::from_f64_slice(x.dtype(), [steps, directions, batch, hidden], &y)?];
    for values in [h_all, c_all].iter().take(states) {
        results.push(Tensor::from_f64_slice(x.dtype(), state, values)?);
    }
    Ok(results)
}

/// Steps of each sequence.
fn lengths(
    inputs: Operands<'_, Tensor>,
    steps: usize,
    batch: usize,
) -> Result<Vec<usize>, Problem> {
    let Some(given) = inputs.optional(4) else { return Ok(vec![steps; batch]) };
    let length = |length: i64| usize::try_from(length).ok().filter(|&length| length <= steps);
    let lengths: Option<Vec<usize>> = given.to_i64_vec().into_iter().map(length).collect();
    lengths.ok_or_else(|| Problem::value(format!("a sequence is longer than {steps} steps")))
}

/// Multiply–adds: every weight once per step and sequence.
fn cost(inputs: Operands<'_, Fact>) -> Cost {
    let (Some(x), Some(w), Some(r)) = (inputs.optional(0), inputs.optional(1), inputs.optional(2))
    else {
        return Cost::free();
    };
    Cost::multiply_adds(x.dims[0].clone() * x.dims[1].clone() * (w.count() + r.count()))
}

impl Operator for LSTM {
    facets! {
        arity = Arity::between(3, 8).outputs(1, 3),
        stops = "recurrent layers are not trained",
        frozen = "a state mixes its axis at every step",
        quant = Quant::FloatOnly("errors of a quantised state add up over the steps"),
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        infer(inputs, self.direction, 4, 2)
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        run(inputs, self.direction, 4, 2, |step, h, c| {
            let hidden = h.len();
            for j in 0..hidden {
                let gate = |k: usize| {
                    let i = k * hidden + j;
                    step.from_x[i] + step.from_h[i] + step.b_h[i]
                };
                let peep = |k: usize, c: f64| match step.peepholes.get(k * hidden + j) {
                    Some(weight) => weight * c,
                    None => 0.0,
                };
                let (input, forget) = (gate(0) + peep(0, c[j]), gate(2) + peep(2, c[j]));
                c[j] = sigmoid(forget) * c[j] + sigmoid(input) * gate(3).tanh();
                if self.cell_clip > 0.0 {
                    let bound = f64::from(self.cell_clip);
                    c[j] = c[j].clamp(-bound, bound);
                }
                h[j] = sigmoid(gate(1) + peep(1, c[j])) * c[j].tanh();
            }
        })
    }

    fn cost(&self, inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Cost {
        cost(inputs)
    }
}

impl Operator for GRU {
    facets! {
        arity = Arity::between(3, 6).outputs(1, 2),
        stops = "recurrent layers are not trained",
        frozen = "a state mixes its axis at every step",
        quant = Quant::FloatOnly("errors of a quantised state add up over the steps"),
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        infer(inputs, self.direction, 3, 1)
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        run(inputs, self.direction, 3, 1, |step, h, _| {
            let hidden = h.len();
            let gate = |i: usize| sigmoid(step.from_x[i] + step.from_h[i] + step.b_h[i]);
            let reset: Vec<f64> = (0..hidden).map(|j| gate(hidden + j)).collect();
            let scaled: Vec<f64> = reset.iter().zip(h.iter()).map(|(r, h)| r * h).collect();
            let next = |j: usize| {
                let i = 2 * hidden + j;
                let recurrent = if self.linear_before_reset {
                    reset[j] * (step.from_h[i] + step.b_h[i])
                } else {
                    (step.recur)(i, &scaled) + step.b_h[i]
                };
                let update = gate(j);
                (1.0 - update) * (step.from_x[i] + recurrent).tanh() + update * h[j]
            };
            *h = (0..hidden).map(next).collect();
        })
    }

    fn cost(&self, inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Cost {
        cost(inputs)
    }
}

impl Operator for RNN {
    facets! {
        arity = Arity::between(3, 6).outputs(1, 2),
        stops = "recurrent layers are not trained",
        frozen = "a state mixes its axis at every step",
        quant = Quant::FloatOnly("errors of a quantised state add up over the steps"),
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        infer(inputs, self.direction, 1, 1)
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        run(inputs, self.direction, 1, 1, |step, h, _| {
            let sum = |j: usize| step.from_x[j] + step.from_h[j] + step.b_h[j];
            let activated = |v: f64| match self.activation {
                RecurrentActivation::Tanh => v.tanh(),
                RecurrentActivation::Relu => v.max(0.0),
                RecurrentActivation::Sigmoid => sigmoid(v),
            };
            *h = (0..h.len()).map(|j| activated(sum(j))).collect();
        })
    }

    fn cost(&self, inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Cost {
        cost(inputs)
    }
}
