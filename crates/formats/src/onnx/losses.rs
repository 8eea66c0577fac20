//! Losses, and the steps of optimisers.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::gather::{Gather, GatherElements};
use lepton_ir::ops::reduce::ReduceFunction as R;
use lepton_ir::ops::softmax::Softmax;
use lepton_ir::ops::unary::UnaryFunction as U;

use super::call::Call;
use crate::steps::{Made, Results, Steps};

/// `−weight[target]·x[…,target,…]`, reduced; x `[N,C,…]` are logarithms of probabilities.
fn picked_loss(call: &mut Call<'_>, x: ValueId) -> Made {
    let target = call.required(1)?;
    let zero = call.scalar(call.dtype(target), 0.0)?;
    let mut ignored = None;
    let mut safe = target;
    if call.has("ignore_index") {
        let index = call.int("ignore_index", 0);
        let index = call.scalar(call.dtype(target), index as f64)?;
        let is = call.pair(B::Equal, target, index)?;
        safe = call.select(is, zero, target)?;
        ignored = Some(is);
    }
    let at = call.unsqueeze(safe, &[1])?;
    let picked = call.emit_one(GatherElements { axis: 1 }, &[Some(x), Some(at)])?;
    let axis = call.integers(&[1]);
    let squeeze = lepton_ir::ops::reshape::Squeeze {};
    let picked = call.emit_one(squeeze, &[Some(picked), Some(axis)])?;
    let mut loss = call.map(U::Neg, picked)?;
    let dtype = call.dtype(x);
    let mut weight = match call.input(2) {
        Some(weight) => Some(call.emit_one(Gather { axis: 0 }, &[Some(weight), Some(safe)])?),
        None => None,
    };
    if let Some(ignored) = ignored {
        let one = call.scalar(dtype, 1.0)?;
        let none = call.scalar(dtype, 0.0)?;
        weight = Some(call.select(ignored, none, weight.unwrap_or(one))?);
    }
    if let Some(weight) = weight {
        loss = call.pair(B::Mul, loss, weight)?;
    }
    let axes: Vec<i64> = (0..call.graph.fact(loss).rank() as i64).collect();
    match call.text("reduction", "mean").as_str() {
        "none" => Ok(loss),
        "sum" => call.reduced(R::Sum, loss, &axes, false),
        "mean" => match weight {
            None => call.reduced(R::Mean, loss, &axes, false),
            Some(weight) => {
                let sum = call.reduced(R::Sum, loss, &axes, false)?;
                let total = call.reduced(R::Sum, weight, &axes, false)?;
                call.pair(B::Div, sum, total)
            }
        },
        other => Err(call.error(format!("unknown reduction `{other}`"))),
    }
}

/// Negative log likelihood.
pub fn negative_log_likelihood(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["ignore_index", "reduction"])?;
    let x = call.required(0)?;
    Ok(vec![picked_loss(call, x)?])
}

/// The same of the logarithms of a softmax, which are the second result.
pub fn softmax_cross_entropy(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["ignore_index", "reduction"])?;
    let x = call.input(0);
    let log = call.emit_one(Softmax { axis: 1, log: true }, &[x])?;
    Ok(vec![picked_loss(call, log)?, log])
}

/// The tensors of a step of an optimiser: rate, count of steps, and for each kind a list.
struct Step {
    rate: ValueId,
    count: ValueId,
    kinds: Vec<Vec<ValueId>>,
}

fn step(call: &Call<'_>, kinds: usize) -> Result<Step, crate::error::FormatError> {
    let rest: Vec<ValueId> = (2..call.inputs.len()).filter_map(|i| call.input(i)).collect();
    if rest.is_empty() || !rest.len().is_multiple_of(kinds) || rest.len() + 2 != call.inputs.len() {
        return Err(call.error(format!("takes two numbers and tensors in groups of {kinds}")));
    }
    let each = rest.len() / kinds;
    let kinds = rest.chunks(each).map(<[ValueId]>::to_vec).collect();
    Ok(Step { rate: call.required(0)?, count: call.required(1)?, kinds })
}

/// The gradient with that of `norm_coefficient/2·‖x‖²`.
fn regularised(call: &mut Call<'_>, x: ValueId, gradient: ValueId) -> Made {
    let coefficient = call.float("norm_coefficient", 0.0);
    let decay = call.scaled(x, f64::from(coefficient))?;
    call.pair(B::Add, decay, gradient)
}

/// `a·x + b·y`.
fn mixed(call: &mut Call<'_>, a: f64, x: ValueId, b: f64, y: ValueId) -> Made {
    let (x, y) = (call.scaled(x, a)?, call.scaled(y, b)?);
    call.pair(B::Add, x, y)
}

/// One step of Adagrad (Duchi et al. 2011).
pub fn adagrad(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["decay_factor", "epsilon", "norm_coefficient"])?;
    let Step { rate, count, kinds } = step(call, 3)?;
    let count = call.cast(count, call.dtype(rate))?;
    let decay = call.scaled(count, f64::from(call.float("decay_factor", 0.0)))?;
    let decay = call.shifted(decay, 1.0)?;
    let rate = call.pair(B::Div, rate, decay)?;
    let (mut new_x, mut new_sums) = (Vec::new(), Vec::new());
    for ((&x, &gradient), &sum) in kinds[0].iter().zip(&kinds[1]).zip(&kinds[2]) {
        let gradient = regularised(call, x, gradient)?;
        let square = call.pair(B::Mul, gradient, gradient)?;
        let sum = call.pair(B::Add, sum, square)?;
        let root = call.map(U::Sqrt, sum)?;
        let root = call.shifted(root, f64::from(call.float("epsilon", 0.0)))?;
        let scaled = call.pair(B::Mul, rate, gradient)?;
        let change = call.pair(B::Div, scaled, root)?;
        new_x.push(call.pair(B::Sub, x, change)?);
        new_sums.push(sum);
    }
    Ok([new_x, new_sums].concat())
}

/// One step of Adam (Kingma and Ba 2015).
pub fn adam(call: &mut Call<'_>) -> Results {
    let known = ["alpha", "beta", "epsilon", "norm_coefficient", "norm_coefficient_post"];
    call.check_attributes(&[], &known)?;
    let Step { rate, count, kinds } = step(call, 4)?;
    let number = |call: &Call<'_>, name, default| f64::from(call.float(name, default));
    let (alpha, beta) = (number(call, "alpha", 0.9), number(call, "beta", 0.999));
    let post = number(call, "norm_coefficient_post", 0.0);
    // Only from the second step on are the moments made up for their start at zero.
    let dtype = call.dtype(rate);
    let none = call.scalar(call.dtype(count), 0.0)?;
    let later = call.pair(B::Greater, count, none)?;
    let count = call.cast(count, dtype)?;
    let missing = |call: &mut Call<'_>, factor: f64| {
        let base = call.scalar(dtype, factor)?;
        let power = call.pair(B::Pow, base, count)?;
        let negative = call.map(U::Neg, power)?;
        call.shifted(negative, 1.0)
    };
    let (first, second) = (missing(call, alpha)?, missing(call, beta)?);
    let second = call.map(U::Sqrt, second)?;
    let corrected = call.pair(B::Mul, rate, second)?;
    let corrected = call.pair(B::Div, corrected, first)?;
    let rate = call.select(later, corrected, rate)?;
    let mut made = [Vec::new(), Vec::new(), Vec::new()];
    for (i, &x) in kinds[0].iter().enumerate() {
        let gradient = regularised(call, x, kinds[1][i])?;
        let mean = mixed(call, alpha, kinds[2][i], 1.0 - alpha, gradient)?;
        let square = call.pair(B::Mul, gradient, gradient)?;
        let squares = mixed(call, beta, kinds[3][i], 1.0 - beta, square)?;
        let root = call.map(U::Sqrt, squares)?;
        let root = call.shifted(root, number(call, "epsilon", 0.0))?;
        let scaled = call.pair(B::Mul, rate, mean)?;
        let change = call.pair(B::Div, scaled, root)?;
        let next = call.pair(B::Sub, x, change)?;
        made[0].push(if post == 0.0 { next } else { call.scaled(next, 1.0 - post)? });
        made[1].push(mean);
        made[2].push(squares);
    }
    Ok(made.concat())
}

/// One step with momentum (Polyak 1964), plain or by Nesterov (1983).
pub fn momentum(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["alpha", "beta", "mode", "norm_coefficient"])?;
    let Step { rate, count, kinds } = step(call, 3)?;
    let alpha = f64::from(call.float("alpha", 0.0));
    let dtype = call.dtype(rate);
    let none = call.scalar(call.dtype(count), 0.0)?;
    let later = call.pair(B::Greater, count, none)?;
    let beta = call.scalar(dtype, f64::from(call.float("beta", 0.0)))?;
    let one = call.scalar(dtype, 1.0)?;
    let beta = call.select(later, beta, one)?;
    let nesterov = match call.text("mode", "standard").as_str() {
        "standard" => false,
        "nesterov" => true,
        other => return Err(call.error(format!("unknown mode `{other}`"))),
    };
    let (mut new_x, mut speeds) = (Vec::new(), Vec::new());
    for ((&x, &gradient), &speed) in kinds[0].iter().zip(&kinds[1]).zip(&kinds[2]) {
        let gradient = regularised(call, x, gradient)?;
        let (old, new) = (call.scaled(speed, alpha)?, call.pair(B::Mul, beta, gradient)?);
        let speed = call.pair(B::Add, old, new)?;
        let mut change = speed;
        if nesterov {
            let ahead = call.scaled(speed, alpha)?;
            change = call.pair(B::Add, gradient, ahead)?;
        }
        let change = call.pair(B::Mul, rate, change)?;
        new_x.push(call.pair(B::Sub, x, change)?);
        speeds.push(speed);
    }
    Ok([new_x, speeds].concat())
}
