//! What the machine can do at most: loops without memory for arithmetic, loops without arithmetic
//! for memory. Shares of a limit are shares of these.

use std::hint::black_box;
use std::time::Instant;

use crate::isa::{self, Isa};

/// Limits of one core, measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    /// f32 multiply–adds a second.
    pub f32: f64,
    /// bf16 multiply–adds a second.
    pub bf16: f64,
    /// u8 × s8 multiply–adds a second.
    pub u8s8: f64,
    /// Bytes a second read from a block that stays in a private cache.
    pub cached_bytes: f64,
    /// Bytes a second read from a block that stays in the cache that cores share.
    pub far_cached_bytes: f64,
    /// Bytes a second read from a block larger than caches.
    pub streamed_bytes: f64,
}

/// Bytes that stay in a private cache of nearly every machine.
pub const CACHED: usize = 256 << 10;
/// Bytes that stay in the cache that cores share, and mostly in no private one.
pub const FAR_CACHED: usize = 8 << 20;
/// Bytes that stay in no cache of most machines.
const STREAMED: usize = 64 << 20;
/// Rounds of an arithmetic loop: some ten microseconds.
const ROUNDS: usize = 10_000;
/// Repetitions, of which the fastest counts: others share the machine.
const REPETITIONS: usize = 200;

/// Measures; takes some tens of milliseconds and 64 MiB.
pub fn measure(isa: Isa) -> Peaks {
    let block = vec![1u64; STREAMED / 8];
    let read = |words: &[u64], repetitions: usize| {
        fastest(repetitions, || sum(isa, words)) * (words.len() * 8) as f64
    };
    let rate = |(macs, run): Loop| fastest(REPETITIONS, run) * macs as f64;
    let (f32, bf16, u8s8) = loops(isa);
    Peaks {
        f32: rate(f32),
        bf16: rate(bf16),
        u8s8: rate(u8s8),
        cached_bytes: read(&block[..CACHED / 8], REPETITIONS),
        far_cached_bytes: read(&block[..FAR_CACHED / 8], 20),
        streamed_bytes: read(&block, 8),
    }
}

/// Runs a second at the fastest of the repetitions.
fn fastest<R>(repetitions: usize, run: impl Fn() -> R) -> f64 {
    let time = |_| {
        let start = Instant::now();
        black_box(run());
        start.elapsed().as_secs_f64().max(1e-9)
    };
    1.0 / (0..=repetitions).map(time).fold(f64::INFINITY, f64::min)
}

/// Multiply–adds of a call, and the loop.
type Loop = (usize, fn());

/// The loops for f32, bf16 and u8 × s8.
fn loops(isa: Isa) -> (Loop, Loop, Loop) {
    let portable: Loop = (ROUNDS * PORTABLE_SUMS, portable);
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        let vectors = |elements: usize, run: fn()| (ROUNDS * x86::SUMS * elements, run);
        let f32: Loop = vectors(16, x86::f32_avx512);
        let bf16 = if isa.has_bf16() { vectors(32, x86::bf16_avx512) } else { f32 };
        if isa.has_amx() {
            use isa::amx::peak::{MACS_BY_DEPTH, bf16, u8s8};
            return (f32, (MACS_BY_DEPTH * 32, bf16), (MACS_BY_DEPTH * 64, u8s8));
        }
        return (f32, bf16, vectors(64, x86::u8s8_avx512));
    } else if isa.has_avx2() {
        let f32: Loop = (ROUNDS * 12 * 8, x86::f32_avx2);
        return (f32, f32, (ROUNDS * 8 * 16, x86::u8s8_avx2));
    }
    let _ = isa;
    (portable, portable, portable)
}

/// Products and sums rounded one after the other, as many as hide their latency.
fn portable() {
    let mut sums = [0.0f32; PORTABLE_SUMS];
    let (a, b) = (black_box(0.5f32), black_box(1e-9f32));
    for _ in 0..ROUNDS {
        sums.iter_mut().for_each(|sum| *sum = *sum * a + b);
    }
    black_box(sums);
}

/// Sums of the portable loop: twelve registers of four.
const PORTABLE_SUMS: usize = 48;

/// The sum of the words, so that each is read.
fn sum(isa: Isa, words: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        // SAFETY: the token proves the instruction set.
        return unsafe { x86::sum_avx512(words) };
    } else if isa.has_avx2() {
        // SAFETY: as above.
        return unsafe { x86::sum_avx2(words) };
    }
    let _ = isa;
    sum_in_parts(words)
}

/// Sums that do not wait for each other, in vectors of whatever set this is compiled for.
#[inline(always)]
fn sum_in_parts(words: &[u64]) -> u64 {
    let mut sums = [0u64; 32];
    for chunk in words.as_chunks::<32>().0 {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{ROUNDS, black_box, sum_in_parts};
    use std::arch::x86_64::*;

    /// Sums that do not wait for each other.
    pub const SUMS: usize = 20;

    macro_rules! peak_loop {
        ($name:ident, $features:literal, $count:expr, $zero:expr, |$sum:ident, $a:ident| $step:expr, $value:expr) => {
            pub fn $name() {
                #[target_feature(enable = $features)]
                fn run() {
                    let mut sums = [$zero; $count];
                    let $a = $value;
                    for _ in 0..ROUNDS {
                        for $sum in &mut sums {
                            *$sum = $step;
                        }
                    }
                    black_box(sums);
                }
                // SAFETY: only called where a token proves the instruction set.
                unsafe { run() }
            }
        };
    }

    peak_loop!(
        f32_avx512,
        "avx512f",
        SUMS,
        _mm512_setzero_ps(),
        |sum, a| _mm512_fmadd_ps(a, a, *sum),
        _mm512_set1_ps(black_box(1e-9))
    );
    peak_loop!(
        u8s8_avx512,
        "avx512f,avx512vnni",
        SUMS,
        _mm512_setzero_si512(),
        |sum, a| _mm512_dpbusd_epi32(*sum, a, a),
        _mm512_set1_epi32(black_box(3))
    );
    peak_loop!(
        bf16_avx512,
        "avx512f,avx512bf16",
        SUMS,
        _mm512_setzero_ps(),
        // SAFETY: a register of bf16 pairs and one of integers are the same bits.
        |sum, a| unsafe {
            _mm512_dpbf16_ps(
                *sum,
                std::mem::transmute::<__m512i, __m512bh>(a),
                std::mem::transmute::<__m512i, __m512bh>(a),
            )
        },
        _mm512_set1_epi32(black_box(0x3c00_3c00))
    );
    peak_loop!(
        f32_avx2,
        "avx2,fma",
        12,
        _mm256_setzero_ps(),
        |sum, a| _mm256_fmadd_ps(a, a, *sum),
        _mm256_set1_ps(black_box(1e-9))
    );

    /// Exact products of 16 bits: what AVX2 has for integers.
    pub fn u8s8_avx2() {
        #[target_feature(enable = "avx2")]
        fn run() {
            let mut sums = [_mm256_setzero_si256(); 8];
            let a: [__m256i; 8] = std::array::from_fn(|i| _mm256_set1_epi32(black_box(i as i32)));
            let (mut b, one) = (_mm256_setzero_si256(), _mm256_set1_epi32(black_box(1)));
            for _ in 0..ROUNDS {
                b = _mm256_add_epi32(b, one);
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(a[i], b));
                }
            }
            black_box(sums);
        }
        // SAFETY: only called where a token proves the instruction set.
        unsafe { run() }
    }

    #[target_feature(enable = "avx2")]
    pub fn sum_avx2(words: &[u64]) -> u64 {
        sum_in_parts(words)
    }

    #[target_feature(enable = "avx512f")]
    pub fn sum_avx512(words: &[u64]) -> u64 {
        let mut sums = [_mm512_setzero_si512(); 8];
        for chunk in words.chunks_exact(64) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a chunk has eight vectors.
                let vector = unsafe { _mm512_loadu_si512(chunk.as_ptr().add(i * 8).cast()) };
                *sum = _mm512_add_epi64(*sum, vector);
            }
        }
        let total = sums.into_iter().reduce(|a, b| _mm512_add_epi64(a, b)).expect("eight");
        _mm512_reduce_add_epi64(total) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_ordered_as_machines_are() {
        let peaks = measure(Isa::best());
        assert!(peaks.f32 > 1e8 && peaks.u8s8 > 1e8, "{peaks:?}");
        assert!(peaks.cached_bytes > peaks.streamed_bytes * 0.5, "{peaks:?}");
    }
}
