//! Functions of one variable over slices: f32 functions and byte tables.

use crate::epilogue::{Block, Output, ThroughU8, columns_of};
use crate::functions;
use crate::isa::Isa;
use crate::quantize::{Rounding, store_bytes};
use crate::vector::{Vector, vectorised};

/// A function of one f32 compiled for every set.
trait Function: Copy {
    fn of<V: Vector>(self, x: V) -> V;
}

/// Applies a function to `count` values; `input` may equal `output`.
///
/// # Safety
/// `count` values must be readable and writable there, and the two must be equal or apart.
#[inline(always)]
unsafe fn sweep<V: Vector, F: Function>(f: F, input: *const f32, output: *mut f32, count: usize) {
    let whole = count - count % V::LANES;
    // SAFETY: all offsets stay below `count`.
    unsafe {
        for i in (0..whole).step_by(V::LANES) {
            f.of(V::load(input.add(i))).store(output.add(i));
        }
        if whole < count {
            let x = V::load_first(input.add(whole), count - whole);
            f.of(x).store_first(output.add(whole), count - whole);
        }
    }
}

/// Builds [`Unary`] and its dispatch from the table below; in a body, `x` is a vector and the
/// parameters are vectors that repeat the number.
macro_rules! unary_functions {
    ($( $(#[$doc:meta])* $name:ident $({ $($field:ident: $about:literal),+ })? |$x:ident| $body:expr; )*) => {
        /// The unary f32 functions.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Unary {
            $( $(#[$doc])* $name $({ $(#[doc = $about] $field: f32),+ })?, )*
        }

        mod table {
            use super::*;
            $(
                #[derive(Clone, Copy)]
                pub(super) struct $name { $($(pub(super) $field: f32),+)? }
                impl Function for $name {
                    #[inline(always)]
                    fn of<V: Vector>(self, $x: V) -> V {
                        $($(let $field = V::splat(self.$field);)+)?
                        $body
                    }
                }
            )*
        }

        /// # Safety
        /// As [`sweep`].
        #[inline(always)]
        unsafe fn map_any<V: Vector>(
            function: Unary,
            input: *const f32,
            output: *mut f32,
            count: usize,
        ) {
            match function {
                $( Unary::$name $({ $($field),+ })? => {
                    // SAFETY: as promised by the caller.
                    unsafe { sweep::<V, _>(table::$name { $($($field),+)? }, input, output, count) }
                } )*
            }
        }

        #[inline(always)]
        fn through_any<V: Vector>(written: Written) {
            match written.how.function {
                Unary::Gelu if written.how.step >= LEAST_STEP => {
                    through::<V, _>(NearlyGelu, written)
                }
                $( Unary::$name $({ $($field),+ })? => {
                    through::<V, _>(table::$name { $($($field),+)? }, written)
                } )*
            }
        }
    };
}

/// From this step on [`functions::gelu_nearly`] is as good: it is off by 1/40 of a step at most.
const LEAST_STEP: f32 = 1e-3;

#[derive(Clone, Copy)]
struct NearlyGelu;

impl Function for NearlyGelu {
    #[inline(always)]
    fn of<V: Vector>(self, x: V) -> V {
        functions::gelu_nearly(x)
    }
}

/// A block of sums that is written through a function.
pub(crate) struct Written<'a> {
    block: &'a Block<i32>,
    how: &'a ThroughU8<'a>,
    output: &'a Output<u8>,
}

impl<'a> Written<'a> {
    /// # Safety
    /// The block's accumulators are valid, whole vectors of them, and the output covers it.
    pub unsafe fn new(
        block: &'a Block<i32>,
        how: &'a ThroughU8<'a>,
        output: &'a Output<u8>,
    ) -> Self {
        Written { block, how, output }
    }
}

#[inline(always)]
fn through<V: Vector, F: Function>(f: F, written: Written) {
    let Written { block, how, output } = written;
    let (bias, scale) = (columns_of(block, how.bias), columns_of(block, how.scale));
    let (rounding, steps) = (Rounding::new(how.zero_point), V::splat(1.0 / how.step));
    for c in (0..block.columns).step_by(V::LANES) {
        let left = block.columns - c;
        let (mut terms, mut factors) = ([0i32; 16], [0.0f32; 16]);
        let count = left.min(V::LANES);
        // SAFETY: all offsets stay inside the block, as was promised to `Written::new`; no set has
        // more than 16 lanes.
        unsafe {
            std::ptr::copy_nonoverlapping(bias.add(c), terms.as_mut_ptr(), count);
            std::ptr::copy_nonoverlapping(scale.add(c), factors.as_mut_ptr(), count);
            let (terms, factors) = (V::int_load(terms.as_ptr()), V::load(factors.as_ptr()));
            for r in 0..block.rows {
                let sum = V::int_load(block.accumulators.add(r * block.stride + c));
                let x = V::from_int(V::int_add(sum, terms)) * factors;
                let to = block.place(output.pointer, output.row_stride, r).cast_mut().add(c);
                store_bytes::<V, u8>(rounding.apply(f.of(x) * steps), to, left);
            }
        }
    }
}

unary_functions! {
    /// −x.
    Neg |x| -x;
    /// |x|.
    Abs |x| x.abs();
    /// √x.
    Sqrt |x| x.sqrt();
    /// 1 / x.
    Reciprocal |x| V::splat(1.0) / x;
    /// 1 / √x, correctly rounded twice.
    ReciprocalSqrt |x| V::splat(1.0) / x.sqrt();
    /// x².
    Square |x| x * x;
    /// −1, 0 or 1.
    Sign |x| functions::sign(x);
    /// The largest whole number not above x.
    Floor |x| x.floor();
    /// The smallest whole number not below x.
    Ceil |x| x.ceil();
    /// The nearest whole number, halves to even.
    Round |x| x.round_even();
    /// e^x.
    Exp |x| functions::exp(x);
    /// Natural logarithm.
    Log |x| functions::log(x);
    /// The error function.
    Erf |x| functions::erf(x);
    /// Hyperbolic tangent.
    Tanh |x| functions::tanh(x);
    /// 1 / (1 + e^−x).
    Sigmoid |x| functions::sigmoid(x);
    /// x sigmoid(x), also called Swish.
    Silu |x| x * functions::sigmoid(x);
    /// x sigmoid(alpha x).
    Swish { alpha: "Slope inside the sigmoid." } |x| x * functions::sigmoid(alpha * x);
    /// x Φ(x), Φ the normal distribution.
    Gelu |x| functions::gelu(x);
    /// GELU with the tanh approximation.
    GeluTanh |x| functions::gelu_tanh(x);
    /// max(x, 0).
    Relu |x| V::splat(0.0).max(x);
    /// x where positive, alpha x elsewhere.
    LeakyRelu { alpha: "Slope of the negative side." }
        |x| V::select(x.less(V::splat(0.0)), alpha * x, x);
    /// x where above alpha, 0 elsewhere.
    ThresholdedRelu { alpha: "The threshold." } |x| V::select(alpha.less(x), x, V::splat(0.0));
    /// x where positive, alpha (e^x − 1) elsewhere.
    Elu { alpha: "Scale of the negative side." }
        |x| functions::exponential_linear(x, alpha, V::splat(1.0), V::splat(1.0));
    /// x where positive, alpha (e^(x / alpha) − 1) elsewhere.
    Celu { alpha: "Scale of the negative side." }
        |x| functions::exponential_linear(x, alpha, alpha, V::splat(1.0));
    /// gamma x where positive, gamma alpha (e^x − 1) elsewhere.
    Selu { alpha: "Scale of the negative side.", gamma: "Scale of both sides." }
        |x| functions::exponential_linear(x, alpha, V::splat(1.0), gamma);
    /// x between two bounds; NaN stays.
    Clip { low: "Least result.", high: "Greatest result." } |x| x.clamp(low, high);
    /// alpha x + beta between 0 and 1.
    HardSigmoid { alpha: "Slope.", beta: "Value at 0." }
        |x| (alpha * x + beta).clamp(V::splat(0.0), V::splat(1.0));
    /// x clip(x / 6 + 1/2, 0, 1).
    HardSwish |x| x * (x * V::splat(1.0 / 6.0) + V::splat(0.5)).clamp(V::splat(0.0), V::splat(1.0));
    /// x tanh(softplus(x)).
    Mish |x| functions::mish(x);
    /// ln(1 + e^x).
    Softplus |x| functions::softplus(x);
    /// x / (1 + |x|).
    Softsign |x| x / (V::splat(1.0) + x.abs());
    /// alpha x + beta.
    Affine { alpha: "Factor.", beta: "Addend." } |x| alpha * x + beta;
    // From here on one lane at a time, on every set: rare in models, or only on small tensors.
    /// Sine.
    Sin |x| x.each(f32::sin);
    /// Cosine.
    Cos |x| x.each(f32::cos);
    /// Tangent.
    Tan |x| x.each(f32::tan);
    /// Inverse sine.
    Asin |x| x.each(f32::asin);
    /// Inverse cosine.
    Acos |x| x.each(f32::acos);
    /// Inverse tangent.
    Atan |x| x.each(f32::atan);
    /// Hyperbolic sine.
    Sinh |x| x.each(f32::sinh);
    /// Hyperbolic cosine.
    Cosh |x| x.each(f32::cosh);
    /// Inverse hyperbolic sine.
    Asinh |x| x.each(|x| f64::from(x).asinh() as f32);
    /// Inverse hyperbolic cosine.
    Acosh |x| x.each(|x| f64::from(x).acosh() as f32);
    /// Inverse hyperbolic tangent.
    Atanh |x| x.each(|x| f64::from(x).atanh() as f32);
}

#[inline(always)]
fn map_apart<V: Vector>(function: Unary, input: &[f32], output: &mut [f32]) {
    assert_eq!(input.len(), output.len(), "one result for each value");
    // SAFETY: the lengths are equal and the borrows keep the slices apart.
    unsafe { map_any::<V>(function, input.as_ptr(), output.as_mut_ptr(), output.len()) }
}

#[inline(always)]
fn map_in_place<V: Vector>(function: Unary, values: &mut [f32]) {
    let pointer = values.as_mut_ptr();
    // SAFETY: both pointers are the same slice.
    unsafe { map_any::<V>(function, pointer, pointer, values.len()) }
}

vectorised! {
    /// `output[i] = function(input[i])`; the slices have one length.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn map_f32(isa, function: Unary, input: &[f32], output: &mut [f32]) = map_apart;
    /// Writes a block.
    pub(crate) fn store_through(isa, written: Written<'_>) = through_any;
    /// `values[i] = function(values[i])`.
    pub fn map_f32_in_place(isa, function: Unary, values: &mut [f32]) = map_in_place;
}

/// `output[i] = table[input[i]]`: any function of one quantised byte.
///
/// # Panics
/// If the lengths differ.
pub fn map_u8_table(isa: Isa, table: &[u8; 256], input: &[u8], output: &mut [u8]) {
    assert_eq!(input.len(), output.len(), "one result for each value");
    // SAFETY: both slices have as many bytes.
    unsafe { look_up(isa, table, input.as_ptr(), output.as_mut_ptr(), input.len()) }
}

/// `bytes[i] = table[bytes[i]]`.
pub fn map_u8_table_in_place(isa: Isa, table: &[u8; 256], bytes: &mut [u8]) {
    let pointer = bytes.as_mut_ptr();
    // SAFETY: both pointers are the same slice.
    unsafe { look_up(isa, table, pointer, pointer, bytes.len()) }
}

/// # Safety
/// `count` bytes are readable at `input` and writable at `output`, which are equal or apart.
unsafe fn look_up(isa: Isa, table: &[u8; 256], input: *const u8, output: *mut u8, count: usize) {
    // SAFETY: the tokens prove the features; the rest is the caller's promise.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if isa.has_vbmi() {
            return crate::isa::avx512::map::table_vbmi(table, input, output, count);
        }
        #[cfg(target_arch = "x86_64")]
        if isa.has_avx2() {
            return crate::isa::avx2::map::table(table, input, output, count);
        }
        let _ = isa;
        for i in 0..count {
            *output.add(i) = table[usize::from(*input.add(i))];
        }
    }
}
