//! Steps that read images within boxes.

use lepton_ir::ops::sample::{CellFunction, PixelCentres, RoiAlign};
use lepton_ir::{Graph, Node};
use lepton_kernels::regions::Regions;
use lepton_kernels::transpose::{permutation, rearrange};
use lepton_tensor::DType;

use super::{Choice, Chosen, is_f32};
use crate::error::RuntimeError;
use crate::place::Memory;
use crate::plan::Builder;

/// Bytes of the images with channels last, and of the cells of a box.
pub(crate) fn scratch_bytes(graph: &Graph, node: &Node) -> Vec<usize> {
    let bytes = |id: Option<lepton_ir::ValueId>| id.and_then(|id| graph.fact(id).byte_size());
    let cells = node.outputs[0].and_then(|id| graph.fact(id).shape());
    let cells = cells.map_or(0, |shape| shape.iter().skip(1).product::<usize>() * 4);
    vec![bytes(node.inputs[0]).unwrap_or(0), cells]
}

/// Means of the cells of boxes of f32 images. Channels are read together, so they come last first.
pub(crate) fn align(builder: &mut Builder<'_>, node: &Node, op: &RoiAlign) -> Choice {
    let (&[Some(x), Some(boxes), Some(images)], Some(y)) =
        (node.inputs.as_slice(), node.outputs[0])
    else {
        return Ok(None);
    };
    let shapes = [x, boxes, images].map(|id| builder.shape(id));
    let (&[n, c, h, w], &[count, 4], &[own]) =
        (shapes[0].as_slice(), shapes[1].as_slice(), shapes[2].as_slice())
    else {
        return Ok(None);
    };
    let plain = is_f32(builder, node, 0) && is_f32(builder, node, 1);
    let wide = builder.graph.fact(images).dtype == DType::I64;
    let means = op.function == CellFunction::Mean;
    if !plain || !wide || !means || own != count || c * h * w == 0 || builder.count(y) == 0 {
        return Ok(None);
    }
    let regions = Regions {
        cells: [op.height, op.width],
        samples: op.samples,
        scale: op.spatial_scale,
        halves: op.centres == PixelCentres::Halves,
    };
    let cells = op.height * op.width;
    let last = permutation(&[n, c, h * w], &[0, 2, 1]);
    let first = permutation(&[cells, c], &[1, 0]);
    let (Some(last), Some(first)) = (last, first) else { return Ok(None) };
    let places = [x, boxes, images, y].map(|id| builder.place(id));
    let scratch = [builder.scratch(0), builder.scratch(1)];
    let label = builder.graph.node_label(node);
    let run = Box::new(move |memory: &Memory<'_>| {
        // SAFETY: the plan holds images, boxes, their images and results of these extents there,
        // and scratch for the images and the cells of a box, all apart.
        let (x, boxes, images, output, turned, found) = unsafe {
            (
                memory.slice::<f32>(places[0], n * c * h * w),
                memory.slice::<[f32; 4]>(places[1], count),
                memory.slice::<i64>(places[2], count),
                memory.slice_mut::<f32>(places[3], 0, count * c * cells),
                memory.slice_mut::<f32>(scratch[0], 0, n * c * h * w),
                memory.slice_mut::<f32>(scratch[1], 0, c * cells),
            )
        };
        rearrange(memory.isa, &last, 0..x.len(), x, turned);
        for ((corners, &image), output) in
            boxes.iter().zip(images).zip(output.chunks_exact_mut(c * cells))
        {
            let own = usize::try_from(image).ok().filter(|&image| image < n);
            let own = own.ok_or_else(|| RuntimeError::Data {
                node: label.clone(),
                why: format!("there is no image {image}"),
            })?;
            let image = &turned[own * h * w * c..][..h * w * c];
            regions.means(memory.isa, image, [h, w, c], corners, found);
            rearrange(memory.isa, &first, 0..found.len(), found, output);
        }
        Ok(())
    });
    Ok(Some(Chosen::new("regions", run)))
}
