//! Operators whose results have as many elements as they find.

use lepton_tensor::{DType, Tensor, row_major_strides};

use super::facets::facets;
use super::walk::{for_each_index, offset, pick, require_rank, resolve_axis};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, Operands, Operator, Quant};

attributes! {
    /// The indices of the elements of x that are not zero: i64 `[rank of x, found]`, in row-major
    /// order.
    pub struct NonZero {}
}

attributes! {
    /// The distinct elements of x, or slices along `axis`: results those, the index of the first
    /// of each, for each of x which one it is, and how often each occurs (the last three i64).
    pub struct Unique {
        /// The axis; negative counts from the back; `i64::MAX` stands for x as a list.
        pub axis: i64 = i64::MAX,
        /// True for ascending order, false for the order of first occurrence.
        pub sorted: bool = true,
    }
}

attributes! {
    /// The boxes that remain after those that overlap one of a higher score are removed
    /// (Neubeck and Van Gool 2006): inputs boxes `[N,B,4]`, scores `[N,C,B]`, and optional scalars
    /// the most boxes per class, the largest intersection over union, the least score. Result i64
    /// `[found,3]`: image, class, box.
    pub struct NonMaxSuppression {
        /// True where boxes are centre x, centre y, width, height, else y, x, y, x of two corners.
        pub centres: bool = false,
    }
}

/// Extents that are known where every operand is.
fn found(
    op: &dyn Operator,
    inputs: Operands<'_, Fact>,
    otherwise: Vec<Fact>,
) -> Result<Vec<Fact>, Problem> {
    let constants: Vec<Option<&Tensor>> =
        inputs.0.iter().map(|fact| fact.and_then(|fact| fact.constant.as_ref())).collect();
    let all =
        inputs.0.iter().zip(&constants).all(|(fact, known)| fact.is_some() == known.is_some());
    if !all {
        return Ok(otherwise);
    }
    let made = op.eval(Operands(&constants))?;
    Ok(made.iter().map(|tensor| Fact::dense(tensor.dtype(), tensor.shape())).collect())
}

impl Operator for NonZero {
    facets! {
        arity = Arity::exactly(1),
        stops = "positions are flat",
        frozen = "the result lists every axis",
        quant = Quant::NotApplicable,
        element_ops = 1,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let rank = Dim::from(inputs.required(0, "x")?.rank());
        found(self, inputs, vec![Fact::new(DType::I64, vec![rank, Dim::unknown()])])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let values = x.to_f64_vec();
        let mut found: Vec<Vec<i64>> = vec![Vec::new(); x.rank()];
        let (mut at, mut count) = (0, 0);
        for_each_index(x.shape(), |index| {
            if values[at] != 0.0 {
                count += 1;
                for (list, &i) in found.iter_mut().zip(index) {
                    list.push(i as i64);
                }
            }
            at += 1;
        });
        Ok(vec![Tensor::from_slice([x.rank(), count], &found.concat())?])
    }
}

/// Largest extent of a tensor without elements that is looked through.
const LARGEST_EMPTY: usize = 1 << 20;

/// Refuses a tensor without elements whose extents would still be counted through.
fn countable(name: &'static str, x: &Tensor) -> Result<(), Problem> {
    let most = x.shape().iter().copied().max().unwrap_or(0);
    if x.is_empty() && most > LARGEST_EMPTY {
        let shape = x.shape();
        return Err(Problem::shape(format!(
            "{name} has no elements and an extent of {most}: {shape:?}"
        )));
    }
    Ok(())
}

/// For each slice of `x` along `axis`, its elements as numbers that order it.
fn keys(x: &Tensor, axis: usize) -> (Vec<Vec<f64>>, Vec<Vec<usize>>) {
    let mut others = x.shape().to_vec();
    let extent = std::mem::replace(&mut others[axis], 1);
    let strides = row_major_strides(x.shape());
    let mut starts = Vec::new();
    for_each_index(&others, |index| starts.push(offset(index, &strides)));
    let values = x.to_f64_vec();
    let places = |i: usize| starts.iter().map(|s| s + i * strides[axis]).collect::<Vec<usize>>();
    let places: Vec<Vec<usize>> = (0..extent).map(places).collect();
    let keys = places.iter().map(|list| list.iter().map(|&at| values[at]).collect()).collect();
    (keys, places)
}

fn compare(a: &[f64], b: &[f64]) -> std::cmp::Ordering {
    let pairs = a.iter().zip(b).map(|(a, b)| a.total_cmp(b));
    pairs.into_iter().find(|o| o.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
}

impl Operator for Unique {
    facets! {
        arity = Arity::exactly(1).outputs(1, 4),
        stops = "which elements are equal is flat",
        frozen = "slices are compared whole",
        quant = Quant::SameAsInput,
        element_ops = 8,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        let mut dims = if self.axis == i64::MAX { vec![x.count()] } else { x.dims.clone() };
        let axis = if self.axis == i64::MAX { 0 } else { resolve_axis(self.axis, x.rank())? };
        let own = dims.get(axis).cloned().ok_or_else(|| Problem::shape("x is a scalar"))?;
        dims[axis] = Dim::unknown();
        let list = |extent: Dim| Fact::new(DType::I64, vec![extent]);
        let unknown = list(Dim::unknown());
        let facts = vec![Fact::new(x.dtype, dims), unknown.clone(), list(own), unknown];
        found(self, inputs, facts)
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let given = inputs.required(0, "x")?;
        countable("x", given)?;
        let flat = self.axis == i64::MAX;
        let x = if flat { given.reshaped([given.len()])? } else { given.clone() };
        if x.rank() == 0 {
            return Err(Problem::shape("x is a scalar"));
        }
        let axis = if flat { 0 } else { resolve_axis(self.axis, x.rank())? };
        let (keys, places) = keys(&x, axis);
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by(|&a, &b| compare(&keys[a], &keys[b]).then(a.cmp(&b)));
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for i in order {
            match groups.last_mut() {
                Some(group) if compare(&keys[group[0]], &keys[i]).is_eq() => group.push(i),
                _ => groups.push(vec![i]),
            }
        }
        if !self.sorted {
            groups.sort_by_key(|group| group[0]);
        }
        let mut inverse = vec![0i64; keys.len()];
        for (which, group) in groups.iter().enumerate() {
            group.iter().for_each(|&i| inverse[i] = which as i64);
        }
        let mut shape = x.shape().to_vec();
        shape[axis] = groups.len();
        let each = places.first().map_or(0, Vec::len);
        let inner: usize = x.shape()[axis + 1..].iter().product();
        let mut from = Vec::with_capacity(each * groups.len());
        for outer in 0..each / inner.max(1) {
            for group in &groups {
                from.extend_from_slice(&places[group[0]][outer * inner..(outer + 1) * inner]);
            }
        }
        let firsts: Vec<i64> = groups.iter().map(|group| group[0] as i64).collect();
        let counts: Vec<i64> = groups.iter().map(|group| group.len() as i64).collect();
        let lists = [firsts, inverse, counts].map(|list| Tensor::vector(&list));
        Ok([vec![pick(&x, shape, &from)?], lists.to_vec()].concat())
    }
}

/// Lower and upper corner of a box.
fn corners(values: &[f32], centres: bool) -> [f32; 4] {
    let [a, b, c, d] = [values[0], values[1], values[2], values[3]];
    if centres {
        return [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0];
    }
    [a.min(c), b.min(d), a.max(c), b.max(d)]
}

/// Intersection over union of two boxes, given by their lower and upper corners.
pub fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |c: &[f32; 4]| (c[2] - c[0]) * (c[3] - c[1]);
    let sides = [0, 1].map(|i| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0));
    let common = sides[0] * sides[1];
    let all = area(a) + area(b) - common;
    if all <= 0.0 { 0.0 } else { common / all }
}

impl Operator for NonMaxSuppression {
    facets! {
        arity = Arity::between(2, 5),
        stops = "which boxes remain is flat",
        frozen = "the result lists positions",
        quant = Quant::FloatOnly("scores and overlaps decide by small differences"),
        element_ops = 1,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        require_rank("boxes", inputs.required(0, "boxes")?, 3)?;
        require_rank("scores", inputs.required(1, "scores")?, 3)?;
        let dims = vec![Dim::unknown(), Dim::known(3)];
        found(self, inputs, vec![Fact::new(DType::I64, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (boxes, scores) = (inputs.required(0, "boxes")?, inputs.required(1, "scores")?);
        countable("boxes", boxes)?;
        countable("scores", scores)?;
        let first = |i: usize| inputs.optional(i).and_then(|t| t.to_f64_vec().first().copied());
        let most = first(2).unwrap_or(0.0).max(0.0) as usize;
        let (limit, least) = (first(3).unwrap_or(0.0) as f32, first(4));
        let ([n, count, four], [m, classes, scored]) = (shape3(boxes)?, shape3(scores)?);
        if four != 4 || n != m || count != scored {
            return Err(Problem::shape("boxes [N,B,4] and scores [N,C,B] do not go together"));
        }
        let corner: Vec<[f32; 4]> =
            boxes.as_slice::<f32>()?.chunks(4).map(|b| corners(b, self.centres)).collect();
        let scores = scores.as_slice::<f32>()?;
        let mut found: Vec<i64> = Vec::new();
        for image in 0..n {
            for class in 0..classes {
                let own = &scores[(image * classes + class) * count..][..count];
                let good = |&i: &usize| least.is_none_or(|least| own[i] > least as f32);
                let mut order: Vec<usize> = (0..count).filter(good).collect();
                order.sort_unstable_by(|&a, &b| own[b].total_cmp(&own[a]).then(a.cmp(&b)));
                let mut kept: Vec<[f32; 4]> = Vec::new();
                for i in order {
                    if kept.len() >= most {
                        break;
                    }
                    let own = corner[image * count + i];
                    if kept.iter().all(|other| overlap(other, &own) <= limit) {
                        kept.push(own);
                        found.extend([image as i64, class as i64, i as i64]);
                    }
                }
            }
        }
        Ok(vec![Tensor::from_slice([found.len() / 3, 3], &found)?])
    }
}

fn shape3(tensor: &Tensor) -> Result<[usize; 3], Problem> {
    tensor.shape().try_into().map_err(|_| Problem::shape("boxes and scores must have rank 3"))
}
