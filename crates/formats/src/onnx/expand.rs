//! Functions that a model defines: a node that calls one becomes the nodes of its body.

use std::collections::HashMap;

use bytes::Bytes;

use super::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};
use super::read::plain_domain;
use crate::error::{FormatError, at_most};
use crate::limits;

/// The functions of a model by domain, name and overload.
type Functions<'a> = HashMap<(&'a str, &'a str, &'a str), &'a FunctionProto>;

struct Expander<'a> {
    functions: Functions<'a>,
    /// What no name in the model begins with.
    start: String,
    calls: usize,
    nodes: usize,
    bytes: usize,
}

/// What the names and attributes of a function's body become at one call.
struct Scope<'a> {
    names: HashMap<&'a str, String>,
    attributes: HashMap<&'a str, &'a AttributeProto>,
    /// Before the names of values that only the body has.
    prefix: String,
}

/// The model's graph with every call of a function that the model defines replaced by its body.
///
/// # Errors
/// For functions that call themselves or each other deeper than [`limits::NESTING`], for bodies
/// that are too much together, and for a function of another operator set than the model's.
pub fn expanded(model: &ModelProto) -> Result<GraphProto, FormatError> {
    let graph = model.graph.as_ref();
    let graph = graph.ok_or_else(|| FormatError::Unsupported("a model without a graph".into()))?;
    let mut functions = Functions::new();
    for function in &model.functions {
        check_version(model, function)?;
        functions.insert(key(&function.domain, &function.name, &function.overload), function);
    }
    let mut start = String::from("call.");
    while names_of(graph).any(|name| name.starts_with(&start)) {
        start.push('.');
    }
    let mut expander = Expander { functions, start, calls: 0, nodes: 0, bytes: 0 };
    expander.graph(graph, None, 0)
}

fn key<'a>(
    domain: &'a Option<String>,
    name: &'a Option<String>,
    overload: &'a Option<String>,
) -> (&'a str, &'a str, &'a str) {
    let text = |text: &'a Option<String>| text.as_deref().unwrap_or_default();
    (plain_domain(domain.as_deref()), text(name), text(overload))
}

/// Every name of a value in a graph, also in those inside it.
fn names_of(graph: &GraphProto) -> Box<dyn Iterator<Item = &str> + '_> {
    let made = graph.node.iter().flat_map(|n| n.output.iter().chain(&n.input)).map(String::as_str);
    let inputs = graph.input.iter().filter_map(|input| input.name.as_deref());
    let constants = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref());
    let inner = graph.node.iter().flat_map(super::branches::graphs).flat_map(names_of);
    Box::new(made.chain(inputs).chain(constants).chain(inner))
}

fn check_version(model: &ModelProto, function: &FunctionProto) -> Result<(), FormatError> {
    let own = |imports: &[super::proto::OperatorSetIdProto]| {
        let import = imports.iter().find(|i| plain_domain(i.domain.as_deref()).is_empty());
        import.and_then(|import| import.version)
    };
    match (own(&model.opset_import), own(&function.opset_import)) {
        (Some(a), Some(b)) if a != b => Err(FormatError::Unsupported(format!(
            "function `{}` uses operator set {b} and the model {a}; convert the model to one",
            function.name.as_deref().unwrap_or_default()
        ))),
        _ => Ok(()),
    }
}

/// About so many bytes are the structures of a copy of a node, without those of graphs inside.
fn node_bytes(node: &NodeProto) -> usize {
    let text = |text: &String| size_of::<String>() + text.len();
    let attribute = |a: &AttributeProto| {
        let lists = a.ints.len() * 8 + a.floats.len() * 4 + a.strings.len() * size_of::<Bytes>();
        size_of::<AttributeProto>() + lists + a.t.as_deref().map_or(0, tensor_bytes)
    };
    let names: usize = node.input.iter().chain(&node.output).map(text).sum();
    size_of::<NodeProto>() + names + node.attribute.iter().map(attribute).sum::<usize>()
}

/// The same of a tensor, whose elements are shared.
fn tensor_bytes(tensor: &TensorProto) -> usize {
    size_of::<TensorProto>() + tensor.string_data.len() * size_of::<Bytes>()
}

impl<'a> Expander<'a> {
    fn spend(&mut self, bytes: usize) -> Result<(), FormatError> {
        self.bytes += bytes;
        at_most("bytes of all bodies of functions", self.bytes, limits::STRUCTURE_BYTES / 2)
    }

    fn graph(
        &mut self,
        graph: &GraphProto,
        scope: Option<&Scope<'_>>,
        depth: usize,
    ) -> Result<GraphProto, FormatError> {
        let values = graph.input.len() + graph.output.len() + graph.value_info.len();
        let constants: usize = graph.initializer.iter().map(tensor_bytes).sum();
        self.spend(values * size_of::<ValueInfoProto>() + constants)?;
        let mut made =
            GraphProto { node: Vec::with_capacity(graph.node.len()), ..GraphProto::default() };
        made.name.clone_from(&graph.name);
        made.initializer.clone_from(&graph.initializer);
        made.sparse_initializer.clone_from(&graph.sparse_initializer);
        made.input.clone_from(&graph.input);
        made.output.clone_from(&graph.output);
        made.value_info.clone_from(&graph.value_info);
        if let Some(scope) = scope {
            let names = made.initializer.iter_mut().filter_map(|tensor| tensor.name.as_mut());
            let values = made.input.iter_mut().chain(&mut made.output).chain(&mut made.value_info);
            for name in names.chain(values.filter_map(|value| value.name.as_mut())) {
                *name = scope.name(name);
            }
        }
        self.nodes(&graph.node, scope, depth, &mut made.node)?;
        Ok(made)
    }

    /// Appends the nodes with their names and attributes as the scope has them.
    fn nodes(
        &mut self,
        nodes: &[NodeProto],
        scope: Option<&Scope<'_>>,
        depth: usize,
        to: &mut Vec<NodeProto>,
    ) -> Result<(), FormatError> {
        // Graphs in bodies in graphs: each step goes one deeper.
        at_most("nesting of functions and graphs", depth, 2 * limits::NESTING)?;
        for node in nodes {
            self.nodes += 1;
            at_most("number of nodes", self.nodes, limits::NODES)?;
            self.spend(node_bytes(node))?;
            let node = self.renamed(node, scope, depth)?;
            let called = key(&node.domain, &node.op_type, &node.overload);
            match self.functions.get(&called).copied() {
                Some(function) => self.call(function, &node, depth, to)?,
                None => to.push(node),
            }
        }
        Ok(())
    }

    fn renamed(
        &mut self,
        node: &NodeProto,
        scope: Option<&Scope<'_>>,
        depth: usize,
    ) -> Result<NodeProto, FormatError> {
        let mut made =
            NodeProto { attribute: Vec::with_capacity(node.attribute.len()), ..node.clone() };
        if let Some(scope) = scope {
            for name in made.input.iter_mut().chain(&mut made.output) {
                *name = scope.name(name);
            }
            let own = node.name.as_deref().unwrap_or_default();
            made.name = Some(format!("{}{own}", scope.prefix));
        }
        for attribute in &node.attribute {
            let mut own = attribute.clone();
            let referred = attribute.ref_attr_name.as_deref().filter(|name| !name.is_empty());
            if let (Some(name), Some(scope)) = (referred, scope) {
                // What the call does not give and has no default is absent.
                let Some(&given) = scope.attributes.get(name) else { continue };
                own = AttributeProto { name: attribute.name.clone(), ..given.clone() };
            } else if let Some(inner) = &attribute.g {
                own.g = Some(Box::new(self.graph(inner, scope, depth + 1)?));
            }
            made.attribute.push(own);
        }
        Ok(made)
    }

    fn call(
        &mut self,
        function: &'a FunctionProto,
        node: &NodeProto,
        depth: usize,
        to: &mut Vec<NodeProto>,
    ) -> Result<(), FormatError> {
        let fail = |why: &str| FormatError::Node {
            node: super::call::label(node),
            operator: node.op_type.clone().unwrap_or_default(),
            why: why.into(),
        };
        if node.input.len() > function.input.len() || node.output.len() > function.output.len() {
            return Err(fail("the call has more operands or results than the function"));
        }
        let prefix = format!("{}{}.{}/", self.start, self.calls, super::call::label(node));
        self.calls += 1;
        let mut names = HashMap::new();
        for (index, name) in function.input.iter().enumerate() {
            names.insert(name.as_str(), node.input.get(index).cloned().unwrap_or_default());
        }
        for (index, name) in function.output.iter().enumerate() {
            let Some(wanted) = node.output.get(index).filter(|name| !name.is_empty()) else {
                continue;
            };
            if let Some(source) = names.get(name.as_str()).filter(|_| function.input.contains(name))
            {
                // A result that is an operand as it came.
                to.push(NodeProto {
                    input: vec![source.clone()],
                    output: vec![wanted.clone()],
                    op_type: Some("Identity".into()),
                    ..NodeProto::default()
                });
            } else {
                names.insert(name, wanted.clone());
            }
        }
        let defaults = function.attribute_proto.iter();
        let given = defaults.chain(&node.attribute);
        let attributes = given.filter_map(|a| Some((a.name.as_deref()?, a))).collect();
        let scope = Scope { names, attributes, prefix };
        self.nodes(&function.node, Some(&scope), depth + 1, to)
    }
}

impl Scope<'_> {
    fn name(&self, name: &str) -> String {
        match self.names.get(name) {
            _ if name.is_empty() => String::new(),
            Some(outer) => outer.clone(),
            None => format!("{}{name}", self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::OperatorSetIdProto;
    use super::*;

    fn node(operator: &str, domain: &str, input: &str, output: &str) -> NodeProto {
        NodeProto {
            input: vec![input.into()],
            output: vec![output.into()],
            op_type: Some(operator.into()),
            domain: Some(domain.into()),
            ..NodeProto::default()
        }
    }

    fn function(name: &str, node: Vec<NodeProto>) -> FunctionProto {
        let (input, output) = (vec!["x".into()], vec!["y".into()]);
        let (name, domain) = (Some(name.into()), Some("own".into()));
        FunctionProto { name, domain, input, output, node, ..FunctionProto::default() }
    }

    fn model(functions: Vec<FunctionProto>) -> ModelProto {
        let node = vec![node("F", "own", "call.a", "b")];
        let graph = Some(GraphProto { node, ..GraphProto::default() });
        ModelProto { graph, functions, ..ModelProto::default() }
    }

    #[test]
    fn values_of_a_body_get_names_that_nothing_has() {
        let body = vec![node("Neg", "", "x", "t"), node("Abs", "", "t", "y")];
        let graph = expanded(&model(vec![function("F", body)])).unwrap();
        let names: Vec<(&str, &str)> =
            graph.node.iter().map(|n| (n.input[0].as_str(), n.output[0].as_str())).collect();
        let inner = names[0].1;
        assert_eq!(names, [("call.a", inner), (inner, "b")]);
        assert!(!inner.starts_with("call.c") && inner.ends_with('t'), "{inner}");
    }

    #[test]
    fn functions_without_end_are_errors() {
        let endless = function("F", vec![node("F", "own", "x", "y")]);
        let error = expanded(&model(vec![endless])).unwrap_err().to_string();
        assert!(error.contains("nesting"), "{error}");
        // Each of sixteen levels calls the next sixteen times.
        let mut functions = Vec::new();
        for level in 0..12 {
            let next = format!("F{}", level + 1);
            let calls = (0..16).map(|i| {
                let from = if i == 0 { "x".into() } else { format!("t{i}") };
                node(&next, "own", &from, &if i == 15 { "y".into() } else { format!("t{}", i + 1) })
            });
            let name = if level == 0 { "F".into() } else { format!("F{level}") };
            functions.push(function(&name, calls.collect()));
        }
        assert!(expanded(&model(functions)).unwrap_err().to_string().contains("number of nodes"));
    }

    #[test]
    fn other_operator_sets_are_named() {
        let import = |version| OperatorSetIdProto { domain: None, version: Some(version) };
        let mut other = function("F", Vec::new());
        other.opset_import = vec![import(12)];
        let mut model = model(vec![other]);
        model.opset_import = vec![import(21)];
        let error = expanded(&model).unwrap_err().to_string();
        assert!(error.contains("function `F` uses operator set 12"), "{error}");
    }
}
