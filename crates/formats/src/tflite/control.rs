//! Operators that run graphs of the file, and variables.

use lepton_ir::ops::branch::If;
use lepton_ir::ops::repeat::Loop;
use lepton_ir::{Dim, Fact, ValueId};
use lepton_tensor::{DType, Tensor};

use super::call::{Call, Results};
use super::read::Reader;
use crate::error::FormatError;
use crate::steps::{Made, Steps, known};

/// Most rounds of a loop; one that runs longer ends there.
const MAX_ROUNDS: i64 = 1 << 40;

fn graph_number(call: &Call<'_, '_>, field: usize) -> Result<usize, FormatError> {
    let number = call.int(field, 0)?;
    usize::try_from(number).map_err(|_| call.error(format!("graph {number}")))
}

/// A reader whose graph has the inputs `before`, then one like each of the values, of other
/// extents perhaps; and the inputs like the values.
fn graph_over<'a>(
    call: &Call<'_, 'a>,
    before: &[(&str, DType)],
    values: &[ValueId],
    any_extent: bool,
) -> (Reader<'a>, Vec<ValueId>) {
    let mut reader = call.reader.inner();
    for (name, dtype) in before {
        reader.graph.add_input(*name, Fact::dense(*dtype, &[]));
    }
    let mut inputs = Vec::with_capacity(values.len());
    for (index, &value) in values.iter().enumerate() {
        let fact = call.fact(value);
        let dim = |(axis, dim): (usize, &Dim)| match dim.as_known() {
            Some(known) if !any_extent => Dim::known(known),
            _ => Dim::symbol(format!("operand_{index}.{axis}")),
        };
        let fact = Fact::new(fact.dtype, fact.dims.iter().enumerate().map(dim).collect());
        inputs.push(reader.graph.add_input(format!("operand_{index}"), fact));
    }
    (reader, inputs)
}

/// Names the results of a reader's graph and makes them its outputs.
fn close(reader: &mut Reader<'_>, results: &[ValueId]) -> Result<(), FormatError> {
    let mut outputs = Vec::with_capacity(results.len());
    for (index, &result) in results.iter().enumerate() {
        let op = lepton_ir::ops::unary::Unary::default();
        let value = reader.graph.add_node("", op, &[Some(result)])?[0];
        reader.graph.set_value_name(value, format!("result_{index}"));
        outputs.push(value);
    }
    reader.graph.set_outputs(outputs);
    Ok(())
}

fn stored_operands(call: &mut Call<'_, '_>, from: usize) -> Results {
    (from..call.node.inputs.len()).map(|operand| call.stored(operand)).collect()
}

/// The results of one of two graphs; of one whose condition is known, those of the graph it takes.
pub fn branch(call: &mut Call<'_, '_>) -> Results {
    let condition = call.stored(0)?;
    let operands = stored_operands(call, 1)?;
    let numbers = [graph_number(call, 0)?, graph_number(call, 1)?];
    let truth = known(call.graph_ref(), condition).map(|tensor| tensor.to_i64_vec());
    if let Some(&[truth]) = truth.as_deref() {
        return call.reader.body(numbers[usize::from(truth == 0)], &operands);
    }
    let mut graphs = Vec::with_capacity(2);
    for number in numbers {
        let (mut reader, inputs) = graph_over(call, &[], &operands, false);
        let results = reader.body(number, &inputs)?;
        close(&mut reader, &results)?;
        graphs.push(reader.graph);
    }
    let (Some(else_branch), Some(then_branch)) = (graphs.pop(), graphs.pop()) else {
        return Err(call.error("it has no branches"));
    };
    let inputs: Vec<Option<ValueId>> =
        std::iter::once(condition).chain(operands).map(Some).collect();
    call.emit(If { then_branch, else_branch }, &inputs)
}

/// Runs a graph on its own results while another says so.
pub fn repeat(call: &mut Call<'_, '_>) -> Results {
    let states = stored_operands(call, 0)?;
    let (condition, body) = (graph_number(call, 0)?, graph_number(call, 1)?);
    let first = truth_of(call.reader, condition, &states)?;
    // Extents that change from round to round are known only once the body was read.
    for grows in [false, true] {
        let before = [("round", DType::I64), ("going", DType::Bool)];
        let (mut reader, inputs) = graph_over(call, &before, &states, grows);
        let mut results = reader.body(body, &inputs)?;
        let differs = |(&result, &input): (&ValueId, &ValueId)| {
            let (made, taken) = (reader.graph.fact(result), reader.graph.fact(input));
            made.dtype != taken.dtype || (!grows && made.dims != taken.dims)
        };
        if results.len() != inputs.len() || results.iter().zip(&inputs).any(differs) {
            continue;
        }
        let next = truth_of(&mut reader, condition, &results)?;
        results.insert(0, next);
        close(&mut reader, &results)?;
        let rounds = call.constant(Tensor::scalar(MAX_ROUNDS));
        let mut operands = vec![Some(rounds), Some(first)];
        operands.extend(states.iter().copied().map(Some));
        return call.emit(Loop { body: reader.graph, states: states.len() }, &operands);
    }
    Err(call.error("the types of its states change"))
}

/// The one truth a graph gives, as a scalar.
fn truth_of(reader: &mut Reader<'_>, number: usize, operands: &[ValueId]) -> Made {
    let results = reader.body(number, operands)?;
    let [truth] = results[..] else {
        return Err(FormatError::Unsupported("a condition that is not one truth".into()));
    };
    if reader.graph.fact(truth).rank() == 0 {
        return Ok(truth);
    }
    let shape = reader.graph.add_constant("", Tensor::vector::<i64>(&[]));
    let op = lepton_ir::ops::reshape::Reshape::default();
    Ok(reader.graph.add_node("", op, &[Some(truth), Some(shape)])?[0])
}

/// Gives variables their first values.
pub fn call_once(call: &mut Call<'_, '_>) -> Results {
    let number = graph_number(call, 0)?;
    let outer = std::mem::replace(&mut call.reader.initialises, true);
    let done = call.reader.body(number, &[]);
    call.reader.initialises = outer;
    done.map(|_| Vec::new())
}

/// What names a variable.
pub fn variable(call: &mut Call<'_, '_>) -> Results {
    let name = call.text(1)?;
    let index = call.reader.variable(&name);
    call.name_variable(index)?;
    Ok(Vec::new())
}

/// The value of a variable: what was last assigned to it, or an input of the graph.
pub fn read_variable(call: &mut Call<'_, '_>) -> Results {
    let index = call.variable_of(0)?;
    let info = call.result_info(0)?;
    let changes = call.reader.assigns();
    let variable = &call.reader.variables[index];
    if let Some(current) = variable.current {
        return Ok(vec![current]);
    }
    let first = variable.first.clone();
    let value = match first.filter(|_| !changes) {
        Some(tensor) => call.constant(tensor),
        None => {
            let name = call.reader.variables[index].name.clone();
            call.reader.state(&name, info.fact(&name)?)?
        }
    };
    call.reader.variables[index].current = Some(value);
    Ok(vec![value])
}

/// Changes a variable.
pub fn assign_variable(call: &mut Call<'_, '_>) -> Results {
    let index = call.variable_of(0)?;
    let value = call.stored(1)?;
    if call.reader.initialises {
        let first = call.graph_ref().constant(value).cloned();
        call.reader.variables[index].first = first;
    } else {
        call.reader.variables[index].current = Some(value);
        call.reader.variables[index].assigned = true;
    }
    Ok(Vec::new())
}
