//! Products and convolutions of u8 by s8: the same bits on every set.

use std::sync::Arc;

use lepton_kernels::Isa;
use lepton_kernels::depthwise::{
    DepthwiseS8, DepthwiseTapsS8, depthwise_order, depthwise_u8s8, depthwise_u8s8_f32,
    padded_pixels,
};
use lepton_kernels::epilogue::{
    Activation, DequantizeF32, RequantizeU8, Residual, ResidualU8, ThroughU8,
};
use lepton_kernels::gemm::{
    Input, gemm_u8s8, gemm_u8s8_before, gemm_u8s8_f32, gemm_u8s8_s32, gemm_u8s8_through,
};
use lepton_kernels::grouped::{grouped_u8s8, grouped_u8s8_f32};
use lepton_kernels::pack::{PackedS8, TapsS8};
use lepton_kernels::stem::{Lines, MOST_U8, stem_u8s8, stem_u8s8_f32};
use lepton_kernels::stored::Pack;

use crate::data::Random;
use crate::frame::{Compare, Row, Values};
use crate::geometry::{Geometry, activated, depthwise, grouped, products, stems};

pub const ROWS: &[Row] = &[
    Row {
        name: "gemm::gemm_u8s8",
        compare: Compare::Bits,
        run: |row| row.run(products(), |g, isa, threads| product(g, isa, threads, false), bytes),
    },
    Row {
        name: "gemm::gemm_u8s8_before",
        compare: Compare::Bits,
        run: |row| row.run(products(), |g, isa, threads| product(g, isa, threads, true), bytes),
    },
    Row {
        name: "gemm::gemm_u8s8_f32",
        compare: Compare::Bits,
        run: |row| row.run(products(), product_f32, floats),
    },
    Row {
        // Bytes as parts of 256: a step is 4e-3.
        name: "gemm::gemm_u8s8_through",
        compare: Compare::Close(5e-3),
        run: |row| row.run(products(), product_through, through),
    },
    Row {
        name: "gemm::gemm_u8s8_s32",
        compare: Compare::Bits,
        run: |row| row.run(products(), product_s32, sums),
    },
    Row {
        name: "grouped::grouped_u8s8",
        compare: Compare::Bits,
        run: |row| row.run(grouped(), in_groups, bytes),
    },
    Row {
        name: "grouped::grouped_u8s8_f32",
        compare: Compare::Bits,
        run: |row| row.run(grouped(), in_groups_f32, floats),
    },
    Row {
        name: "depthwise::depthwise_u8s8",
        compare: Compare::Bits,
        run: |row| row.run(depthwise(), by_channel, bytes),
    },
    Row {
        name: "depthwise::depthwise_u8s8_f32",
        compare: Compare::Bits,
        run: |row| row.run(depthwise(), by_channel_f32, floats),
    },
    Row {
        name: "stem::stem_u8s8",
        compare: Compare::Bits,
        run: |row| row.run(stems(), stem, |g| stem_lines(g).and_then(|_| bytes(g))),
    },
    Row {
        name: "stem::stem_u8s8_f32",
        compare: Compare::Bits,
        run: |row| row.run(stems(), stem_f32, |g| stem_lines(g).and_then(|_| floats(g))),
    },
];

/// Operands of a geometry.
struct Data {
    input: Vec<u8>,
    zero: u8,
    padding: Vec<u8>,
    weights: Vec<i8>,
    bias: Vec<i32>,
    multiplier: Vec<f32>,
    bias_f32: Vec<f32>,
    residual: Vec<u8>,
    residual_f32: Vec<f32>,
    residual_zero: u8,
    /// Zero point and bounds of the output.
    output: [u8; 3],
    table: Option<[u8; 256]>,
}

impl Data {
    fn of(g: &Geometry) -> Data {
        let mut random = Random(g.seed);
        let zero = random.bits() as u8;
        let size = 64.0 * g.terms().max(1) as f32;
        let mut input = random.bytes(g.input_length());
        g.fill_gaps(&mut input, 255);
        let bounds = [random.bits() as u8, random.bits() as u8];
        let [low, high] = [bounds[0].min(bounds[1]), bounds[0].max(bounds[1])];
        let table = std::array::from_fn(|_| random.bits() as u8);
        Data {
            input,
            zero,
            padding: vec![zero; padded_pixels(&g.window) * g.pixel_stride()],
            weights: random.signed_bytes(g.weights()),
            bias: (0..g.width()).map(|_| random.bits() as i32 >> 17).collect(),
            multiplier: (0..g.width()).map(|_| (random.float() + 1.01) / size).collect(),
            bias_f32: random.floats(g.width()),
            residual: random.bytes(g.rows() * g.width()),
            residual_f32: random.floats(g.rows() * g.width()),
            residual_zero: random.bits() as u8,
            output: [random.bits() as u8, low, high],
            table: random.bits().is_multiple_of(2).then_some(table),
        }
    }

    fn requantize(&self, g: &Geometry) -> RequantizeU8<'_> {
        let rows = Residual { pointer: self.residual.as_ptr(), row_stride: g.width() };
        let residual = ResidualU8 { rows, scale: 0.37, zero_point: self.residual_zero };
        let [zero_point, low, high] = self.output;
        RequantizeU8 {
            bias: &self.bias,
            multiplier: &self.multiplier,
            residual: g.residual.then_some(residual),
            zero_point,
            low,
            high,
            table: self.table.as_ref(),
            bounded: RequantizeU8::is_bounded(&self.multiplier, 0.37),
        }
    }

    fn dequantize(&self, g: &Geometry) -> DequantizeF32<'_> {
        let residual = Residual { pointer: self.residual_f32.as_ptr(), row_stride: g.width() };
        DequantizeF32 {
            bias_s32: (!g.seed.is_multiple_of(3)).then_some(&self.bias),
            scale: &self.multiplier,
            bias: (!g.seed.is_multiple_of(5)).then_some(&self.bias_f32),
            residual: g.residual.then_some(residual),
            activation: if g.seed % 7 < 4 { Activation::Relu } else { Activation::None },
        }
    }

    fn sum(&self, g: &Geometry, row: usize, column: usize) -> i32 {
        let mut sum = 0i32;
        g.each(row, column, |input, weight| {
            let value = input.map_or(self.zero, |input| self.input[input]);
            sum = sum.wrapping_add(i32::from(value) * i32::from(self.weights[weight]));
        });
        sum
    }

    /// The formula of `RequantizeU8`, one step at a time.
    fn byte(&self, g: &Geometry, row: usize, column: usize) -> u8 {
        let epilogue = self.requantize(g);
        let sum = self.sum(g, row, column).wrapping_add(self.bias[column]);
        let mut value = sum as f32 * self.multiplier[column];
        if let Some(residual) = &epilogue.residual {
            let byte = self.residual[row * g.width() + column];
            value += (i32::from(byte) - i32::from(residual.zero_point)) as f32 * residual.scale;
        }
        let zero = f32::from(epilogue.zero_point);
        let clamped =
            value.max(f32::from(epilogue.low) - zero).min(f32::from(epilogue.high) - zero);
        let byte = (clamped.round_ties_even() + zero) as u8;
        epilogue.table.map_or(byte, |table| table[usize::from(byte)])
    }

    /// The formula of `DequantizeF32`, one step at a time.
    fn float(&self, g: &Geometry, row: usize, column: usize) -> f32 {
        let epilogue = self.dequantize(g);
        let bias = epilogue.bias_s32.map_or(0, |bias| bias[column]);
        let mut value = self.sum(g, row, column).wrapping_add(bias) as f32;
        value *= self.multiplier[column];
        value += epilogue.bias.map_or(0.0, |bias| bias[column]);
        if g.residual {
            value += self.residual_f32[row * g.width() + column];
        }
        if epilogue.activation == Activation::Relu { value.max(0.0) } else { value }
    }
}

/// What stands where nothing is written.
const EMPTY: u8 = 0xa5;

fn bytes(g: &Geometry) -> Option<Vec<Values>> {
    let data = Data::of(g);
    let results = g.results(EMPTY, |row, column| data.byte(g, row, column));
    Some(vec![Values::integers(&results)])
}

fn floats(g: &Geometry) -> Option<Vec<Values>> {
    let data = Data::of(g);
    Some(vec![Values::Floats(g.results(f32::NAN, |row, column| data.float(g, row, column)))])
}

fn sums(g: &Geometry) -> Option<Vec<Values>> {
    let data = Data::of(g);
    let results = g.results(i32::MIN, |row, column| data.sum(g, row, column));
    let biased =
        g.results(i32::MIN, |row, column| data.sum(g, row, column).wrapping_add(data.bias[column]));
    Some(vec![Values::integers(&results), Values::integers(&biased)])
}

fn product(g: &Geometry, isa: Isa, threads: usize, before: bool) -> Vec<Values> {
    let (data, rows, mut room) = (Data::of(g), g.indirection(), g.room(EMPTY));
    let weights = PackedS8::pack(&data.weights, &g.order());
    let input = Input { base: data.input.as_ptr(), rows: &rows, padding: data.padding.as_ptr() };
    let (epilogue, output, next) = (data.requantize(g), g.output(&mut room), [7; 999]);
    // SAFETY: all buffers have the sizes the geometry says.
    unsafe {
        g.share(threads, |rows, columns| {
            let (input, weights, epilogue, output) = (&input, &weights, &epilogue, &output);
            if before {
                gemm_u8s8_before(isa, input, weights, epilogue, output, rows, columns, &next);
            } else {
                gemm_u8s8(isa, input, weights, epilogue, output, rows, columns);
            }
        });
    }
    vec![Values::integers(&room)]
}

fn product_f32(g: &Geometry, isa: Isa, threads: usize) -> Vec<Values> {
    let (data, rows, mut room) = (Data::of(g), g.indirection(), g.room(f32::NAN));
    let weights = PackedS8::pack(&data.weights, &g.order());
    let input = Input { base: data.input.as_ptr(), rows: &rows, padding: data.padding.as_ptr() };
    let (epilogue, output) = (data.dequantize(g), g.output(&mut room));
    // SAFETY: all buffers have the sizes the geometry says.
    unsafe {
        g.share(threads, |rows, columns| {
            gemm_u8s8_f32(isa, &input, &weights, &epilogue, &output, rows, columns);
        });
    }
    vec![Values::Floats(room)]
}

/// A function for each seed, a step and a zero point.
fn function(g: &Geometry) -> (Activation, f32, u8) {
    let functions = [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::HardSwish,
    ];
    let seed = g.seed as usize;
    (functions[seed % functions.len()], [2e-2, 1e-4][seed / 8 % 2], (seed % 200) as u8)
}

fn product_through(g: &Geometry, isa: Isa, threads: usize) -> Vec<Values> {
    let (data, rows, mut room) = (Data::of(g), g.indirection(), g.room(EMPTY));
    let weights = PackedS8::pack(&data.weights, &g.order());
    let input = Input { base: data.input.as_ptr(), rows: &rows, padding: data.padding.as_ptr() };
    let (activation, step, zero_point) = function(g);
    let function = activation.function().expect("no clamp");
    let (bias, scale) = (&data.bias[..], &data.multiplier[..]);
    let (epilogue, output) =
        (ThroughU8 { bias, scale, function, step, zero_point }, g.output(&mut room));
    // SAFETY: all buffers have the sizes the geometry says.
    unsafe {
        g.share(threads, |rows, columns| {
            gemm_u8s8_through(isa, &input, &weights, &epilogue, &output, rows, columns, &[]);
        });
    }
    vec![Values::Floats(room.iter().map(|&byte| f32::from(byte) / 256.0).collect())]
}

fn through(g: &Geometry) -> Option<Vec<Values>> {
    let (data, (activation, step, zero)) = (Data::of(g), function(g));
    let results = g.results(EMPTY, |row, column| {
        let sum = data.sum(g, row, column).wrapping_add(data.bias[column]);
        let real = activated(activation, sum as f32 * data.multiplier[column]);
        ((real / step).round_ties_even() + f32::from(zero)).clamp(0.0, 255.0) as u8
    });
    Some(vec![Values::Floats(results.iter().map(|&byte| f32::from(byte) / 256.0).collect())])
}

fn product_s32(g: &Geometry, isa: Isa, threads: usize) -> Vec<Values> {
    let (data, rows) = (Data::of(g), g.indirection());
    let weights = PackedS8::pack(&data.weights, &g.order());
    let input = Input { base: data.input.as_ptr(), rows: &rows, padding: data.padding.as_ptr() };
    let of = |bias: Option<&[i32]>| {
        let mut room = g.room(i32::MIN);
        let output = g.output(&mut room);
        // SAFETY: all buffers have the sizes the geometry says.
        unsafe {
            g.share(threads, |rows, columns| {
                gemm_u8s8_s32(isa, &input, &weights, bias, &output, rows, columns);
            });
        }
        Values::integers(&room)
    };
    vec![of(None), of(Some(&data.bias))]
}

/// Weights of each group.
fn groups(g: &Geometry, data: &Data) -> Vec<PackedS8> {
    let each = data.weights.chunks(g.columns * g.terms());
    each.map(|weights| PackedS8::pack(weights, &g.order())).collect()
}

fn in_groups(g: &Geometry, isa: Isa, threads: usize) -> Vec<Values> {
    let (data, rows, mut room) = (Data::of(g), g.indirection(), g.room(EMPTY));
    let packs = groups(g, &data);
    let input = Input { base: data.input.as_ptr(), rows: &rows, padding: data.padding.as_ptr() };
    let (epilogue, output) = (data.requantize(g), g.output(&mut room));
    // SAFETY: all buffers have the sizes the geometry says.
    unsafe {
        g.share_rows(threads, |rows| {
            grouped_u8s8(isa, &input, &packs, g.depth, &epilogue, &output, rows);
        });
    }
    vec![Values::integers(&room)]
}

fn in_groups_f32(g: &Geometry, isa: Isa, threads: usize) -> Vec<Values> {
    let (data, rows, mut room) = (Data::of(g), g.indirection(), g.room(f32::NAN));
    let packs = groups(g, &data);
    let input = Input { base: data.input.as_ptr(), rows: &rows, padding: data.padding.as_ptr() };
    let (epilogue, output) = (data.dequantize(g), g.output(&mut room));
    // SAFETY: all buffers have the sizes the geometry says.
    unsafe {
        g.share_rows(threads, |rows| {
            grouped_u8s8_f32(isa, &input, &packs, g.depth, &epilogue, &output, rows);
        });
    }
    vec![Values::Floats(room)]
}

/// The weights of a depthwise convolution.
fn channels(g: &Geometry, data: &Data) -> DepthwiseS8 {
    let order = depthwise_order(g.groups, g.window.taps(), false);
    let order = DepthwiseTapsS8::order(&order, g.window.kernel);
    let packed = DepthwiseTapsS8::pack(&data.weights, &order);
    let kept = DepthwiseTapsS8::load(&order, &packed.stored()).expect("what was stored");
    assert!(DepthwiseTapsS8::load(&order, &[]).is_none());
    let weights = DepthwiseS8::new(Arc::new(kept), &g.window, g.pixel_stride());
    let weights = weights.unwrap_or_else(|error| panic!("{error}"));
    let total: i32 = data.weights.iter().map(|&weight| i32::from(weight)).sum();
    assert_eq!(weights.column_sums().iter().sum::<i32>(), total);
    weights
}

/// Kernels of more rows or columns than a depthwise one may have.
fn oversized(g: &Geometry) -> bool {
    g.window.kernel.iter().any(|&taps| taps > 16)
}

fn by_channel(g: &Geometry, isa: Isa, threads: usize) -> Vec<Values> {
    let (data, mut room) = (Data::of(g), g.room(EMPTY));
    if oversized(g) {
        return bytes(g).unwrap_or_default();
    }
    let weights = channels(g, &data);
    let (input, padding) = (data.input.as_ptr(), data.padding.as_ptr());
    let (epilogue, output) = (data.requantize(g), g.output(&mut room));
    // SAFETY: all buffers have the sizes the geometry says.
    unsafe {
        g.share_rows(threads, |rows| {
            depthwise_u8s8(isa, input, padding, &weights, &epilogue, &output, rows);
        });
    }
    vec![Values::integers(&room)]
}

fn by_channel_f32(g: &Geometry, isa: Isa, threads: usize) -> Vec<Values> {
    let (data, mut room) = (Data::of(g), g.room(f32::NAN));
    if oversized(g) {
        return floats(g).unwrap_or_default();
    }
    let weights = channels(g, &data);
    let (input, padding) = (data.input.as_ptr(), data.padding.as_ptr());
    let (epilogue, output) = (data.dequantize(g), g.output(&mut room));
    // SAFETY: all buffers have the sizes the geometry says.
    unsafe {
        g.share_rows(threads, |rows| {
            depthwise_u8s8_f32(isa, input, padding, &weights, &epilogue, &output, rows);
        });
    }
    vec![Values::Floats(room)]
}

/// The lines of a stem, where it has some.
fn stem_lines(g: &Geometry) -> Option<Lines> {
    Lines::of(&g.window, g.depth, MOST_U8)
}

fn stem(g: &Geometry, isa: Isa, threads: usize) -> Vec<Values> {
    let Some(lines) = stem_lines(g) else { return Vec::new() };
    let (data, mut room) = (Data::of(g), g.room(EMPTY));
    let weights = TapsS8::pack(&data.weights, &lines.order(g.columns));
    let image = (data.input.as_ptr(), data.zero);
    let (epilogue, output) = (data.requantize(g), g.output(&mut room));
    // SAFETY: all buffers have the sizes the geometry says.
    unsafe {
        g.share_rows(threads, |rows| {
            stem_u8s8(isa, image, &lines, &weights, &epilogue, &output, rows, &[]);
        });
    }
    vec![Values::integers(&room)]
}

fn stem_f32(g: &Geometry, isa: Isa, threads: usize) -> Vec<Values> {
    let Some(lines) = stem_lines(g) else { return Vec::new() };
    let (data, mut room) = (Data::of(g), g.room(f32::NAN));
    let weights = TapsS8::pack(&data.weights, &lines.order(g.columns));
    let image = (data.input.as_ptr(), data.zero);
    let (epilogue, output) = (data.dequantize(g), g.output(&mut room));
    // SAFETY: all buffers have the sizes the geometry says.
    unsafe {
        g.share_rows(threads, |rows| {
            stem_u8s8_f32(isa, image, &lines, &weights, &epilogue, &output, rows);
        });
    }
    vec![Values::Floats(room)]
}
