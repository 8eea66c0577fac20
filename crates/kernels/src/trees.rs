//! Ensembles of decision trees: many walks from a root to a leaf at once, of several rows down one
//! tree or of one row down several trees.
//!
//! A node is eight bytes: what it compares with, and a link of its feature, its flags and the
//! distance to its children, which are neighbours. Sums are taken in f64 in the order of the trees.

use std::collections::VecDeque;

use crate::isa::{self, Isa};

/// Walks that are taken together.
pub(crate) const LANES: usize = 64;
/// Rows from which they, and not trees, share the lanes.
const ROWS_SHARE: usize = 32;

/// Bits of a link below its feature.
pub(crate) const FLAGS: u32 = 3;
/// What is missing holds.
pub(crate) const MISSING: u32 = 1;
/// The node asks for equality.
pub(crate) const EQUAL: u32 = 2;
/// The node asks whether a value is one of a set.
pub(crate) const MEMBER: u32 = 4;

/// What a node asks of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// At most this.
    AtMost(f32),
    /// Equal to this.
    Equal(f32),
    /// One of these.
    Member(Vec<f64>),
}

/// Where a side of a node leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// To a node, by its number.
    Node(usize),
    /// To a leaf, by its number.
    Leaf(usize),
}

/// A node.
#[derive(Clone, Debug)]
pub struct TreeNode {
    /// The feature it looks at.
    pub feature: usize,
    /// What it asks.
    pub test: Test,
    /// True if what is not a number holds.
    pub missing_holds: bool,
    /// Where it leads if the test holds, and if not.
    pub sides: [Side; 2],
}

/// The weights of leaves: those of leaf `i` are `starts[i] .. starts[i + 1]`.
#[derive(Clone, Debug, Default)]
pub struct Leaves {
    /// One more than there are leaves.
    pub starts: Vec<usize>,
    /// The result each weight belongs to.
    pub targets: Vec<usize>,
    /// The weights.
    pub weights: Vec<f32>,
}

/// What becomes of the weights that a row reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collect {
    /// Their sum.
    Sum,
    /// Their sum by the number of trees.
    Mean,
    /// The least.
    Min,
    /// The largest.
    Max,
}

/// A tree, by what its walks find.
#[derive(Clone, Copy, Debug)]
struct Tree {
    root: u32,
    /// The result that every leaf has one weight for, which is then what a walk finds; else it
    /// finds the number of a leaf.
    single: Option<u32>,
}

/// Trees laid out for walking.
#[derive(Clone, Debug)]
pub struct Forest {
    /// What a node compares with in the low half (in a leaf what a walk finds), the link in the
    /// high one: distance to the children, feature, flags. The link of a leaf is 0.
    pub(crate) nodes: Vec<u64>,
    /// Bits of a link that hold the feature.
    pub(crate) feature_bits: u32,
    /// True if a node asks for equality.
    pub(crate) equals: bool,
    pub(crate) sets: Vec<Vec<f64>>,
    trees: Vec<Tree>,
    leaves: Leaves,
    /// True if each leaf has a weight for each result, in their order.
    dense: bool,
    width: usize,
    targets: usize,
    collect: Collect,
    base: Vec<f32>,
    depth: usize,
}

/// The bits of the features' numbers in trees of `features` columns.
fn bits(features: usize) -> u32 {
    usize::BITS - features.saturating_sub(1).leading_zeros()
}

impl Forest {
    /// Lays out trees over rows of `width` features with `targets` results. `None` if a side, a
    /// feature or a weight leads nowhere, two sides lead to the same node, a weight of which the
    /// least or largest is asked is not a number, or numbers are too large to lay out.
    pub fn new(
        nodes: &[TreeNode],
        roots: &[Side],
        leaves: Leaves,
        [width, targets]: [usize; 2],
        collect: Collect,
        base: Vec<f32>,
    ) -> Option<Forest> {
        let in_order = leaves.starts.windows(2).all(|pair| pair[0] <= pair[1]);
        let end = leaves.starts.last().copied()?;
        let fits = leaves.targets.iter().all(|&target| target < targets);
        let known = end <= leaves.weights.len() && end <= leaves.targets.len();
        let wide = width.checked_mul(LANES).is_none_or(|all| all > i32::MAX as usize);
        let sums = matches!(collect, Collect::Sum | Collect::Mean);
        let numbers = sums || leaves.weights.iter().all(|weight| !weight.is_nan());
        if !in_order || !fits || !known || wide || !numbers {
            return None;
        }
        let count = leaves.starts.len() - 1;
        let own = |leaf: usize| &leaves.targets[leaves.starts[leaf]..leaves.starts[leaf + 1]];
        let dense = (0..count).all(|leaf| own(leaf).iter().copied().eq(0..targets));
        let forest = Forest {
            nodes: Vec::new(),
            feature_bits: bits(width),
            equals: nodes.iter().any(|node| matches!(node.test, Test::Equal(_))),
            sets: Vec::new(),
            trees: Vec::new(),
            dense,
            leaves,
            width,
            targets,
            collect,
            base,
            depth: 1,
        };
        let mut layout = Layout { seen: vec![false; nodes.len()], nodes, forest };
        roots.iter().try_for_each(|&root| layout.tree(root))?;
        Some(layout.forest)
    }

    /// Number of results of a row.
    pub fn targets(&self) -> usize {
        self.targets
    }

    /// Nodes that a row visits at most.
    pub fn visits(&self) -> usize {
        self.trees.len() * self.depth
    }
}

/// Trees being laid out.
struct Layout<'a> {
    nodes: &'a [TreeNode],
    seen: Vec<bool>,
    forest: Forest,
}

impl Layout<'_> {
    /// Appends a tree, its levels one after the other.
    fn tree(&mut self, root: Side) -> Option<()> {
        let reached = self.reached(root)?;
        let own = |leaf: &usize| {
            let [start, end] = [0, 1].map(|next| self.forest.leaves.starts[leaf + next]);
            (end == start + 1).then(|| self.forest.leaves.targets[start] as u32)
        };
        let first = reached.first().and_then(own);
        let single = first.filter(|_| reached.iter().all(|leaf| own(leaf) == first));
        let start = self.forest.nodes.len();
        self.forest.trees.push(Tree { root: u32::try_from(start).ok()?, single });
        self.forest.nodes.push(0);
        let mut open = VecDeque::from([(start, root, 1)]);
        while let Some((place, side, depth)) = open.pop_front() {
            self.forest.depth = self.forest.depth.max(depth);
            let entry = match side {
                Side::Leaf(leaf) if single.is_some() => {
                    let weight = self.forest.leaves.weights[self.forest.leaves.starts[leaf]];
                    u64::from(weight.to_bits())
                }
                Side::Leaf(leaf) => u64::from(u32::try_from(leaf).ok()?),
                Side::Node(node) => {
                    let children = self.forest.nodes.len();
                    self.forest.nodes.extend([0, 0]);
                    let [yes, no] = self.nodes[node].sides;
                    open.extend([(children, yes, depth + 1), (children + 1, no, depth + 1)]);
                    self.entry(node, children - place)?
                }
            };
            self.forest.nodes[place] = entry;
        }
        i32::try_from(self.forest.nodes.len()).ok().map(|_| ())
    }

    /// The leaves of a tree; `None` if it is none.
    fn reached(&mut self, root: Side) -> Option<Vec<usize>> {
        let (mut open, mut leaves) = (vec![root], Vec::new());
        while let Some(side) = open.pop() {
            match side {
                Side::Leaf(leaf) if leaf + 1 < self.forest.leaves.starts.len() => leaves.push(leaf),
                Side::Leaf(_) => return None,
                Side::Node(node) => {
                    if std::mem::replace(self.seen.get_mut(node)?, true) {
                        return None;
                    }
                    open.extend(self.nodes[node].sides);
                }
            }
        }
        Some(leaves)
    }

    fn entry(&mut self, node: usize, distance: usize) -> Option<u64> {
        let node = &self.nodes[node];
        let (split, mut flags) = match &node.test {
            Test::AtMost(split) => (split.to_bits(), 0),
            Test::Equal(split) => (split.to_bits(), EQUAL),
            Test::Member(set) => {
                self.forest.sets.push(set.clone());
                (u32::try_from(self.forest.sets.len() - 1).ok()?, MEMBER)
            }
        };
        if node.missing_holds {
            flags |= MISSING;
        }
        let shift = self.forest.feature_bits + FLAGS;
        let distance = u32::try_from(distance).ok()?;
        let fits = node.feature < self.forest.width && shift < 32 && distance >> (32 - shift) == 0;
        let feature = u32::try_from(node.feature).ok()?;
        let link = fits.then(|| distance << shift | feature << FLAGS | flags)?;
        Some(u64::from(link) << 32 | u64::from(split))
    }
}

/// Where walks start: rows by the distance of their first value, and nodes.
pub(crate) struct Lanes {
    pub rows: [u32; LANES],
    /// In: roots. Out: what the walks found.
    pub at: [u32; LANES],
    /// Lanes in use; the others are not looked at.
    pub count: usize,
}

/// Takes all walks of `lanes` to their leaves.
fn walk(isa: Isa, forest: &Forest, x: &[f32], lanes: &mut Lanes) {
    #[cfg(target_arch = "x86_64")]
    if forest.sets.is_empty() {
        // SAFETY: the token proves the instruction set. Roots are nodes of the forest, whose links
        // stay inside it and whose features are less than the width that rows were checked for.
        unsafe {
            if isa.has_avx512() {
                return isa::avx512::trees::walk(forest, x, lanes);
            }
            if isa.has_avx2() {
                return isa::avx2::trees::walk(forest, x, lanes);
            }
        }
    }
    let _ = isa;
    isa::portable::trees::walk(forest, x, lanes);
}

/// The results `[rows,targets]` of rows `[rows,width]` as wide as the forest was laid out for.
///
/// # Panics
/// If x or the output is not of whole rows.
pub fn evaluate(isa: Isa, forest: &Forest, x: &[f32], output: &mut [f32]) {
    let (width, targets) = (forest.width, forest.targets);
    let rows = output.len().checked_div(targets).unwrap_or(0);
    assert!(x.len() == rows * width && output.len() == rows * targets, "whole rows");
    let none = match forest.collect {
        Collect::Sum | Collect::Mean => 0.0,
        // What is not a number is what every number is less, and more, than.
        Collect::Min | Collect::Max => f64::NAN,
    };
    let mut found = vec![none; targets * rows.min(LANES)];
    let mut at = 0;
    while at < rows {
        let left = rows - at;
        let count = if left < ROWS_SHARE { 1 } else { left.min(LANES) };
        let x = &x[at * width..][..count * width];
        let found = &mut found[..count * targets];
        found.fill(none);
        if count == 1 {
            one_row(isa, forest, x, found);
        } else {
            several_rows(isa, forest, x, found);
        }
        finish(forest, found, &mut output[at * targets..][..count * targets]);
        at += count;
    }
}

/// One row down many trees.
fn one_row(isa: Isa, forest: &Forest, x: &[f32], found: &mut [f64]) {
    let mut lanes = Lanes { rows: [0; LANES], at: [0; LANES], count: 0 };
    for trees in forest.trees.chunks(LANES) {
        lanes.count = trees.len();
        for (lane, at) in lanes.at.iter_mut().enumerate() {
            *at = trees[lane.min(trees.len() - 1)].root;
        }
        walk(isa, forest, x, &mut lanes);
        for (tree, &leaf) in trees.iter().zip(&lanes.at) {
            collect(forest, *tree, &[leaf], found);
        }
    }
}

/// Rows down one tree after the other.
fn several_rows(isa: Isa, forest: &Forest, x: &[f32], found: &mut [f64]) {
    let count = found.len() / forest.targets;
    let rows = std::array::from_fn(|lane| (lane.min(count - 1) * forest.width) as u32);
    let mut lanes = Lanes { rows, at: [0; LANES], count };
    for tree in &forest.trees {
        lanes.at.fill(tree.root);
        walk(isa, forest, x, &mut lanes);
        collect(forest, *tree, &lanes.at[..count], found);
    }
}

/// Adds what walks down a tree found, one row each.
fn collect(forest: &Forest, tree: Tree, leaves: &[u32], found: &mut [f64]) {
    match forest.collect {
        Collect::Sum | Collect::Mean => join(forest, tree, leaves, found, |a, b| a + b),
        Collect::Min => join(forest, tree, leaves, found, f64::min),
        Collect::Max => join(forest, tree, leaves, found, f64::max),
    }
}

#[inline(always)]
fn join(
    forest: &Forest,
    tree: Tree,
    leaves: &[u32],
    found: &mut [f64],
    join: impl Fn(f64, f64) -> f64,
) {
    let targets = forest.targets;
    let weight = |bits: u32| f64::from(f32::from_bits(bits));
    match tree.single {
        Some(_) if targets == 1 => {
            found.iter_mut().zip(leaves).for_each(|(old, &leaf)| *old = join(*old, weight(leaf)));
        }
        Some(target) => {
            let column = found.iter_mut().skip(target as usize).step_by(targets);
            column.zip(leaves).for_each(|(old, &leaf)| *old = join(*old, weight(leaf)));
        }
        None if forest.dense => {
            for (row, &leaf) in found.chunks_exact_mut(targets.max(1)).zip(leaves) {
                let weights = &forest.leaves.weights[leaf as usize * targets..][..targets];
                let pairs = row.iter_mut().zip(weights);
                pairs.for_each(|(old, &weight)| *old = join(*old, f64::from(weight)));
            }
        }
        None => {
            let Leaves { starts, targets: owners, weights } = &forest.leaves;
            for (row, &leaf) in found.chunks_exact_mut(targets.max(1)).zip(leaves) {
                for at in starts[leaf as usize]..starts[leaf as usize + 1] {
                    let old = &mut row[owners[at]];
                    *old = join(*old, f64::from(weights[at]));
                }
            }
        }
    }
}

/// Results from what was collected.
fn finish(forest: &Forest, found: &[f64], output: &mut [f32]) {
    let trees = match forest.collect {
        Collect::Mean => forest.trees.len().max(1) as f64,
        _ => 1.0,
    };
    let untouched = matches!(forest.collect, Collect::Min | Collect::Max);
    let rows = found.chunks_exact(forest.targets).zip(output.chunks_exact_mut(forest.targets));
    for (found, output) in rows {
        for (target, (to, &value)) in output.iter_mut().zip(found).enumerate() {
            let value = if untouched && value.is_nan() { 0.0 } else { value };
            let base = forest.base.get(target).map_or(0.0, |&base| f64::from(base));
            *to = (value / trees + base) as f32;
        }
    }
}
