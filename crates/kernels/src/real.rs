//! The two element types that bf16 products read and write: f32, rounded on the way, and bf16.

use half::bf16;

use crate::isa::Isa;
use crate::quantize::f32_to_bf16;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
}

/// f32 or bf16.
pub trait Real: Copy + sealed::Sealed + 'static {
    /// True for f32.
    const WIDE: bool;

    /// The value, rounded to nearest even.
    fn from_f32(value: f32) -> Self;

    /// The values as bf16, rounded to nearest even; both slices have one length.
    fn round(isa: Isa, from: &[Self], to: &mut [bf16]);
}

impl Real for f32 {
    const WIDE: bool = true;

    fn from_f32(value: f32) -> Self {
        value
    }

    fn round(isa: Isa, from: &[f32], to: &mut [bf16]) {
        f32_to_bf16(isa, from, to);
    }
}

impl Real for bf16 {
    const WIDE: bool = false;

    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }

    fn round(_isa: Isa, from: &[bf16], to: &mut [bf16]) {
        to.copy_from_slice(from);
    }
}
