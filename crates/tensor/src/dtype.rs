//! Element types.

use std::fmt;
use std::str::FromStr;

use half::{bf16, f16};

macro_rules! dtypes {
    ($($variant:ident $text:literal $bytes:literal $kind:ident $rust:ty;)*) => {
        /// The type of a tensor's elements.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum DType {
            $(#[doc = concat!("`", $text, "`, ", stringify!($bytes), " bytes.")] $variant,)*
        }

        impl DType {
            /// Every element type, in a fixed order.
            pub const ALL: &'static [DType] = &[$(DType::$variant),*];

            /// The name used in the text form, reports and JSON.
            pub fn name(self) -> &'static str {
                match self { $(DType::$variant => $text),* }
            }

            /// Bytes of one element.
            pub fn size(self) -> usize {
                match self { $(DType::$variant => $bytes),* }
            }

            fn kind(self) -> Kind {
                match self { $(DType::$variant => Kind::$kind),* }
            }
        }

        $(impl Element for $rust {
            const DTYPE: DType = DType::$variant;
        })*
    };
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(transparent)]
        pub struct $name(pub u8);
    )*};
}

codes! {
    /// The code of an 8-bit float with 3 bits of mantissa and no infinity.
    E4M3Fn;
    /// The code of an 8-bit float with 3 bits of mantissa, no infinity and one zero.
    E4M3Fnuz;
    /// The code of an 8-bit float with 2 bits of mantissa.
    E5M2;
    /// The code of an 8-bit float with 2 bits of mantissa, no infinity and one zero.
    E5M2Fnuz;
    /// The code of a power of two.
    E8M0;
    /// The code of a 4-bit float, in the low bits.
    E2M1;
    /// A signed integer of 4 bits, as one of 8.
    Int4;
    /// An unsigned integer of 4 bits.
    Uint4;
    /// A signed integer of 2 bits, as one of 8.
    Int2;
    /// An unsigned integer of 2 bits.
    Uint2;
}

/// The number of a word in the list that a tensor of strings has.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Word(pub(crate) u32);

#[derive(PartialEq)]
enum Kind {
    Float,
    Signed,
    Unsigned,
    Bool,
    Text,
}

dtypes! {
    F32 "f32" 4 Float f32;
    F64 "f64" 8 Float f64;
    F16 "f16" 2 Float f16;
    BF16 "bf16" 2 Float bf16;
    I8 "i8" 1 Signed i8;
    I16 "i16" 2 Signed i16;
    I32 "i32" 4 Signed i32;
    I64 "i64" 8 Signed i64;
    U8 "u8" 1 Unsigned u8;
    U16 "u16" 2 Unsigned u16;
    U32 "u32" 4 Unsigned u32;
    U64 "u64" 8 Unsigned u64;
    Bool "bool" 1 Bool Boolean;
    F8E4M3FN "f8e4m3fn" 1 Float E4M3Fn;
    F8E4M3FNUZ "f8e4m3fnuz" 1 Float E4M3Fnuz;
    F8E5M2 "f8e5m2" 1 Float E5M2;
    F8E5M2FNUZ "f8e5m2fnuz" 1 Float E5M2Fnuz;
    F8E8M0 "f8e8m0" 1 Float E8M0;
    F4E2M1 "f4e2m1" 1 Float E2M1;
    I4 "i4" 1 Signed Int4;
    U4 "u4" 1 Unsigned Uint4;
    I2 "i2" 1 Signed Int2;
    U2 "u2" 1 Unsigned Uint2;
    Str "str" 4 Text Word;
}

impl DType {
    /// True for the floating-point types.
    pub fn is_float(self) -> bool {
        self.kind() == Kind::Float
    }

    /// True for signed and unsigned integers, not for `bool`.
    pub fn is_integer(self) -> bool {
        matches!(self.kind(), Kind::Signed | Kind::Unsigned)
    }

    /// True for the types whose elements have fewer bits than the byte they lie in, and for floats
    /// of 8 bits: what a [`crate::Tensor`] holds of them are codes.
    pub fn is_coded(self) -> bool {
        self > DType::Bool && self.kind() != Kind::Text
    }

    /// Bits that one element needs, which is what it takes in a model file.
    pub fn bits(self) -> usize {
        match self {
            DType::F4E2M1 | DType::I4 | DType::U4 => 4,
            DType::I2 | DType::U2 => 2,
            _ => 8 * self.size(),
        }
    }

    /// True for signed integers.
    pub fn is_signed_integer(self) -> bool {
        self.kind() == Kind::Signed
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        DType::ALL
            .iter()
            .copied()
            .find(|d| d.name() == text)
            .ok_or_else(|| format!("unknown element type `{text}`"))
    }
}

/// A Rust type that a tensor can hold.
pub trait Element: bytemuck::Pod + PartialEq + fmt::Debug + Send + Sync {
    /// Its element type.
    const DTYPE: DType;
}

/// A `bool` as a byte: 0 is false, everything else true. Any bit pattern is valid, so bytes that
/// come from a file can be viewed without checking each one.
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Boolean(pub u8);

impl Boolean {
    /// Its truth value.
    pub fn get(self) -> bool {
        self.0 != 0
    }
}

impl PartialEq for Boolean {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl From<bool> for Boolean {
    fn from(value: bool) -> Self {
        Boolean(value as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for &dtype in DType::ALL {
            assert_eq!(dtype.name().parse::<DType>(), Ok(dtype));
        }
        assert!("f33".parse::<DType>().is_err());
    }
}
