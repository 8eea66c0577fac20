//! Pools of every geometry against loops over the definition, on every instruction set.

use lepton_kernels::Isa;
use lepton_kernels::pool::*;
use lepton_kernels::quantize::Rounding;
use proptest::prelude::*;

fn axis() -> impl Strategy<Value = PoolAxis> {
    let sizes = (1_usize..9, 1_usize..4, 1_usize..4, 1_usize..3, 0_usize..3, 0_usize..3);
    sizes.prop_flat_map(|(input, kernel, stride, dilation, before, after)| {
        let span = (kernel - 1) * dilation + 1;
        let room = (input + before + after).saturating_sub(span);
        let output = room / stride + 1;
        (output..=output + 1).prop_map(move |output| PoolAxis {
            input,
            output,
            kernel,
            stride,
            dilation,
            padding_before: before,
            padding_after: after,
        })
    })
}

/// Where one tap of one window falls.
enum Tap {
    Pixel(usize),
    Padding,
    Beyond,
}

fn tap(axis: &PoolAxis, window: usize, tap: usize) -> Tap {
    let at = window * axis.stride + tap * axis.dilation;
    if at >= axis.padding_before && at - axis.padding_before < axis.input {
        Tap::Pixel(at - axis.padding_before)
    } else if at < axis.padding_before + axis.input + axis.padding_after {
        Tap::Padding
    } else {
        Tap::Beyond
    }
}

/// The pixels a window covers and how many taps lie in the image or its padding.
fn window(pool: &Pool, y: usize, x: usize) -> (Vec<(usize, usize)>, usize) {
    let (mut pixels, mut padded) = (Vec::new(), 0);
    for i in 0..pool.height.kernel {
        for j in 0..pool.width.kernel {
            match (tap(&pool.height, y, i), tap(&pool.width, x, j)) {
                (Tap::Pixel(i), Tap::Pixel(j)) => {
                    pixels.push((i, j));
                    padded += 1;
                }
                (Tap::Beyond, _) | (_, Tap::Beyond) => {}
                _ => padded += 1,
            }
        }
    }
    (pixels, padded)
}

proptest! {
    #[test]
    fn every_geometry(
        height in axis(), width in axis(), channels in 1_usize..80, batch in 1_usize..3,
        skip in 0.0_f64..1.0, include in any::<bool>(), seed in any::<u8>(),
    ) {
        let pool = Pool { height, width, channels };
        let len = batch * pool.input_len();
        let bytes: Vec<u8> = (0..len).map(|i| (i * 97 + i / 7) as u8 ^ seed).collect();
        let signed: Vec<i8> = bytes.iter().map(|&x| x as i8).collect();
        let floats: Vec<f32> = bytes.iter().map(|&x| f32::from(x) - 100.0).collect();
        let rows = (skip * (batch * height.output) as f64) as usize..batch * height.output;
        let count = rows.len() * pool.row_len();
        let requantization = AverageRequantization {
            factor: 0.07, zero: 11, rounding: Rounding::new(20_u8),
        };
        for isa in Isa::available() {
            let (mut max, mut average) = (vec![0.0; count], vec![0.0; count]);
            let (mut max_bytes, mut average_bytes) = (vec![0; count], vec![0; count]);
            let mut max_signed = vec![0; count];
            max_pool_f32(isa, &pool, rows.clone(), &floats, &mut max);
            max_pool_bytes(isa, &pool, rows.clone(), &bytes, &mut max_bytes);
            max_pool_bytes(isa, &pool, rows.clone(), &signed, &mut max_signed);
            average_pool_f32(isa, &pool, include, rows.clone(), &floats, &mut average);
            average_pool_bytes(isa, &pool, requantization, rows.clone(), &bytes, &mut average_bytes);
            for i in 0..count {
                let (row, x, c) = (rows.start + i / pool.row_len(), i / channels % width.output, i % channels);
                let (pixels, padded) = window(&pool, row % height.output, x);
                let image = row / height.output * pool.input_len();
                let at = |&(y, x): &(usize, usize)| image + (y * width.input + x) * channels + c;
                let divisor = if include { padded } else { pixels.len() }.max(1) as f32;
                let biggest = pixels.iter().map(|p| floats[at(p)]).fold(f32::NEG_INFINITY, f32::max);
                prop_assert_eq!(max[i], biggest);
                prop_assert_eq!(max_bytes[i], pixels.iter().map(|p| bytes[at(p)]).max().unwrap_or(0));
                prop_assert_eq!(max_signed[i], pixels.iter().map(|p| signed[at(p)]).max().unwrap_or(-128));
                let sum: f32 = pixels.iter().map(|p| floats[at(p)]).sum();
                prop_assert_eq!(average[i], sum / divisor);
                let sum: i32 = pixels.iter().map(|p| i32::from(bytes[at(p)]) - 11).sum();
                let want = (sum as f32 * 0.07).round_ties_even() + 20.0;
                prop_assert_eq!(average_bytes[i], want.clamp(0.0, 255.0) as u8);
            }
        }
    }
}
