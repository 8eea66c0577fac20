//! Facts through a whole graph, and specialisation to concrete input shapes.

use lepton_tensor::Tensor;

use crate::dim::{Bindings, Dim};
use crate::error::GraphError;
use crate::fact::Fact;
use crate::graph::{Graph, ValueId};

impl Graph {
    /// Gives each unknown extent of a value a symbol of its own, so that it equals nothing else.
    pub(crate) fn rename_unknown(&mut self, id: ValueId) {
        for axis in 0..self.fact(id).rank() {
            if self.fact(id).dims[axis].is_unknown() {
                let own = Dim::symbol(format!("?{}.{axis}", id.0));
                self.value_mut(id).fact.dims[axis] = own;
            }
        }
    }

    /// Infers every node again, in order.
    pub fn refresh(&mut self) -> Result<(), GraphError> {
        for id in self.order() {
            let facts = self.infer_node(self.node(id))?;
            for (position, fact) in facts.into_iter().enumerate() {
                if let Some(&Some(output)) = self.node(id).outputs.get(position) {
                    self.set_fact(output, fact);
                }
            }
        }
        Ok(())
    }

    /// The symbol values under which the declared input shapes become `shapes` (one per input).
    pub fn bindings_for(&self, shapes: &[&[usize]]) -> Result<Bindings, GraphError> {
        let mut bindings = Bindings::new();
        for (&id, shape) in self.inputs.iter().zip(shapes) {
            let (name, fact) = (&self.value(id).name, self.fact(id));
            let wrong = |why: String| GraphError::Input { name: name.clone(), why };
            if shape.len() != fact.rank() {
                return Err(wrong(format!("expected {fact}, found shape {shape:?}")));
            }
            for (dim, &extent) in fact.dims.iter().zip(*shape) {
                let bound = dim.bind(&bindings);
                let extent = Dim::from(extent);
                match (bound.symbols().as_slice(), bound.as_known()) {
                    (_, Some(_)) if bound == extent => {}
                    ([symbol], None) if bound == Dim::symbol(symbol.clone()) => {
                        bindings.insert(symbol.clone(), extent.as_known().unwrap_or(i64::MAX));
                    }
                    _ => {
                        // Only a symbol's value is news beside what was expected.
                        let here = match dim.as_known() {
                            Some(_) => String::new(),
                            None => format!(" ({dim} is {bound} here)"),
                        };
                        return Err(wrong(format!("expected {fact}, found shape {shape:?}{here}")));
                    }
                }
            }
        }
        Ok(bindings)
    }

    /// The graph with its symbols bound and every fact inferred again.
    pub fn specialised(&self, bindings: &Bindings) -> Result<Graph, GraphError> {
        let mut graph = self.clone();
        if bindings.is_empty() {
            return Ok(graph);
        }
        for id in self.inputs.clone() {
            graph.set_fact(id, self.fact(id).bind(bindings));
        }
        graph.refresh()?;
        Ok(graph)
    }

    /// The symbols of the input shapes, in order of appearance.
    pub fn symbols(&self) -> Vec<std::sync::Arc<str>> {
        let mut symbols = Vec::new();
        for dim in self.inputs.iter().flat_map(|&id| &self.fact(id).dims) {
            for symbol in dim.symbols() {
                if !symbols.contains(&symbol) {
                    symbols.push(symbol);
                }
            }
        }
        symbols
    }

    /// Checks tensors against the declared inputs and finds the symbol values.
    pub fn check_inputs(&self, inputs: &[Tensor]) -> Result<Bindings, GraphError> {
        if inputs.len() != self.inputs.len() {
            let why = format!("{} inputs expected, found {}", self.inputs.len(), inputs.len());
            return Err(GraphError::Structure(why));
        }
        for (&id, tensor) in self.inputs.iter().zip(inputs) {
            let fact = self.fact(id);
            if tensor.dtype() != fact.dtype {
                return Err(GraphError::Input {
                    name: self.value(id).name.clone(),
                    why: format!(
                        "expected {fact}, found {:?} of {}",
                        tensor.shape(),
                        tensor.dtype()
                    ),
                });
            }
        }
        let shapes: Vec<&[usize]> = inputs.iter().map(Tensor::shape).collect();
        self.bindings_for(&shapes)
    }

    /// The fact of every input, with names.
    pub fn input_specs(&self) -> Vec<(String, Fact)> {
        self.specs(&self.inputs)
    }

    /// The fact of every output, with names.
    pub fn output_specs(&self) -> Vec<(String, Fact)> {
        self.specs(&self.outputs)
    }

    fn specs(&self, ids: &[ValueId]) -> Vec<(String, Fact)> {
        ids.iter().map(|&id| (self.value(id).name.clone(), self.fact(id).clone())).collect()
    }
}
