//! `Einsum` as transpositions, matrix products and sums.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::reduce::ReduceFunction;

use super::call::Call;
use crate::error::FormatError;
use crate::steps::{Made, Results, Steps};

/// A factor and the label of each of its axes.
#[derive(Clone)]
struct Factor {
    id: ValueId,
    labels: Vec<char>,
}

/// Axes of an ellipsis get labels from here on, the last axis the first.
const ELLIPSIS: u32 = 0xe000;

/// The labels of a term; `rank` says how many axes an ellipsis stands for.
fn labels(call: &Call<'_>, term: &str, rank: usize) -> Result<Vec<char>, FormatError> {
    let wrong = || call.error(format!("term `{term}` does not go with {rank} axes"));
    let letters = |part: &str| part.chars().filter(|c| !c.is_whitespace()).collect::<Vec<char>>();
    let mut parts = term.split("...");
    let mut made = letters(parts.next().unwrap_or_default());
    if let Some(after) = parts.next().map(letters) {
        let hidden = rank.checked_sub(made.len() + after.len()).ok_or_else(wrong)?;
        let label = |i: usize| char::from_u32(ELLIPSIS + i as u32).ok_or_else(wrong);
        for i in (0..hidden).rev() {
            made.push(label(i)?);
        }
        made.extend(after);
    }
    let named = |c: &char| c.is_ascii_alphabetic() || *c as u32 >= ELLIPSIS;
    if made.len() != rank || !made.iter().all(named) {
        return Err(wrong());
    }
    Ok(made)
}

/// The labels of the result: those of the equation, or those that occur once, sorted.
fn result_labels(
    call: &Call<'_>,
    given: Option<&str>,
    factors: &[Factor],
) -> Result<Vec<char>, FormatError> {
    let all = || factors.iter().flat_map(|f| f.labels.iter().copied());
    let mut hidden: Vec<char> = all().filter(|&c| c as u32 >= ELLIPSIS).collect();
    hidden.sort_unstable_by(|a, b| b.cmp(a));
    hidden.dedup();
    match given {
        Some(term) => {
            let letters = term.chars().filter(char::is_ascii_alphabetic).count();
            let ellipsis = if term.contains("...") { hidden.len() } else { 0 };
            labels(call, term, letters + ellipsis)
        }
        None => {
            let mut once: Vec<char> = all()
                .filter(|&c| (c as u32) < ELLIPSIS && all().filter(|&d| d == c).count() == 1)
                .collect();
            once.sort_unstable();
            Ok([hidden, once].concat())
        }
    }
}

/// A label that occurs twice in one factor: its diagonal, as a product with an identity matrix.
fn without_twins(call: &mut Call<'_>, mut factor: Factor) -> Result<Factor, FormatError> {
    let twins = |labels: &[char]| {
        (0..labels.len()).find_map(|j| Some((labels[..j].iter().position(|&c| c == labels[j])?, j)))
    };
    while let Some((i, j)) = twins(&factor.labels) {
        let extent = call.extents(factor.id)?[i];
        call.check_size(&[extent, extent])?;
        let mut shape = vec![1; factor.labels.len()];
        (shape[i], shape[j]) = (extent, extent);
        let one = |at: usize| f64::from(u8::from(at / extent.max(1) == at % extent.max(1)));
        let values: Vec<f64> = (0..extent * extent).map(one).collect();
        let eye = call.table(call.dtype(factor.id), &shape, &values)?;
        let diagonal = call.pair(B::Mul, factor.id, eye)?;
        factor.id = call.reduced(ReduceFunction::Sum, diagonal, &[j as i64], false)?;
        factor.labels.remove(j);
    }
    Ok(factor)
}

/// Sums over the labels that nobody else needs.
fn summed(call: &mut Call<'_>, factor: Factor, needed: &[char]) -> Result<Factor, FormatError> {
    let gone = |i: &usize| !needed.contains(&factor.labels[*i]);
    let axes: Vec<i64> = (0..factor.labels.len()).filter(gone).map(|i| i as i64).collect();
    if axes.is_empty() {
        return Ok(factor);
    }
    let labels = factor.labels.iter().copied().filter(|c| needed.contains(c)).collect();
    Ok(Factor { id: call.reduced(ReduceFunction::Sum, factor.id, &axes, false)?, labels })
}

/// The factor with the axes of `labels`, in that order; those it lacks have extent 1.
fn arranged(call: &mut Call<'_>, factor: &Factor, labels: &[char]) -> Made {
    let own: Vec<usize> =
        labels.iter().filter_map(|c| factor.labels.iter().position(|l| l == c)).collect();
    let turned = call.transpose(factor.id, &own)?;
    let missing: Vec<i64> = (0..labels.len())
        .filter(|&i| !factor.labels.contains(&labels[i]))
        .map(|i| i as i64)
        .collect();
    if missing.is_empty() { Ok(turned) } else { call.unsqueeze(turned, &missing) }
}

/// Extents of labels of a factor as one number for a reshape: −1 where one of them is not known.
fn merged(call: &Call<'_>, factor: &Factor, labels: &[char]) -> Option<i64> {
    let dims = &call.graph.fact(factor.id).dims;
    labels.iter().try_fold(1i64, |sum, label| {
        let at = factor.labels.iter().position(|l| l == label)?;
        sum.checked_mul(dims[at].as_known()?)
    })
}

/// Two factors as one matrix product, if the extents of their own and their common labels are
/// known.
fn as_matrices(
    call: &mut Call<'_>,
    a: &Factor,
    b: &Factor,
    needed: &[char],
) -> Result<Option<Factor>, FormatError> {
    let in_b = |c: &&char| b.labels.contains(c);
    let (common, batch): (Vec<char>, Vec<char>) =
        a.labels.iter().filter(in_b).partition(|c| !needed.contains(c));
    let own = |f: &Factor, g: &Factor| -> Vec<char> {
        f.labels.iter().copied().filter(|c| !g.labels.contains(c)).collect()
    };
    let (rows, columns) = (own(a, b), own(b, a));
    let broadcast = |c: &char| {
        let extent = |f: &Factor| {
            let at = f.labels.iter().position(|l| l == c)?;
            call.graph.fact(f.id).dims[at].as_known()
        };
        extent(a) != extent(b) || extent(a).is_none()
    };
    if common.is_empty() || common.iter().any(broadcast) {
        return Ok(None);
    }
    let sizes = [(a, &rows), (a, &common), (b, &columns)].map(|(f, l)| merged(call, f, l));
    let [Some(m), Some(k), Some(n)] = sizes else { return Ok(None) };
    let left = arranged(call, a, &[&batch[..], &rows, &common].concat())?;
    let right = arranged(call, b, &[&batch[..], &common, &columns].concat())?;
    let lead = vec![0i64; batch.len()];
    let left = call.reshape(left, &[&lead[..], &[m, k]].concat())?;
    let right = call.reshape(right, &[&lead[..], &[k, n]].concat())?;
    let product = call.product(left, right)?;
    let mut shape = lead;
    for (factor, labels) in [(a, &rows), (b, &columns)] {
        for label in labels {
            shape.push(merged(call, factor, std::slice::from_ref(label)).unwrap_or(-1));
        }
    }
    let id = call.reshape(product, &shape)?;
    Ok(Some(Factor { id, labels: [batch, rows, columns].concat() }))
}

/// The product of two factors, summed over the labels that nobody else needs.
fn joined(
    call: &mut Call<'_>,
    a: Factor,
    b: Factor,
    needed: &[char],
) -> Result<Factor, FormatError> {
    let of_both: Vec<char> = needed.iter().chain(&b.labels).copied().collect();
    let a = summed(call, a, &of_both)?;
    let of_both: Vec<char> = needed.iter().chain(&a.labels).copied().collect();
    let b = summed(call, b, &of_both)?;
    if let Some(product) = as_matrices(call, &a, &b, needed)? {
        return Ok(product);
    }
    let mut labels = a.labels.clone();
    labels.extend(b.labels.iter().copied().filter(|c| !a.labels.contains(c)));
    let (left, right) = (arranged(call, &a, &labels)?, arranged(call, &b, &labels)?);
    let id = call.pair(B::Mul, left, right)?;
    summed(call, Factor { id, labels }, needed)
}

/// Sums of products over labelled axes, from left to right.
pub fn einsum(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["equation"])?;
    let equation = call.text("equation", "");
    let (terms, result) = match equation.split_once("->") {
        Some((terms, result)) => (terms.to_string(), Some(result.trim().to_string())),
        None => (equation.clone(), None),
    };
    let terms: Vec<&str> = terms.split(',').map(str::trim).collect();
    if terms.len() != call.inputs.len() {
        return Err(call.error(format!("`{equation}` has {} terms", terms.len())));
    }
    let mut factors = Vec::with_capacity(terms.len());
    for (index, term) in terms.iter().enumerate() {
        let labels = labels(call, term, call.fact(index)?.rank())?;
        let factor = Factor { id: call.required(index)?, labels };
        factors.push(without_twins(call, factor)?);
    }
    let wanted = result_labels(call, result.as_deref(), &factors)?;
    let mut rest = factors.into_iter();
    let mut sum = rest.next().ok_or_else(|| call.error("it has no inputs"))?;
    while let Some(next) = rest.next() {
        let later = rest.as_slice().iter().flat_map(|f| f.labels.iter().copied());
        let needed: Vec<char> = wanted.iter().copied().chain(later).collect();
        sum = joined(call, sum, next, &needed)?;
    }
    let sum = summed(call, sum, &wanted)?;
    if wanted.iter().any(|c| !sum.labels.contains(c)) {
        return Err(call.error(format!("`{equation}` has a result label that no term has")));
    }
    let made = arranged(call, &sum, &wanted)?;
    Ok(vec![call.map(lepton_ir::ops::unary::UnaryFunction::Identity, made)?])
}
