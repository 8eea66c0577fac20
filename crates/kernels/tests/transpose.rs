//! Moving elements of every size, on every instruction set.

use lepton_kernels::Isa;
use lepton_kernels::broadcast::Broadcast;
use lepton_kernels::transpose::*;
use proptest::prelude::*;

/// A shape, a permutation of its axes, and a part of the output.
fn cases() -> impl Strategy<Value = (Vec<usize>, Vec<usize>, f64, f64)> {
    let small = prop::collection::vec(1_usize..6, 0..3);
    (small, 1_usize..40, 1_usize..80).prop_flat_map(|(mut shape, a, b)| {
        shape.extend([a, b]);
        let axes: Vec<usize> = (0..shape.len()).collect();
        (Just(shape), Just(axes).prop_shuffle(), 0.0..1.0, 0.0..1.0)
    })
}

fn check<T: Element + PartialEq + std::fmt::Debug>(
    shape: &[usize],
    axes: &[usize],
    cut: (f64, f64),
    element: impl Fn(usize) -> T,
) {
    let len: usize = shape.iter().product();
    let input: Vec<T> = (0..len).map(element).collect();
    let want: Vec<T> = (0..len)
        .map(|at| {
            let (mut rest, mut index) = (at, vec![0; shape.len()]);
            for &axis in axes.iter().rev() {
                index[axis] = rest % shape[axis];
                rest /= shape[axis];
            }
            input[index.iter().zip(shape).fold(0, |at, (i, size)| at * size + i)]
        })
        .collect();
    let walk = permutation(shape, axes).unwrap();
    let from = (cut.0.min(cut.1) * len as f64) as usize;
    for range in [0..len, from..(cut.0.max(cut.1) * len as f64) as usize] {
        for isa in Isa::available() {
            let mut output = vec![input[0]; range.len()];
            rearrange(isa, &walk, range.clone(), &input, &mut output);
            assert_eq!(output, want[range.clone()], "{isa} {shape:?} {axes:?} {range:?}");
        }
    }
    let mut back = vec![input[0]; len];
    let order: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
    let strides = |shape: &[usize]| -> Vec<isize> {
        (0..shape.len()).map(|i| shape[i + 1..].iter().product::<usize>() as isize).collect()
    };
    let (dense, all) = (strides(&order), strides(shape));
    let permuted: Vec<isize> = axes.iter().map(|&axis| all[axis]).collect();
    let walk = Broadcast::strided(&order, [0, 0], [&dense, &permuted]).unwrap();
    copy_between(&walk, &want, &mut back);
    assert_eq!(back, input);
}

proptest! {
    #[test]
    fn transpositions((shape, axes, a, b) in cases()) {
        check(&shape, &axes, (a, b), |i| (i * 7 + i / 251) as u8);
        check(&shape, &axes, (a, b), |i| (i * 7 + i / 251) as u16);
        check(&shape, &axes, (a, b), |i| i as f32);
        check(&shape, &axes, (a, b), |i| i as i64);
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
}

#[test]
fn slices_flips_and_repeats() {
    let input: Vec<u16> = (0..12).collect();
    // Rows 2 and 0 of a 3 × 4 table, every other column, backwards.
    let walk = Broadcast::strided(&[2, 2], [11], [&[-8, -2]]).unwrap();
    let repeat = Broadcast::strided(&[3, 2], [4], [&[1, 0]]).unwrap();
    for isa in Isa::available() {
        let mut output = [0; 4];
        rearrange(isa, &walk, 0..4, &input, &mut output);
        assert_eq!(output, [11, 9, 3, 1]);
        let mut output = [0; 6];
        rearrange(isa, &repeat, 0..6, &input, &mut output);
        assert_eq!(output, [4, 4, 5, 5, 6, 6]);
    }
    // A 20 × 20 table transposed and flipped: tiles walked backwards.
    let table: Vec<f32> = (0..400).map(|i| i as f32).collect();
    let walk = Broadcast::strided(&[20, 20], [380], [&[1, -20]]).unwrap();
    for isa in Isa::available() {
        let mut output = [0.0; 400];
        rearrange(isa, &walk, 0..400, &table, &mut output);
        for (i, &x) in output.iter().enumerate() {
            assert_eq!(x, table[(19 - i % 20) * 20 + i / 20]);
        }
    }
    assert_eq!(permutation(&[2, 3], &[0, 0]), None);
    assert_eq!(permutation(&[2, 3], &[0]), None);
}
