//! Nodes to steps: which kernel serves which operator. What has no kernel here runs its `eval`.

mod attention;
mod average;
mod borders;
mod couple;
mod dynamic;
mod elementwise;
pub(crate) mod found;
mod gate;
mod groups;
mod indexed;
mod integer;
mod matmul;
mod moves;
pub(crate) mod pairs;
mod parts;
mod pixels;
pub(crate) mod product;
mod ranks;
mod recurrent;
mod reduce;
mod reference;
mod regions;
mod resize;
mod rows;
mod select;
mod shape;
mod strips;
mod trees;
mod winograd;

use std::sync::Arc;

use lepton_ir::{Graph, Node, NodeId, Op, Operands};
use lepton_tensor::DType;

use crate::error::RuntimeError;
use crate::limits::Arithmetic;
use crate::place::Memory;
use crate::plan::{Builder, Demands, Run, Step};
use crate::threads::share;

/// `$body` with `$T` standing for the plain type of `$size` bytes, for steps that only move bytes.
macro_rules! by_size {
    ($size:expr, $T:ident => $body:expr) => {
        match $size {
            1 => {
                type $T = u8;
                $body
            }
            2 => {
                type $T = u16;
                $body
            }
            4 => {
                type $T = u32;
                $body
            }
            _ => {
                type $T = u64;
                $body as crate::plan::Run
            }
        }
    };
}
use by_size;

/// What kernels do to numbers beyond the order of sums, where [`Demands::exact`] forbids it.
const NUMERICS: [(&str, &str); 8] = [
    ("conv-winograd-2x2-f32", "Winograd"),
    ("conv-winograd-4x4-f32", "Winograd"),
    ("linear-24-bit", "weights of single rows in 24 bits"),
    ("lstm-i16-f32", "recurrent weights in 16 bits"),
    ("gru-i16-f32", "recurrent weights in 16 bits"),
    ("attention-bf16", "attention in bf16"),
    ("gate-bf16", "gated pixels in bf16"),
    ("average-pool-bf16", "gated pixels in bf16"),
];

/// What these kernels do of that, each once.
pub(crate) fn numerics(kernels: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let known = |kernel| NUMERICS.iter().find(|(name, _)| *name == kernel);
    let mut found: Vec<&str> = kernels.filter_map(known).map(|(_, what)| *what).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// A kernel chosen for a node.
pub(crate) struct Chosen {
    pub kernel: &'static str,
    pub run: Run,
    /// True if all it writes is written by tasks of [`Memory::threads`], and it always succeeds, so that
    /// the members of a team may each call it.
    pub divides: bool,
}

impl Chosen {
    /// A kernel that is called once.
    pub fn new(kernel: &'static str, run: Run) -> Self {
        Chosen { kernel, run, divides: false }
    }

    /// A kernel that every member of a team may call; see [`Chosen::divides`].
    pub fn divided(kernel: &'static str, run: Run) -> Self {
        Chosen { kernel, run, divides: true }
    }
}

/// What a builder gives: a kernel, or `None` where it does not serve this form of the operator.
pub(crate) type Choice = Result<Option<Chosen>, RuntimeError>;

/// The step for a node.
pub(crate) fn build(builder: &mut Builder<'_>, node: Arc<Node>) -> Result<Step, RuntimeError> {
    let chosen = match choose(builder, &node)? {
        Some(chosen) => chosen,
        None => reference::build(builder, &node),
    };
    Ok(described(builder, node, chosen))
}

/// The step for two neighbours that run as one.
pub(crate) fn build_pair(
    builder: &mut Builder<'_>,
    nodes: &[Arc<Node>; 2],
    pair: &pairs::Pair,
) -> Result<Step, RuntimeError> {
    let chosen = pair.build(builder, nodes.each_ref().map(|node| &**node))?;
    let chosen = chosen.expect("pairs are only found where both have kernels");
    let none = || Chosen::new("", Box::new(|_| Ok(())));
    let first = described(builder, nodes[0].clone(), none());
    let mut step = described(builder, nodes[1].clone(), chosen);
    step.multiply_adds += first.multiply_adds;
    step.constant_bytes += first.constant_bytes;
    // What lies between stays in cache.
    let between = builder.graph.fact(pair.between).byte_size().unwrap_or(0) as u64;
    step.bytes = (step.bytes + first.bytes).saturating_sub(2 * between);
    Ok(step)
}

fn described(builder: &Builder<'_>, node: Arc<Node>, chosen: Chosen) -> Step {
    let graph = builder.graph;
    let operator = node.op.operator();
    let cost = graph.with_input_facts(&node, |inputs| match node.outputs[..] {
        [Some(y)] => operator.cost(Operands(inputs), std::slice::from_ref(graph.fact(y))),
        _ => operator.cost(Operands(inputs), &graph.output_facts(&node)),
    });
    let touched = node.inputs.iter().chain(&node.outputs).flatten().map(|&id| builder.bytes(id));
    let constants = node.inputs.iter().flatten().filter(|id| graph.constant(**id).is_some());
    Step {
        run: chosen.run,
        kernel: chosen.kernel,
        divides: chosen.divides,
        multiply_adds: cost.multiply_adds.as_usize().unwrap_or(0) as u64,
        bytes: touched.sum::<usize>() as u64,
        constant_bytes: constants.map(|&id| builder.bytes(id)).sum::<usize>() as u64,
        arithmetic: Arithmetic::of(
            &node.op,
            product::operand(&node, 1).map(|w| graph.fact(w).dtype),
        ),
        chosen: winograd::serves(graph, &node),
        first: node.outputs.iter().flatten().next().map(|&id| (id, graph.shared_value(id))),
        node,
    }
}

fn choose(builder: &mut Builder<'_>, node: &Node) -> Choice {
    match &node.op {
        Op::Conv(conv) => match winograd::conv(builder, node, conv)? {
            None => product::conv(builder, node, conv),
            chosen => Ok(chosen),
        },
        Op::Linear(linear) if groups::serves(node) => groups::linear(builder, node, linear),
        Op::Linear(linear) => product::linear(builder, node, linear),
        Op::MatMul(_) => matmul::matmul(builder, node),
        Op::Attention(op) => attention::attention(builder, node, op),
        Op::Unary(unary) => elementwise::unary(builder, node, unary),
        Op::Binary(binary) => elementwise::binary(builder, node, binary),
        Op::Transpose(transpose) => shape::transpose(builder, node, transpose),
        Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => {
            shape::copy(builder, node)
        }
        Op::Pool(pool) => rows::pool(builder, node, pool),
        Op::Softmax(softmax) => rows::softmax(builder, node, softmax),
        Op::IntegerConv(conv) => integer::conv(builder, node, conv),
        Op::IntegerLinear(linear) => integer::linear(builder, node, linear),
        Op::QuantizeLinear(op) => integer::quantize_linear(builder, node, op),
        Op::DequantizeLinear(op) => integer::dequantize_linear(builder, node, op),
        Op::Lookup(_) => integer::lookup(builder, node),
        Op::IntegerBinary(op) => integer::pair(builder, node, op),
        Op::DynamicConv(conv) => dynamic::conv(builder, node, conv),
        Op::DynamicLinear(linear) => dynamic::linear(builder, node, linear),
        Op::Slice(slice) => moves::slice(builder, node, slice),
        Op::Expand(_) => moves::expand(builder, node),
        Op::Tile(_) => moves::tile(builder, node),
        Op::Concat(concat) => moves::concat(builder, node, concat.axis),
        Op::Split(split) => moves::split(builder, node, split.axis),
        Op::Pad(pad) => moves::pad(builder, node, pad),
        Op::Gather(gather) => moves::gather(builder, node, gather),
        Op::GatherND(op) => indexed::gather_tuples(builder, node, op),
        Op::GatherElements(op) => indexed::gather_elements(builder, node, op),
        Op::ScatterND(op) => indexed::scatter_tuples(builder, node, op),
        Op::ScatterElements(op) => indexed::scatter_elements(builder, node, op),
        Op::CouplePairs(op) => couple::couple(builder, node, op),
        Op::TopK(op) => ranks::top(builder, node, op),
        Op::RoiAlign(op) => regions::align(builder, node, op),
        Op::Reduce(reduce) => reduce::reduce(builder, node, reduce),
        Op::LayerNormalization(op) => reduce::layer_normalization(builder, node, op),
        Op::InstanceNormalization(op) => reduce::instance_normalization(builder, node, op),
        Op::Resize(op) => resize::resize(builder, node, op),
        Op::Arg(arg) => reduce::arg(builder, node, arg),
        Op::LSTM(_) | Op::GRU(_) => recurrent::layer(builder, node),
        Op::TreeEnsemble(op) => trees::ensemble(builder, node, op),
        Op::Loop(_) | Op::Scan(_) => Ok(Some(reference::repeated(builder, node))),
        Op::Where(_) => select::choose(builder, node),
        Op::Not(_) => select::not(builder, node),
        Op::Cast(cast) => select::cast(builder, node, cast),
        _ => Ok(None),
    }
}

/// Bytes of each scratch block a node's step needs; `narrow` tells which values are kept as bf16.
pub(crate) fn scratch_bytes(
    graph: &Graph,
    node: &Node,
    demands: Demands<'_>,
    narrow: &[bool],
) -> Vec<usize> {
    if let Some(bytes) = winograd::scratch_bytes(graph, node, demands) {
        return bytes;
    }
    match &node.op {
        Op::Conv(_) => product::rounded_copy(graph, node, narrow),
        Op::Attention(_) => attention::scratch_bytes(graph, node, demands),
        Op::MatMul(_) => matmul::scratch_bytes(graph, node),
        Op::Resize(op) => resize::scratch_bytes(graph, node, op),
        Op::RoiAlign(_) => regions::scratch_bytes(graph, node),
        Op::Linear(_) => groups::scratch_bytes(graph, node, demands),
        Op::DynamicConv(_) | Op::DynamicLinear(_) => dynamic::scratch_bytes(graph, node, demands),
        Op::LSTM(_) | Op::GRU(_) => recurrent::scratch_bytes(graph, node, demands.threads),
        _ => Vec::new(),
    }
}

/// f32 values that are kept as bf16, because whoever reads them rounds them so, or averages them
/// besides: results of `node`, of whose readers' results `narrow` tells the same.
pub(crate) fn is_narrow(
    graph: &Graph,
    users: &[(NodeId, usize)],
    node: &Node,
    narrow: &[bool],
    demands: Demands<'_>,
) -> bool {
    let rounds = |&(user, index): &(NodeId, usize)| {
        let user = graph.node(user);
        product::takes_bf16(graph, user, index)
            || index < 3 && attention::takes_bf16(graph, user, demands)
            || !demands.exact && gate::takes_bf16(graph, user, index, narrow)
            || rows::takes_bf16(graph, user, narrow)
    };
    let averages =
        |&(user, _): &(NodeId, usize)| !demands.exact && rows::averages(graph, graph.node(user));
    let writes = product::writes_bf16(graph, node)
        || reduce::writes_bf16(graph, node)
        || attention::writes_bf16(graph, node, demands)
        || gate::gated(graph, node).is_some()
        || rows::writes_bf16(graph, node);
    writes && users.iter().any(rounds) && users.iter().all(|user| rounds(user) || averages(user))
}

/// True for a product or attention that rounds what it reads to bf16: without one, nothing is narrow.
pub(crate) fn rounds(graph: &Graph, node: &Node, demands: Demands<'_>) -> bool {
    product::takes_bf16(graph, node, 0) || attention::takes_bf16(graph, node, demands)
}

/// The operand a node's step may write its result over.
pub(crate) fn in_place_operand(node: &Node) -> Option<usize> {
    match node.op {
        Op::Unary(_) => Some(0),
        _ => None,
    }
}

/// True if a value of that operand is f32.
pub(crate) fn is_f32(builder: &Builder<'_>, node: &Node, index: usize) -> bool {
    node.inputs
        .get(index)
        .copied()
        .flatten()
        .is_none_or(|id| builder.graph.fact(id).dtype == DType::F32)
}

/// What reading or changing an element costs, in multiply-adds of a product: a few bytes beside
/// what a core moves while it multiplies.
const ELEMENT_WORK: usize = 8;

/// Calls `body` with ranges that cover `0..rows`, over the threads if the work is worth it, until the
/// run is stopped.
pub(crate) fn over_rows(
    memory: &Memory<'_>,
    rows: usize,
    work: usize,
    body: impl Fn(std::ops::Range<usize>) + Sync,
) {
    let parts = memory.threads.parts(work).min(rows.max(1));
    if parts == 1 {
        return memory.threads.run(1, &|_| memory.watch.in_pieces(0..rows, work, 1, &body));
    }
    memory.threads.run(parts, &|part| {
        memory.watch.in_pieces(share(rows, part, parts), work / parts, 1, &body);
    });
}
