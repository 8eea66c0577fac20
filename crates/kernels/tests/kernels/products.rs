//! Products and convolutions in f32 and bf16.

use std::ops::Range;
use std::sync::Barrier;

use half::bf16;
use lepton_kernels::Isa;
use lepton_kernels::depthwise::{depthwise_f32, depthwise_order, padded_pixels};
use lepton_kernels::epilogue::{EpilogueF32, Residual};
use lepton_kernels::gemm::{Input, gemm_bf16, gemm_f32, gemm_f32_before};
use lepton_kernels::grouped::grouped_f32;
use lepton_kernels::pack::{PackedBf16, PackedF32, TapsBf16};
use lepton_kernels::real::Real;
use lepton_kernels::stem::{Lines, MOST_BF16, MOST_F32, stem_bf16, stem_f32};
use lepton_kernels::winograd::{Alone, Member, PackedWinograd, Tile, Tiling, winograd_f32};
use proptest::prelude::*;

use crate::data::Random;
use crate::frame::{Compare, Row, Values, on_threads, parts};
use crate::geometry::{Floats, Geometry, depthwise, grouped, products, stems, three_by_three};

pub const ROWS: &[Row] = &[
    Row {
        name: "gemm::gemm_f32",
        compare: Compare::Close(1e-5),
        run: |row| row.run(products(), |g, isa, threads| product(g, isa, threads, false), defined),
    },
    Row {
        name: "gemm::gemm_f32_before",
        compare: Compare::Close(1e-5),
        run: |row| row.run(products(), |g, isa, threads| product(g, isa, threads, true), defined),
    },
    Row {
        name: "gemm::gemm_bf16",
        compare: Compare::Close(1e-5),
        run: |row| row.run(products(), product_bf16, defined_bf16),
    },
    Row {
        name: "grouped::grouped_f32",
        compare: Compare::Close(1e-5),
        run: |row| row.run(grouped(), in_groups, defined),
    },
    Row {
        name: "depthwise::depthwise_f32",
        compare: Compare::Close(1e-5),
        run: |row| row.run(depthwise(), by_channel, defined_by_channel),
    },
    Row {
        name: "stem::stem_f32",
        compare: Compare::Close(1e-5),
        run: |row| row.run(stems(), stem, |g| stem_lines(g, MOST_F32).and_then(|_| defined(g))),
    },
    Row {
        name: "stem::stem_bf16",
        compare: Compare::Close(1e-5),
        run: |row| row.run(stems(), stem_halves, defined_stem_halves),
    },
    // The transforms add and subtract what sums are made of.
    Row {
        name: "winograd::winograd_f32",
        compare: Compare::Close(5e-5),
        run: |row| row.run((three_by_three(), any::<bool>()), winograd, defined_winograd),
    },
];

fn defined(g: &Geometry) -> Option<Vec<Values>> {
    Some(vec![Values::Floats(Floats::of(g).results(g, None))])
}

fn product(g: &Geometry, isa: Isa, threads: usize, before: bool) -> Vec<Values> {
    let (data, rows, mut room) = (Floats::of(g), g.indirection(), g.room(f32::NAN));
    let weights = PackedF32::pack(&data.weights, &g.order());
    let input = Input { base: data.input.as_ptr(), rows: &rows, padding: data.padding.as_ptr() };
    let (epilogue, output, next) = (data.epilogue(g), g.output(&mut room), [7; 999]);
    // SAFETY: all buffers have the sizes the geometry says.
    unsafe {
        g.share(threads, |rows, columns| {
            let (input, weights, epilogue, output) = (&input, &weights, &epilogue, &output);
            if before {
                gemm_f32_before(isa, input, weights, epilogue, output, rows, columns, &next);
            } else {
                gemm_f32(isa, input, weights, epilogue, output, rows, columns);
            }
        });
    }
    vec![Values::Floats(room)]
}

/// One combination of the types of rows and results.
fn bf16_of<T: Real, R: Real>(
    g: &Geometry,
    isa: Isa,
    threads: usize,
    (data, addend): (&Floats, Option<&[bf16]>),
    values: &[T],
    empty: R,
) -> Vec<R> {
    let (rows, mut room) = (g.indirection(), g.room(empty));
    let weights = PackedBf16::pack(&data.weights, &g.order());
    let padding = vec![T::from_f32(0.0); g.depth];
    let input = Input { base: values.as_ptr(), rows: &rows, padding: padding.as_ptr() };
    let (epilogue, output) = (data.epilogue(g), g.output(&mut room));
    let addend = addend.map(|addend| Residual { pointer: addend.as_ptr(), row_stride: g.width() });
    // SAFETY: all buffers have the sizes the geometry says.
    unsafe {
        g.share(threads, |rows, columns| {
            let (epilogue, addend) = (&epilogue, addend.as_ref());
            gemm_bf16(isa, &input, &weights, epilogue, addend, &output, rows, columns, &[]);
        });
    }
    room
}

/// Values of bf16, and floats that are rounded to the same.
fn halves(values: &[f32]) -> (Vec<bf16>, Vec<f32>) {
    let halves: Vec<bf16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
    let floats = halves.iter().map(|half| half.to_f32() * (1.0 + 1e-4)).collect();
    (halves, floats)
}

fn product_bf16(g: &Geometry, isa: Isa, threads: usize) -> Vec<Values> {
    let data = Floats::rounded(g, Floats::of(g));
    let (narrow, wide) = halves(&data.input);
    let added = data.addend();
    let (plain, adding) = ((&data, None), (&data, Some(added.as_slice())));
    vec![
        Values::Floats(bf16_of(g, isa, threads, plain, &narrow, f32::NAN)),
        Values::Floats(bf16_of(g, isa, threads, plain, &wide, f32::NAN)),
        Values::Halves(bf16_of(g, isa, threads, plain, &wide, bf16::NAN)),
        Values::Halves(bf16_of(g, isa, threads, adding, &narrow, bf16::NAN)),
    ]
}

fn rounded(values: &[f32]) -> Values {
    Values::Halves(values.iter().map(|&value| bf16::from_f32(value)).collect())
}

fn defined_bf16(g: &Geometry) -> Option<Vec<Values>> {
    let data = Floats::rounded(g, Floats::of(g));
    let (results, added) = (data.results(g, None), data.results(g, Some(&data.addend())));
    let (short, added) = (rounded(&results), rounded(&added));
    Some(vec![Values::Floats(results.clone()), Values::Floats(results), short, added])
}

fn in_groups(g: &Geometry, isa: Isa, threads: usize) -> Vec<Values> {
    let (data, rows, mut room) = (Floats::of(g), g.indirection(), g.room(f32::NAN));
    let each = data.weights.chunks(g.columns * g.terms());
    let groups: Vec<_> = each.map(|weights| PackedF32::pack(weights, &g.order())).collect();
    let input = Input { base: data.input.as_ptr(), rows: &rows, padding: data.padding.as_ptr() };
    let (epilogue, output) = (data.epilogue(g), g.output(&mut room));
    // SAFETY: all buffers have the sizes the geometry says.
    unsafe {
        g.share_rows(threads, |rows| grouped_f32(isa, &input, &groups, &epilogue, &output, rows));
    }
    vec![Values::Floats(room)]
}

/// One combination of the types of pixels and results.
fn by_channel_of<T: Real, R: Real>(
    g: &Geometry,
    isa: Isa,
    threads: usize,
    (data, epilogue): (&Floats, &EpilogueF32),
    values: &[T],
    empty: R,
) -> Vec<R> {
    let (rows, mut room) = (g.indirection(), g.room(empty));
    let order = depthwise_order(g.groups, g.window.taps(), false);
    let weights = PackedF32::pack(&data.weights, &order);
    let padding = vec![T::from_f32(0.0); padded_pixels(&g.window) * g.pixel_stride()];
    let input = Input { base: values.as_ptr(), rows: &rows, padding: padding.as_ptr() };
    let output = g.output(&mut room);
    // SAFETY: all buffers have the sizes the geometry says.
    unsafe {
        g.share_rows(threads, |rows| {
            depthwise_f32(isa, &input, &weights, epilogue, &output, rows);
        });
    }
    room
}

fn by_channel(g: &Geometry, isa: Isa, threads: usize) -> Vec<Values> {
    let data = Floats::rounded(g, Floats::of(g));
    // What is no finite number may make pixels of bf16 above and below NaN.
    let tame = Floats::rounded(g, Floats::finite(g));
    let (epilogue, wide) = (data.epilogue(g), &data.input);
    let narrow: Vec<bf16> = tame.input.iter().map(|&value| bf16::from_f32(value)).collect();
    let (data, tame) = ((&data, &epilogue), (&tame, &epilogue));
    vec![
        Values::Floats(by_channel_of(g, isa, threads, data, wide, f32::NAN)),
        Values::Floats(by_channel_of(g, isa, threads, tame, &narrow, f32::NAN)),
        Values::Halves(by_channel_of(g, isa, threads, data, wide, bf16::NAN)),
        Values::Halves(by_channel_of(g, isa, threads, tame, &narrow, bf16::NAN)),
    ]
}

fn defined_by_channel(g: &Geometry) -> Option<Vec<Values>> {
    let wide = Floats::rounded(g, Floats::of(g)).results(g, None);
    let narrow = Floats::rounded(g, Floats::finite(g)).results(g, None);
    let short = [rounded(&wide), rounded(&narrow)];
    let [short_wide, short_narrow] = short;
    Some(vec![Values::Floats(wide), Values::Floats(narrow), short_wide, short_narrow])
}

/// The lines of a stem, where it has some.
fn stem_lines(g: &Geometry, most: usize) -> Option<Lines> {
    Lines::of(&g.window, g.depth, most)
}

fn stem(g: &Geometry, isa: Isa, threads: usize) -> Vec<Values> {
    let Some(lines) = stem_lines(g, MOST_F32) else { return Vec::new() };
    let (data, mut room) = (Floats::of(g), g.room(f32::NAN));
    let weights = PackedF32::pack(&data.weights, &lines.order(g.columns));
    let (image, epilogue, output) = (data.input.as_ptr(), data.epilogue(g), g.output(&mut room));
    // SAFETY: all buffers have the sizes the geometry says.
    unsafe {
        g.share_rows(threads, |rows| {
            stem_f32(isa, image, &lines, &weights, &epilogue, &output, rows, &[]);
        });
    }
    vec![Values::Floats(room)]
}

/// One combination of the types of pixels and results.
fn stem_halves_of<T: Real, R: Real>(
    g: &Geometry,
    isa: Isa,
    threads: usize,
    (data, addend): (&Floats, Option<&[bf16]>),
    (lines, values): (&Lines, &[T]),
    empty: R,
) -> Vec<R> {
    let mut room = g.room(empty);
    let weights = TapsBf16::pack(&data.weights, &lines.order(g.columns));
    let (image, epilogue, output) = (values.as_ptr(), data.epilogue(g), g.output(&mut room));
    let addend = addend.map(|addend| Residual { pointer: addend.as_ptr(), row_stride: g.width() });
    // SAFETY: all buffers have the sizes the geometry says.
    unsafe {
        g.share_rows(threads, |rows| {
            let (epilogue, addend) = (&epilogue, addend.as_ref());
            stem_bf16(isa, image, lines, &weights, epilogue, addend, &output, rows, &[]);
        });
    }
    room
}

fn stem_halves(g: &Geometry, isa: Isa, threads: usize) -> Vec<Values> {
    let Some(lines) = stem_lines(g, MOST_BF16) else { return Vec::new() };
    // A pixel that is no number may make its neighbours NaN.
    let data = Floats::rounded(g, Floats::finite(g));
    let (narrow, wide) = halves(&data.input);
    let added = data.addend();
    let (plain, adding) = ((&data, None), (&data, Some(added.as_slice())));
    vec![
        Values::Floats(stem_halves_of(g, isa, threads, plain, (&lines, &narrow), f32::NAN)),
        Values::Floats(stem_halves_of(g, isa, threads, plain, (&lines, &wide), f32::NAN)),
        Values::Halves(stem_halves_of(g, isa, threads, plain, (&lines, &wide), bf16::NAN)),
        Values::Halves(stem_halves_of(g, isa, threads, adding, (&lines, &narrow), bf16::NAN)),
    ]
}

fn defined_stem_halves(g: &Geometry) -> Option<Vec<Values>> {
    stem_lines(g, MOST_BF16)?;
    let data = Floats::rounded(g, Floats::finite(g));
    let (results, added) = (data.results(g, None), data.results(g, Some(&data.addend())));
    let (short, added) = (rounded(&results), rounded(&added));
    Some(vec![Values::Floats(results.clone()), Values::Floats(results), short, added])
}

/// A thread of those that do blocks together.
struct OneOf<'a> {
    rank: usize,
    count: usize,
    together: &'a Barrier,
}

impl Member for OneOf<'_> {
    fn part(&self, end: usize) -> Range<usize> {
        end * self.rank / self.count..end * (self.rank + 1) / self.count
    }

    fn meet(&self) {
        self.together.wait();
    }
}

fn winograd((g, large): &(Geometry, bool), isa: Isa, threads: usize) -> Vec<Values> {
    let (data, mut room) = (Floats::finite(g), g.room(f32::NAN));
    let tile = if *large { Tile::Four } else { Tile::Two };
    let tiling = Tiling::of(&g.window, g.images, g.depth, g.columns, tile, threads)
        .expect("a window of three by three");
    let weights = PackedWinograd::pack(&data.weights, g.columns, g.depth, tile);
    let (image, padding) = (data.input.as_ptr(), data.padding.as_ptr());
    let (epilogue, output) = (data.epilogue(g), g.output(&mut room));
    let compute = |scratch: *mut f32, blocks, member: &dyn Member| {
        // SAFETY: images, padding, output and residual have the tiling's extents; blocks are apart,
        // or done by all members over the same scratch.
        unsafe {
            winograd_f32(
                isa,
                &tiling,
                image,
                padding,
                &weights,
                &epilogue,
                &output,
                scratch,
                blocks,
                &[],
                member,
            );
        }
    };
    let mut scratch = vec![f32::NAN; tiling.scratch_floats() * threads];
    let scratch = scratch.chunks_exact_mut(tiling.scratch_floats()).map(|each| each.as_mut_ptr());
    let scratch: Vec<_> = scratch.collect();
    let blocks = parts(threads, tiling.blocks(), 1, Random(g.seed).bits());
    let together = Barrier::new(threads);
    let parts: Vec<_> = (0..threads).zip(blocks).collect();
    // SAFETY: as above.
    unsafe {
        on_threads(parts, |(rank, blocks)| match tiling.is_shared() {
            true => {
                let member = OneOf { rank, count: threads, together: &together };
                compute(scratch[0], 0..tiling.blocks(), &member);
            }
            false => compute(scratch[rank], blocks, &Alone),
        });
    }
    vec![Values::Floats(room)]
}

fn defined_winograd((g, _): &(Geometry, bool)) -> Option<Vec<Values>> {
    Some(vec![Values::Floats(Floats::finite(g).results(g, None))])
}
