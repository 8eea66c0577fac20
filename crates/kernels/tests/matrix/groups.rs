//! Products with weights in groups of 4 and 8 bits.

use lepton_kernels::Isa;
use lepton_kernels::conv::Indirection;
use lepton_kernels::epilogue::{Activation, EpilogueF32, Output, Residual};
use lepton_kernels::gemm::Input;
use lepton_kernels::groups::{GroupOrder, PackedGroups, gemm_groups};
use lepton_kernels::stored::Pack;
use lepton_tensor::Storage;

use crate::case::{Random, activated};

/// Weights of an order, and what they stand for as `[K, N]`.
fn weights(order: &GroupOrder, random: &mut Random) -> (PackedGroups, Vec<f64>) {
    let GroupOrder { depth, columns, group, bits, shifted } = *order;
    let mut code = || (random.signed_bytes(1)[0]) >> (8 - bits);
    let codes: Vec<i8> = (0..depth * columns).map(|_| code()).collect();
    let parameters = order.groups() * columns;
    let zeros: Vec<i8> = (0..if shifted { parameters } else { 0 }).map(|_| code()).collect();
    let scales: Vec<f32> = random.floats(parameters).iter().map(|s| s / 16.0).collect();
    let weight = |i: usize| {
        let at = i / columns / group * columns + i % columns;
        let zero = zeros.get(at).copied().unwrap_or(0);
        (f64::from(codes[i]) - f64::from(zero)) * f64::from(scales[at])
    };
    let real = (0..depth * columns).map(weight).collect();
    (PackedGroups::pack(order, &codes, &scales, &zeros), real)
}

fn check(order: &GroupOrder, rows: usize, random: &mut Random) {
    let GroupOrder { depth, columns, .. } = *order;
    let (packed, real) = weights(order, random);
    let x = random.floats(rows * depth);
    let (bias, residual) = (random.floats(columns), random.floats(rows * columns));
    let activation = Activation::Silu;
    let geometry = Indirection::strided(depth);
    let input = Input { base: x.as_ptr(), rows: &geometry, padding: x.as_ptr() };
    let addend = Residual { pointer: residual.as_ptr(), row_stride: columns };
    let (bias_of, residual_of) = (Some(bias.as_slice()), Some(addend));
    let epilogue = EpilogueF32 { alpha: 1.0, bias: bias_of, residual: residual_of, activation };
    for isa in Isa::available() {
        let mut result = vec![f32::NAN; rows * columns];
        let output = Output { pointer: result.as_mut_ptr(), row_stride: columns };
        let mut scratch = vec![f32::NAN; order.scratch(rows)];
        for part in random.split(columns, 16) {
            // SAFETY: the buffers are as long as the order says.
            unsafe {
                let rows = 0..rows;
                gemm_groups(isa, &input, &packed, &epilogue, &output, rows, part, &mut scratch);
            }
        }
        for (i, &found) in result.iter().enumerate() {
            let (row, column) = (i / columns, i % columns);
            let products =
                (0..depth).map(|k| f64::from(x[row * depth + k]) * real[k * columns + column]);
            let sum = products.sum::<f64>() + f64::from(bias[column]) + f64::from(residual[i]);
            let wanted = activated(activation, sum as f32);
            let near = (found - wanted).abs() <= 1e-4 * wanted.abs().max(1.0);
            assert!(near, "{isa} {order:?} {rows} rows, element {i}: {found} and {wanted}");
        }
    }
}

#[test]
fn products_of_groups() {
    let mut random = Random(11);
    for (bits, shifted) in [(4, false), (4, true), (8, false), (8, true)] {
        for (depth, columns, group) in [(8, 1, 8), (64, 33, 32), (96, 130, 16), (256, 64, 128)] {
            for rows in [1, 2, 3, 4, 5, 30] {
                let order = GroupOrder { depth, columns, group, bits, shifted };
                check(&order, rows, &mut random);
            }
        }
    }
}

#[test]
fn groups_come_back_from_storage() {
    let mut random = Random(12);
    let order = GroupOrder { depth: 64, columns: 20, group: 16, bits: 4, shifted: true };
    let (packed, _) = weights(&order, &mut random);
    let mut stored = packed.stored();
    let again = PackedGroups::load(&order, &stored).unwrap();
    assert_eq!(packed.bytes(), again.bytes());
    assert!(PackedGroups::load(&GroupOrder { bits: 8, ..order }, &stored).is_none());
    assert!(PackedGroups::load(&GroupOrder { group: 24, ..order }, &stored).is_none());
    assert!(PackedGroups::load(&GroupOrder { shifted: false, ..order }, &stored).is_none());
    stored[1] = Storage::copied(&stored[1].bytes()[4..]);
    assert!(PackedGroups::load(&order, &stored).is_none());
}
