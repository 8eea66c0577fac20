//! Reductions, softmax and normalisation against double precision, on every instruction set.

use lepton_kernels::Isa;
use lepton_kernels::normalize::*;
use lepton_kernels::reduce::*;
use lepton_kernels::softmax::*;
use proptest::prelude::*;

fn values(len: usize, seed: u32) -> Vec<f32> {
    let mix = |i: u32| (i.wrapping_add(seed)).wrapping_mul(2_654_435_761) >> 7;
    (0..len as u32).map(|i| mix(i) as f32 / 5e6 - 3.0).collect()
}

fn close(got: f32, want: f64, tolerance: f64) -> bool {
    let want_narrow = want as f32;
    (got.is_nan() && want.is_nan())
        || got == want_narrow
        || (f64::from(got) - want).abs() <= tolerance * want.abs().max(1.0)
}

fn reduced(reduction: Reduction, x: &[f64]) -> f64 {
    let sum = |f: fn(f64) -> f64| x.iter().map(|&x| f(x)).sum::<f64>();
    match reduction {
        Reduction::Sum => sum(|x| x),
        Reduction::Mean => sum(|x| x) / x.len() as f64,
        Reduction::Max => x.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Reduction::Min => x.iter().copied().fold(f64::INFINITY, f64::min),
        Reduction::Product => x.iter().product(),
        Reduction::L1 => sum(f64::abs),
        Reduction::L2 => sum(|x| x * x).sqrt(),
        Reduction::SumSquares => sum(|x| x * x),
        Reduction::LogSum => sum(|x| x).ln(),
        Reduction::LogSumExp => sum(f64::exp).ln(),
    }
}

/// The elements of each result, in order.
fn groups(shape: &[usize], axes: &[bool], input: &[f32]) -> Vec<Vec<f64>> {
    let kept = |axis: usize| if axes[axis] { 1 } else { shape[axis] };
    let count = (0..shape.len()).map(kept).product();
    let mut groups = vec![Vec::new(); count];
    for (at, &x) in input.iter().enumerate() {
        let (mut rest, mut place, mut stride) = (at, 0, 1);
        for axis in (0..shape.len()).rev() {
            place += if axes[axis] { 0 } else { rest % shape[axis] * stride };
            stride *= kept(axis);
            rest /= shape[axis];
        }
        groups[place].push(f64::from(x));
    }
    groups
}

fn softmax_reference(kind: Softmax, axis: usize, inner: usize, input: &[f64]) -> Vec<f64> {
    let mut output = vec![0.0; input.len()];
    for first in (0..input.len()).filter(|i| (i / inner).is_multiple_of(axis)) {
        let sum: f64 = (0..axis).map(|k| input[first + k * inner].exp()).sum();
        for at in (0..axis).map(|k| first + k * inner) {
            let x = input[at];
            output[at] = if kind == Softmax::Plain { x.exp() / sum } else { x - sum.ln() };
        }
    }
    output
}

/// Probabilities are compared relative to themselves, logarithms to at least one.
fn assert_near(kind: Softmax, got: &[f32], want: &[f64]) {
    for (&got, &want) in got.iter().zip(want) {
        let scale = if kind == Softmax::Log { want.abs().max(1.0) } else { want };
        assert!((f64::from(got) - want).abs() <= 6e-6 * scale, "{got} is not {want}");
    }
}

proptest! {
    #[test]
    fn reductions_over_any_axes(
        axes in prop::collection::vec((1_usize..7, any::<bool>()), 0..4),
        last in (1_usize..90, any::<bool>()),
        seed in any::<u32>(),
        skip in 0.0_f64..1.0,
    ) {
        let (shape, axes): (Vec<usize>, Vec<bool>) = axes.into_iter().chain([last]).unzip();
        let plan = Reduce::new(&shape, &axes).unwrap();
        let len: usize = shape.iter().product();
        let input: Vec<f32> = values(len, seed).iter().map(|x| x * 0.25).collect();
        let groups = groups(&shape, &axes, &input);
        prop_assert_eq!((plan.len(), plan.count()), (groups.len(), groups[0].len()));
        let from = (skip * plan.len() as f64) as usize;
        for isa in Isa::available() {
            for &reduction in Reduction::ALL {
                let mut output = vec![9.0; plan.len() - from];
                reduce_f32(isa, reduction, &plan, from..plan.len(), &input, &mut output);
                for (group, &got) in groups[from..].iter().zip(&output) {
                    let want = reduced(reduction, group);
                    let weak = reduction == Reduction::LogSum && (want.is_nan() || want < 0.0);
                    prop_assert!(weak || close(got, want, 3e-5), "{isa} {reduction:?} {got} {want}");
                }
            }
        }
        let whole: Vec<i64> = input.iter().map(|&x| (x * 100.0) as i64).collect();
        let mut sums = vec![0; plan.len()];
        reduce_with(&plan, 0..plan.len(), &whole, &mut sums, 0, |a, b| a + b);
        let floats: Vec<f32> = whole.iter().map(|&x| x as f32).collect();
        for (group, got) in self::groups(&shape, &axes, &floats).iter().zip(sums) {
            prop_assert_eq!(group.iter().sum::<f64>(), got as f64);
        }
    }

    #[test]
    fn places_of_extremes(outer in 1_usize..4, axis in 1_usize..20, inner in 1_usize..5, seed in any::<u32>()) {
        let input: Vec<i32> = values(outer * axis * inner, seed).iter().map(|&x| x as i32).collect();
        for (least, tie) in [(false, Tie::First), (true, Tie::First), (false, Tie::Last), (true, Tie::Last)] {
            let mut output = vec![0; outer * inner];
            arg_extreme(least, tie, axis, inner, &input, &mut output);
            for (i, &got) in output.iter().enumerate() {
                let at = |k: usize| input[(i / inner * axis + k) * inner + i % inner];
                let best = (0..axis).map(at).reduce(|a, b| if least { a.min(b) } else { a.max(b) }).unwrap();
                let mut places = (0..axis).filter(|&k| at(k) == best);
                let want = if tie == Tie::First { places.next() } else { places.next_back() };
                prop_assert_eq!(Some(got as usize), want);
            }
        }
    }

    #[test]
    fn softmax_of_rows_and_axes(outer in 1_usize..4, axis in 1_usize..90, inner in 1_usize..40, seed in any::<u32>()) {
        let input: Vec<f32> = values(outer * axis * inner, seed).iter().map(|x| x * 3.0).collect();
        let wide: Vec<f64> = input.iter().copied().map(f64::from).collect();
        let mask = input.iter().map(|&x| x * 0.5 - 1.0).collect::<Vec<_>>();
        for isa in Isa::available() {
            for kind in [Softmax::Plain, Softmax::Log] {
                for (axis, inner) in [(axis, inner), (axis * inner, 1)] {
                    let want = softmax_reference(kind, axis, inner, &wide);
                    let mut output = vec![9.0; input.len()];
                    softmax_strided(isa, kind, axis, inner, &input, &mut output);
                    assert_near(kind, &output, &want);
                    if inner == 1 {
                        softmax(isa, kind, axis, &input, &mut output);
                        assert_near(kind, &output, &want);
                        let mut place = input.clone();
                        softmax_in_place(isa, kind, axis, &mut place);
                        prop_assert_eq!(&place, &output);
                    }
                }
            }
            // One row of mask for all, then one for each.
            for mask in [&mask[..axis], &mask[..]] {
                let mut place = input.clone();
                softmax_masked(isa, axis, 0.5, mask, &mut place);
                let masks = mask.iter().copied().map(f64::from).cycle();
                let sum: Vec<f64> = wide.iter().zip(masks).map(|(x, m)| x * 0.5 + m).collect();
                assert_near(Softmax::Plain, &place, &softmax_reference(Softmax::Plain, axis, 1, &sum));
            }
        }
    }

    #[test]
    fn rows_are_normalised(rows in 1_usize..5, columns in 1_usize..150, centre in any::<bool>(), affine in any::<bool>(), seed in any::<u32>()) {
        let (input, residual) = (values(rows * columns, seed), values(rows * columns, seed ^ 99));
        let (gamma, beta) = (values(columns, 5), values(columns, 6));
        let parameters = RowNormalization {
            centre, gamma: affine.then_some(&gamma), beta: affine.then_some(&beta), epsilon: 1e-2,
        };
        for isa in Isa::available() {
            let mut output = vec![9.0; input.len()];
            let mut sum = residual.clone();
            add_and_normalize_rows(isa, parameters, columns, &input, &mut sum, &mut output);
            let mut again = vec![9.0; input.len()];
            normalize_rows(isa, parameters, columns, &sum, &mut again);
            prop_assert_eq!(&again, &output);
            for i in 0..input.len() {
                prop_assert_eq!(sum[i], input[i] + residual[i]);
                let row: Vec<f64> = sum[i - i % columns..][..columns].iter().map(|&x| f64::from(x)).collect();
                let mean = if centre { row.iter().sum::<f64>() / columns as f64 } else { 0.0 };
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / columns as f64;
                let mut want = (f64::from(sum[i]) - mean) / (variance + 1e-2).sqrt();
                if affine {
                    want = want * f64::from(gamma[i % columns]) + f64::from(beta[i % columns]);
                }
                prop_assert!(close(output[i], want, 2e-5), "{isa} {} {want}", output[i]);
            }
        }
    }

    #[test]
    fn groups_are_normalised(groups in 1_usize..4, in_group in 1_usize..20, pixels in 2_usize..40, first in 0_usize..3, seed in any::<u32>()) {
        let channels = groups * in_group;
        let (gamma, beta) = (values(channels, 5), values(channels, 6));
        let parameters = GroupNormalization { groups, gamma: &gamma, beta: &beta, epsilon: 1e-2 };
        let input = values(2 * channels * pixels, seed);
        let want = |group: &[f64], x: f64, channel: usize| {
            let n = group.len() as f64;
            let mean = group.iter().sum::<f64>() / n;
            let variance = group.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            (x - mean) / (variance + 1e-2).sqrt() * f64::from(gamma[channel]) + f64::from(beta[channel])
        };
        let first = first.min(groups - 1);
        for isa in Isa::available() {
            let part = &input[first * in_group * pixels..];
            let mut output = vec![9.0; part.len()];
            normalize_groups(isa, parameters, pixels, first, part, &mut output);
            for (i, &got) in output.iter().enumerate() {
                let size = in_group * pixels;
                let group: Vec<f64> = part[i - i % size..][..size].iter().map(|&x| f64::from(x)).collect();
                let channel = (first * in_group + i / pixels) % channels;
                prop_assert!(close(got, want(&group, f64::from(part[i]), channel), 3e-5));
            }
            let mut last = vec![9.0; input.len()];
            normalize_groups_channels_last(isa, parameters, pixels, &input, &mut vec![0.0; 2 * channels], &mut last);
            let mut scaled = vec![9.0; input.len()];
            scale_shift_channels(isa, &gamma, &beta, &input, &mut scaled);
            for (i, &got) in last.iter().enumerate() {
                let (image, channel) = (i / (channels * pixels), i % channels);
                let in_same = |&k: &usize| k % channels / in_group == channel / in_group;
                let range = image * channels * pixels..(image + 1) * channels * pixels;
                let group: Vec<f64> = range.filter(in_same).map(|k| f64::from(input[k])).collect();
                prop_assert!(close(got, want(&group, f64::from(input[i]), channel), 3e-5));
                let wanted = f64::from(input[i]) * f64::from(gamma[channel]) + f64::from(beta[channel]);
                prop_assert!(close(scaled[i], wanted, 1e-5));
            }
        }
    }
}

#[test]
fn nan_and_nothing() {
    let plan = Reduce::new(&[2, 40], &[false, true]).unwrap();
    let mut input = vec![1.0; 80];
    input[7] = f32::NAN;
    input[40..].fill(f32::NEG_INFINITY);
    for isa in Isa::available() {
        let mut output = [0.0; 2];
        reduce_f32(isa, Reduction::Max, &plan, 0..2, &input, &mut output);
        assert!(output[0].is_nan());
        reduce_f32(isa, Reduction::LogSumExp, &plan, 0..2, &input, &mut output);
        assert!(output[0].is_nan());
        assert_eq!(output[1], f32::NEG_INFINITY);
        let empty = Reduce::new(&[2, 0], &[false, true]).unwrap();
        reduce_f32(isa, Reduction::Sum, &empty, 0..2, &[], &mut output);
        assert_eq!(output, [0.0; 2]);
        reduce_f32(isa, Reduction::Product, &empty, 0..2, &[], &mut output);
        assert_eq!(output, [1.0; 2]);
    }
    let mut place = [0];
    arg_extreme(false, Tie::First, 4, 1, &[1.0, f32::NAN, 9.0, f32::NAN], &mut place);
    assert_eq!(place, [1]);
    arg_extreme(true, Tie::Last, 4, 1, &[1.0, f32::NAN, 9.0, f32::NAN], &mut place);
    assert_eq!(place, [3]);
}

#[test]
fn softmax_of_many_short_rows() {
    for columns in 1..=9 {
        let input: Vec<f32> =
            (0..150 * columns).map(|i| (i * 37 % 101) as f32 / 10.0 - 5.0).collect();
        let wide: Vec<f64> = input.iter().map(|&x| f64::from(x)).collect();
        for kind in [Softmax::Plain, Softmax::Log] {
            let want = softmax_reference(kind, columns, 1, &wide);
            for isa in Isa::available() {
                let mut output = vec![f32::NAN; input.len()];
                softmax(isa, kind, columns, &input, &mut output);
                assert_near(kind, &output, &want);
            }
        }
    }
}
