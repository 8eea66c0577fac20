//! Grouped convolutions: one matrix product for each group's slice of channels.

use std::ops::Range;

use crate::epilogue::{DequantizeF32, EpilogueF32, Output, RequantizeU8, Residual, ResidualU8};
use crate::gemm::{Input, gemm_f32, gemm_u8s8, gemm_u8s8_f32};
use crate::isa::Isa;
use crate::pack::{PackedF32, PackedS8};

/// The input of a group: `depth` channels after the last group's.
fn group_input<'a, T>(input: &Input<'a, T>, group: usize, depth: usize) -> Input<'a, T> {
    // The zero point is the same for every channel, so the padding serves all groups.
    Input { base: input.base.wrapping_add(group * depth), ..*input }
}

/// The columns of a group in the output.
fn group_output<T: Copy>(output: &Output<T>, column: usize) -> Output<T> {
    Output { pointer: output.pointer.wrapping_add(column), ..*output }
}

/// The columns of a group in the residual.
fn group_residual<T: Copy>(residual: Residual<T>, column: usize) -> Residual<T> {
    Residual { pointer: residual.pointer.wrapping_add(column), ..residual }
}

/// f32 convolution in groups: each reads the next `depth` channels and writes the next columns.
/// The epilogue's vectors run over the columns of all groups.
///
/// # Panics
/// If taps or the epilogue's vectors do not fit the weights.
///
/// # Safety
/// As [`gemm_f32`], for the channels and columns of all groups.
pub unsafe fn grouped_f32(
    isa: Isa,
    input: &Input<f32>,
    groups: &[PackedF32],
    epilogue: &EpilogueF32,
    output: &Output<f32>,
    rows: Range<usize>,
) {
    let mut column = 0;
    for (group, weights) in groups.iter().enumerate() {
        let columns = weights.columns();
        let input = group_input(input, group, weights.depth());
        let epilogue = EpilogueF32 {
            bias: epilogue.bias.map(|bias| &bias[column..column + columns]),
            residual: epilogue.residual.map(|residual| group_residual(residual, column)),
            ..*epilogue
        };
        let output = group_output(output, column);
        // SAFETY: the caller's promise, for this group's channels and columns.
        unsafe { gemm_f32(isa, &input, weights, &epilogue, &output, rows.clone(), 0..columns) };
        column += columns;
    }
}

/// u8 × s8 convolution in groups of `depth` input channels, requantised to u8; otherwise as
/// [`grouped_f32`].
///
/// # Panics
/// If taps or the epilogue's vectors do not fit the weights.
///
/// # Safety
/// As [`gemm_u8s8`], for the channels and columns of all groups.
pub unsafe fn grouped_u8s8(
    isa: Isa,
    input: &Input<u8>,
    groups: &[PackedS8],
    depth: usize,
    epilogue: &RequantizeU8,
    output: &Output<u8>,
    rows: Range<usize>,
) {
    let mut column = 0;
    for (group, weights) in groups.iter().enumerate() {
        let columns = weights.columns();
        let input = group_input(input, group, depth);
        let residual = epilogue
            .residual
            .map(|residual| ResidualU8 { rows: group_residual(residual.rows, column), ..residual });
        let epilogue = RequantizeU8 {
            bias: &epilogue.bias[column..column + columns],
            multiplier: &epilogue.multiplier[column..column + columns],
            residual,
            ..*epilogue
        };
        let output = group_output(output, column);
        // SAFETY: the caller's promise, for this group's channels and columns.
        unsafe { gemm_u8s8(isa, &input, weights, &epilogue, &output, rows.clone(), 0..columns) };
        column += columns;
    }
}

/// u8 × s8 convolution in groups of `depth` input channels, scaled to f32; otherwise as
/// [`grouped_f32`].
///
/// # Panics
/// If taps or the epilogue's vectors do not fit the weights.
///
/// # Safety
/// As [`gemm_u8s8_f32`], for the channels and columns of all groups.
pub unsafe fn grouped_u8s8_f32(
    isa: Isa,
    input: &Input<u8>,
    groups: &[PackedS8],
    depth: usize,
    epilogue: &DequantizeF32,
    output: &Output<f32>,
    rows: Range<usize>,
) {
    let mut first = 0;
    for (group, weights) in groups.iter().enumerate() {
        let columns = first..first + weights.columns();
        let input = group_input(input, group, depth);
        let epilogue = DequantizeF32 {
            bias_s32: epilogue.bias_s32.map(|bias| &bias[columns.clone()]),
            scale: &epilogue.scale[columns.clone()],
            bias: epilogue.bias.map(|bias| &bias[columns.clone()]),
            residual: epilogue.residual.map(|residual| group_residual(residual, first)),
            ..*epilogue
        };
        let (output, all) = (group_output(output, first), 0..columns.len());
        // SAFETY: the caller's promise, for this group's channels and columns.
        unsafe { gemm_u8s8_f32(isa, &input, weights, &epilogue, &output, rows.clone(), all) };
        first = columns.end;
    }
}
