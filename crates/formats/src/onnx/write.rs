//! From a graph to the bytes of an ONNX model.

use std::collections::{HashMap, HashSet};

use lepton_ir::{Dim, Fact, Graph, Node, Op, ValueId};
use lepton_tensor::Tensor;
use prost::Message;

use super::emit::{Emit, Written};
use super::proto::{
    DimensionProto, GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use super::{branches, classical, functions, fused, repeats, tensor};
use crate::error::{FormatError, at_most};

/// The operator set that is written.
pub const OPSET: i64 = 21;
/// The version of the file format that goes with it.
const IR_VERSION: i64 = 10;
/// Protocol buffers refuse longer messages.
const MAX_BYTES: usize = i32::MAX as usize;

/// What a written model says besides the graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteOptions {
    /// Notes on where the model comes from, by key, kept in `metadata_props`.
    pub metadata: Vec<(String, String)>,
}

/// The bytes of an ONNX model (operator set 21) that computes what the graph does; the same graph
/// always gives the same bytes. Forms that only Lepton has (fused activations, channels last) are
/// written as several nodes; an operator that ONNX cannot express is an error that names its node.
pub fn write(graph: &Graph, options: &WriteOptions) -> Result<Vec<u8>, FormatError> {
    graph.verify()?;
    let mut writer = Writer::default();
    let proto = writer.graph(graph, &HashMap::new())?;
    let entry = |(key, value): &(String, String)| StringStringEntryProto {
        key: Some(key.clone()),
        value: Some(value.clone()),
    };
    let model = ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("lepton".into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        graph: Some(proto),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(OPSET),
        }],
        functions: Vec::new(),
        metadata_props: options.metadata.iter().map(entry).collect(),
    };
    at_most("bytes of an ONNX model", model.encoded_len(), MAX_BYTES)?;
    Ok(model.encode_to_vec())
}

/// The file while it grows.
#[derive(Default)]
pub struct Writer {
    /// The graph that grows.
    pub proto: GraphProto,
    taken: HashSet<String>,
    made: usize,
}

impl Writer {
    /// A name that nothing has.
    pub fn fresh(&mut self) -> String {
        loop {
            let name = format!("v{}", self.made);
            self.made += 1;
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }

    /// `wanted`, or another name if that is empty or taken.
    fn name(&mut self, wanted: &str) -> String {
        if !wanted.is_empty() && self.taken.insert(wanted.to_string()) {
            return wanted.to_string();
        }
        self.fresh()
    }

    /// Adds a constant.
    pub fn add_constant(&mut self, name: &str, value: &Tensor) {
        self.proto.initializer.push(tensor::write(name, value));
    }

    /// The message for `graph`. Inputs that are in `outer` have that name in a graph around this
    /// one, and are not declared.
    pub fn graph(
        &mut self,
        graph: &Graph,
        outer: &HashMap<ValueId, String>,
    ) -> Result<GraphProto, FormatError> {
        let around = std::mem::take(&mut self.proto);
        self.proto.name =
            Some(if graph.name.is_empty() { "graph".into() } else { graph.name.clone() });
        let mut names: HashMap<ValueId, String> = outer.clone();
        let made = |id: &&ValueId| graph.value(**id).producer.is_some();
        for &id in graph.inputs().iter().chain(graph.outputs().iter().filter(made)) {
            let wanted = &graph.value(id).name;
            names.entry(id).or_insert_with(|| self.name(wanted));
        }
        for &id in graph.inputs().iter().filter(|id| !outer.contains_key(id)) {
            let info = value_info(&names[&id], graph.fact(id), true)?;
            self.proto.input.push(info);
        }
        for id in graph.constants() {
            // The name of an output is part of the interface, that of a constant is not.
            let wanted = if graph.outputs().contains(&id) { "" } else { &graph.value(id).name };
            let name = names.entry(id).or_insert_with(|| self.name(wanted)).clone();
            let value = graph.constant(id).expect("listed as a constant");
            self.add_constant(&name, value);
        }
        for (_, node) in graph.nodes() {
            for id in node.outputs.iter().flatten() {
                let wanted = &graph.value(*id).name;
                names.entry(*id).or_insert_with(|| self.name(wanted));
            }
            self.node(graph, node, &names)?;
        }
        self.outputs(graph, &names)?;
        Ok(std::mem::replace(&mut self.proto, around))
    }

    fn node(&mut self, graph: &Graph, node: &Node, names: &HashMap<ValueId, String>) -> Written {
        let name = |id: &Option<ValueId>| id.map_or(String::new(), |id| names[&id].clone());
        let inputs = node.inputs.iter().map(name).collect();
        let outputs = node.outputs.iter().map(name).collect();
        let mut emit = Emit { graph, node, inputs, outputs, writer: self };
        match &node.op {
            Op::Unary(op) => functions::unary(&mut emit, op),
            Op::Binary(op) => functions::binary(&mut emit, op),
            Op::Reduce(op) => functions::reduce(&mut emit, op),
            Op::Pool(op) => fused::pool(&mut emit, op),
            Op::Linear(op) => fused::linear(&mut emit, op),
            Op::PoolPositions(op) => fused::pool_positions(&mut emit, op),
            Op::Ngrams(op) => classical::write_ngrams(&mut emit, op),
            Op::If(op) => branches::write(&mut emit, op),
            Op::Loop(op) => repeats::write_loop(&mut emit, op),
            Op::Scan(op) => repeats::write_scan(&mut emit, op),
            _ => emit.by_row(),
        }
    }

    /// Declares the outputs. One that is listed twice, or that no node here makes, is copied.
    fn outputs(&mut self, graph: &Graph, names: &HashMap<ValueId, String>) -> Written {
        let mut declared = HashSet::new();
        for &id in graph.outputs() {
            let mut name = names[&id].clone();
            if !declared.insert(id) || graph.value(id).producer.is_none() {
                let wanted = self.name(&graph.value(id).name);
                let source = std::mem::replace(&mut name, wanted);
                self.proto.node.push(super::proto::NodeProto {
                    input: vec![source],
                    output: vec![name.clone()],
                    op_type: Some("Identity".into()),
                    ..Default::default()
                });
            }
            let info = value_info(&name, graph.fact(id), false)?;
            self.proto.output.push(info);
        }
        Ok(())
    }
}

/// The declaration of an input or output. An extent that is not a number or a symbol is left
/// open for an output, and cannot be declared for an input.
fn value_info(name: &str, fact: &Fact, input: bool) -> Result<ValueInfoProto, FormatError> {
    let mut dim = Vec::with_capacity(fact.rank());
    for extent in &fact.dims {
        dim.push(match (extent.as_known(), extent.symbols().first()) {
            (Some(value), _) => DimensionProto { dim_value: Some(value), dim_param: None },
            (None, Some(symbol))
                if *extent == Dim::symbol(symbol.clone()) && !symbol.starts_with('?') =>
            {
                DimensionProto { dim_value: None, dim_param: Some(symbol.to_string()) }
            }
            _ if input => {
                return Err(FormatError::Unsupported(format!("input `{name}` of extent {extent}")));
            }
            _ => DimensionProto::default(),
        });
    }
    let tensor_type = TensorTypeProto {
        elem_type: Some(tensor::number_of(fact.dtype)),
        shape: Some(TensorShapeProto { dim }),
    };
    let r#type = Some(TypeProto { tensor_type: Some(tensor_type), ..TypeProto::default() });
    Ok(ValueInfoProto { name: Some(name.to_string()), r#type })
}
