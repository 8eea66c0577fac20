//! Steps that couple the probabilities of pairs of classes.

use lepton_ir::Node;
use lepton_ir::ops::couple::CouplePairs;
use lepton_kernels::couple::Coupling;

use super::{Choice, Chosen, is_f32, over_rows};
use crate::place::Memory;
use crate::plan::Builder;

/// Work of a row for each two classes, in multiply–adds that take as long: some rounds of divisions.
const ROUNDS: usize = 200;

/// Rows of f32.
pub(crate) fn couple(builder: &mut Builder<'_>, node: &Node, op: &CouplePairs) -> Choice {
    let (Some(x), Some(y)) = (node.inputs[0], node.outputs[0]) else { return Ok(None) };
    let &[rows, pairs] = builder.shape(x).as_slice() else { return Ok(None) };
    if !is_f32(builder, node, 0) {
        return Ok(None);
    }
    let (from, to, classes) = (builder.place(x), builder.place(y), op.classes);
    let run = Box::new(move |memory: &Memory<'_>| {
        over_rows(memory, rows, rows * classes * classes * ROUNDS, |range| {
            let mut coupling = Coupling::new(classes);
            // SAFETY: the plan holds rows of so many f32 there; ranges of the output are disjoint
            // and apart from x.
            let (x, output) = unsafe {
                let output =
                    memory.slice_mut::<f32>(to, range.start * classes, range.len() * classes);
                (memory.slice::<f32>(from, rows * pairs), output)
            };
            let x = &x[range.start * pairs..range.end * pairs];
            for (pairs, output) in x.chunks_exact(pairs).zip(output.chunks_exact_mut(classes)) {
                coupling.row(pairs, output);
            }
        });
        Ok(())
    });
    Ok(Some(Chosen::new("couple", run)))
}
