//! Functions of two variables with broadcasting, on every instruction set.

use lepton_kernels::Isa;
use lepton_kernels::binary::{
    Binary, Comparison, IntegerBinary, NO_CLAMP, binary_f32, binary_f32_in_place, binary_integer,
    compare, select,
};
use lepton_kernels::broadcast::Broadcast;
use proptest::prelude::*;

fn reference(function: Binary, a: f32, b: f32) -> f32 {
    match function {
        Binary::Add => a + b,
        Binary::Subtract => a - b,
        Binary::Multiply => a * b,
        Binary::Divide => a / b,
        Binary::Max => {
            if a.is_nan() || a > b {
                a
            } else {
                b
            }
        }
        Binary::Min => {
            if a.is_nan() || a < b {
                a
            } else {
                b
            }
        }
        Binary::SquaredDifference => (a - b) * (a - b),
        Binary::Prelu if a < 0.0 => a * b,
        Binary::Prelu => a,
        Binary::Power => a.powf(b),
        Binary::Remainder => a % b,
        Binary::Modulo => a - b * (f64::from(a) / f64::from(b)).floor() as f32,
    }
}

/// A shape, and for each of three operands which axes it repeats.
fn shapes() -> impl Strategy<Value = (Vec<usize>, [Vec<usize>; 3])> {
    let axis = (1_usize..6, any::<[bool; 3]>());
    (prop::collection::vec(axis, 0..4), 1_usize..40, any::<[bool; 3]>()).prop_map(
        |(mut axes, last, repeats)| {
            axes.push((last, repeats));
            let shape = axes.iter().map(|a| a.0).collect();
            let operand = |k: usize| -> Vec<usize> {
                axes.iter().map(|&(n, repeat)| if repeat[k] { 1 } else { n }).collect()
            };
            (shape, [operand(0), operand(1), operand(2)])
        },
    )
}

/// The element of a dense operand that lies at `at` of the output.
fn locate(shape: &[usize], operand: &[usize], mut at: usize) -> usize {
    let (mut offset, mut stride) = (0, 1);
    for (&size, &own) in shape.iter().zip(operand).rev() {
        offset += if own == 1 { 0 } else { at % size * stride };
        stride *= own;
        at /= size;
    }
    offset
}

fn values(len: usize, seed: u32) -> Vec<f32> {
    (0..len as u32)
        .map(|i| {
            let bits = (i + seed).wrapping_mul(2_654_435_761) >> 8;
            if bits.is_multiple_of(31) { f32::NAN } else { bits as f32 / 4e6 - 2.0 }
        })
        .collect()
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a == b || (a.is_nan() && b.is_nan())
}

proptest! {
    #[test]
    fn every_function_and_shape(
        (shape, operands) in shapes(),
        seed in 0_u32..1000,
        cut in (0.0_f64..1.0, 0.0_f64..1.0),
    ) {
        let len: usize = shape.iter().product();
        let [a, b, _] = &operands;
        let plan = Broadcast::dense(&shape, [a, b]).unwrap();
        prop_assert_eq!(plan.len(), len);
        let (x, y) = (values(a.iter().product(), seed), values(b.iter().product(), seed + 7));
        let (from, to) = ((cut.0.min(cut.1) * len as f64) as usize, (cut.0.max(cut.1) * len as f64) as usize);
        for isa in Isa::available() {
            for &function in Binary::ALL {
                for clamp in [NO_CLAMP, [-0.5, 1.0]] {
                    let mut output = vec![9.0; to - from];
                    binary_f32(isa, function, &plan, from..to, &x, &y, clamp, &mut output);
                    for (i, &got) in output.iter().enumerate() {
                        let (p, q) = (x[locate(&shape, a, from + i)], y[locate(&shape, b, from + i)]);
                        let want = reference(function, p, q);
                        let want = if want.is_nan() { want } else { want.clamp(clamp[0], clamp[1]) };
                        let close = function == Binary::Modulo && (got - want).abs() < 1e-5;
                        prop_assert!(same(got, want) || close, "{isa} {function:?}({p}, {q}) = {got}, not {want}");
                    }
                    if plan.is_identity(0) {
                        let mut place = x[from..to].to_vec();
                        binary_f32_in_place(isa, function, &plan, from..to, &mut place, &y, clamp);
                        prop_assert!(place.iter().zip(&output).all(|(&a, &b)| same(a, b)));
                    }
                }
            }
        }
    }

    #[test]
    fn choosing_and_comparing((shape, operands) in shapes(), seed in 0_u32..1000) {
        let len: usize = shape.iter().product();
        let [c, a, b] = &operands;
        let plan = Broadcast::dense(&shape, [c, a, b]).unwrap();
        let condition: Vec<u8> = (0..c.iter().product::<usize>()).map(|i| (i as u32 ^ seed) as u8 & 1).collect();
        let yes: Vec<i64> = (0..a.iter().product::<usize>() as i64).collect();
        let no: Vec<i64> = (0..b.iter().product::<usize>() as i64).map(|i| -1 - i).collect();
        let mut output = vec![0; len];
        select(&plan, 0..len, &condition, &yes, &no, &mut output);
        let pair = Broadcast::dense(&shape, [a, b]).unwrap();
        let mut less = vec![9; len];
        compare(Comparison::Less, &pair, 0..len, &yes, &no, &mut less);
        for i in 0..len {
            let (y, n) = (yes[locate(&shape, a, i)], no[locate(&shape, b, i)]);
            let want = if condition[locate(&shape, c, i)] != 0 { y } else { n };
            prop_assert_eq!(output[i], want);
            prop_assert_eq!(less[i], u8::from(y < n));
        }
    }
}

#[test]
fn integers_follow_the_table() {
    let plan = Broadcast::dense(&[4], [&[4], &[1]]).unwrap();
    let mut output = [0_i64; 4];
    let a = [7, -7, 0, i64::MIN];
    let mut run = |function, b: i64| {
        binary_integer(function, &plan, 0..4, &a, &[b], &mut output);
        output
    };
    assert_eq!(run(IntegerBinary::Divide, -1), [-7, 7, 0, i64::MIN]);
    assert_eq!(run(IntegerBinary::Divide, 0), [0; 4]);
    assert_eq!(run(IntegerBinary::Modulo, 4), [3, 1, 0, 0]);
    assert_eq!(run(IntegerBinary::Remainder, 4), [3, -3, 0, 0]);
    assert_eq!(run(IntegerBinary::Modulo, -4), [-1, -3, 0, 0]);
    assert_eq!(run(IntegerBinary::ShiftRight, 99), [0, -1, 0, -1]);
    assert_eq!(run(IntegerBinary::ShiftLeft, 99), [0; 4]);
    assert_eq!(run(IntegerBinary::Power, 2), [49, 49, 0, 0]);
}
