//! Products of one row with weights in 24 bits, in plain Rust.

use crate::pack::PANEL;
use crate::single::fourth;

/// The sums of one panel.
///
/// # Safety
/// A line of scales, and three lines for four values of the row, are readable.
pub(crate) unsafe fn panel(row: &[f32], lines: *const [[u8; 4]; PANEL]) -> [f32; PANEL] {
    let mut sums = [0.0; PANEL];
    for (group, values) in row.chunks(4).enumerate() {
        // SAFETY: the caller's promise.
        let lines = unsafe { &*lines.add(1 + group * 3).cast::<[[[u8; 4]; PANEL]; 3]>() };
        for (n, sum) in sums.iter_mut().enumerate() {
            let words = lines.map(|line| i32::from_le_bytes(line[n]));
            let weights = [words[0], words[1], words[2], fourth(words)];
            for (value, weight) in values.iter().zip(weights) {
                *sum += value * weight as f32;
            }
        }
    }
    // SAFETY: the caller's promise.
    let scales = unsafe { &*lines };
    for (sum, scale) in sums.iter_mut().zip(scales) {
        *sum *= f32::from_le_bytes(*scale);
    }
    sums
}
