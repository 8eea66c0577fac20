//! Operators whose results have as many elements as they find, by kernels.

use lepton_ir::Operands;
use lepton_ir::ops::find::NonMaxSuppression;
use lepton_kernels::Isa;
use lepton_kernels::suppress::{Boxes, Limits};
use lepton_tensor::{DType, Tensor};

/// The boxes that remain; `None` for operands that only `eval` takes.
pub(crate) fn boxes(
    isa: Isa,
    op: &NonMaxSuppression,
    operands: Operands<'_, Tensor>,
) -> Option<Tensor> {
    let (boxes, scores) = (operands.optional(0)?, operands.optional(1)?);
    let first = |i: usize| operands.optional(i).and_then(|t| t.to_f64_vec().first().copied());
    let most = first(2).unwrap_or(0.0).max(0.0) as usize;
    let overlap = first(3).unwrap_or(0.0) as f32;
    let limits = Limits { most, overlap, least: first(4).map(|least| least as f32) };
    let (&[n, count, 4], &[m, classes, scored]) = (boxes.shape(), scores.shape()) else {
        return None;
    };
    if n != m || count != scored {
        return None;
    }
    let (boxes, scores) = (boxes.as_slice::<f32>().ok()?, scores.as_slice::<f32>().ok()?);
    let mut found: Vec<i64> = Vec::new();
    for image in 0..n {
        let own = Boxes::new(&boxes[image * count * 4..][..count * 4], op.centres)?;
        for class in 0..classes {
            let scores = &scores[(image * classes + class) * count..][..count];
            for kept in own.suppress(isa, scores, limits)? {
                found.extend([image as i64, class as i64, kept as i64]);
            }
        }
    }
    Tensor::from_slice([found.len() / 3, 3], &found).ok()
}

/// The positions of what is not zero; `None` for types that only `eval` takes.
pub(crate) fn non_zero(operands: Operands<'_, Tensor>) -> Option<Tensor> {
    let x = operands.optional(0)?;
    let places = match x.dtype() {
        DType::Bool | DType::U8 | DType::I8 => places(x.bytes(), |v| *v != 0),
        DType::F32 => places(x.as_slice::<f32>().ok()?, |v| *v != 0.0),
        DType::I64 => places(x.as_slice::<i64>().ok()?, |v| *v != 0),
        DType::I32 => places(x.as_slice::<i32>().ok()?, |v| *v != 0),
        _ => return None,
    };
    let mut found = Vec::with_capacity(places.len() * x.rank());
    let mut inner: usize = x.shape().iter().product();
    for &extent in x.shape() {
        if places.is_empty() {
            break;
        }
        inner /= extent;
        match extent == x.len() {
            true => found.extend(&places),
            false => found.extend(places.iter().map(|at| at / inner as i64 % extent as i64)),
        }
    }
    Tensor::from_slice([x.rank(), places.len()], &found).ok()
}

fn places<T>(values: &[T], is_found: impl Fn(&T) -> bool) -> Vec<i64> {
    let all = values.iter().enumerate();
    all.filter(|(_, value)| is_found(value)).map(|(at, _)| at as i64).collect()
}
