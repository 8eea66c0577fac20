//! From the bytes of a model to a graph.

use std::collections::HashSet;
use std::rc::Rc;

use bytes::Bytes;
use lepton_ir::ops::unary::Unary;
use lepton_ir::{Fact, Graph, ValueId};
use lepton_tensor::Tensor;

use super::call::Call;
use super::ops;
use super::schema::{self, Code, Model, Operator, Signature, SubGraph};
use super::tensor::RESOURCE;
use crate::error::{FormatError, MOST_PROBLEMS, UnknownOperator, at_most};
use crate::limits;
use crate::problems::Problems;
use crate::steps::{Budget, Made, Results};

/// Reads a model. Weights share `bytes` where they are aligned. Variables are zero at the start of
/// every run. Shapes declared for anything but inputs and constants are hints and not used.
pub fn read(bytes: Bytes) -> Result<Graph, FormatError> {
    let model = schema::decode(&bytes)?;
    let Some(main) = model.subgraphs.first() else {
        return Err(FormatError::Damaged {
            format: "TFLite",
            offset: 0,
            why: "it has no graph".into(),
        });
    };
    let unknown = unknown_operators(&model)?;
    let mut reader = Reader::new(&model, bytes.clone(), &main.name);
    if !unknown.is_empty() {
        reader.problems.add(FormatError::UnknownOperators(unknown))?;
    }
    let signature = model.signatures.iter().find(|signature| signature.subgraph == 0);
    let mut operands = Vec::with_capacity(main.inputs.len());
    for (position, &index) in main.inputs.iter().enumerate() {
        let info = reader.info(main, index)?;
        let given = signature.and_then(|s| name_in(&s.inputs, index));
        let name = given.unwrap_or(&info.name);
        let name = if name.is_empty() { format!("input_{position}") } else { name.to_string() };
        let fact = info.fact(&name)?;
        reader.names.insert(name.clone());
        operands.push(reader.graph.add_input(name, fact));
    }
    let results = reader.body(0, &operands)?;
    reader.name_outputs(main, signature, results)?;
    reader.graph.remove_dead();
    let graph = reader.graph.compacted();
    graph.verify()?;
    Ok(graph)
}

/// The names of the operators of a model's graphs in order, whether or not it can be read.
pub fn operators(bytes: &[u8]) -> Result<Vec<String>, FormatError> {
    let model = schema::decode(bytes)?;
    let nodes = model.subgraphs.iter().flat_map(|graph| &graph.operators);
    nodes.map(|node| code_of(&model, node).map(ops::name)).collect()
}

/// The name a signature gives to a tensor.
fn name_in(map: &[(String, i32)], index: i32) -> Option<&str> {
    let found = map.iter().find(|(name, tensor)| *tensor == index && !name.is_empty());
    found.map(|(name, _)| name.as_str())
}

/// The operators that Lepton does not have, each once.
fn unknown_operators(model: &Model<'_>) -> Result<Vec<UnknownOperator>, FormatError> {
    let mut unknown: Vec<UnknownOperator> = Vec::new();
    let mut seen = HashSet::new();
    for (number, graph) in model.subgraphs.iter().enumerate() {
        for (index, node) in graph.operators.iter().enumerate() {
            let code = code_of(model, node)?;
            let operator = ops::name(code);
            let newest = ops::find(code).map(|row| row.newest);
            if is_known(code) || !seen.insert(operator.clone()) {
                continue;
            }
            if unknown.len() == MOST_PROBLEMS {
                return Ok(unknown);
            }
            let older = newest.map(|newest| format!(", known up to version {newest}"));
            let node = label(graph, number, index, node) + &older.unwrap_or_default();
            let (domain, version) = ("TFLite".to_string(), i64::from(code.version));
            unknown.push(UnknownOperator { operator, domain, version, node });
        }
    }
    Ok(unknown)
}

/// True if Lepton has the operator in that version.
fn is_known(code: &Code) -> bool {
    ops::find(code).is_some_and(|row| code.version <= row.newest)
}

/// Which operator a node is.
fn code_of<'a>(model: &'a Model<'_>, node: &Operator<'_>) -> Result<&'a Code, FormatError> {
    model.codes.get(node.code).ok_or_else(|| FormatError::Damaged {
        format: "TFLite",
        offset: 0,
        why: format!("a node is of operator {}, which is not listed", node.code),
    })
}

/// The problem with the node it was found at, and what the file declares about its inputs.
fn located(
    graph: &SubGraph<'_>,
    node: &Operator<'_>,
    code: &Code,
    label: &str,
    problem: FormatError,
) -> FormatError {
    let input = |&index: &i32| {
        let info = graph.tensors.get(usize::try_from(index).ok()?)?;
        let fact = info.fact("").map_or(String::new(), |fact| format!(" {fact}"));
        Some(format!("`{}`{fact}", info.name))
    };
    let inputs: Vec<String> = node.inputs.iter().filter_map(input).collect();
    let operator = format!("{} version {}", ops::name(code), code.version);
    problem.of_node(label, &operator, &inputs.join(", "))
}

/// The number of a node and the name of its first result.
pub fn label(graph: &SubGraph<'_>, number: usize, index: usize, node: &Operator<'_>) -> String {
    let result = node.outputs.first().and_then(|&output| usize::try_from(output).ok());
    let result = result.and_then(|output| graph.tensors.get(output));
    let name = result.map_or("", |tensor| tensor.name.as_str());
    match number {
        0 => format!("{index}: {name}"),
        _ => format!("{number}.{index}: {name}"),
    }
}

/// A tensor of a graph of the file while that is translated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// Its elements as the file has them.
    pub stored: Option<ValueId>,
    /// What they stand for, if they are quantised and somebody asked.
    pub real: Option<ValueId>,
    /// The variable it names.
    pub variable: Option<usize>,
}

/// One model of the file while it is translated.
pub struct Reader<'a> {
    /// The model.
    pub model: &'a Model<'a>,
    file: Bytes,
    /// What it becomes.
    pub graph: Graph,
    /// Graphs inside graphs that are being read.
    depth: usize,
    names: HashSet<String>,
    /// The variables that were named.
    pub variables: Vec<Variable>,
    /// What was made of states that came as inputs: their names and next values.
    kept: Vec<(String, ValueId)>,
    /// True in the graph that gives variables their first values.
    pub initialises: bool,
    /// What constants may still be made.
    pub budget: Rc<Budget>,
    /// What was wrong so far.
    problems: Problems<i32>,
}

/// A variable of the file.
#[derive(Clone, Debug, Default)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its first value, if that is a constant.
    pub first: Option<Tensor>,
    /// What was read or last assigned.
    pub current: Option<ValueId>,
    /// True if it was assigned to.
    pub assigned: bool,
}

impl<'a> Reader<'a> {
    fn new(model: &'a Model<'a>, file: Bytes, name: &str) -> Self {
        Reader {
            model,
            file,
            graph: Graph::new(name),
            depth: 0,
            names: HashSet::new(),
            variables: Vec::new(),
            kept: Vec::new(),
            initialises: false,
            budget: Rc::default(),
            problems: Problems::default(),
        }
    }

    /// A reader of graphs that become an operator's attribute.
    pub fn inner(&self) -> Reader<'a> {
        let mut inner = Reader::new(self.model, self.file.clone(), "");
        inner.depth = self.depth + 1;
        inner.budget = Rc::clone(&self.budget);
        inner
    }

    /// A state as an input of the graph.
    pub fn state(&mut self, name: &str, fact: Fact) -> Made {
        if self.depth > 1 {
            return Err(FormatError::Unsupported("a state of a graph inside the graph".into()));
        }
        let name = match self.fresh_name(name) {
            name if name.is_empty() => format!("state_{}", self.graph.inputs().len()),
            name => name,
        };
        Ok(self.graph.add_input(name, fact))
    }

    /// The next value of a state, which becomes an output of the graph.
    pub fn keep(&mut self, name: String, next: ValueId) {
        self.kept.push((name, next));
    }

    /// The number of the variable of that name.
    pub fn variable(&mut self, name: &str) -> usize {
        if let Some(found) = self.variables.iter().position(|variable| variable.name == name) {
            return found;
        }
        self.variables.push(Variable { name: name.to_string(), ..Variable::default() });
        self.variables.len() - 1
    }

    /// True if a run changes any variable.
    pub fn assigns(&self) -> bool {
        let is = |node: &Operator<'_>| {
            self.model.codes.get(node.code).is_some_and(|c| ops::name(c) == "ASSIGN_VARIABLE")
        };
        self.model.subgraphs.first().is_some_and(|graph| graph.operators.iter().any(is))
    }

    /// The declaration of a tensor.
    pub fn info<'g>(
        &self,
        graph: &'g SubGraph<'_>,
        index: i32,
    ) -> Result<&'g schema::TensorInfo, FormatError> {
        let found = usize::try_from(index).ok().and_then(|index| graph.tensors.get(index));
        found.ok_or_else(|| FormatError::Damaged {
            format: "TFLite",
            offset: 0,
            why: format!("tensor {index} is used, of {}", graph.tensors.len()),
        })
    }

    /// The elements of a constant.
    fn constant(&self, info: &schema::TensorInfo) -> Result<Option<Tensor>, FormatError> {
        let range = self.model.buffers.get(info.buffer).cloned();
        let range = range.ok_or_else(|| FormatError::tensor(&info.name, "it has no buffer"))?;
        let empty = info.shape.contains(&0) && info.buffer != 0;
        if info.kind == RESOURCE || (range.is_empty() && !empty) {
            return Ok(None);
        }
        info.tensor(self.file.slice(range)).map(Some)
    }

    /// Adds the nodes of a graph of the file whose inputs are `operands`; gives its results.
    pub fn body(&mut self, number: usize, operands: &[ValueId]) -> Results {
        at_most("nesting of graphs", self.depth, limits::NESTING)?;
        let model = self.model;
        let graph = model.subgraphs.get(number).ok_or_else(|| {
            FormatError::Unsupported(format!("graph {number}, which the file does not have"))
        })?;
        if graph.inputs.len() != operands.len() {
            let (takes, given) = (graph.inputs.len(), operands.len());
            let why = format!("a graph that takes {takes} values and is given {given}");
            return Err(FormatError::Unsupported(why));
        }
        let mut held = vec![Held::default(); graph.tensors.len()];
        for (&index, &operand) in graph.inputs.iter().zip(operands) {
            self.info(graph, index)?;
            held[index as usize].stored = Some(operand);
        }
        self.depth += 1;
        // Graphs within are whole or a problem of the node they are in.
        let outside = match self.depth {
            1 => Problems::default(),
            _ => std::mem::take(&mut self.problems),
        };
        let read = self.nodes(graph, number, &mut held);
        self.depth -= 1;
        self.problems = outside;
        read?;
        let mut results = Vec::with_capacity(graph.outputs.len());
        for &index in &graph.outputs {
            self.info(graph, index)?;
            results.push(self.value(graph, &mut held, index)?);
        }
        Ok(results)
    }

    /// Reads the nodes of a graph; all its problems are one error.
    fn nodes(
        &mut self,
        graph: &'a SubGraph<'a>,
        number: usize,
        held: &mut Vec<Held>,
    ) -> Result<(), FormatError> {
        for (index, node) in graph.operators.iter().enumerate() {
            at_most(
                "nodes of operators and repeated graphs",
                self.graph.node_count(),
                limits::NODES,
            )?;
            at_most(
                "values of operators and repeated graphs",
                self.graph.value_count(),
                limits::VALUES,
            )?;
            let code = code_of(self.model, node)?;
            if !is_known(code) || self.problems.concern(&node.inputs) {
                self.leave_out(graph, held, node)?;
                continue;
            }
            let label = label(graph, number, index, node);
            if let Err(problem) = self.read_node(graph, held, node, code, &label) {
                self.problems.add(located(graph, node, code, &label, problem))?;
                self.leave_out(graph, held, node)?;
            }
        }
        self.problems.all()
    }

    fn read_node(
        &mut self,
        graph: &'a SubGraph<'a>,
        held: &mut Vec<Held>,
        node: &'a Operator<'a>,
        code: &Code,
        label: &str,
    ) -> Result<(), FormatError> {
        let (operator, label) = (ops::name(code), label.to_string());
        let mut call = Call { reader: self, graph, held, node, operator, label };
        let results = ops::translate(&mut call, code)?;
        call.finish(results)
    }

    /// Makes values of the node's results as the file declares them, so that what uses them can be
    /// read.
    fn leave_out(
        &mut self,
        graph: &SubGraph<'_>,
        held: &mut [Held],
        node: &Operator<'_>,
    ) -> Result<(), FormatError> {
        for &index in node.outputs.iter().filter(|&&index| index >= 0) {
            let declared = self.info(graph, index)?.fact("");
            let held = &mut held[index as usize];
            match declared {
                Ok(fact) if held.stored.is_none() => {
                    held.stored = Some(self.graph.add_input("", fact));
                }
                _ => self.problems.lose(index),
            }
        }
        Ok(())
    }

    /// A tensor of the graph: what a node made, an input or a constant.
    pub fn value(
        &mut self,
        graph: &SubGraph<'_>,
        held: &mut [Held],
        index: i32,
    ) -> Result<ValueId, FormatError> {
        let info = self.info(graph, index)?;
        let index = index as usize;
        if let Some(value) = held[index].stored {
            return Ok(value);
        }
        let tensor = match self.constant(info)? {
            Some(tensor) => tensor,
            None if info.is_variable => {
                // What starts at zero and is written by the operator itself.
                let extents = info.extents()?;
                if !self.budget.take(&extents) {
                    return Err(FormatError::tensor(&info.name, "the variable is too large"));
                }
                Tensor::zeros(info.dtype()?, extents)
                    .map_err(|error| FormatError::tensor(&info.name, error.to_string()))?
            }
            None => return Err(FormatError::tensor(&info.name, "nothing makes it")),
        };
        let name = self.fresh_name(&info.name);
        let value = self.graph.add_constant(name, tensor);
        held[index].stored = Some(value);
        Ok(value)
    }

    /// The name if no other value has it, else none.
    pub fn fresh_name(&mut self, name: &str) -> String {
        let fresh = self.depth <= 1 && !name.is_empty() && self.names.insert(name.to_string());
        if fresh { name.to_string() } else { String::new() }
    }

    /// Gives the outputs the names they have in the file, or in its signature.
    fn name_outputs(
        &mut self,
        main: &SubGraph<'_>,
        signature: Option<&Signature>,
        results: Vec<ValueId>,
    ) -> Result<(), FormatError> {
        let mut outputs: Vec<ValueId> = Vec::with_capacity(results.len());
        for (position, (&index, mut value)) in main.outputs.iter().zip(results).enumerate() {
            let info = self.info(main, index)?;
            let given = signature.and_then(|s| name_in(&s.outputs, index));
            let name = given.unwrap_or(&info.name);
            let name =
                if name.is_empty() { format!("output_{position}") } else { name.to_string() };
            let made = self.graph.value(value).producer.is_some();
            if !made || outputs.contains(&value) {
                // An input, a constant, or a value that has another name already.
                value = self.graph.add_node("", Unary::default(), &[Some(value)])?[0];
            }
            self.graph.set_value_name(value, name);
            outputs.push(value);
        }
        let assigned = self.variables.iter().filter(|variable| variable.assigned);
        let assigned = assigned.filter_map(|v| Some((v.name.clone(), v.current?)));
        let kept: Vec<(String, ValueId)> = self.kept.iter().cloned().chain(assigned).collect();
        for (name, next) in kept {
            let value = self.graph.add_node("", Unary::default(), &[Some(next)])?[0];
            self.graph.set_value_name(value, format!("{name}.next"));
            outputs.push(value);
        }
        self.graph.set_outputs(outputs);
        Ok(())
    }
}
