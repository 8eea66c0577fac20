//! Normalisation: of rows (layer and root-mean-square), of channels, of groups.

use crate::reduce::{Fold, Sum, SumSquares, fold_slice};
use crate::vector::{Vector, vectorised};

/// Σ (x − parameter)², for variances.
#[derive(Clone, Copy)]
struct SumSquaresAbout<V>(V);

impl<V: Vector> Fold<V> for SumSquaresAbout<V> {
    // Not neutral: `variance` folds whole vectors only and adds the rest itself.
    const NEUTRAL: f32 = f32::NAN;
    const START: f32 = 0.0;
    #[inline(always)]
    fn step(self, sum: V, x: V) -> V {
        let d = x - self.0;
        d.mul_add(d, sum)
    }
    #[inline(always)]
    fn join(self, a: V, b: V) -> V {
        a + b
    }
}

/// The mean in every lane.
#[inline(always)]
fn mean<V: Vector>(values: &[f32]) -> V {
    fold_slice(Sum(V::splat(0.0)), values) / V::splat(values.len() as f32)
}

/// The mean squared distance from `mean` in every lane.
#[inline(always)]
fn variance<V: Vector>(values: &[f32], mean: V) -> V {
    let (whole, rest) = values.split_at(values.len() - values.len() % V::LANES);
    let sum: V = fold_slice(SumSquaresAbout(mean), whole);
    let mut lanes = [0.0; 16];
    // SAFETY: no set has more than 16 lanes; the rest is shorter than a vector.
    let rest = unsafe {
        mean.store(lanes.as_mut_ptr());
        lanes[..rest.len()].copy_from_slice(rest);
        let d = V::load(lanes.as_ptr()) - mean;
        (d * d).sum()
    };
    (sum + V::splat(rest)) / V::splat(values.len() as f32)
}

/// Parameters of a row normalisation: `y = (x − mean) / √(variance + epsilon) · gamma + beta`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowNormalization<'a> {
    /// False for root-mean-square normalisation: the mean counts as 0.
    pub centre: bool,
    /// Factor of each column.
    pub gamma: Option<&'a [f32]>,
    /// Addend of each column.
    pub beta: Option<&'a [f32]>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// `y = x · factor + shift`, then gamma and beta by column.
/// # Safety
/// `x` and `y` must have `columns` values, and be equal or apart; so must gamma and beta.
#[inline(always)]
unsafe fn apply<V: Vector>(
    parameters: &RowNormalization,
    mean: V,
    factor: V,
    x: *const f32,
    y: *mut f32,
    columns: usize,
) {
    for i in (0..columns).step_by(V::LANES) {
        let left = columns - i;
        // SAFETY: all offsets stay below `columns`.
        unsafe {
            let mut value = (V::load_upto(x.add(i), left) - mean) * factor;
            if let Some(gamma) = parameters.gamma {
                value = value * V::load_upto(gamma.as_ptr().add(i), left);
            }
            if let Some(beta) = parameters.beta {
                value = value + V::load_upto(beta.as_ptr().add(i), left);
            }
            value.store_upto(y.add(i), left);
        }
    }
}

#[inline(always)]
fn row<V: Vector>(parameters: &RowNormalization, values: &[f32]) -> [V; 2] {
    let (mean, variance) = if parameters.centre {
        let mean = mean(values);
        (mean, variance(values, mean))
    } else {
        let zero = V::splat(0.0);
        (zero, fold_slice(SumSquares(zero), values) / V::splat(values.len() as f32))
    };
    [mean, V::splat(1.0) / (variance + V::splat(parameters.epsilon)).sqrt()]
}

fn check(parameters: &RowNormalization, columns: usize) {
    let fits = |vector: Option<&[f32]>| vector.is_none_or(|v| v.len() == columns);
    assert!(fits(parameters.gamma) && fits(parameters.beta), "one parameter for each column");
}

#[inline(always)]
fn rows<V: Vector>(
    parameters: RowNormalization,
    columns: usize,
    input: &[f32],
    output: &mut [f32],
) {
    check(&parameters, columns);
    assert_eq!(input.len(), output.len(), "one result for each value");
    for (x, y) in input.chunks_exact(columns.max(1)).zip(output.chunks_exact_mut(columns.max(1))) {
        let [mean, factor] = row::<V>(&parameters, x);
        // SAFETY: the rows have `columns` values and are apart; the parameters are checked.
        unsafe { apply(&parameters, mean, factor, x.as_ptr(), y.as_mut_ptr(), columns) }
    }
}

#[inline(always)]
fn rows_after_sum<V: Vector>(
    parameters: RowNormalization,
    columns: usize,
    input: &[f32],
    sum: &mut [f32],
    output: &mut [f32],
) {
    check(&parameters, columns);
    assert!(input.len() == sum.len() && input.len() == output.len(), "three equal lengths");
    let width = columns.max(1);
    let results = sum.chunks_exact_mut(width).zip(output.chunks_exact_mut(width));
    for (x, (s, y)) in input.chunks_exact(width).zip(results) {
        for i in (0..columns).step_by(V::LANES) {
            let left = columns - i;
            // SAFETY: both rows have `columns` values.
            unsafe {
                let place = s.as_mut_ptr().add(i);
                let total = V::load_upto(x.as_ptr().add(i), left) + V::load_upto(place, left);
                total.store_upto(place, left);
            }
        }
        let [mean, factor] = row::<V>(&parameters, s);
        // SAFETY: the rows have `columns` values and are apart; the parameters are checked.
        unsafe { apply(&parameters, mean, factor, s.as_ptr(), y.as_mut_ptr(), columns) }
    }
}

#[inline(always)]
fn channels<V: Vector>(scale: &[f32], shift: &[f32], input: &[f32], output: &mut [f32]) {
    assert_eq!(input.len(), output.len(), "one result for each value");
    assert_eq!(scale.len(), shift.len(), "both for each channel");
    let channels = scale.len();
    let width = channels.max(1);
    for (x, y) in input.chunks_exact(width).zip(output.chunks_exact_mut(width)) {
        for i in (0..channels).step_by(V::LANES) {
            let left = channels - i;
            // SAFETY: all four slices have `channels` values.
            unsafe {
                let scale = V::load_upto(scale.as_ptr().add(i), left);
                let shift = V::load_upto(shift.as_ptr().add(i), left);
                let value = V::load_upto(x.as_ptr().add(i), left).mul_add(scale, shift);
                value.store_upto(y.as_mut_ptr().add(i), left);
            }
        }
    }
}

/// Parameters of a group normalisation; with as many groups as channels it is an instance
/// normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNormalization<'a> {
    /// Groups of consecutive channels, which must divide the channels.
    pub groups: usize,
    /// Factor of each channel.
    pub gamma: &'a [f32],
    /// Addend of each channel.
    pub beta: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
}

impl GroupNormalization<'_> {
    fn check(&self) -> usize {
        let channels = self.gamma.len();
        assert_eq!(channels, self.beta.len(), "both for each channel");
        assert!(self.groups > 0 && channels.is_multiple_of(self.groups), "whole groups");
        channels / self.groups
    }
}

#[inline(always)]
fn groups_channels_first<V: Vector>(
    parameters: GroupNormalization,
    pixels: usize,
    first_group: usize,
    input: &[f32],
    output: &mut [f32],
) {
    let in_group = parameters.check();
    assert_eq!(input.len(), output.len(), "one result for each value");
    let width = (in_group * pixels).max(1);
    let results = output.chunks_exact_mut(width);
    for (group, (x, y)) in input.chunks_exact(width).zip(results).enumerate() {
        let first_channel = (first_group + group) % parameters.groups * in_group;
        let mean: V = mean(x);
        let factor = V::splat(1.0) / (variance(x, mean) + V::splat(parameters.epsilon)).sqrt();
        for channel in 0..in_group {
            let gamma = V::splat(parameters.gamma[first_channel + channel]) * factor;
            let beta = V::splat(parameters.beta[first_channel + channel]);
            let start = channel * pixels;
            for i in (start..start + pixels).step_by(V::LANES) {
                let left = start + pixels - i;
                // SAFETY: all offsets stay below the group's end.
                unsafe {
                    let value = V::load_upto(x.as_ptr().add(i), left) - mean;
                    value.mul_add(gamma, beta).store_upto(y.as_mut_ptr().add(i), left);
                }
            }
        }
    }
}

/// The sum over all pixels, channel by channel: of the values, or of the squared distances from
/// `centre`.
#[inline(always)]
fn add_pixels<V: Vector>(image: &[f32], centre: Option<&[f32]>, sums: &mut [f32]) {
    let channels = sums.len();
    for i in (0..channels).step_by(V::LANES) {
        let left = channels - i;
        // SAFETY: pixels, sums and centre all have `channels` values.
        unsafe {
            let mut sum = V::splat(0.0);
            if let Some(centre) = centre {
                let centre = V::load_upto(centre.as_ptr().add(i), left);
                for pixel in image.chunks_exact(channels) {
                    let d = V::load_upto(pixel.as_ptr().add(i), left) - centre;
                    sum = d.mul_add(d, sum);
                }
            } else {
                for pixel in image.chunks_exact(channels) {
                    sum = sum + V::load_upto(pixel.as_ptr().add(i), left);
                }
            }
            sum.store_upto(sums.as_mut_ptr().add(i), left);
        }
    }
}

#[inline(always)]
fn groups_channels_last<V: Vector>(
    parameters: GroupNormalization,
    pixels: usize,
    input: &[f32],
    scratch: &mut [f32],
    output: &mut [f32],
) {
    let in_group = parameters.check();
    let count = parameters.gamma.len();
    assert_eq!(input.len(), output.len(), "one result for each value");
    assert_eq!(scratch.len(), 2 * count, "scratch for two values a channel");
    let (means, factors) = scratch.split_at_mut(count);
    let average = |sums: &mut [f32]| {
        for group in sums.chunks_exact_mut(in_group) {
            let mean = group.iter().sum::<f32>() / (in_group * pixels) as f32;
            group.fill(mean);
        }
    };
    let width = (count * pixels).max(1);
    for (x, y) in input.chunks_exact(width).zip(output.chunks_exact_mut(width)) {
        add_pixels::<V>(x, None, means);
        average(means);
        add_pixels::<V>(x, Some(means), factors);
        average(factors);
        for (factor, gamma) in factors.iter_mut().zip(parameters.gamma) {
            *factor = gamma / (*factor + parameters.epsilon).sqrt();
        }
        for (mean, (factor, beta)) in means.iter_mut().zip(factors.iter().zip(parameters.beta)) {
            *mean = beta - *mean * factor;
        }
        channels::<V>(factors, means, x, y);
    }
}

vectorised! {
    /// Normalises rows of `columns` values.
    ///
    /// # Panics
    /// If the lengths do not agree.
    pub fn normalize_rows(isa, parameters: RowNormalization<'_>, columns: usize, input: &[f32],
        output: &mut [f32]) = rows;
    /// Adds `input` to `sum` (the residual, which stays) and normalises the rows of the sum.
    ///
    /// # Panics
    /// If the lengths do not agree.
    pub fn add_and_normalize_rows(isa, parameters: RowNormalization<'_>, columns: usize,
        input: &[f32], sum: &mut [f32], output: &mut [f32]) = rows_after_sum;
    /// `y = x · scale + shift` by channel, channels last: batch normalisation with its statistics
    /// folded.
    ///
    /// # Panics
    /// If the lengths do not agree.
    pub fn scale_shift_channels(isa, scale: &[f32], shift: &[f32], input: &[f32],
        output: &mut [f32]) = channels;
    /// Group normalisation with channels first. The slices hold whole groups of `pixels` values a
    /// channel, the first of which is group `first_group`, counted through the batch.
    ///
    /// # Panics
    /// If the lengths do not agree.
    pub fn normalize_groups(isa, parameters: GroupNormalization<'_>, pixels: usize,
        first_group: usize, input: &[f32], output: &mut [f32]) = groups_channels_first;
    /// Group normalisation with channels last, of whole images of `pixels`. `scratch` has two
    /// values a channel.
    ///
    /// # Panics
    /// If the lengths do not agree.
    pub fn normalize_groups_channels_last(isa, parameters: GroupNormalization<'_>, pixels: usize,
        input: &[f32], scratch: &mut [f32], output: &mut [f32]) = groups_channels_last;
}
