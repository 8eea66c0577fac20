//! What has one form for all instruction sets, and what else is promised of kernels' operands.

use std::sync::Arc;

use lepton_kernels::Isa;
use lepton_kernels::binary::{Comparison, IntegerBinary, binary_integer, compare, select};
use lepton_kernels::broadcast::Broadcast;
use lepton_kernels::conv::{GeometryError, Indirection};
use lepton_kernels::depthwise::{DepthwiseS8, DepthwiseTapsS8, depthwise_order};
use lepton_kernels::epilogue::{EpilogueF32, Output, Residual};
use lepton_kernels::gemm::{Input, gemm_f32};
use lepton_kernels::groups::{GroupOrder, PackedGroups};
use lepton_kernels::pack::{PackedF32, WeightOrder};
use lepton_kernels::quantize::dynamic_parameters;
use lepton_kernels::reduce::{Reduce, Tie, arg_extreme, reduce_with};
use lepton_kernels::resample::Taps;
use lepton_kernels::sparse::{SparseLines, sparse_f32};
use lepton_kernels::stored::Pack;
use lepton_kernels::transpose::{copy_between, gather_rows, permutation};
use lepton_tensor::Storage;
use proptest::prelude::*;

use crate::data::Random;
use crate::elements::locate;
use crate::geometry::pointwise;

/// A shape, and for each of three operands which axes it repeats.
fn triples() -> impl Strategy<Value = (Vec<usize>, [Vec<usize>; 3])> {
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

/// Whole numbers from -30 to 30.
fn whole(len: usize, seed: u32) -> Vec<i32> {
    let mut random = Random(u64::from(seed));
    (0..len).map(|_| random.below(61) as i32 - 30).collect()
}

proptest! {
    #[test]
    fn choosing_and_comparing(
        (shape, operands) in triples(),
        seed in 0_u32..1000,
    ) {
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

    #[test]
    fn places_of_extremes(outer in 1_usize..4, axis in 1_usize..20, inner in 1_usize..5, seed in any::<u32>()) {
        let input = whole(outer * axis * inner, seed);
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
    fn blocks_and_rows(rows in 1_usize..6, length in 0_usize..9, indices in prop::collection::vec(-6_i64..6, 0..9)) {
        let table: Vec<i32> = (0..(rows * length) as i32).collect();
        let mut output = vec![-1; indices.len() * length];
        let result = gather_rows(length, &indices, &table, &mut output);
        let bad = indices.iter().position(|&i| i >= rows as i64 || i < -(rows as i64));
        if length > 0 {
            prop_assert_eq!(result, bad.map_or(Ok(()), Err));
        }
        let good = bad.unwrap_or(indices.len());
        for (i, index) in indices[..good].iter().enumerate() {
            let row = index.rem_euclid(rows as i64) as usize;
            prop_assert_eq!(&output[i * length..][..length], &table[row * length..][..length]);
        }
        let mut joined = vec![-1; rows * (length + 2)];
        let (near, far) = (length as isize, length as isize + 2);
        let walk = Broadcast::strided(&[rows, length], [0, 1], [&[near, 1], &[far, 1]]).unwrap();
        copy_between(&walk, &table, &mut joined);
        for row in 0..rows {
            let line = &joined[row * (length + 2)..][..length + 2];
            prop_assert_eq!(&line[1..=length], &table[row * length..][..length]);
            prop_assert_eq!((line[0], line[length + 1]), (-1, -1));
        }
    }

    #[test]
    fn sums_of_integers(rows in 0..7usize, columns in 0..40usize, across: bool, seed: u32) {
        let plan = Reduce::new(&[rows, columns], &[!across, across]).unwrap();
        let x = whole(rows * columns, seed);
        let mut sums = vec![0; plan.len()];
        reduce_with(&plan, 0..plan.len(), &x, &mut sums, 0, |a, b| a + b);
        for (i, sum) in sums.into_iter().enumerate() {
            let own = (0..x.len()).filter(|at| i == if across { at / columns } else { at % columns });
            prop_assert_eq!(own.map(|at| x[at]).sum::<i32>(), sum);
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

#[test]
fn dynamic_parameters_follow_onnx() {
    assert_eq!(dynamic_parameters([0.0, 0.0]), (1.0, 0));
    assert_eq!(dynamic_parameters([-1.0, 2.0]), (3.0 / 255.0, 85));
    assert_eq!(dynamic_parameters([1.0, 2.0]), (2.0 / 255.0, 0));
    assert_eq!(dynamic_parameters([-2.0, -1.0]), (2.0 / 255.0, 255));
}

#[test]
fn places_of_what_is_no_number() {
    let mut place = [0];
    arg_extreme(false, Tie::First, 4, 1, &[1.0, f32::NAN, 9.0, f32::NAN], &mut place);
    assert_eq!(place, [1]);
    arg_extreme(true, Tie::Last, 4, 1, &[1.0, f32::NAN, 9.0, f32::NAN], &mut place);
    assert_eq!(place, [3]);
}

#[test]
fn what_is_no_permutation_is_refused() {
    assert_eq!(permutation(&[2, 3], &[0, 0]), None);
    assert_eq!(permutation(&[2, 3], &[0]), None);
}

#[test]
fn taps_that_copy_say_so() {
    let single = Taps::new([&[(2usize, 1.0f64)][..], &[(0, 1.0)]]);
    assert_eq!(single.copies(), Some(&[2, 0][..]));
    assert!(Taps::new([&[(2usize, 0.5f64)][..]]).copies().is_none());
}

#[test]
fn oversized_kernels_are_errors() {
    let window = lepton_kernels::conv::Window { input: [20, 20], kernel: [17, 1], ..pointwise(1) };
    let order = DepthwiseTapsS8::order(&depthwise_order(1, 17, true), window.kernel);
    let weights = Arc::new(DepthwiseTapsS8::pack(&[0; 17], &order));
    let result = DepthwiseS8::new(weights, &window, 1);
    assert!(matches!(result, Err(GeometryError::KernelTooLarge { kernel: [17, 1] })));
}

#[test]
fn groups_come_back_from_storage() {
    let order = GroupOrder { depth: 64, columns: 20, group: 16, bits: 4, shifted: true };
    let mut random = Random(12);
    let codes: Vec<i8> = random.signed_bytes(64 * 20).iter().map(|code| code >> 4).collect();
    let zeros: Vec<i8> = random.signed_bytes(4 * 20).iter().map(|code| code >> 4).collect();
    let packed = PackedGroups::pack(&order, &codes, &random.floats(4 * 20), &zeros);
    let mut stored = packed.stored();
    let again = PackedGroups::load(&order, &stored).unwrap();
    assert_eq!(packed.bytes(), again.bytes());
    assert!(PackedGroups::load(&GroupOrder { bits: 8, ..order }, &stored).is_none());
    assert!(PackedGroups::load(&GroupOrder { group: 24, ..order }, &stored).is_none());
    assert!(PackedGroups::load(&GroupOrder { shifted: false, ..order }, &stored).is_none());
    stored[1] = Storage::copied(&stored[1].bytes()[4..]);
    assert!(PackedGroups::load(&order, &stored).is_none());
}

/// Where vectors are long, sums over lines that are left are those of the dense kernel, bit for bit.
#[test]
fn skipping_keeps_the_order_of_sums() {
    let (rows, depth, columns, mut random) = (13, 64, 48, Random(5));
    let mut weights = random.floats(depth * columns);
    for (i, weight) in weights.iter_mut().enumerate() {
        *weight = if (i / columns * 31 + i % columns / 16 * 7) % 3 > 0 { 0.0 } else { *weight };
    }
    let dense = PackedF32::pack(&weights, &WeightOrder::matrix(depth, columns));
    let sparse = SparseLines::pack_f32(&dense);
    let (x, geometry) = (random.floats(rows * depth), Indirection::strided(depth));
    let input = Input { base: x.as_ptr(), rows: &geometry, padding: x.as_ptr() };
    let epilogue = EpilogueF32::default();
    for isa in Isa::available().into_iter().filter(|isa| isa.has_avx512()) {
        let mut results = [vec![f32::NAN; rows * columns], vec![f32::NAN; rows * columns]];
        let [all, left] = results
            .each_mut()
            .map(|result| Output { pointer: result.as_mut_ptr(), row_stride: columns });
        // SAFETY: the buffers are as long as the sizes say.
        unsafe {
            gemm_f32(isa, &input, &dense, &epilogue, &all, 0..rows, 0..columns);
            sparse_f32(isa, &input, &sparse, &epilogue, &left, 0..rows);
        }
        assert_eq!(results[0], results[1], "{isa}");
    }
}

/// Sums of rows that share vectors are made in the order of K, whatever else is in the vectors.
#[test]
fn rows_of_eight_columns_keep_the_order_of_sums() {
    let (columns, mut random) = (8, Random(7));
    for (rows, depth) in [(2, 1), (10, 2), (13, 3), (28, 5), (61, 6), (40, 7)] {
        let (x, weights) = (random.floats(rows * depth), random.floats(depth * columns));
        let (bias, residual) = (random.floats(columns), random.floats(rows * columns));
        let packed = PackedF32::pack(&weights, &WeightOrder::matrix(depth, columns));
        let geometry = Indirection::strided(depth);
        let input = Input { base: x.as_ptr(), rows: &geometry, padding: x.as_ptr() };
        let added = Some(Residual { pointer: residual.as_ptr(), row_stride: columns });
        let epilogue = EpilogueF32 { bias: Some(&bias), residual: added, ..EpilogueF32::default() };
        let want = (0..rows * columns).map(|i| {
            let (row, column) = (i / columns, i % columns);
            let step =
                |sum: f32, k: usize| x[row * depth + k].mul_add(weights[k * columns + column], sum);
            (0..depth).fold(0.0, step) + bias[column] + residual[i]
        });
        let want: Vec<f32> = want.collect();
        for isa in Isa::available().into_iter().filter(|isa| isa.has_avx512()) {
            let mut found = vec![f32::NAN; rows * columns];
            let output = Output { pointer: found.as_mut_ptr(), row_stride: columns };
            // SAFETY: the buffers are as long as the sizes say.
            unsafe { gemm_f32(isa, &input, &packed, &epilogue, &output, 0..rows, 0..columns) };
            assert_eq!(found, want, "{isa} {rows} {depth}");
        }
    }
}
