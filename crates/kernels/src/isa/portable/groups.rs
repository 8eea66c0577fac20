//! Weights in groups, in plain Rust.

use crate::groups::Part;
use crate::pack::PANEL;

/// Panels as f32: (code − zero) · scale.
///
/// # Safety
/// The part has so many panels.
pub(crate) unsafe fn unpack(part: &Part, panels: usize, to: &mut [f32]) {
    let depth = part.groups * part.group;
    let parameters = part.groups * PANEL;
    for (panel, lines) in to.chunks_exact_mut(depth * PANEL).take(panels).enumerate() {
        // SAFETY: the caller's promise.
        let (codes, scales, zeros) = unsafe {
            let codes = part.codes.add(panel * part.panel_bytes);
            let scales = part.scales.add(panel * parameters);
            let zeros = (!part.zeros.is_null()).then(|| part.zeros.add(panel * parameters));
            (
                std::slice::from_raw_parts(codes, part.panel_bytes),
                std::slice::from_raw_parts(scales, parameters),
                zeros.map(|zeros| std::slice::from_raw_parts(zeros, parameters)),
            )
        };
        for (k, line) in lines.chunks_exact_mut(PANEL).enumerate() {
            let at = k / part.group * PANEL;
            for (n, value) in line.iter_mut().enumerate() {
                let code = match part.bits {
                    8 => f32::from(codes[k * PANEL + n] as i8),
                    _ => {
                        let byte = codes[k / 8 * 64 + n * 4 + k % 8 / 2];
                        f32::from((byte >> (k % 2 * 4) & 15) as i8 - 8)
                    }
                };
                let zero = zeros.map_or(0.0, |zeros| zeros[at + n]);
                *value = (code - zero) * scales[at + n];
            }
        }
    }
}
