//! Instructions as a processor runs them, on tiles of its own or on these, against plain loops; and what ends
//! the process.

use std::arch::asm;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::sync::Barrier;

use proptest::prelude::*;

use super::super::has_tiles;

/// Rows of sums and of A; elements of four bytes in a row of A, and of sums.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    rows: usize,
    depth: usize,
    columns: usize,
}

/// Elements from row to row of what the tests load and store: more than a tile has.
const PITCH: usize = 20;
/// Rows in memory: one more than a tile has.
type Memory = [[u32; PITCH]; 17];

/// A configuration with tile 1 for sums, 2 for A and 3 for B.
fn configuration(sizes: Sizes) -> [u8; 64] {
    let Sizes { rows, depth, columns } = sizes;
    let mut bytes = [0; 64];
    bytes[0] = 1;
    for (tile, lines, elements) in [(1, rows, columns), (2, rows, depth), (3, depth, columns)] {
        bytes[16 + 2 * tile] = elements as u8 * 4;
        bytes[48 + tile] = lines as u8;
    }
    bytes
}

/// True where instructions of tiles run; said where they do not.
fn tiles_run() -> bool {
    let runs = crate::Isa::available().iter().any(|isa| isa.has_amx());
    if !runs {
        println!("skipped: no AMX, nor AVX-512 with BF16");
    }
    runs
}

macro_rules! sums_by {
    ($name:ident, $product:literal) => {
        /// The sums in memory and A by B; waits in `between`.
        fn $name(sizes: Sizes, sums: &Memory, a: &Memory, b: &Memory, between: &dyn Fn()) -> Memory {
            let (mut result, bytes) = (*sums, configuration(sizes));
            // SAFETY: tiles run; the rows of the configuration are in memory.
            unsafe {
                asm!(
                    "ldtilecfg [{cfg}]",
                    "tilezero tmm1",
                    "tileloadd tmm1, [{sums} + {tenth}*8]",
                    "tileloadd tmm2, [r13 + r12*2 - 8]",
                    "tileloaddt1 tmm3, [{b} + {pitch}*1 + 4096]",
                    cfg = in(reg) &bytes, sums = in(reg) sums, tenth = in(reg) PITCH / 2,
                    in("r13") a.as_ptr().wrapping_byte_add(8), in("r12") PITCH * 2,
                    b = in(reg) b.as_ptr().wrapping_byte_sub(4096), pitch = in(reg) PITCH * 4,
                    options(nostack, readonly),
                );
                between();
                asm!(
                    concat!($product, " tmm1, tmm2, tmm3"),
                    "tilestored [{result} + {pitch}*1], tmm1",
                    "tilerelease",
                    result = in(reg) &mut result, pitch = in(reg) PITCH * 4, options(nostack),
                );
            }
            result
        }
    };
}

sums_by!(by_tdpbusd, "tdpbusd");
sums_by!(by_tdpbf16ps, "tdpbf16ps");

/// The same with a function for each sum: of what was there, and of the pairs of elements.
fn plain(
    sizes: Sizes,
    sums: &Memory,
    a: &Memory,
    b: &Memory,
    sum: impl Fn(u32, &[(u32, u32)]) -> u32,
) -> Memory {
    let mut result = *sums;
    for row in 0..sizes.rows {
        for column in 0..sizes.columns {
            let pairs: Vec<_> = (0..sizes.depth).map(|k| (a[row][k], b[k][column])).collect();
            result[row][column] = sum(sums[row][column], &pairs);
        }
    }
    result
}

fn sum_of_bytes(before: u32, pairs: &[(u32, u32)]) -> u32 {
    let product = |(a, b): (u8, u8)| i64::from(a) * i64::from(b as i8);
    let four = |&(a, b): &(u32, u32)| {
        a.to_le_bytes().into_iter().zip(b.to_le_bytes()).map(product).sum::<i64>()
    };
    (i64::from(before) + pairs.iter().map(four).sum::<i64>()) as u32
}

/// Zero, with its sign, where a number is denormal.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0_f32.copysign(x) } else { x }
}

fn sum_of_halves(before: u32, pairs: &[(u32, u32)]) -> u32 {
    let low = |pair: u32| flushed(f32::from_bits(pair << 16));
    let high = |pair: u32| flushed(f32::from_bits(pair & 0xffff_0000));
    let (mut even, mut odd) = (0.0_f32, 0.0_f32);
    for &(a, b) in pairs {
        even = flushed(low(a).mul_add(low(b), even));
        odd = flushed(high(a).mul_add(high(b), odd));
    }
    let sum = flushed(flushed(f32::from_bits(before)) + flushed(even + odd));
    number(sum.to_bits())
}

/// One form of what is no number.
fn number(bits: u32) -> u32 {
    if f32::from_bits(bits).is_nan() { f32::NAN.to_bits() } else { bits }
}

fn sizes() -> impl Strategy<Value = Sizes> {
    (1..=16_usize, 1..=16_usize, 1..=16_usize).prop_map(|(rows, depth, columns)| Sizes {
        rows,
        depth,
        columns,
    })
}

fn memory(element: impl Strategy<Value = u32>) -> impl Strategy<Value = Memory> {
    prop::collection::vec(element, PITCH * 17).prop_map(|elements| {
        let mut memory = [[0; PITCH]; 17];
        memory.as_flattened_mut().copy_from_slice(&elements);
        memory
    })
}

/// Numbers of which some are large, some too small, and some none.
fn float() -> impl Strategy<Value = f32> {
    prop_oneof![
        20 => -4.0_f32..4.0,
        2 => Just(0.0_f32),
        2 => (-149..128_i32, any::<bool>()).prop_map(|(power, minus)| {
            let power = 2.0_f64.powi(power) as f32;
            if minus { -power } else { power * 1.5 }
        }),
    ]
}

/// Two bf16 in four bytes; a few are infinite or no numbers.
fn pair() -> impl Strategy<Value = u32> {
    let special = prop::sample::select(vec![f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
    let half = prop_oneof![300 => float(), 1 => special].prop_map(|x| x.to_bits() >> 16);
    [half.clone(), half].prop_map(|[low, high]| low | high << 16)
}

proptest! {
    #[test]
    fn sums_of_bytes_are_exact(
        sizes in sizes(), sums in memory(any::<u32>()), a in memory(any::<u32>()), b in memory(any::<u32>()),
    ) {
        if tiles_run() {
            let got = by_tdpbusd(sizes, &sums, &a, &b, &|| ());
            prop_assert_eq!(got, plain(sizes, &sums, &a, &b, sum_of_bytes));
        }
    }

    #[test]
    fn sums_of_halves_are_rounded_as_specified(
        sizes in sizes(), sums in memory(float().prop_map(f32::to_bits)), a in memory(pair()), b in memory(pair()),
    ) {
        if tiles_run() {
            let got = by_tdpbf16ps(sizes, &sums, &a, &b, &|| ()).map(|row| row.map(number));
            prop_assert_eq!(got, plain(sizes, &sums, &a, &b, sum_of_halves));
        }
    }
}

#[test]
fn threads_have_tiles_of_their_own() {
    if !tiles_run() {
        return;
    }
    let barrier = Barrier::new(4);
    let run = |thread: usize| {
        let sizes = Sizes { rows: 3 + thread, depth: 5, columns: 16 - thread };
        let of = |seed: usize| {
            std::array::from_fn(|i| {
                std::array::from_fn(|j| (seed * 0x0107_0b0d + i * 0x0123_4567 + j) as u32)
            })
        };
        let (sums, a, b) = (of(thread), of(thread + 1), of(thread + 2));
        for _ in 0..50 {
            let got = by_tdpbusd(sizes, &sums, &a, &b, &|| {
                barrier.wait();
            });
            assert_eq!(got, plain(sizes, &sums, &a, &b, sum_of_bytes));
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|thread| drop(scope.spawn(move || run(thread)))));
}

#[test]
fn products_leave_the_mode_of_rounding() {
    if !tiles_run() {
        return;
    }
    let (zeros, sizes) = ([[0; PITCH]; 17], Sizes { rows: 1, depth: 1, columns: 1 });
    let (mut before, mut after) = (0_u32, 0_u32);
    // SAFETY: the mode is written where it may be.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut before, options(nostack)) };
    by_tdpbf16ps(sizes, &zeros, &zeros, &zeros, &|| ());
    // SAFETY: as above.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut after, options(nostack)) };
    assert_eq!(before, after);
}

/// What the test below does in a process of its own.
const ENDING: &str = "LEPTON_TEST_ENDING";

#[test]
fn what_is_illegal_ends_the_process() {
    if !tiles_run() {
        return;
    }
    if let Ok(ending) = std::env::var(ENDING) {
        return end(&ending);
    }
    let output = of_a_process("foreign");
    assert_eq!(output.status.signal(), Some(libc::SIGILL), "{output:?}");
    if has_tiles() {
        println!("skipped: the processor refuses what is refused");
        return;
    }
    for (ending, why) in [
        ("unconfigured", "tilezero tmm3 at "),
        ("unconfigured", ": tiles are not configured"),
        ("left out", "tileloadd tmm7 at "),
        ("left out", ": the configuration leaves out tmm7"),
        ("of other rows", "tdpbusd tmm1, tmm2, tmm3 at "),
        (
            "of other rows",
            ": the tiles do not fit: sums of 4 rows of 16 bytes, from 4 rows of 16 bytes by 3 rows",
        ),
    ] {
        let output = of_a_process(ending);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("emulated AMX: ") && said.contains(why), "{ending}: {said}");
    }
}

fn of_a_process(ending: &str) -> Output {
    let name = "isa::amx::emulation::tests::what_is_illegal_ends_the_process";
    let own = std::env::current_exe().expect("a test has a file");
    let mut command = Command::new(own);
    command.args(["--exact", name]).env(ENDING, ending).output().expect("the test runs again")
}

fn end(ending: &str) {
    let mut bytes = configuration(Sizes { rows: 4, depth: 4, columns: 4 });
    bytes[51] -= u8::from(ending == "of other rows");
    // SAFETY: the process ends.
    unsafe {
        match ending {
            "foreign" => asm!("ud2"),
            "unconfigured" => asm!("tilezero tmm3"),
            "left out" => asm!("ldtilecfg [{0}]", "tileloadd tmm7, [{0}]", in(reg) &bytes),
            _ => asm!("ldtilecfg [{}]", "tdpbusd tmm1, tmm2, tmm3", in(reg) &bytes),
        }
    }
}
