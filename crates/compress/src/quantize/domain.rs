//! The part of an activation's range that matters to the function behind it.

use lepton_ir::ops::unary::Unary;
use lepton_ir::{Graph, Op, Operands, Operator, ValueId};
use lepton_tensor::Tensor;

use super::calibrate::Ranges;

/// Points at which a function is looked at.
const POINTS: usize = 1024;

/// The range of `value`, cut where the only function that reads it no longer changes by half a
/// step of its own result: below −3 a hard-swish is 0, far from 0 a sigmoid is flat. The integers
/// then go to where they make a difference.
pub(crate) fn effective(
    graph: &Graph,
    value: ValueId,
    range: (f32, f32),
    ranges: &Ranges,
) -> (f32, f32) {
    let mut readers = graph.nodes().filter(|(_, node)| node.inputs.contains(&Some(value)));
    let (Some((_, node)), None) = (readers.next(), readers.next()) else { return range };
    let Op::Unary(function) = &node.op else { return range };
    let made = node.outputs.first().copied().flatten();
    let made = made.and_then(|y| ranges.by_value.get(&graph.value_label(y)));
    match made {
        Some(made) if !graph.outputs().contains(&value) => cut(function, range, *made),
        _ => range,
    }
}

fn cut(function: &Unary, (low, high): (f32, f32), made: (f32, f32)) -> (f32, f32) {
    let half_step = (made.1.max(0.0) - made.0.min(0.0)) / 255.0 / 2.0;
    let point = |i: usize| low + (high - low) * (i as f32 / POINTS as f32);
    let points: Vec<f32> = (0..=POINTS).map(point).collect();
    let Ok(x) = Tensor::from_slice([points.len()], &points) else { return (low, high) };
    let Ok(y) = function.eval(Operands(&[Some(&x)])) else { return (low, high) };
    let Ok(y) = y[0].as_slice::<f32>() else { return (low, high) };
    if y.iter().any(|v| !v.is_finite()) {
        return (low, high);
    }
    // The last point up to which the function stays within a step-wide band: reading every
    // point before it as this one changes the result by half a step at most.
    let flat = |order: &mut dyn Iterator<Item = usize>| {
        let (mut least, mut most, mut last) = (f32::INFINITY, f32::NEG_INFINITY, None);
        for i in order {
            (least, most) = (least.min(y[i]), most.max(y[i]));
            if (y[i] - least).max(most - y[i]) > half_step {
                break;
            }
            last = Some(i);
        }
        last.unwrap_or(0)
    };
    let first = flat(&mut (0..=POINTS));
    let last = flat(&mut (0..=POINTS).rev());
    if first >= last {
        return (low, high);
    }
    (points[first].min(0.0), points[last].max(0.0))
}

#[cfg(test)]
mod tests {
    use lepton_ir::ops::unary::UnaryFunction;

    use super::*;

    #[test]
    fn a_hard_swish_needs_nothing_below_minus_three() {
        let function = Unary::new(UnaryFunction::HardSwish);
        let (low, high) = cut(&function, (-20.0, 10.0), (-0.375, 10.0));
        assert!(low > -3.1 && low < -2.8, "{low}");
        assert!(high > 9.9, "{high}");
    }

    #[test]
    fn a_sigmoid_is_cut_on_both_sides_and_a_line_on_none() {
        let sigmoid = Unary::new(UnaryFunction::Sigmoid);
        let (low, high) = cut(&sigmoid, (-30.0, 30.0), (0.0, 1.0));
        assert!(low > -8.0 && low < -5.0 && high < 8.0 && high > 5.0, "{low} {high}");
        let line = Unary::with(UnaryFunction::LeakyRelu, 0.9, 0.0);
        let (low, high) = cut(&line, (-3.0, 3.0), (-2.7, 3.0));
        assert!(low < -2.9 && high > 2.9, "{low} {high}");
    }
}
