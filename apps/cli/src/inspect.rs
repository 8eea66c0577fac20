//! `lepton inspect`.

use anyhow::Result;
use lepton::{Fact, Graph, Operands};
use serde_json::json;

use crate::arguments::Inspect;
use crate::output::{bytes, count, print_json, say};

/// Multiply–adds at the given extents; symbols left open count as 1.
fn multiply_adds(graph: &Graph, dims: &[(String, usize)]) -> Result<u64> {
    let inputs = lepton::sample_inputs(graph, dims)?;
    let shapes: Vec<&[usize]> = inputs.iter().map(|t| t.shape()).collect();
    let bound = graph
        .bindings_for(&shapes)
        .and_then(|bindings| graph.specialised(&bindings))
        .map_err(lepton::RuntimeError::from)
        .map_err(lepton::Error::from)?;
    let cost = |(_, node): (_, &_)| {
        let facts: Vec<Option<&Fact>> = bound.input_facts(node);
        let cost = node.op.operator().cost(Operands(&facts), &bound.output_facts(node));
        cost.multiply_adds.as_usize().unwrap_or(0) as u64
    };
    Ok(bound.nodes().map(cost).sum())
}

/// Prints what the model is.
pub fn inspect(arguments: &Inspect) -> Result<()> {
    let model = arguments.model.open()?;
    let graph = model.graph();
    let work = multiply_adds(graph, &arguments.dim)?;
    let spec = |(name, fact): &(String, Fact)| {
        let dims: Vec<String> = fact.dims.iter().map(|d| d.to_string()).collect();
        json!({ "name": name, "dtype": fact.dtype.name(), "shape": dims })
    };
    let (inputs, outputs) = (graph.input_specs(), graph.output_specs());
    if arguments.json {
        return print_json(
            "inspect",
            json!({
                "path": arguments.model.path, "format": model.format(), "file_bytes": model.file_bytes(),
                "inputs": inputs.iter().map(spec).collect::<Vec<_>>(),
                "outputs": outputs.iter().map(spec).collect::<Vec<_>>(),
                "nodes": graph.node_count(), "operators": graph.operator_counts(),
                "parameters": graph.parameter_count(), "weight_bytes": graph.constant_bytes(),
                "multiply_adds": work,
            }),
        );
    }
    say!("{}: {} of {}", arguments.model.path.display(), bytes(model.file_bytes()), model.format());
    for (kind, specs) in [("input ", &inputs), ("output", &outputs)] {
        for (name, fact) in specs {
            say!("  {kind} {name}: {fact}");
        }
    }
    say!(
        "  {} parameters in {}, {} multiply-adds, {} nodes",
        count(graph.parameter_count() as u64),
        bytes(graph.constant_bytes()),
        count(work),
        graph.node_count()
    );
    let operators: Vec<String> =
        graph.operator_counts().iter().map(|(name, n)| format!("{name}×{n}")).collect();
    say!("  {}", operators.join(" "));
    if arguments.graph {
        say!("{}", lepton::print_graph(graph));
    }
    Ok(())
}
