//! Graph to text.

use std::collections::HashMap;
use std::fmt::Write;

use lepton_tensor::{DType, Tensor};

use crate::attribute::Attribute;
use crate::graph::{Graph, Node, ValueId};

/// Elements of a constant that the brief form still shows.
const BRIEF_ELEMENTS: usize = 8;

/// The whole graph, constants included: [`super::parse`] gives the same graph back.
pub fn print(graph: &Graph) -> String {
    Printer::new(graph, usize::MAX).graph(0)
}

/// The graph with long constants left out, for reading.
pub fn print_brief(graph: &Graph) -> String {
    Printer::new(graph, BRIEF_ELEMENTS).graph(0)
}

struct Printer<'a> {
    graph: &'a Graph,
    names: HashMap<ValueId, String>,
    most_elements: usize,
}

impl<'a> Printer<'a> {
    /// Names are made unique: a value without a name, or with one already taken, gets its number.
    fn new(graph: &'a Graph, most_elements: usize) -> Self {
        let mut taken = HashMap::new();
        let interface = graph.inputs().iter().chain(graph.outputs()).copied();
        for id in interface.chain(graph.value_ids()) {
            let name = &graph.value(id).name;
            if !name.is_empty() {
                taken.entry(name.as_str()).or_insert(id);
            }
        }
        let names = graph
            .value_ids()
            .map(|id| {
                let name = &graph.value(id).name;
                let own = taken.get(name.as_str()) == Some(&id);
                (id, if own { quoted(name) } else { id.index().to_string() })
            })
            .collect();
        Printer { graph, names, most_elements }
    }

    fn graph(&self, depth: usize) -> String {
        let pad = "  ".repeat(depth + 1);
        let mut text = format!("graph {:?} {{\n", self.graph.name);
        for &id in self.graph.inputs() {
            let _ = writeln!(text, "{pad}input {}", self.declared(id));
        }
        for id in self.graph.constants() {
            let tensor = self.graph.constant(id).expect("listed as a constant");
            let _ = writeln!(text, "{pad}const {} = {}", self.declared(id), self.tensor(tensor));
        }
        for (_, node) in self.graph.nodes() {
            let _ = writeln!(text, "{pad}{}", self.node(node, depth));
        }
        let outputs: Vec<String> =
            self.graph.outputs().iter().map(|id| format!("%{}", self.names[id])).collect();
        let _ = writeln!(text, "{pad}output {}", outputs.join(", "));
        let _ = write!(text, "{}}}", "  ".repeat(depth));
        if depth == 0 {
            text.push('\n');
        }
        text
    }

    fn declared(&self, id: ValueId) -> String {
        format!("%{}: {}", self.names[&id], self.graph.fact(id))
    }

    fn node(&self, node: &Node, depth: usize) -> String {
        let results: Vec<String> = node
            .outputs
            .iter()
            .map(|id| id.map_or("_".to_string(), |id| self.declared(id)))
            .collect();
        let operands: Vec<String> = node
            .inputs
            .iter()
            .map(|id| id.map_or("_".to_string(), |id| format!("%{}", self.names[&id])))
            .collect();
        let mut text =
            format!("{} = {}({})", results.join(", "), node.op.name(), operands.join(", "));
        let attributes = node.op.attributes();
        if !attributes.is_empty() {
            let list: Vec<String> = attributes
                .iter()
                .map(|(name, value)| format!("{name}={}", self.attribute(value, depth)))
                .collect();
            let _ = write!(text, " {{{}}}", list.join(", "));
        }
        if !node.name.is_empty() {
            let _ = write!(text, " {:?}", node.name);
        }
        text
    }

    fn attribute(&self, attribute: &Attribute, depth: usize) -> String {
        fn list<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
            format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", "))
        }
        match attribute {
            Attribute::Int(value) => value.to_string(),
            Attribute::Float(value) => float(*value as f64, DType::F32),
            Attribute::Text(value) => format!("{value:?}"),
            Attribute::Ints(values) => list(values, i64::to_string),
            Attribute::Floats(values) => {
                format!("f{}", list(values, |&v| float(v as f64, DType::F32)))
            }
            Attribute::Texts(values) => format!("t{}", list(values, |v| format!("{v:?}"))),
            Attribute::Tensor(tensor) => {
                let shape = list(tensor.shape(), usize::to_string);
                format!("tensor {}{shape} = {}", tensor.dtype(), self.tensor(tensor))
            }
            Attribute::Graph(inner) => Printer::new(inner, self.most_elements).graph(depth + 1),
        }
    }

    fn tensor(&self, tensor: &Tensor) -> String {
        if tensor.len() > self.most_elements {
            return "...".to_string();
        }
        let items: Vec<String> = if let Ok(strings) = tensor.strings() {
            strings.into_iter().map(|string| format!("{string:?}")).collect()
        } else if tensor.dtype().is_float() {
            tensor.to_f64_vec().into_iter().map(|v| float(v, tensor.dtype())).collect()
        } else if tensor.dtype() == DType::U64 {
            tensor.to_i64_vec().into_iter().map(|v| (v as u64).to_string()).collect()
        } else {
            tensor.to_i64_vec().iter().map(i64::to_string).collect()
        };
        format!("[{}]", items.join(", "))
    }
}

/// The shortest decimal that reads back as the same number, always with a mark of a float.
fn float(value: f64, dtype: DType) -> String {
    let text =
        if dtype == DType::F64 { format!("{value:?}") } else { format!("{:?}", value as f32) };
    text.strip_suffix(".0").map_or(text.clone(), |whole| format!("{whole}."))
}

/// Plain identifiers as they are, anything else in quotes.
fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/'));
    if plain && name != "_" { name.to_string() } else { format!("{name:?}") }
}
