//! The step for operators without a kernel: the operator's own `eval` on copies.

use lepton_ir::{Node, Operands};
use lepton_tensor::{DType, Storage, Tensor};

use super::Chosen;
use crate::place::Place;
use crate::plan::Builder;

struct Operand {
    place: Place,
    dtype: DType,
    shape: Vec<usize>,
}

/// Runs `eval`. The name `reference` in a profile says that a kernel is missing.
pub(crate) fn build(builder: &mut Builder<'_>, node: &Node) -> Chosen {
    let operand = |builder: &Builder<'_>, id| Operand {
        place: builder.place(id),
        dtype: builder.graph.fact(id).dtype,
        shape: builder.shape(id),
    };
    let inputs: Vec<Option<Operand>> =
        node.inputs.iter().map(|id| id.map(|id| operand(builder, id))).collect();
    let outputs: Vec<Option<Operand>> =
        node.outputs.iter().map(|id| id.map(|id| operand(builder, id))).collect();
    let node = node.clone();
    let graph_error = {
        let label = builder.graph.node_label(&node);
        let op = node.op.to_string();
        let facts: Vec<String> =
            builder.graph.input_facts(&node).iter().flatten().map(|f| f.to_string()).collect();
        move |problem| lepton_ir::GraphError::Node {
            node: label.clone(),
            op: op.clone(),
            inputs: facts.join(", "),
            problem,
        }
    };
    let run = Box::new(move |memory: &crate::place::Memory<'_>| {
        let tensors: Result<Vec<Option<Tensor>>, _> = inputs
            .iter()
            .map(|operand| {
                let Some(operand) = operand else { return Ok(None) };
                let bytes = operand.shape.iter().product::<usize>() * operand.dtype.size();
                // SAFETY: the plan holds a value of this type and shape there.
                let bytes = unsafe { memory.slice::<u8>(operand.place, bytes) };
                Tensor::new(operand.dtype, operand.shape.clone(), Storage::copied(bytes)).map(Some)
            })
            .collect();
        let tensors = tensors?;
        let operands: Vec<Option<&Tensor>> = tensors.iter().map(Option::as_ref).collect();
        let results = node.op.eval(Operands(&operands)).map_err(&graph_error)?;
        for (output, result) in outputs.iter().zip(results) {
            let Some(output) = output else { continue };
            if result.shape() != output.shape || result.dtype() != output.dtype {
                let why = format!("planned {:?}, made {result:?}", output.shape);
                return Err(graph_error(lepton_ir::Problem::shape(why)).into());
            }
            // SAFETY: the plan keeps room for exactly this result there.
            let to = unsafe { memory.slice_mut::<u8>(output.place, 0, result.bytes().len()) };
            to.copy_from_slice(result.bytes());
        }
        Ok(())
    });
    Chosen { kernel: "reference", run }
}
