//! Products whose right side is activations, lines of zeros or groups of codes.

use half::bf16;
use lepton_kernels::Isa;
use lepton_kernels::activations::{
    gemm_bf16_scratch, gemm_f32_scratch, pack_bf16, pack_f32, scratch_bf16, scratch_f32,
};
use lepton_kernels::conv::Indirection;
use lepton_kernels::epilogue::{
    Activation, DequantizeF32, EpilogueF32, Output, RequantizeU8, Residual,
};
use lepton_kernels::gemm::Input;
use lepton_kernels::groups::{GroupOrder, PackedGroups, gemm_groups};
use lepton_kernels::pack::{PackedF32, PackedS8, WeightOrder};
use lepton_kernels::real::Real;
use lepton_kernels::single::{Packed24, single_f32};
use lepton_kernels::sparse::{SparseLines, sparse_f32, sparse_u8s8, sparse_u8s8_f32};
use proptest::prelude::*;

use crate::data::{Random, lengths};
use crate::frame::{Compare, Row, Values, on_threads, parts};
use crate::geometry::activated;

pub const ROWS: &[Row] = &[
    Row {
        name: "activations::pack_f32",
        compare: Compare::Bits,
        run: |row| row.run(unpacked(), packed, |_: &Unpacked| None),
    },
    Row {
        name: "activations::pack_bf16",
        compare: Compare::Bits,
        run: |row| row.run(unpacked(), packed_bf16, |_: &Unpacked| None),
    },
    Row {
        name: "activations::gemm_f32_scratch",
        compare: Compare::Close(1e-5),
        run: |row| row.run(unpacked(), multiplied, |case| Some(vec![case.result()])),
    },
    Row {
        name: "activations::gemm_bf16_scratch",
        compare: Compare::Close(1e-5),
        run: |row| row.run(unpacked(), multiplied_bf16, Unpacked::results_bf16),
    },
    Row {
        name: "sparse::sparse_f32",
        compare: Compare::Close(1e-5),
        run: |row| row.run(holed(), skipping, |case| Some(vec![case.reals()])),
    },
    Row {
        name: "sparse::sparse_u8s8",
        compare: Compare::Bits,
        run: |row| row.run(holed(), skipping_bytes, |case| Some(vec![case.bytes()])),
    },
    Row {
        name: "sparse::sparse_u8s8_f32",
        compare: Compare::Bits,
        run: |row| row.run(holed(), skipping_to_floats, |case| Some(vec![case.floats()])),
    },
    Row {
        name: "single::single_f32",
        compare: Compare::Close(1e-5),
        run: |row| row.run(full(), row_by_row, |case| Some(vec![case.finished()])),
    },
    Row {
        name: "groups::gemm_groups",
        compare: Compare::Close(2e-5),
        run: |row| row.run(coded(), of_codes, |case| Some(vec![case.result()])),
    },
];

/// Both sides of a product unpacked.
#[derive(Clone, Debug)]
struct Unpacked {
    rows: usize,
    columns: usize,
    depth: usize,
    transposed: bool,
    gap: usize,
    seed: u64,
}

fn unpacked() -> impl Strategy<Value = Unpacked> {
    let sizes = (lengths(24), lengths(90), lengths(90));
    (sizes, any::<bool>(), 0..3usize, any::<u64>()).prop_map(
        |((rows, columns, depth), transposed, gap, seed)| Unpacked {
            rows,
            columns,
            depth,
            transposed,
            gap,
            seed,
        },
    )
}

/// Values that bf16 holds, in lines that are `gap` longer than they are used; what is not used is
/// no number.
pub fn matrix(random: &mut Random, [lines, length]: [usize; 2], gap: usize) -> Vec<f32> {
    let mut values = random.floats(lines * (length + gap));
    for (i, value) in values.iter_mut().enumerate() {
        let used = i % (length + gap) < length;
        *value = if used { bf16::from_f32(*value).to_f32() } else { f32::NAN };
    }
    values
}

pub fn to_halves(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|&value| bf16::from_f32(value)).collect()
}

impl Unpacked {
    fn a(&self) -> Vec<f32> {
        matrix(&mut Random(self.seed), [self.rows, self.depth], self.gap)
    }

    fn b(&self) -> Vec<f32> {
        let (columns, depth) = (self.columns, self.depth);
        let lines = if self.transposed { [columns, depth] } else { [depth, columns] };
        let mut b = matrix(&mut Random(!self.seed), lines, self.gap);
        // Sums are about one; a power of two keeps what bf16 holds.
        let size = 2f32.powi(-((depth.max(1) as f32).sqrt().log2() as i32));
        b.iter_mut().for_each(|value| *value *= size);
        b
    }

    fn strides(&self) -> [usize; 2] {
        let line = if self.transposed { self.depth } else { self.columns };
        [self.depth + self.gap, line + self.gap]
    }

    fn values(&self) -> Vec<f32> {
        let (a, b, [a_stride, b_stride]) = (self.a(), self.b(), self.strides());
        let at = |i: usize, column: usize| match self.transposed {
            true => b[column * b_stride + i],
            false => b[i * b_stride + column],
        };
        let value = |at_row: usize, column: usize| {
            let products = (0..self.depth)
                .map(|i| f64::from(a[at_row * a_stride + i]) * f64::from(at(i, column)));
            (products.sum::<f64>() * 0.125) as f32
        };
        let places = 0..self.rows * self.columns;
        places.map(|i| value(i / self.columns, i % self.columns)).collect()
    }

    fn result(&self) -> Values {
        Values::Floats(self.values())
    }

    fn results_bf16(&self) -> Option<Vec<Values>> {
        let wide = self.values();
        let narrow = Values::Halves(to_halves(&wide));
        Some(vec![Values::Floats(wide), narrow])
    }

    fn scratch(&self, isa: Isa) -> Vec<f32> {
        let (b, [_, stride]) = (self.b(), self.strides());
        let mut scratch = vec![f32::NAN; scratch_f32(self.depth, self.columns)];
        let Unpacked { transposed, depth, columns, .. } = *self;
        // SAFETY: the matrix has these sizes.
        unsafe { pack_f32(isa, b.as_ptr(), stride, transposed, depth, columns, &mut scratch) };
        scratch
    }

    fn scratch_bf16(&self, isa: Isa) -> Vec<f32> {
        let (b, [_, stride]) = (to_halves(&self.b()), self.strides());
        let mut scratch = vec![f32::NAN; scratch_bf16(self.depth, self.columns)];
        let Unpacked { transposed, depth, columns, .. } = *self;
        // SAFETY: the matrix has these sizes.
        unsafe { pack_bf16(isa, b.as_ptr(), stride, transposed, depth, columns, &mut scratch) };
        scratch
    }

    /// Parts of rows or of columns.
    fn parts(&self, threads: usize) -> Vec<[std::ops::Range<usize>; 2]> {
        let (rows, columns) = (0..self.rows, 0..self.columns);
        if self.seed.is_multiple_of(2) {
            let rows = parts(threads, self.rows, 1, self.seed).into_iter();
            return rows.map(|rows| [rows, columns.clone()]).collect();
        }
        let columns = parts(threads, self.columns, 16, self.seed).into_iter();
        columns.map(|columns| [rows.clone(), columns]).collect()
    }
}

fn packed(case: &Unpacked, isa: Isa, _threads: usize) -> Vec<Values> {
    vec![Values::bits(&case.scratch(isa))]
}

fn packed_bf16(case: &Unpacked, isa: Isa, _threads: usize) -> Vec<Values> {
    vec![Values::bits(&case.scratch_bf16(isa))]
}

fn multiplied(case: &Unpacked, isa: Isa, threads: usize) -> Vec<Values> {
    let (a, scratch, rows) = (case.a(), case.scratch(isa), Indirection::strided(case.strides()[0]));
    let input = Input { base: a.as_ptr(), rows: &rows, padding: std::ptr::null() };
    let epilogue = EpilogueF32 { alpha: 0.125, ..EpilogueF32::default() };
    let (depth, width) = (case.depth, case.columns);
    let mut room = vec![f32::NAN; case.rows * width];
    let output = Output { pointer: room.as_mut_ptr(), row_stride: width };
    // SAFETY: all buffers have the sizes of the case, and parts are apart.
    unsafe {
        on_threads(case.parts(threads), |[rows, columns]| {
            let epilogue = &epilogue;
            gemm_f32_scratch(isa, &input, &scratch, depth, width, epilogue, &output, rows, columns);
        });
    }
    vec![Values::Floats(room)]
}

/// One combination of the types of rows and results.
fn multiplied_of<T: Real, R: Real>(
    case: &Unpacked,
    isa: Isa,
    threads: usize,
    a: &[T],
    empty: R,
) -> Vec<R> {
    let (scratch, rows) = (case.scratch_bf16(isa), Indirection::strided(case.strides()[0]));
    let input = Input { base: a.as_ptr(), rows: &rows, padding: a.as_ptr() };
    let epilogue = EpilogueF32 { alpha: 0.125, ..EpilogueF32::default() };
    let (depth, width) = (case.depth, case.columns);
    let mut room = vec![empty; case.rows * width];
    let output = Output { pointer: room.as_mut_ptr(), row_stride: width };
    // SAFETY: all buffers have the sizes of the case, and parts are apart.
    unsafe {
        on_threads(case.parts(threads), |[rows, columns]| {
            let e = &epilogue;
            gemm_bf16_scratch(isa, &input, &scratch, depth, width, e, &output, rows, columns);
        });
    }
    room
}

fn multiplied_bf16(case: &Unpacked, isa: Isa, threads: usize) -> Vec<Values> {
    let wide = case.a();
    let narrow = to_halves(&wide);
    vec![
        Values::Floats(multiplied_of(case, isa, threads, &narrow, f32::NAN)),
        Values::Halves(multiplied_of(case, isa, threads, &wide, bf16::NAN)),
    ]
}

/// A product with weights of which some lines are zero.
#[derive(Clone, Debug)]
struct Holed {
    rows: usize,
    depth: usize,
    columns: usize,
    /// Of sixteen blocks so many are zero.
    zeros: usize,
    seed: u64,
}

fn holed() -> impl Strategy<Value = Holed> {
    (lengths(40), 1..40usize, 1..90usize, 0..17usize, any::<u64>()).prop_map(
        |(rows, words, columns, zeros, seed)| Holed {
            rows,
            depth: words * 4,
            columns,
            zeros,
            seed,
        },
    )
}

/// The same without zeros.
fn full() -> impl Strategy<Value = Holed> {
    holed().prop_map(|case| Holed { zeros: 0, ..case })
}

/// Operands in bytes.
struct HoledBytes {
    x: Vec<u8>,
    weights: Vec<i8>,
    bias: Vec<i32>,
    multiplier: Vec<f32>,
}

impl Holed {
    /// True for the weight `[k, n]` of a block that is zero; blocks are 16 columns by `deep`.
    fn is_zero(&self, i: usize, deep: usize) -> bool {
        let block = i / self.columns / deep * 31 + i % self.columns / 16 * 7;
        block * 11 % 16 < self.zeros
    }

    fn operands(&self) -> [Vec<f32>; 3] {
        let mut random = Random(self.seed);
        let size = (self.depth as f32).sqrt().recip();
        let mut weights = random.floats(self.depth * self.columns);
        for (i, weight) in weights.iter_mut().enumerate() {
            *weight = if self.is_zero(i, 1) { 0.0 } else { *weight * size };
        }
        [random.floats(self.rows * self.depth), weights, random.floats(self.columns)]
    }

    fn of_bytes(&self) -> HoledBytes {
        let mut random = Random(self.seed);
        let mut weights = random.signed_bytes(self.depth * self.columns);
        for (i, weight) in weights.iter_mut().enumerate() {
            *weight = if self.is_zero(i, 4) { 0 } else { *weight };
        }
        HoledBytes {
            x: random.bytes(self.rows * self.depth),
            weights,
            bias: random.bytes(self.columns).iter().map(|&byte| i32::from(byte) * 16).collect(),
            multiplier: random.floats(self.columns).iter().map(|m| m * 0.002).collect(),
        }
    }

    /// A value for every output, from its row and column.
    fn each<T>(&self, value: impl Fn(usize, usize) -> T) -> Vec<T> {
        let places = 0..self.rows * self.columns;
        places.map(|i| value(i / self.columns, i % self.columns)).collect()
    }

    fn reals(&self) -> Values {
        let [x, weights, bias] = self.operands();
        Values::Floats(self.each(|row, column| {
            let products = (0..self.depth).map(|k| {
                f64::from(x[row * self.depth + k]) * f64::from(weights[k * self.columns + column])
            });
            (products.sum::<f64>() as f32 + bias[column]).max(0.0)
        }))
    }

    /// A function that is a clamp, one that tile kernels know, or one that they leave to others.
    fn activation(&self) -> Activation {
        [Activation::Relu, Activation::HardSwish, Activation::Sigmoid][self.seed as usize % 3]
    }

    /// Some cases have what is added to their results.
    fn residual(&self) -> Option<Vec<f32>> {
        let values = || Random(self.seed / 2).floats(self.rows * self.columns);
        self.seed.is_multiple_of(2).then(values)
    }

    fn finished(&self) -> Values {
        let ([x, weights, bias], residual) = (self.operands(), self.residual());
        Values::Floats(self.each(|row, column| {
            let products = (0..self.depth).map(|k| {
                f64::from(x[row * self.depth + k]) * f64::from(weights[k * self.columns + column])
            });
            let added = residual.as_ref().map_or(0.0, |values| values[row * self.columns + column]);
            let sum = products.sum::<f64>() as f32 + bias[column] + added;
            activated(self.activation(), sum)
        }))
    }

    fn sum(&self, data: &HoledBytes, row: usize, column: usize) -> i32 {
        let product = |k: usize| {
            let weight = data.weights[k * self.columns + column];
            i32::from(data.x[row * self.depth + k]) * i32::from(weight)
        };
        (0..self.depth).map(product).sum::<i32>() + data.bias[column]
    }

    fn bytes(&self) -> Values {
        let data = self.of_bytes();
        Values::integers(&self.each(|row, column| {
            let value = self.sum(&data, row, column) as f32 * data.multiplier[column];
            (value.clamp(3.0 - 120.0, 250.0 - 120.0).round_ties_even() + 120.0) as u8
        }))
    }

    fn floats(&self) -> Values {
        let data = self.of_bytes();
        Values::Floats(self.each(|row, column| {
            (self.sum(&data, row, column) as f32 * data.multiplier[column]).max(0.0)
        }))
    }
}

fn skipping(case: &Holed, isa: Isa, threads: usize) -> Vec<Values> {
    let ([x, weights, bias], order) =
        (case.operands(), WeightOrder::matrix(case.depth, case.columns));
    let lines = SparseLines::pack_f32(&PackedF32::pack(&weights, &order));
    assert!(case.zeros < 16 || lines.lines() == 0, "lines of zeros are left out");
    let geometry = Indirection::strided(case.depth);
    let input = Input { base: x.as_ptr(), rows: &geometry, padding: x.as_ptr() };
    let activation = Activation::Relu;
    let epilogue = EpilogueF32 { bias: Some(&bias), activation, ..EpilogueF32::default() };
    let mut room = vec![f32::NAN; case.rows * case.columns];
    let output = Output { pointer: room.as_mut_ptr(), row_stride: case.columns };
    // SAFETY: the buffers are as long as the case says, and parts are apart.
    unsafe {
        on_threads(parts(threads, case.rows, 1, case.seed), |rows| {
            sparse_f32(isa, &input, &lines, &epilogue, &output, rows);
        });
    }
    vec![Values::Floats(room)]
}

fn row_by_row(case: &Holed, isa: Isa, threads: usize) -> Vec<Values> {
    let ([x, weights, bias], residual) = (case.operands(), case.residual());
    let (depth, columns) = (case.depth, case.columns);
    let packed = Packed24::pack(&weights, &WeightOrder::matrix(depth, columns));
    let packed = packed.expect("weights of one size");
    let (alpha, activation) = (1.0, case.activation());
    let mut room = vec![f32::NAN; case.rows * columns];
    let to = room.as_mut_ptr();
    for row in 0..case.rows {
        // SAFETY: the buffers are as long as the case says, and parts are apart.
        unsafe {
            let residual = residual.as_ref().map(|values| Residual {
                pointer: values.as_ptr().add(row * columns),
                row_stride: columns,
            });
            let epilogue = EpilogueF32 { alpha, bias: Some(&bias), residual, activation };
            let output = Output { pointer: to.add(row * columns), row_stride: columns };
            on_threads(parts(threads, columns, 16, case.seed), |columns| {
                let from = x.as_ptr().add(row * depth);
                single_f32(isa, from, &packed, &epilogue, &output, columns);
            });
        }
    }
    vec![Values::Floats(room)]
}

fn skipping_bytes(case: &Holed, isa: Isa, threads: usize) -> Vec<Values> {
    let (data, order) = (case.of_bytes(), WeightOrder::matrix(case.depth, case.columns));
    let lines = SparseLines::pack_s8(&PackedS8::pack(&data.weights, &order));
    let geometry = Indirection::strided(case.depth);
    let input = Input { base: data.x.as_ptr(), rows: &geometry, padding: data.x.as_ptr() };
    let (bias, multiplier) = (&data.bias, &data.multiplier);
    let (zero_point, low, high) = (120, 3, 250);
    let bounded = RequantizeU8::is_bounded(multiplier, 0.0);
    let residual = None;
    let epilogue =
        RequantizeU8 { bias, multiplier, residual, zero_point, low, high, table: None, bounded };
    let mut room = vec![0xa5u8; case.rows * case.columns];
    let output = Output { pointer: room.as_mut_ptr(), row_stride: case.columns };
    // SAFETY: the buffers are as long as the case says, and parts are apart.
    unsafe {
        on_threads(parts(threads, case.rows, 1, case.seed), |rows| {
            sparse_u8s8(isa, &input, &lines, &epilogue, &output, rows);
        });
    }
    vec![Values::integers(&room)]
}

fn skipping_to_floats(case: &Holed, isa: Isa, threads: usize) -> Vec<Values> {
    let (data, order) = (case.of_bytes(), WeightOrder::matrix(case.depth, case.columns));
    let lines = SparseLines::pack_s8(&PackedS8::pack(&data.weights, &order));
    let geometry = Indirection::strided(case.depth);
    let input = Input { base: data.x.as_ptr(), rows: &geometry, padding: data.x.as_ptr() };
    let (bias_s32, scale, activation) = (Some(&data.bias[..]), &data.multiplier, Activation::Relu);
    let epilogue = DequantizeF32 { bias_s32, scale, bias: None, residual: None, activation };
    let mut room = vec![f32::NAN; case.rows * case.columns];
    let output = Output { pointer: room.as_mut_ptr(), row_stride: case.columns };
    // SAFETY: the buffers are as long as the case says, and parts are apart.
    unsafe {
        on_threads(parts(threads, case.rows, 1, case.seed), |rows| {
            sparse_u8s8_f32(isa, &input, &lines, &epilogue, &output, rows);
        });
    }
    vec![Values::Floats(room)]
}

/// A product with weights in groups.
#[derive(Clone, Debug)]
struct Coded {
    order: GroupOrder,
    rows: usize,
    seed: u64,
}

fn coded() -> impl Strategy<Value = Coded> {
    let sizes = (1..9usize, 1..9usize, 1..140usize);
    let kinds = (prop_oneof![Just(4usize), Just(8usize)], any::<bool>());
    (sizes, kinds, prop_oneof![0..6usize, 6..34usize], any::<u64>()).prop_map(
        |((groups, eights, columns), (bits, shifted), rows, seed)| {
            let group = eights * 8;
            let order = GroupOrder { depth: groups * group, columns, group, bits, shifted };
            Coded { order, rows, seed }
        },
    )
}

/// Operands of [`gemm_groups`].
struct Codes {
    packed: PackedGroups,
    /// What the codes stand for, `[K, N]`.
    real: Vec<f64>,
    x: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Coded {
    fn operands(&self) -> Codes {
        let GroupOrder { depth, columns, group, bits, shifted } = self.order;
        let mut random = Random(self.seed);
        let mut code = || random.signed_bytes(1)[0] >> (8 - bits);
        let codes: Vec<i8> = (0..depth * columns).map(|_| code()).collect();
        let parameters = self.order.groups() * columns;
        let zeros: Vec<i8> = (0..if shifted { parameters } else { 0 }).map(|_| code()).collect();
        let size = (depth as f32).sqrt() * (1 << bits) as f32;
        let scales: Vec<f32> = random.floats(parameters).iter().map(|s| s / size).collect();
        let weight = |i: usize| {
            let at = i / columns / group * columns + i % columns;
            let zero = zeros.get(at).copied().unwrap_or(0);
            (f64::from(codes[i]) - f64::from(zero)) * f64::from(scales[at])
        };
        Codes {
            packed: PackedGroups::pack(&self.order, &codes, &scales, &zeros),
            real: (0..depth * columns).map(weight).collect(),
            x: random.floats(self.rows * depth),
            bias: random.floats(columns),
            residual: random.floats(self.rows * columns),
        }
    }

    fn result(&self) -> Values {
        let (data, GroupOrder { depth, columns, .. }) = (self.operands(), self.order);
        let value = |i: usize| {
            let (row, column) = (i / columns, i % columns);
            let product =
                |k: usize| f64::from(data.x[row * depth + k]) * data.real[k * columns + column];
            let sum = (0..depth).map(product).sum::<f64>();
            let sum = sum + f64::from(data.bias[column]) + f64::from(data.residual[i]);
            activated(Activation::Silu, sum as f32)
        };
        Values::Floats((0..self.rows * columns).map(value).collect())
    }
}

fn of_codes(case: &Coded, isa: Isa, threads: usize) -> Vec<Values> {
    let (data, GroupOrder { depth, columns, .. }) = (case.operands(), case.order);
    let geometry = Indirection::strided(depth);
    let input = Input { base: data.x.as_ptr(), rows: &geometry, padding: data.x.as_ptr() };
    let addend = Residual { pointer: data.residual.as_ptr(), row_stride: columns };
    let epilogue = EpilogueF32 {
        bias: Some(&data.bias),
        residual: Some(addend),
        activation: Activation::Silu,
        ..EpilogueF32::default()
    };
    let mut room = vec![f32::NAN; case.rows * columns];
    let output = Output { pointer: room.as_mut_ptr(), row_stride: columns };
    // SAFETY: the buffers are as long as the order says, and parts are apart.
    unsafe {
        on_threads(parts(threads, columns, 16, case.seed), |part| {
            let mut scratch = vec![f32::NAN; case.order.scratch(case.rows)];
            let (rows, scratch) = (0..case.rows, &mut scratch);
            gemm_groups(isa, &input, &data.packed, &epilogue, &output, rows, part, scratch);
        });
    }
    vec![Values::Floats(room)]
}
