//! Prints nanoseconds per element of the main vector kernels on every instruction set.
//!
//! `cargo run --release -p lepton-kernels --example vector_speed [part of a name]`. Operands stay
//! in the caches; each number is the best of many short runs.

use half::{bf16, f16};
use lepton_kernels::Isa;
use lepton_kernels::binary::{Binary, NO_CLAMP, binary_f32};
use lepton_kernels::broadcast::Broadcast;
use lepton_kernels::map::{Unary, map_f32, map_u8_table};
use lepton_kernels::normalize::*;
use lepton_kernels::pool::*;
use lepton_kernels::quantize::*;
use lepton_kernels::reduce::*;
use lepton_kernels::softmax::*;
use lepton_kernels::transpose::{permutation, rearrange};
use std::time::Instant;

/// The best time of one call, in nanoseconds.
fn time_ns(mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    let mut repeats = 1_u32;
    let begun = Instant::now();
    while begun.elapsed().as_millis() < 30 {
        let start = Instant::now();
        (0..repeats).for_each(|_| work());
        let taken_ns = start.elapsed().as_nanos() as f64;
        best = best.min(taken_ns / f64::from(repeats));
        if taken_ns < 100_000.0 {
            repeats *= 2;
        }
    }
    best
}

/// `len` values from the start of a cache line, as a planner places tensors.
fn aligned<T: Copy>(len: usize, value: impl Fn(usize) -> T) -> &'static mut [T] {
    let memory = Vec::leak(vec![value(0); len + 64]);
    let start = memory.as_ptr().align_offset(64);
    let slice = &mut memory[start..start + len];
    slice.iter_mut().enumerate().for_each(|(i, place)| *place = value(i));
    slice
}

struct Table {
    filter: String,
    sets: Vec<Isa>,
}

impl Table {
    /// One line: the kernel on every set.
    fn line(&self, name: &str, elements: usize, mut work: impl FnMut(Isa)) {
        if name.contains(&self.filter) {
            print!("{name:32}");
            for &isa in &self.sets {
                print!("{:10.3}", time_ns(|| work(isa)) / elements as f64);
            }
            println!();
        }
    }
}

const ELEMENTS: usize = 4096;

fn maps(table: &Table) {
    let input = aligned(ELEMENTS, |i| i as f32 * 0.005 - 10.0);
    let output = aligned(ELEMENTS, |_| 0.0);
    for function in [
        Unary::Relu,
        Unary::HardSwish,
        Unary::Exp,
        Unary::Log,
        Unary::Sigmoid,
        Unary::Silu,
        Unary::Tanh,
        Unary::Gelu,
        Unary::GeluTanh,
        Unary::Erf,
        Unary::Mish,
        Unary::Sqrt,
        Unary::Elu { alpha: 1.0 },
        Unary::Sin,
    ] {
        table.line(&format!("map {function:?}"), ELEMENTS, |isa| {
            map_f32(isa, function, input, output);
        });
    }
    let bytes = aligned(ELEMENTS, |i| (i * 77) as u8);
    let (mapped, lookup) = (aligned(ELEMENTS, |_| 0), std::array::from_fn(|i| i as u8 ^ 9));
    table.line("map bytes by table", ELEMENTS, |isa| {
        map_u8_table(isa, &lookup, bytes, mapped);
    });
}

fn pairs(table: &Table) {
    let a = aligned(ELEMENTS, |i| i as f32 * 0.01 - 20.0);
    let output = aligned(ELEMENTS, |_| 0.0);
    for (name, b_shape) in
        [("same", [16, 256]), ("row", [1, 256]), ("column", [16, 1]), ("scalar", [1, 1])]
    {
        let plan = Broadcast::dense(&[16, 256], [&[16, 256], &b_shape]).expect("it broadcasts");
        table.line(&format!("add {name}"), ELEMENTS, |isa| {
            binary_f32(isa, Binary::Add, &plan, 0..ELEMENTS, a, a, NO_CLAMP, output);
        });
    }
    let a = aligned(ELEMENTS, |i| (i * 77) as u8);
    let output = aligned(ELEMENTS, |_| 0_u8);
    let plan = Broadcast::dense(&[ELEMENTS], [&[ELEMENTS], &[ELEMENTS]]).expect("equal shapes");
    let pair = QuantizedPair {
        scale_a: 0.7,
        scale_b: 0.4,
        zero_a: 120,
        zero_b: 10,
        rounding: Rounding::new(100_u8),
    };
    table.line("add u8", ELEMENTS, |isa| {
        add_quantized(isa, pair, &plan, 0..ELEMENTS, a, a, output);
    });
}

fn conversions(table: &Table) {
    let input = aligned(ELEMENTS, |i| i as f32 * 0.01 - 20.0);
    let floats = aligned(ELEMENTS, |_| 0.0);
    let bytes = aligned(ELEMENTS, |_| 0_u8);
    let halves = aligned(ELEMENTS, |_| f16::ZERO);
    let brains = aligned(ELEMENTS, |_| bf16::ZERO);
    table.line("quantize u8", ELEMENTS, |isa| quantize(isa, 0.3, 7_u8, input, bytes));
    table.line("dequantize u8", ELEMENTS, |isa| dequantize(isa, 0.3, 7_u8, bytes, floats));
    table.line("range", ELEMENTS, |isa| {
        std::hint::black_box(range_f32(isa, input));
    });
    table.line("f32 to f16", ELEMENTS, |isa| f32_to_f16(isa, input, halves));
    table.line("f16 to f32", ELEMENTS, |isa| f16_to_f32(isa, halves, floats));
    table.line("f32 to bf16", ELEMENTS, |isa| f32_to_bf16(isa, input, brains));
    table.line("bf16 to f32", ELEMENTS, |isa| bf16_to_f32(isa, brains, floats));
}

/// Per element of input.
fn pools(table: &Table) {
    let axis = PoolAxis {
        input: 28,
        output: 14,
        kernel: 3,
        stride: 2,
        dilation: 1,
        padding_before: 1,
        padding_after: 1,
    };
    let pool = Pool::new(axis, axis, 64);
    let global = Pool::new(PoolAxis::global(28), PoolAxis::global(28), 64);
    let floats = aligned(pool.input_len(), |_| 1.0);
    let bytes = aligned(pool.input_len(), |_| 1_u8);
    let output = aligned(14 * pool.row_len(), |_| 0.0);
    let output_bytes = aligned(14 * pool.row_len(), |_| 0_u8);
    let len = pool.input_len();
    let requantization =
        AverageRequantization { factor: 0.1, zero: 3, rounding: Rounding::new(3_u8) };
    table.line("max pool 3x3/2 f32", len, |isa| {
        max_pool_f32(isa, &pool, 0..14, floats, output);
    });
    table.line("max pool 3x3/2 u8", len, |isa| {
        max_pool_bytes(isa, &pool, 0..14, bytes, output_bytes);
    });
    table.line("average pool 3x3/2 f32", len, |isa| {
        average_pool_f32(isa, &pool, false, 0..14, floats, output);
    });
    table.line("average pool 3x3/2 u8", len, |isa| {
        average_pool_bytes(isa, &pool, requantization, 0..14, bytes, output_bytes);
    });
    table.line("global average f32", len, |isa| {
        average_pool_f32(isa, &global, false, 0..1, floats, &mut output[..64]);
    });
    table.line("global average u8", len, |isa| {
        average_pool_bytes(isa, &global, requantization, 0..1, bytes, &mut output_bytes[..64]);
    });
}

fn rows(table: &Table) {
    let input = aligned(ELEMENTS, |i| (i * 7 % 41) as f32 * 0.1);
    let output = aligned(ELEMENTS, |_| 0.0);
    for (name, axes) in [("rows", [false, true]), ("columns", [true, false])] {
        let plan = Reduce::new(&[16, 256], &axes).expect("two axes");
        for reduction in [Reduction::Sum, Reduction::Max, Reduction::LogSumExp] {
            table.line(&format!("reduce {name} {reduction:?}"), ELEMENTS, |isa| {
                let output = &mut output[..plan.len()];
                reduce_f32(isa, reduction, &plan, 0..plan.len(), input, output);
            });
        }
    }
    for columns in [64, 256, 1024] {
        table.line(&format!("softmax of {columns}"), ELEMENTS, |isa| {
            softmax(isa, Softmax::Plain, columns, input, output);
        });
    }
    table.line("softmax masked of 256", ELEMENTS, |isa| {
        output.copy_from_slice(input);
        softmax_masked(isa, 256, 0.125, &input[..256], output);
    });
    table.line("softmax strided", ELEMENTS, |isa| {
        softmax_strided(isa, Softmax::Plain, 16, 256, input, output);
    });
    for columns in [256, 1024] {
        let vector = aligned(columns, |_| 1.0);
        let parameters = RowNormalization {
            centre: true,
            gamma: Some(vector),
            beta: Some(vector),
            epsilon: 1e-5,
        };
        table.line(&format!("layer norm of {columns}"), ELEMENTS, |isa| {
            normalize_rows(isa, parameters, columns, input, output);
        });
        let parameters = RowNormalization { centre: false, beta: None, ..parameters };
        table.line(&format!("rms norm of {columns}"), ELEMENTS, |isa| {
            normalize_rows(isa, parameters, columns, input, output);
        });
    }
}

fn moves(table: &Table) {
    fn line<T: lepton_kernels::transpose::Element + Default + 'static>(
        table: &Table,
        name: &str,
        shape: &[usize],
        axes: &[usize],
    ) {
        let len = shape.iter().product();
        let input = aligned(len, |_| T::default());
        let output = aligned(len, |_| T::default());
        let walk = permutation(shape, axes).expect("a permutation");
        table.line(name, len, |isa| rearrange(isa, &walk, 0..len, input, output));
    }
    line::<f32>(table, "NCHW to NHWC f32", &[1, 64, 28, 28], &[0, 2, 3, 1]);
    line::<f32>(table, "NHWC to NCHW f32", &[1, 28, 28, 64], &[0, 3, 1, 2]);
    line::<u8>(table, "NCHW to NHWC u8", &[1, 64, 28, 28], &[0, 2, 3, 1]);
    line::<u8>(table, "NHWC to NCHW u8", &[1, 28, 28, 64], &[0, 3, 1, 2]);
    line::<f32>(table, "image NCHW to NHWC f32", &[1, 3, 224, 224], &[0, 2, 3, 1]);
    line::<u8>(table, "image NHWC to NCHW u8", &[1, 224, 224, 3], &[0, 3, 1, 2]);
    line::<f32>(table, "heads BSHD to BHSD f32", &[1, 128, 12, 64], &[0, 2, 1, 3]);
}

fn main() {
    let table =
        Table { filter: std::env::args().nth(1).unwrap_or_default(), sets: Isa::available() };
    print!("{:32}", "ns per element");
    table.sets.iter().for_each(|isa| print!("{:>10}", isa.name()));
    println!();
    for part in [maps, pairs, conversions, pools, rows, moves] {
        part(&table);
    }
}
