//! From the bytes of an ONNX model to a graph.

use std::cell::LazyCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use bytes::Bytes;
use lepton_ir::ops::unary::Unary;
use lepton_ir::{Dim, Fact, Graph, ValueId};
use lepton_tensor::Tensor;
use prost::Message;

use super::call::{Call, label};
use super::lists::{self, Item};
use super::problems::hints;
use super::proto::{GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto};
use super::{ExternalData, branches, expand, folded, gradient, ops, tensor, wire};
use crate::error::{FormatError, MOST_PROBLEMS, UnknownOperator, at_most};
use crate::limits;
use crate::problems::Problems;
use crate::steps::{Budget, Steps};

const ONNX_DOMAIN: &str = "";
const OLDEST_OPSET: i64 = 6;

/// Reads a model. Weights share `bytes` where they are aligned; tensors kept outside come from
/// `external`. Shapes declared for intermediate values and outputs are hints and not used.
pub fn read(bytes: Bytes, external: &dyn ExternalData) -> Result<Graph, FormatError> {
    read_fixed(bytes, external, &Fixed::default())
}

/// What is known about a model's inputs beyond the file, by their names: for what must be known
/// before a model runs (axes, shapes, a sampling rate or an extent that decides between branches).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fixed {
    /// Inputs that are those tensors from now on, and no longer inputs.
    pub tensors: HashMap<String, Tensor>,
    /// Shapes of inputs, which the declared ones must allow; those of the elements of a sequence
    /// by its name, a dot and their index.
    pub shapes: HashMap<String, Vec<usize>>,
    /// How many elements a sequence has, which become inputs of their own, and whether an optional
    /// tensor is there (`Some(1)`) or not (`None`).
    pub counts: HashMap<String, Option<usize>>,
}

/// Reads a model of whose inputs something is `fixed`.
pub fn read_fixed(
    bytes: Bytes,
    external: &dyn ExternalData,
    fixed: &Fixed,
) -> Result<Graph, FormatError> {
    let model = decode(bytes)?;
    let proto = model.graph.as_ref().ok_or_else(|| damaged("it has no graph".into()))?;
    let inlined = (!model.functions.is_empty()).then(|| expand::expanded(&model)).transpose()?;
    let proto = inlined.as_ref().unwrap_or(proto);
    let graphs = all_graphs(proto)?;
    check_limits(&graphs)?;
    let versions = opset_versions(&model)?;
    let unknown = unknown_operators(&graphs, &versions);
    let (budget, mut problems) = (Budget::default(), Problems::default());
    if !unknown.is_empty() {
        problems.add(FormatError::UnknownOperators(unknown))?;
    }
    let mut reader = Reader {
        graph: Graph::new(proto.name.clone().unwrap_or_default()),
        names: HashMap::new(),
        lists: HashMap::new(),
        given: Vec::new(),
        version: versions.get(ONNX_DOMAIN).copied().unwrap_or(OLDEST_OPSET),
        external,
        fixed,
        fold_outputs: false,
        budget: &budget,
        problems,
    };
    fix_tensors(&mut reader, proto, &fixed.tensors)?;
    reader.read_body(proto)?;
    let outputs = reader.results(proto)?;
    let mut values = Vec::new();
    for (output, item) in proto.output.iter().zip(outputs) {
        let name = output.name.as_deref().unwrap_or_default();
        for (index, mut id) in item.values().into_iter().enumerate() {
            if matches!(item, super::lists::Item::List(_)) {
                // An element may have another name already, or none.
                id = reader.graph.add_node("", Unary::default(), &[Some(id)])?[0];
                reader.graph.set_value_name(id, format!("{name}.{index}"));
            }
            values.push(id);
        }
    }
    reader.graph.set_outputs(values);
    reader.graph.verify()?;
    Ok(reader.graph)
}

fn fix_tensors(
    reader: &mut Reader<'_>,
    proto: &GraphProto,
    tensors: &HashMap<String, Tensor>,
) -> Result<(), FormatError> {
    for (name, tensor) in tensors {
        let found = proto.input.iter().find(|input| input.name.as_ref() == Some(name));
        let input = found.ok_or_else(|| FormatError::tensor(name, "there is no such input"))?;
        if input_fact(name, input)?.dtype != tensor.dtype() {
            return Err(FormatError::tensor(name, "the fixed tensor has another element type"));
        }
        let id = reader.graph.add_constant(name, tensor.clone());
        reader.define(name, id)?;
    }
    Ok(())
}

/// The fact with the extents of `shape`; an error if it declares others.
fn fix_shape(name: &str, fact: Fact, shape: &[usize]) -> Result<Fact, FormatError> {
    let agree = |(dim, &extent): (&Dim, &usize)| dim.as_usize().is_none_or(|known| known == extent);
    if fact.rank() == shape.len() && fact.dims.iter().zip(shape).all(agree) {
        return Ok(Fact::dense(fact.dtype, shape));
    }
    Err(FormatError::tensor(name, format!("the fixed shape {shape:?} does not go with {fact}")))
}

/// The graph and those inside it.
fn all_graphs(proto: &GraphProto) -> Result<Vec<&GraphProto>, FormatError> {
    let mut all = vec![proto];
    let (mut start, mut depth) = (0, 0);
    while start < all.len() {
        at_most("nesting of graphs", depth, limits::NESTING)?;
        let end = all.len();
        let inner: Vec<_> =
            all[start..end].iter().flat_map(|g| &g.node).flat_map(branches::graphs).collect();
        all.extend(inner);
        (start, depth) = (end, depth + 1);
    }
    Ok(all)
}

/// The message.
pub fn decode(bytes: Bytes) -> Result<ModelProto, FormatError> {
    wire::check(&bytes).map_err(damaged)?;
    ModelProto::decode(bytes).map_err(|error| damaged(error.to_string()))
}

fn damaged(why: String) -> FormatError {
    FormatError::Damaged { format: "ONNX", offset: 0, why }
}

/// The domain, empty for ONNX's own.
pub fn plain_domain(domain: Option<&str>) -> &str {
    match domain {
        None | Some("ai.onnx") => ONNX_DOMAIN,
        Some(other) => other,
    }
}

fn opset_versions(model: &ModelProto) -> Result<HashMap<String, i64>, FormatError> {
    let mut versions = HashMap::new();
    for import in &model.opset_import {
        let domain = plain_domain(import.domain.as_deref());
        versions.insert(domain.to_string(), import.version.unwrap_or(1));
    }
    let mut nodes = model.graph.iter().flat_map(|graph| &graph.node);
    let older = |node: &NodeProto| !ops::is_unchanged(&ops::qualified(node));
    match versions.get(ONNX_DOMAIN) {
        Some(&version) if version >= OLDEST_OPSET || !nodes.any(older) => Ok(versions),
        None if model.opset_import.iter().any(|import| import.domain.is_some()) => Ok(versions),
        Some(&version) => Err(FormatError::Unsupported(format!(
            "operator set {version}; convert the model to {OLDEST_OPSET} or newer"
        ))),
        None => Err(damaged("it imports no operator set of ONNX".into())),
    }
}

fn check_limits(graphs: &[&GraphProto]) -> Result<(), FormatError> {
    let nodes = || graphs.iter().flat_map(|graph| &graph.node);
    at_most("number of nodes", nodes().count(), limits::NODES)?;
    let declared = graphs.iter().map(|graph| graph.initializer.len() + graph.input.len());
    let operands: usize = nodes().map(|node| node.output.len().max(node.input.len())).sum();
    at_most("number of values", declared.sum::<usize>() + operands, limits::VALUES)?;
    let of_nodes = nodes().flat_map(|n| n.output.iter().chain(n.name.as_ref()));
    let of_tensors = graphs.iter().flat_map(|g| &g.initializer).filter_map(|t| t.name.as_ref());
    let of_inputs = graphs.iter().flat_map(|g| &g.input).filter_map(|i| i.name.as_ref());
    let longest = of_nodes.chain(of_tensors).chain(of_inputs).map(String::len).max();
    at_most("length of a name", longest.unwrap_or(0), limits::NAME_BYTES)
}

/// The operators that Lepton does not have, each once.
fn unknown_operators(
    graphs: &[&GraphProto],
    versions: &HashMap<String, i64>,
) -> Vec<UnknownOperator> {
    let mut unknown: Vec<UnknownOperator> = Vec::new();
    let mut seen = HashSet::new();
    for node in graphs.iter().flat_map(|graph| &graph.node) {
        let operator = node.op_type.as_deref().unwrap_or_default();
        let domain = plain_domain(node.domain.as_deref());
        if ops::is_known(&ops::qualified(node)) || !seen.insert((operator, domain)) {
            continue;
        }
        if unknown.len() == MOST_PROBLEMS {
            break;
        }
        unknown.push(UnknownOperator {
            operator: operator.to_string(),
            domain: domain.to_string(),
            version: versions.get(domain).copied().unwrap_or(0),
            node: label(node),
        });
    }
    unknown
}

/// The nodes in an order in which every value is made before it is used, the file's own where
/// that is one.
fn sorted(nodes: &[NodeProto]) -> Result<Vec<usize>, FormatError> {
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if makers.insert(name, index).is_some() {
                return Err(damaged(format!("two nodes make `{name}`")));
            }
        }
    }
    let mut waiting = vec![0usize; nodes.len()];
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        for maker in branches::names_used(node).into_iter().filter_map(|name| makers.get(name)) {
            waiting[index] += 1;
            users[*maker].push(index);
        }
    }
    let mut ready: BinaryHeap<_> =
        (0..nodes.len()).filter(|&index| waiting[index] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for &user in &users[index] {
            waiting[user] -= 1;
            if waiting[user] == 0 {
                ready.push(Reverse(user));
            }
        }
    }
    match waiting.iter().position(|&count| count > 0) {
        Some(stuck) => {
            Err(damaged(format!("node `{}` depends on its own result", label(&nodes[stuck]))))
        }
        None => Ok(order),
    }
}

/// One graph of the file while it is translated.
pub struct Reader<'a> {
    /// What it becomes.
    pub graph: Graph,
    /// The values by their names in the file.
    pub names: HashMap<String, ValueId>,
    /// The sequences and absent values by their names in the file.
    pub lists: HashMap<String, Item>,
    /// All names in the order in which they were given.
    pub given: Vec<String>,
    /// Version of ONNX's own operator set.
    pub version: i64,
    /// Where tensors outside the file are.
    pub external: &'a dyn ExternalData,
    /// What is fixed about the inputs.
    pub fixed: &'a Fixed,
    /// True inside a graph that is read in place, whose results are no outputs.
    pub fold_outputs: bool,
    /// What constants may still be made.
    pub budget: &'a Budget,
    /// What was wrong so far.
    pub problems: Problems<String>,
}

impl Reader<'_> {
    /// Constants, inputs and nodes.
    pub fn read_body(&mut self, proto: &GraphProto) -> Result<(), FormatError> {
        self.read_constants(proto)?;
        self.read_inputs(proto)?;
        let outputs: HashSet<&str> =
            proto.output.iter().filter_map(|output| output.name.as_deref()).collect();
        let hints = LazyCell::new(|| hints(proto));
        for index in sorted(&proto.node)? {
            let node = &proto.node[index];
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
            if self.is_concerned(node) {
                self.leave_out(&hints, node)?;
            } else if let Err(problem) = self.read_or_fold(&outputs, node) {
                self.problems.add(self.located(node, problem))?;
                self.leave_out(&hints, node)?;
            }
        }
        self.problems.all()
    }

    fn read_or_fold(
        &mut self,
        outputs: &HashSet<&str>,
        node: &NodeProto,
    ) -> Result<(), FormatError> {
        let is_output = |name: &String| outputs.contains(name.as_str());
        match folded::results(self, node) {
            Some(tensors) if self.fold_outputs || !node.output.iter().any(is_output) => {
                for (name, tensor) in node.output.iter().zip(tensors) {
                    let id = self.graph.add_constant(name, tensor);
                    self.define(name, id)?;
                }
                Ok(())
            }
            _ => self.read_node(node),
        }
    }

    /// Gives a value its name in the file.
    pub fn define(&mut self, name: &str, id: ValueId) -> Result<(), FormatError> {
        match self.names.insert(name.to_string(), id) {
            Some(_) => Err(damaged(format!("`{name}` is defined twice"))),
            None => {
                self.given.push(name.to_string());
                Ok(())
            }
        }
    }

    /// Forgets all names but the first `count` that were given.
    pub fn forget(&mut self, count: usize) {
        for name in self.given.drain(count..) {
            self.names.remove(&name);
            self.lists.remove(&name);
        }
    }

    fn read_constants(&mut self, proto: &GraphProto) -> Result<(), FormatError> {
        if !proto.sparse_initializer.is_empty() {
            return Err(FormatError::Unsupported("sparse initializers; export dense ones".into()));
        }
        for initializer in &proto.initializer {
            let name = initializer.name.as_deref().unwrap_or_default();
            match tensor::read(initializer, self.external) {
                Ok(tensor) => {
                    let id = self.graph.add_constant(name, tensor);
                    self.define(name, id)?;
                }
                Err(problem) => {
                    self.problems.lose(name.to_string());
                    self.problems.add(problem)?;
                }
            }
        }
        Ok(())
    }

    fn read_inputs(&mut self, proto: &GraphProto) -> Result<(), FormatError> {
        for input in &proto.input {
            let name = input.name.as_deref().unwrap_or_default();
            // Up to IR version 3 the weights were listed among the inputs.
            if self.names.contains_key(name) || self.lists.contains_key(name) {
                continue;
            }
            if lists::kind(input) != (lists::Kind::Tensor, false) {
                self.read_list_input(input)?;
                continue;
            }
            let fact = input_fact(name, input).and_then(|fact| match self.fixed.shapes.get(name) {
                Some(shape) => fix_shape(name, fact, shape),
                None => Ok(fact),
            });
            match fact {
                Ok(fact) => {
                    let id = self.graph.add_input(name, fact);
                    self.define(name, id)?;
                }
                Err(problem) => {
                    self.problems.lose(name.to_string());
                    self.problems.add(problem)?;
                }
            }
        }
        Ok(())
    }

    fn read_node(&mut self, node: &NodeProto) -> Result<(), FormatError> {
        match node.op_type.as_deref() {
            Some("Constant") => return self.read_constant_node(node),
            Some("If") => return self.read_if(node),
            Some("Loop") => return self.read_loop(node),
            Some("Scan") => return self.read_scan(node),
            Some("Identity") if node.input.iter().any(|name| self.lists.contains_key(name)) => {
                return self.read_list_node(node);
            }
            Some("Gradient") if ops::qualified(node) == gradient::OPERATOR => {
                return self.read_gradient(node);
            }
            _ if lists::OPERATORS.contains(&ops::qualified(node).as_str()) => {
                return self.read_list_node(node);
            }
            _ => {}
        }
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            inputs.push(match name.as_str() {
                "" => None,
                _ => Some(*self.names.get(name).ok_or_else(|| FormatError::Node {
                    node: label(node),
                    operator: node.op_type.clone().unwrap_or_default(),
                    why: format!("nothing makes its input `{name}`"),
                })?),
            });
        }
        while inputs.last().is_some_and(Option::is_none) {
            inputs.pop();
        }
        let graph = &mut self.graph;
        let mut call =
            Call { proto: node, version: self.version, inputs, graph, budget: self.budget };
        let results = ops::translate(&mut call)?;
        if call.result_count() > results.len() {
            return Err(call.error(format!("only {} of its results are supported", results.len())));
        }
        for (name, id) in node.output.iter().zip(results) {
            if !name.is_empty() {
                self.graph.set_value_name(id, name.clone());
                self.define(name, id)?;
            }
        }
        Ok(())
    }

    fn read_constant_node(&mut self, node: &NodeProto) -> Result<(), FormatError> {
        let name = node.output.first().map(String::as_str).unwrap_or_default();
        let wrong = || FormatError::tensor(name, "a constant needs one dense value");
        let [attribute] = node.attribute.as_slice() else { return Err(wrong()) };
        let tensor = match attribute.name.as_deref() {
            Some("value") => {
                tensor::read(attribute.t.as_deref().ok_or_else(wrong)?, self.external)?
            }
            Some("value_float") => Tensor::scalar(attribute.f.unwrap_or_default()),
            Some("value_int") => Tensor::scalar(attribute.i.unwrap_or_default()),
            Some("value_floats") => Tensor::vector(&attribute.floats),
            Some("value_ints") => Tensor::vector(&attribute.ints),
            Some("value_string") => constant_strings(attribute.s.as_slice(), &[])?,
            Some("value_strings") => {
                constant_strings(&attribute.strings, &[attribute.strings.len()])?
            }
            _ => return Err(wrong()),
        };
        let id = self.graph.add_constant(name, tensor);
        self.define(name, id)
    }

    /// What the outputs of a graph of the file are.
    pub fn results(&self, proto: &GraphProto) -> Result<Vec<Item>, FormatError> {
        let mut outputs = Vec::with_capacity(proto.output.len());
        for output in &proto.output {
            let name = output.name.as_deref().unwrap_or_default();
            let item = self.item(name).filter(|_| !name.is_empty());
            outputs
                .push(item.ok_or_else(|| damaged(format!("nothing makes the output `{name}`")))?);
        }
        Ok(outputs)
    }

    /// The outputs of a graph of the file, which must be tensors.
    pub fn outputs(&self, proto: &GraphProto) -> Result<Vec<ValueId>, FormatError> {
        let tensor = |item| match item {
            Item::Value(id) => Ok(id),
            _ => Err(FormatError::Unsupported("a graph within that gives a list".into())),
        };
        self.results(proto)?.into_iter().map(tensor).collect()
    }
}

fn constant_strings(list: &[Bytes], shape: &[usize]) -> Result<Tensor, FormatError> {
    let strings: Vec<_> = list.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect();
    Tensor::from_strings(shape, &strings).map_err(|error| damaged(error.to_string()))
}

/// Type and extents of an input; an extent that is not given gets a symbol of its own.
pub fn input_fact(name: &str, input: &ValueInfoProto) -> Result<Fact, FormatError> {
    let missing = || FormatError::tensor(name, "the input is not a tensor");
    tensor_fact(name, input.r#type.as_ref().ok_or_else(missing)?, None)
}

/// The fact of a tensor of a declared type; `shape` is used where the type declares none.
pub fn tensor_fact(
    name: &str,
    declared: &TypeProto,
    shape: Option<&Vec<usize>>,
) -> Result<Fact, FormatError> {
    let fail = |why: &str| FormatError::tensor(name, why);
    let declared = declared.tensor_type.as_ref();
    let declared = declared.ok_or_else(|| fail("the input is not a tensor"))?;
    let dtype = tensor::dtype_of(declared.elem_type.unwrap_or(0)).map_err(|why| fail(&why))?;
    if let Some(shape) = shape {
        return Ok(Fact::dense(dtype, shape));
    }
    let shape = declared.shape.as_ref().ok_or_else(|| fail("the input declares no shape"))?;
    at_most("rank of an input", shape.dim.len(), limits::RANK)?;
    let mut dims = Vec::with_capacity(shape.dim.len());
    for (axis, dim) in shape.dim.iter().enumerate() {
        let symbol = dim.dim_param.as_deref().filter(|s| !s.is_empty() && !s.starts_with('?'));
        at_most("length of a name", symbol.map_or(0, str::len), limits::NAME_BYTES)?;
        dims.push(match (dim.dim_value, symbol) {
            (Some(value), _) if value > 0 => Dim::known(value),
            (_, Some(symbol)) => Dim::symbol(symbol),
            _ => Dim::symbol(format!("{name}.{axis}")),
        });
    }
    Ok(Fact::new(dtype, dims))
}
