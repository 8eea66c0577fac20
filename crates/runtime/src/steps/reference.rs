//! The step for operators without a kernel: the operator's own `eval` on copies.

use lepton_ir::{GraphError, Node, Operands, Problem};
use lepton_tensor::{DType, Storage, Tensor};

use super::Chosen;
use crate::error::RuntimeError;
use crate::place::{Memory, Place};
use crate::plan::{Builder, Run};
use crate::rounds::{Body, Repeating};
use crate::watch::Watch;

struct Operand {
    place: Place,
    dtype: DType,
    shape: Vec<usize>,
}

/// Runs `eval`. The name `reference` in a profile says that a kernel is missing.
pub(crate) fn build(builder: &mut Builder<'_>, node: &Node) -> Chosen {
    let fail = failure(builder, node);
    let op = node.op.clone();
    let run = on_copies(builder, node, move |operands, _| {
        op.eval(operands).map_err(|problem| fail(problem).into())
    });
    Chosen::new("reference", run)
}

/// What makes an error of a problem of a node.
fn failure(builder: &Builder<'_>, node: &Node) -> impl Fn(Problem) -> GraphError + use<> {
    let label = builder.graph.node_label(node);
    let op = node.op.to_string();
    let facts: Vec<String> =
        builder.graph.input_facts(node).iter().flatten().map(|f| f.to_string()).collect();
    move |problem| GraphError::Node {
        node: label.clone(),
        op: op.clone(),
        inputs: facts.join(", "),
        problem,
    }
}

/// The step that calls `evaluate` with copies of the operands of a node, and copies its results.
pub(crate) fn on_copies(
    builder: &Builder<'_>,
    node: &Node,
    evaluate: impl Fn(Operands<'_, Tensor>, &Watch<'_>) -> Result<Vec<Tensor>, RuntimeError>
    + Send
    + Sync
    + 'static,
) -> Run {
    let operand = |id| Operand {
        place: builder.place(id),
        dtype: builder.graph.fact(id).dtype,
        shape: builder.shape(id),
    };
    let inputs: Vec<Option<Operand>> = node.inputs.iter().map(|id| id.map(operand)).collect();
    let outputs: Vec<Option<Operand>> = node.outputs.iter().map(|id| id.map(operand)).collect();
    let fail = failure(builder, node);
    Box::new(move |memory: &Memory<'_>| {
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
        let results = evaluate(Operands(&operands), memory.watch)?;
        for (output, result) in outputs.iter().zip(results) {
            let Some(output) = output else { continue };
            if result.shape() != output.shape || result.dtype() != output.dtype {
                let why = format!("planned {:?}, made {result:?}", output.shape);
                return Err(fail(Problem::shape(why)).into());
            }
            // SAFETY: the plan keeps room for exactly this result there.
            let to = unsafe { memory.slice_mut::<u8>(output.place, 0, result.bytes().len()) };
            to.copy_from_slice(result.bytes());
        }
        Ok(())
    })
}

/// The step of a `Loop` or `Scan`, whose body runs as a session.
pub(crate) fn repeated(builder: &Builder<'_>, node: &Node) -> Chosen {
    let body = Body::shared(builder.packs, builder.demands.engine, node);
    let fail = failure(builder, node);
    let op = node.op.clone();
    let run = on_copies(builder, node, move |operands, watch| {
        body.run(&op, operands, watch).map_err(|error| match error {
            Repeating::Stopped => RuntimeError::Stopped,
            Repeating::Problem(problem) => fail(problem).into(),
        })
    });
    Chosen::new("rounds", run)
}
