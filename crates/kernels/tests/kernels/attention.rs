//! Attention of one head, in f32 and in bf16.

use half::bf16;
use lepton_kernels::Isa;
use lepton_kernels::attention::{Head, HeadRows, attention_head};
use lepton_kernels::epilogue::Output;
use lepton_kernels::real::Real;
use proptest::prelude::*;

use crate::data::{Random, lengths};
use crate::frame::{Compare, Row, Values, on_threads, parts};
use crate::matrices::{matrix, to_halves};

pub const ROWS: &[Row] = &[
    Row {
        name: "attention::attention_head",
        compare: Compare::Close(1e-5),
        run: |row| row.run(heads(), head, |case| Some(vec![case.result(false)])),
    },
    // Weights of the softmax are rounded to bf16, and their sums to a neighbour.
    Row {
        name: "attention::attention_head",
        compare: Compare::Close(4e-3),
        run: |row| row.run(heads(), head_bf16, Headed::results_bf16),
    },
];

/// One head of attention.
#[derive(Clone, Debug)]
struct Headed {
    /// S, T, D and E.
    extents: [usize; 4],
    gap: usize,
    mask_rows: Option<usize>,
    seed: u64,
}

fn heads() -> impl Strategy<Value = Headed> {
    let extents = (lengths(70), lengths(70), lengths(70), lengths(70));
    let sizes = prop_oneof![
        30 => extents.prop_map(|(rows, columns, depth, width)| [rows, columns, depth, width]),
        1 => Just([128, 128, 64, 64]),
        1 => Just([128, 64, 32, 32]),
    ];
    let masks = prop_oneof![Just(None), Just(Some(1)), Just(Some(2))];
    (sizes, 0..3usize, masks, any::<u64>()).prop_map(|(extents, gap, mask_rows, seed)| Headed {
        extents,
        gap,
        mask_rows,
        seed,
    })
}

impl Headed {
    /// q, k and v, and the mask.
    fn operands(&self) -> [Vec<f32>; 4] {
        let ([rows, columns, depth, width], mut random) = (self.extents, Random(self.seed));
        let sizes = [[rows, depth], [columns, depth], [columns, width]];
        let [q, k, v] = sizes.map(|size| matrix(&mut random, size, self.gap));
        [q, k, v, random.floats(rows * columns)]
    }

    fn strides(&self) -> [usize; 3] {
        let [_, _, depth, width] = self.extents;
        [depth + self.gap, depth + self.gap, width + self.gap]
    }

    fn mask_stride(&self) -> usize {
        if self.mask_rows == Some(1) { 0 } else { self.extents[1] }
    }

    fn values(&self) -> Vec<f64> {
        let ([q, k, v, mask], [rows, columns, depth, width]) = (self.operands(), self.extents);
        let strides = self.strides();
        let at = |m: &[f32], stride: usize, r: usize, c: usize| f64::from(m[r * stride + c]);
        let mut result = Vec::new();
        for s in 0..rows {
            let score = |t: usize| {
                let products =
                    (0..depth).map(|d| at(&q, strides[0], s, d) * at(&k, strides[1], t, d));
                let added = self.mask_rows.map_or(0.0, |_| at(&mask, self.mask_stride(), s, t));
                products.sum::<f64>() * 0.3 + added
            };
            let powers: Vec<f64> = (0..columns).map(|t| score(t).exp()).collect();
            let total: f64 = powers.iter().sum();
            let value =
                |e| (0..columns).map(|t| powers[t] / total * at(&v, strides[2], t, e)).sum::<f64>();
            result.extend((0..width).map(value));
        }
        result
    }

    fn result(&self, halves: bool) -> Values {
        // Of nothing, nothing is written.
        let written = |value: f64| if self.extents[1] == 0 { f32::NAN } else { value as f32 };
        let values: Vec<f32> = self.values().into_iter().map(written).collect();
        if halves { Values::Halves(to_halves(&values)) } else { Values::Floats(values) }
    }

    fn results_bf16(&self) -> Option<Vec<Values>> {
        Some(vec![self.result(false), self.result(true)])
    }
}

/// The head with operands of some type; two threads have some of its rows each.
fn head_of<T: Real, R: Real>(
    case: &Headed,
    isa: Isa,
    threads: usize,
    operands: [&[T]; 3],
    mask: &[f32],
    empty: R,
) -> Vec<R> {
    let ([rows, columns, depth, width], strides) = (case.extents, case.strides());
    let mut room = vec![empty; rows * width];
    let (pointer, mask_stride) = (room.as_mut_ptr(), case.mask_stride());
    // SAFETY: the buffers have the sizes the extents say, and parts of rows are apart.
    unsafe {
        on_threads(parts(threads, rows, 1, case.seed), |part| {
            let [q, k, v] =
                [0, 1, 2].map(|i| HeadRows { pointer: operands[i].as_ptr(), stride: strides[i] });
            let q = HeadRows { pointer: q.pointer.wrapping_add(part.start * q.stride), ..q };
            let pointer_of = |rows: &[f32]| rows.as_ptr().wrapping_add(part.start * mask_stride);
            let mask =
                case.mask_rows.map(|_| HeadRows { pointer: pointer_of(mask), stride: mask_stride });
            let extents = [part.len(), columns, depth, width];
            let head = Head { q, k, v, mask, scale: 0.3, extents };
            let pointer = pointer.wrapping_add(part.start * width);
            attention_head(isa, &head, &Output { pointer, row_stride: width });
        });
    }
    room
}

fn head(case: &Headed, isa: Isa, threads: usize) -> Vec<Values> {
    let [q, k, v, mask] = case.operands();
    vec![Values::Floats(head_of(case, isa, threads, [&q, &k, &v], &mask, f32::NAN))]
}

fn head_bf16(case: &Headed, isa: Isa, threads: usize) -> Vec<Values> {
    let [q, k, v, mask] = case.operands();
    let [q, k, v] = [q, k, v].map(|values| to_halves(&values));
    let operands = [&q[..], &k[..], &v[..]];
    vec![
        Values::Floats(head_of(case, isa, threads, operands, &mask, f32::NAN)),
        Values::Halves(head_of(case, isa, threads, operands, &mask, bf16::NAN)),
    ]
}
