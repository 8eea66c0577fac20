//! Random numbers. ONNX leaves open which numbers a seed gives; here a node without a seed has one
//! that follows from its name, so that a model gives the same results in every run.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::random::{Distribution, Draw, Random};
use lepton_tensor::DType;

use super::call::{Call, label};
use super::tensor::dtype_of;
use crate::error::FormatError;
use crate::steps::{Made, Results, Steps};

fn seed(call: &Call<'_>) -> i64 {
    match call.attribute("seed") {
        // A float in most operators, an integer in `Dropout`.
        Some(attribute) => attribute.i.unwrap_or(attribute.f.unwrap_or(0.0) as i64),
        None => {
            let step = |sum: u32, byte: u8| (sum ^ u32::from(byte)).wrapping_mul(16_777_619);
            i64::from(label(call.proto).bytes().fold(2_166_136_261, step))
        }
    }
}

fn element_type(call: &Call<'_>, default: DType) -> Result<DType, FormatError> {
    match call.int("dtype", 0) {
        0 => Ok(default),
        number => {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            dtype_of(number).map_err(|why| call.error(why))
        }
    }
}

fn numbers(
    call: &mut Call<'_>,
    shape: ValueId,
    distribution: Distribution,
    dtype: DType,
) -> Results {
    let (low, high) = match distribution {
        Distribution::Uniform => ("low", "high"),
        Distribution::Normal => ("mean", "scale"),
    };
    call.check_attributes(&[], &[low, high, "seed", "dtype", "shape"])?;
    let (low, high) = (call.float(low, 0.0), call.float(high, 1.0));
    call.emit(Random { distribution, low, high, seed: seed(call), dtype }, &[Some(shape)])
}

fn of_shape(call: &mut Call<'_>, distribution: Distribution) -> Results {
    let dtype = element_type(call, DType::F32)?;
    let shape = call.ints("shape");
    let shape = call.integers(&shape);
    numbers(call, shape, distribution, dtype)
}

fn like(call: &mut Call<'_>, distribution: Distribution) -> Results {
    let x = call.required(0)?;
    let own = call.dtype(x);
    let dtype = element_type(call, if own.is_float() { own } else { DType::F32 })?;
    let shape = call.shape_of(x)?;
    numbers(call, shape, distribution, dtype)
}

/// Even numbers in a shape.
pub fn uniform(call: &mut Call<'_>) -> Results {
    of_shape(call, Distribution::Uniform)
}

/// Normal numbers in a shape.
pub fn normal(call: &mut Call<'_>) -> Results {
    of_shape(call, Distribution::Normal)
}

/// Even numbers in the shape of a tensor.
pub fn uniform_like(call: &mut Call<'_>) -> Results {
    like(call, Distribution::Uniform)
}

/// Normal numbers in the shape of a tensor.
pub fn normal_like(call: &mut Call<'_>) -> Results {
    like(call, Distribution::Normal)
}

/// Even numbers from 0 to before 1 in the shape and type of a tensor.
fn shares(call: &mut Call<'_>, x: ValueId) -> Made {
    let shape = call.shape_of(x)?;
    let op = Random { seed: seed(call), dtype: call.dtype(x), ..Random::default() };
    call.emit_one(op, &[Some(shape)])
}

/// 1 as often as a share says, else 0.
pub fn bernoulli(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["seed", "dtype"])?;
    let x = call.required(0)?;
    let drawn = shares(call, x)?;
    let hit = call.pair(B::Less, drawn, x)?;
    let dtype = element_type(call, call.dtype(x))?;
    Ok(vec![call.cast(hit, dtype)?])
}

/// Classes drawn by the logarithms of how likely they are.
pub fn multinomial(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["seed", "dtype", "sample_size"])?;
    let x = call.input(0);
    let count = usize::try_from(call.int("sample_size", 1)).unwrap_or(0);
    let drawn = call.emit_one(Draw { count, seed: seed(call) }, &[x])?;
    let dtype = element_type(call, DType::I32)?;
    Ok(vec![call.cast(drawn, dtype)?])
}

/// Dropout while training: elements become 0 as often as the ratio (input 1) says, the others
/// grow so that the mean stays.
pub fn training_dropout(call: &mut Call<'_>) -> Results {
    let x = call.required(0)?;
    let dtype = call.dtype(x);
    let ratio = match call.input(1) {
        Some(ratio) => call.cast(ratio, dtype)?,
        None => call.scalar(dtype, 0.5)?,
    };
    let drawn = shares(call, x)?;
    let kept = call.pair(B::GreaterOrEqual, drawn, ratio)?;
    let one = call.scalar(dtype, 1.0)?;
    let share = call.pair(B::Sub, one, ratio)?;
    let grown = call.pair(B::Div, x, share)?;
    let zero = call.scalar(dtype, 0.0)?;
    Ok(vec![call.select(kept, grown, zero)?, kept])
}
