//! Operators that select elements by indices or by truths.

use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::expand::Expand;
use lepton_ir::ops::find::NonZero;
use lepton_ir::ops::gather::Gather;
use lepton_ir::ops::scatter::{GatherND, ScatterND, ScatterReduction};
use lepton_ir::ops::select::Where;
use lepton_tensor::Tensor;

use super::call::{Call, Results};
use crate::steps::Steps;

/// Most classes of a one-hot code.
const MAX_CLASSES: i64 = 1 << 20;

/// Rows of a table: operands the indices and the table.
pub fn embedding(call: &mut Call<'_, '_>) -> Results {
    let (indices, table) = (call.stored(0)?, call.real(1)?);
    call.emit(Gather { axis: 0 }, &[Some(table), Some(indices)])
}

/// Slices of x along an axis; leading axes may be shared with the indices.
pub fn gather(call: &mut Call<'_, '_>) -> Results {
    let (x, indices) = (call.real(0)?, call.stored(1)?);
    let rank = call.rank(x);
    let axis = call.axis_of(i64::from(call.int(0, 0)?), rank)?;
    let shared = i64::from(call.int(1, 0)?);
    let ranks = call.rank(indices) as i64;
    let shared = if shared < 0 { shared + ranks } else { shared };
    if shared == 0 {
        return call.emit(Gather { axis: axis as i64 }, &[Some(x), Some(indices)]);
    }
    if shared != axis as i64 {
        let why = format!("{shared} shared axes and axis {axis}; they must be the same");
        return Err(call.error(why));
    }
    let tuples = call.unsqueeze(indices, &[ranks])?;
    let tuples = call.cast(tuples, lepton_tensor::DType::I64)?;
    call.emit(GatherND { batch_dims: axis }, &[Some(x), Some(tuples)])
}

/// Slices of x at tuples of indices.
pub fn gather_nd(call: &mut Call<'_, '_>) -> Results {
    let (x, indices) = (call.real(0)?, call.stored(1)?);
    let indices = call.cast(indices, lepton_tensor::DType::I64)?;
    call.emit(GatherND::default(), &[Some(x), Some(indices)])
}

/// Operands indices, updates and a shape: zeros, and the sum of the updates of each place.
pub fn scatter_nd(call: &mut Call<'_, '_>) -> Results {
    let indices = call.stored(0)?;
    let indices = call.cast(indices, lepton_tensor::DType::I64)?;
    let (updates, shape) = (call.real(1)?, call.long(2)?);
    let dtype = call.dtype(updates);
    let zero = call.scalar(dtype, 0.0)?;
    let zeros = call.emit_one(Expand {}, &[Some(zero), Some(shape)])?;
    let op = ScatterND { reduction: ScatterReduction::Add };
    call.emit(op, &[Some(zeros), Some(indices), Some(updates)])
}

/// Operands indices, the number of classes, and what is at the index and elsewhere.
pub fn one_hot(call: &mut Call<'_, '_>) -> Results {
    let indices = call.stored(0)?;
    let classes = match call.known(1)?[..] {
        [classes @ 0..=MAX_CLASSES] => classes,
        _ => return Err(call.error("the number of classes must be a constant")),
    };
    let (on, off) = (call.real(2)?, call.real(3)?);
    let rank = call.rank(indices) + 1;
    let axis = call.axis_of(i64::from(call.int(0, 0)?), rank)?;
    let indices = call.unsqueeze(indices, &[axis as i64])?;
    let dtype = call.dtype(indices);
    let mut shape = vec![1; rank];
    shape[axis] = classes as usize;
    let counted: Vec<i64> = (0..classes).collect();
    let counted = Tensor::from_i64_slice(dtype, shape, &counted);
    let counted = counted.map_err(|error| call.error(error.to_string()))?;
    let counted = call.constant(counted);
    let here = call.pair(B::Equal, indices, counted)?;
    Ok(vec![Steps::select(call, here, on, off)?])
}

/// The second operand where the first is true, else the third. A condition of one axis goes with
/// the first axis of the others.
pub fn choose(call: &mut Call<'_, '_>) -> Results {
    let mut condition = call.stored(0)?;
    let (a, b) = (call.real(1)?, call.real(2)?);
    let rank = call.rank(a);
    if call.operator == "SELECT" && call.rank(condition) == 1 && rank > 1 {
        let axes: Vec<i64> = (1..rank as i64).collect();
        condition = call.unsqueeze(condition, &axes)?;
    }
    call.emit(Where {}, &[Some(condition), Some(a), Some(b)])
}

/// The indices of the elements that are not zero, one tuple each.
pub fn positions(call: &mut Call<'_, '_>) -> Results {
    let x = call.stored(0)?;
    let found = call.emit_one(NonZero {}, &[Some(x)])?;
    Ok(vec![Steps::transpose(call, found, &[1, 0])?])
}
