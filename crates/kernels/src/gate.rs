//! Products of pixels by one gate for each of their channels, rounded to bf16.

use half::bf16;

use crate::real::{Real, load_real};
use crate::vector::{Vector, vectorised, whole_vector};

#[inline(always)]
fn gate_rows<V: Vector, T: Real>(x: &[T], gates: &[f32], output: &mut [bf16]) {
    let channels = gates.len();
    assert_eq!(x.len(), output.len(), "one result for each value");
    assert!(channels > 0 && x.len().is_multiple_of(channels), "whole rows");
    for row in (0..x.len()).step_by(channels) {
        for channel in (0..channels).step_by(V::LANES) {
            let (channel, left) = whole_vector::<V>(channel, channels);
            let at = row + channel;
            // SAFETY: rows are as long as the gates, and all offsets stay below `channels`.
            unsafe {
                let gate = V::load_upto(gates.as_ptr().add(channel), left);
                let value = load_real::<V, T>(x.as_ptr().add(at), left) * gate;
                value.store_bf16_upto(output.as_mut_ptr().add(at), left);
            }
        }
    }
}

vectorised! {
    /// `output[row][c] = x[row][c] · gates[c]`, rounded to nearest even, for rows as long as the gates.
    ///
    /// # Panics
    /// If there are no gates, or x and the output are no whole rows of one number.
    pub fn gate_bf16[T: Real](isa, x: &[T], gates: &[f32], output: &mut [bf16]) = gate_rows;
}
