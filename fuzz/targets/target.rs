//! What a fuzz target is: the attempt of the mutation tests, fed by libFuzzer, whose mutations are
//! half its own and half those that know the format.

#[path = "../../crates/formats/tests/mutations/attempt.rs"]
#[allow(dead_code)]
pub mod attempt;
#[path = "../../crates/formats/tests/mutations/damage.rs"]
pub mod damage;

/// Largest part of libFuzzer's buffer that is used, in bytes.
pub const LONGEST: usize = 64 << 10;

/// Mutates the first `size` bytes of `data`; gives the new length.
pub fn mutate(
    target: attempt::Target,
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
) -> usize {
    let mut random = damage::Random(u64::from(seed));
    // Bytes of an artefact that are changed blindly are caught by its hashes.
    if target != attempt::Target::Lepton && random.below(2) == 0 {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    let mut bytes = data[..size].to_vec();
    let other = bytes.clone();
    damage::damage(&mut random, target, &mut bytes, &other);
    let length = bytes.len().min(max_size).min(LONGEST);
    data[..length].copy_from_slice(&bytes[..length]);
    length
}

/// The functions libFuzzer calls.
macro_rules! target {
    ($target:ident) => {
        use target::attempt::{Target, attempt};

        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            attempt(Target::$target, bytes);
        });

        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            target::mutate(Target::$target, data, size, max_size, seed)
        });
    };
}
pub(crate) use target;
