//! A plan: a flat list of steps for one set of shapes, and where every operand lies.

use std::sync::Arc;

use lepton_ir::{Graph, Node, NodeId, Op, Value, ValueId};
use lepton_kernels::Isa;
use lepton_tensor::DType;

use crate::arena::{self, Interval};
use crate::choices::Choices;
use crate::engine::Engine;
use crate::error::RuntimeError;
use crate::limits::Arithmetic;
use crate::pace::Pace;
use crate::packs::Packs;
use crate::place::{Base, Memory, Place};
use crate::sections::{self, Section};
use crate::steps;
use crate::steps::pairs::{self, Pair};
use crate::steps::product::{Following, Next};
use crate::stepwise::is_heavy;

/// What a step does, with everything it needs inside.
pub(crate) type Run = Box<dyn Fn(&Memory<'_>) -> Result<(), RuntimeError> + Send + Sync>;

/// One step of a plan.
pub(crate) struct Step {
    pub run: Run,
    /// Which kernel runs, for people.
    pub kernel: &'static str,
    /// True if every member of a team may call it.
    pub divides: bool,
    /// The node it came from.
    pub node: Arc<Node>,
    /// Its first result, which it is called by where it has no name of its own.
    pub first: Option<(ValueId, Arc<Value>)>,
    pub multiply_adds: u64,
    /// Bytes of its operands and results.
    pub bytes: u64,
    /// Those of them that are constants.
    pub constant_bytes: u64,
    pub arithmetic: Arithmetic,
    /// The weights of a layer for which there is more than one algorithm.
    pub chosen: Option<ValueId>,
}

/// A shape-specialised plan.
pub(crate) struct Plan {
    pub steps: Vec<Step>,
    /// What a team may go through together; each step for itself is the other way to run them.
    pub sections: Vec<Section>,
    /// Which of the two ways is faster.
    pub pace: Pace,
    pub arena_bytes: usize,
    /// Bytes of all intermediates, had none shared memory.
    pub unshared_bytes: usize,
    /// Type and shape of each output.
    pub outputs: Vec<(DType, Vec<usize>)>,
    /// Outputs that are inputs or constants, copied after the steps.
    pub copies: Vec<(Place, u16, usize)>,
    /// Keeps the constants alive whose addresses are in the steps.
    _graph: Arc<Graph>,
}

impl Plan {
    /// True if there are two ways to run it on so many threads.
    pub fn has_ways(&self, threads: usize) -> bool {
        threads > 1 && self.sections.iter().any(|section| section.together)
    }
}

/// What a session asks of its plans.
#[derive(Clone, Copy)]
pub(crate) struct Demands<'a> {
    /// What runs the bodies of its loops.
    pub engine: &'a Arc<Engine>,
    /// Instruction set of its kernels.
    pub isa: Isa,
    /// Threads of a run.
    pub threads: usize,
    /// No algorithm that changes the answer.
    pub exact: bool,
    /// Algorithms chosen before.
    pub choices: &'a Choices,
}

/// What step builders ask for.
pub(crate) struct Builder<'a> {
    pub graph: &'a Graph,
    pub packs: &'a Packs,
    pub demands: Demands<'a>,
    /// Place of every value; scratch is handed out behind the last value.
    places: Vec<Option<Place>>,
    scratch: Vec<Place>,
    /// f32 values that are kept as bf16.
    narrow: Vec<bool>,
    /// Where the weights of the next product are awaited.
    following: Following,
    /// True where L2 holds the weights from one run to the next.
    near: bool,
    zero_points: Paddings<u8>,
    zeros: Paddings<f32>,
}

/// What products read outside of images; steps share it.
#[derive(Default)]
struct Paddings<T>(Vec<Arc<[T]>>);

/// Fewest zeros of a padding: enough for most steps of a plan.
const ZEROS: usize = 2048;
/// Fewest elements of a padding with a zero point, which few steps of a plan share.
const ZERO_POINTS: usize = 256;

impl<T: Copy + PartialEq> Paddings<T> {
    /// At least `length` elements of that value; `least` where they are made.
    fn get(&mut self, value: T, length: usize, least: usize) -> Arc<[T]> {
        let fits = |padding: &&Arc<[T]>| padding[0] == value && padding.len() >= length;
        if let Some(found) = self.0.iter().find(fits) {
            return found.clone();
        }
        let made: Arc<[T]> = vec![value; length.max(least)].into();
        self.0.push(made.clone());
        made
    }
}

/// Bytes of weights that L2 holds from one run to the next, beside what lies between them: three
/// quarters of a MiB.
const NEAR_WEIGHTS: usize = 768 << 10;

impl Builder<'_> {
    /// Where a value lies.
    pub fn place(&self, id: ValueId) -> Place {
        self.places[id.index()].expect("every used value has a place")
    }

    /// The known shape of a value.
    pub fn shape(&self, id: ValueId) -> Vec<usize> {
        self.graph.fact(id).shape().expect("a plan has known shapes")
    }

    /// Number of elements of a value.
    pub fn count(&self, id: ValueId) -> usize {
        self.graph.fact(id).known_count().expect("a plan has known shapes")
    }

    /// True for an f32 value that is kept as bf16.
    pub fn is_narrow(&self, id: ValueId) -> bool {
        self.narrow[id.index()]
    }

    /// For every value, [`Builder::is_narrow`].
    pub fn narrow(&self) -> &[bool] {
        &self.narrow
    }

    /// Bytes of a value as it is kept.
    pub fn bytes(&self, id: ValueId) -> usize {
        self.graph.fact(id).byte_size().unwrap_or(0) / if self.is_narrow(id) { 2 } else { 1 }
    }

    /// True where L2 holds the weights from one run to the next.
    pub fn are_near(&self) -> bool {
        self.near
    }

    /// Tells the product before which weights follow, and gives the place of those that follow
    /// these, a product of so many rows.
    pub fn follow(&mut self, weights: Next, rows: usize) -> Following {
        let _ = self.following.set(weights);
        self.following = Following::default();
        // One row takes as long as its weights: what L2 holds anyway would only be in their way.
        if rows == 1 && self.near { Following::default() } else { self.following.clone() }
    }

    /// At least `length` bytes of a zero point, for products to read outside of images.
    pub fn zero_points(&mut self, value: u8, length: usize) -> Arc<[u8]> {
        self.zero_points.get(value, length, ZERO_POINTS)
    }

    /// At least `length` zeros, for products to read outside of images.
    pub fn zeros(&mut self, length: usize) -> Arc<[f32]> {
        self.zeros.get(0.0, length, ZEROS)
    }

    /// The scratch the node asked for in [`steps::scratch_bytes`].
    pub fn scratch(&self, position: usize) -> Place {
        self.scratch[position]
    }
}

/// Values that are other names for the same memory.
struct Aliases(Vec<ValueId>);

impl Aliases {
    fn new(graph: &Graph) -> Self {
        let mut root: Vec<ValueId> = graph.value_ids().collect();
        for (_, node) in graph.nodes() {
            let free = matches!(
                node.op,
                Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_)
            );
            if let (true, Some(x), Some(y)) = (free, node.inputs[0], node.outputs[0])
                && !graph.outputs().contains(&y)
            {
                root[y.index()] = root[x.index()];
            }
        }
        Aliases(root)
    }

    fn root(&self, id: ValueId) -> ValueId {
        self.0[id.index()]
    }

    fn is_alias(&self, id: ValueId) -> bool {
        self.root(id) != id
    }
}

/// True if every extent of every value in use is known, and none is a tensor of strings, so that the
/// graph can be planned.
pub(crate) fn is_static(graph: &Graph) -> bool {
    let values = graph.nodes().flat_map(|(_, n)| n.inputs.iter().chain(&n.outputs).flatten());
    let known = |id: &ValueId| graph.fact(*id).has_shape();
    let heavy = |(_, node): (NodeId, &Node)| matches!(&node.op, Op::If(op) if is_heavy(op));
    values.chain(graph.outputs()).all(|id| is_plannable(graph, *id))
        && !graph.nodes().any(heavy)
        && graph.inputs().iter().all(known)
}

/// True if a value can lie in the arena: its extents are known, and its elements are numbers.
pub(crate) fn is_plannable(graph: &Graph, id: ValueId) -> bool {
    let fact = graph.fact(id);
    fact.has_shape() && fact.dtype != DType::Str
}

/// Where the values of a specialised graph lie, before its steps are made.
pub(crate) struct Draft<'a> {
    graph: &'a Arc<Graph>,
    demands: Demands<'a>,
    order: Vec<(NodeId, &'a Node)>,
    aliases: Aliases,
    pairs: Vec<Pair>,
    layout: Layout,
    offsets: Vec<usize>,
    arena_bytes: usize,
}

/// What the values of a run take.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// Bytes of the arena.
    pub arena: usize,
    /// Bytes of all intermediates, had none shared memory.
    pub unshared: usize,
}

impl<'a> Draft<'a> {
    /// Of a graph that [`is_static`].
    pub fn of(graph: &'a Arc<Graph>, demands: Demands<'a>) -> Self {
        let aliases = Aliases::new(graph);
        let order: Vec<(NodeId, &Node)> = graph.nodes().collect();
        let pairs = pairs::find(graph, &order);
        let layout = Layout::new(graph, &order, &aliases, &pairs, demands);
        let (offsets, arena_bytes) = arena::assign(&layout.intervals, demands.threads > 1);
        Draft { graph, demands, order, aliases, pairs, layout, offsets, arena_bytes }
    }

    /// What the plan will take.
    pub fn sizes(&self) -> Sizes {
        Sizes { arena: self.arena_bytes, unshared: self.layout.unshared() }
    }

    /// Makes the steps.
    pub fn build(self, packs: &Packs) -> Result<Plan, RuntimeError> {
        let Draft { graph, demands, ref layout, .. } = self;
        let mut builder = Builder {
            graph,
            packs,
            demands,
            places: vec![None; graph.value_count()],
            scratch: Vec::new(),
            narrow: layout.narrow.clone(),
            following: Following::default(),
            near: graph.constant_bytes() <= NEAR_WEIGHTS,
            zero_points: Paddings::default(),
            zeros: Paddings::default(),
        };
        place_values(&mut builder, layout, &self.offsets, &self.aliases);
        let steps = self.steps(&mut builder)?;
        let outputs =
            graph.outputs().iter().map(|&id| (graph.fact(id).dtype, builder.shape(id))).collect();
        let copies = layout
            .copied_outputs
            .iter()
            .map(|&(id, index)| {
                (builder.place(id), index, builder.graph.fact(id).byte_size().unwrap_or(0))
            })
            .collect();
        Ok(Plan {
            sections: sections::divide(&steps),
            pace: Pace::default(),
            steps,
            arena_bytes: self.arena_bytes,
            unshared_bytes: layout.unshared(),
            outputs,
            copies,
            _graph: graph.clone(),
        })
    }

    fn steps(&self, builder: &mut Builder<'_>) -> Result<Vec<Step>, RuntimeError> {
        let Draft { graph, order, .. } = self;
        let mut made = Vec::with_capacity(order.len());
        for (position, (id, node)) in order.iter().enumerate() {
            let begins = self.pairs.iter().any(|pair| pair.position == position);
            let renames = || node.outputs.iter().flatten().all(|&id| self.aliases.is_alias(id));
            if begins || renames() {
                continue;
            }
            builder.scratch = self.layout.scratch[position]
                .iter()
                .map(|&slot| Place { base: Base::Arena, offset: self.offsets[slot] })
                .collect();
            made.push(match self.pairs.iter().find(|pair| pair.position + 1 == position) {
                Some(pair) => {
                    let nodes = [position - 1, position].map(|at| graph.shared_node(order[at].0));
                    steps::build_pair(builder, &nodes, pair)?
                }
                None => steps::build(builder, graph.shared_node(*id))?,
            });
        }
        Ok(made)
    }
}

/// Lives of the intermediates.
struct Layout {
    intervals: Vec<Interval>,
    /// The interval of each root value that lies in the arena.
    slot: Vec<Option<usize>>,
    /// Output index of each root value that is written straight into an output.
    output: Vec<Option<u16>>,
    /// Intervals of each node's scratch.
    scratch: Vec<Vec<usize>>,
    copied_outputs: Vec<(ValueId, u16)>,
    /// f32 values that are kept as bf16.
    narrow: Vec<bool>,
    /// The last position that reads each root value, beyond all of them for outputs.
    last_read: Vec<usize>,
}

/// For each root value the last position that reads it, beyond all of them for outputs.
fn last_reads(graph: &Graph, aliases: &Aliases) -> Vec<usize> {
    let mut last = vec![0; graph.value_count()];
    for (position, (_, node)) in graph.nodes().enumerate() {
        for &input in node.inputs.iter().flatten() {
            last[aliases.root(input).index()] = position;
        }
    }
    for &output in graph.outputs() {
        last[aliases.root(output).index()] = usize::MAX;
    }
    last
}

/// The f32 values that are kept as bf16: intermediates that have a place of their own.
fn narrow(graph: &Graph, aliases: &Aliases, demands: Demands<'_>) -> Vec<bool> {
    let mut narrow = vec![false; graph.value_count()];
    if !graph.nodes().any(|(_, node)| steps::rounds(graph, node, demands)) {
        return narrow;
    }
    let users = graph.users();
    let mut names = vec![Vec::new(); graph.value_count()];
    for id in graph.value_ids() {
        names[aliases.root(id).index()].push(id);
    }
    let renames = |&(user, _): &(NodeId, usize)| {
        graph.node(user).outputs.iter().flatten().any(|&id| aliases.is_alias(id))
    };
    // Readers first: some find their operand as bf16 where they write their result so.
    for (_, node) in graph.nodes().rev() {
        let &[Some(y)] = node.outputs.as_slice() else { continue };
        if aliases.is_alias(y) {
            continue;
        }
        let names = &names[y.index()];
        let readers: Vec<(NodeId, usize)> = names
            .iter()
            .flat_map(|id| users[id.index()].iter().copied())
            .filter(|user| !renames(user))
            .collect();
        let kept = graph.outputs().iter().any(|id| names.contains(id));
        let rounds = !kept && steps::is_narrow(graph, &readers, node, &narrow, demands);
        names.iter().for_each(|id| narrow[id.index()] = rounds);
    }
    narrow
}

impl Layout {
    fn new(
        graph: &Graph,
        order: &[(NodeId, &Node)],
        aliases: &Aliases,
        pairs: &[Pair],
        demands: Demands<'_>,
    ) -> Self {
        let count = graph.value_count();
        let mut layout = Layout {
            intervals: Vec::new(),
            slot: vec![None; count],
            output: vec![None; count],
            scratch: Vec::new(),
            copied_outputs: Vec::new(),
            narrow: narrow(graph, aliases, demands),
            last_read: last_reads(graph, aliases),
        };
        for (index, &id) in graph.outputs().iter().enumerate() {
            let first = graph.outputs()[..index].iter().all(|&other| other != id);
            if graph.value(id).producer.is_some() && first {
                layout.output[id.index()] = Some(index as u16);
            } else {
                layout.copied_outputs.push((id, index as u16));
            }
        }
        for (position, (_, node)) in order.iter().enumerate() {
            layout.lives(graph, position, node, aliases);
            for pair in pairs.iter().filter(|pair| pair.position + 1 == position) {
                // The second of a pair reads what the first does; less lies between.
                layout.reads(position, order[position - 1].1, aliases);
                if let Some(slot) = layout.slot[pair.between.index()] {
                    layout.intervals[slot].bytes = pair.bytes_between(demands.threads);
                }
            }
            let mut slots = Vec::new();
            for bytes in steps::scratch_bytes(graph, node, demands, &layout.narrow) {
                slots.push(layout.intervals.len());
                layout.intervals.push(Interval { bytes, first: position, last: position });
            }
            layout.scratch.push(slots);
        }
        layout
    }

    /// Bytes of all intermediates.
    fn unshared(&self) -> usize {
        self.intervals.iter().fold(0, |sum: usize, i| sum.saturating_add(i.bytes))
    }

    /// The node at `position` reads its operands.
    fn reads(&mut self, position: usize, node: &Node, aliases: &Aliases) {
        for &input in node.inputs.iter().flatten() {
            if let Some(slot) = self.slot[aliases.root(input).index()] {
                self.intervals[slot].last = position;
            }
        }
    }

    fn lives(&mut self, graph: &Graph, position: usize, node: &Node, aliases: &Aliases) {
        self.reads(position, node, aliases);
        for &output in node.outputs.iter().flatten() {
            if aliases.is_alias(output) || self.output[output.index()].is_some() {
                continue;
            }
            let bytes = graph.fact(output).byte_size().unwrap_or(usize::MAX / 4);
            let bytes = bytes / if self.narrow[output.index()] { 2 } else { 1 };
            // An element-wise step may write over an operand that dies here.
            let reused = steps::in_place_operand(node).and_then(|operand| {
                let root = aliases.root(node.inputs[operand]?);
                let slot = self.slot[root.index()]?;
                let uses = node.inputs.iter().flatten().filter(|&&id| aliases.root(id) == root);
                let dies = self.last_read[root.index()] == position && uses.count() == 1;
                (dies && self.intervals[slot].bytes == bytes).then_some(slot)
            });
            let slot = reused.unwrap_or_else(|| {
                self.intervals.push(Interval { bytes, first: position, last: position });
                self.intervals.len() - 1
            });
            self.intervals[slot].last = position;
            self.slot[output.index()] = Some(slot);
        }
    }
}

fn place_values(builder: &mut Builder<'_>, layout: &Layout, offsets: &[usize], aliases: &Aliases) {
    let graph = builder.graph;
    for (index, &id) in graph.inputs().iter().enumerate() {
        builder.places[id.index()] = Some(Place { base: Base::Input(index as u16), offset: 0 });
    }
    for id in graph.constants() {
        let bytes = graph.constant(id).expect("listed as a constant").bytes();
        let offset = bytes.as_ptr().expose_provenance();
        builder.places[id.index()] = Some(Place { base: Base::Constant, offset });
    }
    for id in graph.value_ids() {
        let root = aliases.root(id);
        let place = if let Some(index) = layout.output[root.index()] {
            Some(Place { base: Base::Output(index), offset: 0 })
        } else {
            layout.slot[root.index()].map(|s| Place { base: Base::Arena, offset: offsets[s] })
        };
        builder.places[id.index()] = place.or(builder.places[root.index()]);
    }
}
