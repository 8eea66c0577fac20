//! An image that is quantised and put channels-last in one pass.

use lepton_ir::{Graph, Node, Op};
use lepton_kernels::pixels::{MOST_CHANNELS, quantize_pixels};
use lepton_kernels::quantize::Byte;
use lepton_tensor::DType;

use super::product::operand;
use super::{Chosen, ELEMENT_WORK, over_rows};
use crate::place::{Memory, Place};
use crate::plan::Builder;

/// How planes become pixels.
pub(crate) struct Pixels {
    scale: f32,
    zero: i64,
    dtype: DType,
    images: usize,
    channels: usize,
    /// Pixels of an image.
    pixels: usize,
}

/// The pair of a quantisation with one scale and a transposition to channels-last, of few channels.
pub(crate) fn pixels(graph: &Graph, first: &Node, second: &Node) -> Option<Pixels> {
    let (Op::QuantizeLinear(_), Op::Transpose(turn)) = (&first.op, &second.op) else { return None };
    let x = graph.fact(operand(first, 0)?);
    let &[images, channels, height, width] = x.shape()?.as_slice() else { return None };
    let last = turn.resolved(4).is_ok_and(|axes| axes == [0, 2, 3, 1]);
    let dtype = graph.fact(first.outputs[0]?).dtype;
    let bytes = x.dtype == DType::F32 && matches!(dtype, DType::U8 | DType::I8);
    let (scale, zero) = super::integer::parameters(graph, first)?;
    let few = (2..=MOST_CHANNELS).contains(&channels) && images * height * width > 0;
    let found = Pixels { scale, zero, dtype, images, channels, pixels: height * width };
    (last && bytes && few).then_some(found)
}

impl Pixels {
    fn run<T: Byte + Sync>(&self, memory: &Memory<'_>, [x, y]: [Place; 2], zero: T) {
        let (count, channels) = (self.pixels * self.channels, self.channels);
        over_rows(memory, self.images * self.pixels, self.images * count * ELEMENT_WORK, |rows| {
            let mut row = rows.start;
            while row < rows.end {
                let (image, pixel) = (row / self.pixels, row % self.pixels);
                let end = self.pixels.min(pixel + rows.end - row);
                // SAFETY: the plan holds these images at both places, which are apart; ranges are
                // disjoint.
                unsafe {
                    let planes = &memory.slice::<f32>(x, self.images * count)[image * count..];
                    let output = memory.slice_mut::<T>(y, row * channels, (end - pixel) * channels);
                    let (how, planes) = ((self.scale, zero), &planes[..count]);
                    quantize_pixels(memory.isa, how, channels, planes, pixel..end, output);
                }
                row += end - pixel;
            }
        });
    }
}

/// The step of a pair.
pub(crate) fn build(builder: &Builder<'_>, [first, second]: [&Node; 2], of: &Pixels) -> Chosen {
    let x = operand(first, 0).expect("checked");
    let y = second.outputs[0].expect("checked");
    let places = [builder.place(x), builder.place(y)];
    let of = Pixels { ..*of };
    let run: crate::plan::Run = match of.dtype {
        DType::U8 => Box::new(move |memory: &Memory<'_>| {
            of.run(memory, places, of.zero as u8);
            Ok(())
        }),
        _ => Box::new(move |memory: &Memory<'_>| {
            of.run(memory, places, of.zero as i8);
            Ok(())
        }),
    };
    Chosen::divided("quantize-pixels", run)
}
