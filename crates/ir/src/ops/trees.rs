//! Ensembles of decision trees.

use std::borrow::Cow;

use lepton_tensor::Tensor;

use super::facets::facets;
use super::walk::{require_float, require_rank};
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, Operands, Operator, Quant};
use crate::{attributes, words};

/// Most results of a row.
const MAX_TARGETS: usize = 1 << 24;

words! {
    /// What becomes of the leaves that a row reaches.
    pub enum TreeAggregate {
        /// Their mean over the trees
        Average = "average",
        /// Their sum
        Sum = "sum",
        /// The least
        Min = "min",
        /// The largest
        Max = "max",
    }
}

attributes! {
    /// The leaves that each row of x `[N,features]` reaches in every tree (Breiman et al. 1984),
    /// collected: `[N,targets]` in the type of x. A node sends a row to its true side where
    /// `x[feature] mode split` holds; sides count nodes from 0, and leaves as −1, −2, ….
    pub struct TreeEnsemble {
        /// Number of results of a row.
        pub targets: usize = 1,
        /// What becomes of the leaves.
        pub aggregate: TreeAggregate = TreeAggregate::Sum,
        /// Where each tree starts: a node, or a leaf.
        pub roots: Vec<i64> = Vec::new(),
        /// The feature each node looks at.
        pub features: Vec<usize> = Vec::new(),
        /// How each node compares: 0 ≤, 1 <, 2 ≥, 3 >, 4 =, 5 ≠, 6 is one of its set.
        pub modes: Vec<i64> = Vec::new(),
        /// What each node compares with (f32 or f64).
        pub splits: Tensor = Tensor::vector::<f32>(&[]),
        /// Side where it holds.
        pub true_sides: Vec<i64> = Vec::new(),
        /// Side where it does not.
        pub false_sides: Vec<i64> = Vec::new(),
        /// 1 for each node that sends what is missing to its true side; empty means 0.
        pub missing_true: Vec<i64> = Vec::new(),
        /// The sets of the nodes of mode 6, each ended by a NaN (f32 or f64).
        pub sets: Tensor = Tensor::vector::<f32>(&[]),
        /// Where the weights of each leaf start; they end where those of the next start.
        pub leaf_starts: Vec<usize> = Vec::new(),
        /// The result each weight belongs to.
        pub leaf_targets: Vec<usize> = Vec::new(),
        /// The weights (f32 or f64).
        pub leaf_weights: Tensor = Tensor::vector::<f32>(&[]),
        /// What each result starts from; empty means 0.
        pub base: Vec<f32> = Vec::new(),
    }
}

/// Numbers of either width, as they lie.
enum Numbers<'a> {
    Short(&'a [f32]),
    Wide(Cow<'a, [f64]>),
}

impl<'a> Numbers<'a> {
    fn of(tensor: &'a Tensor) -> Self {
        match (tensor.as_slice::<f32>(), tensor.as_slice::<f64>()) {
            (Ok(short), _) => Numbers::Short(short),
            (_, Ok(wide)) => Numbers::Wide(Cow::Borrowed(wide)),
            _ => Numbers::Wide(Cow::Owned(tensor.to_f64_vec())),
        }
    }

    fn len(&self) -> usize {
        match self {
            Numbers::Short(list) => list.len(),
            Numbers::Wide(list) => list.len(),
        }
    }

    fn get(&self, index: usize) -> Option<f64> {
        match self {
            Numbers::Short(list) => list.get(index).map(|&v| f64::from(v)),
            Numbers::Wide(list) => list.get(index).copied(),
        }
    }
}

/// The ensemble with its numbers at hand.
struct Walk<'a> {
    op: &'a TreeEnsemble,
    x: Numbers<'a>,
    width: usize,
    splits: Numbers<'a>,
    weights: Numbers<'a>,
    sets: Vec<Vec<f64>>,
}

impl Walk<'_> {
    /// The leaf a row reaches from a root; `None` where the tree is broken.
    fn leaf(&self, row: usize, root: i64) -> Option<usize> {
        let mut at = root;
        // A path is no longer than there are nodes.
        for _ in 0..=self.op.features.len() {
            let Ok(node) = usize::try_from(at) else {
                return usize::try_from(-(at + 1)).ok();
            };
            let feature = *self.op.features.get(node)?;
            let v = self.x.get(row * self.width + feature).filter(|_| feature < self.width)?;
            let split = self.splits.get(node)?;
            let holds = match *self.op.modes.get(node)? {
                0 => v <= split,
                1 => v < split,
                2 => v >= split,
                3 => v > split,
                4 => v == split,
                5 => v != split,
                _ => self.is_member(node, v),
            };
            let missing = v.is_nan() && self.op.missing_true.get(node) == Some(&1);
            let sides = if holds || missing { &self.op.true_sides } else { &self.op.false_sides };
            at = *sides.get(node)?;
        }
        None
    }

    fn is_member(&self, node: usize, v: f64) -> bool {
        let before = self.op.modes[..node].iter().filter(|mode| **mode == 6).count();
        self.sets.get(before).is_some_and(|set| set.contains(&v))
    }

    /// Appends the results of a row; `found` is room for them.
    fn row(&self, row: usize, found: &mut [Option<f64>], made: &mut Vec<f64>) -> Option<()> {
        found.fill(None);
        for &root in &self.op.roots {
            let leaf = self.leaf(row, root)?;
            let start = *self.op.leaf_starts.get(leaf)?;
            let end = self.op.leaf_starts.get(leaf + 1).map_or(self.weights.len(), |&end| end);
            for at in start..end {
                let weight = self.weights.get(at)?;
                let target = found.get_mut(*self.op.leaf_targets.get(at)?)?;
                *target = Some(match (*target, self.op.aggregate) {
                    (None, _) => weight,
                    (Some(old), TreeAggregate::Min) => old.min(weight),
                    (Some(old), TreeAggregate::Max) => old.max(weight),
                    (Some(old), _) => old + weight,
                });
            }
        }
        let trees = match self.op.aggregate {
            TreeAggregate::Average => self.op.roots.len().max(1) as f64,
            _ => 1.0,
        };
        let base = |target: usize| self.op.base.get(target).map_or(0.0, |&base| f64::from(base));
        let all = found.iter().enumerate();
        made.extend(all.map(|(target, sum)| sum.unwrap_or(0.0) / trees + base(target)));
        Some(())
    }
}

impl Operator for TreeEnsemble {
    facets! {
        arity = Arity::exactly(1),
        stops = "decisions are flat",
        frozen = "nodes look at features by their position",
        quant = Quant::FloatOnly("splits lie close together"),
        element_ops = 64,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        require_float("x", x.dtype)?;
        require_rank("x", x, 2)?;
        if self.targets > MAX_TARGETS {
            return Err(Problem::attribute("targets", format!("{} are too many", self.targets)));
        }
        Ok(vec![Fact::new(x.dtype, vec![x.dims[0].clone(), Dim::from(self.targets)])])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        self.infer(Operands(&[Some(&Fact::of(x))]))?;
        let &[count, width] = x.shape() else { return Err(Problem::shape("x is not a table")) };
        let sets = self.sets.to_f64_vec();
        let sets = sets.split(|v| v.is_nan()).map(<[f64]>::to_vec).collect();
        let (splits, weights) = (Numbers::of(&self.splits), Numbers::of(&self.leaf_weights));
        let walk = Walk { op: self, x: Numbers::of(x), width, splits, weights, sets };
        let mut made = Vec::with_capacity(count.saturating_mul(self.targets));
        let mut found = vec![None; self.targets];
        for row in 0..count {
            let done = walk.row(row, &mut found, &mut made);
            done.ok_or_else(|| Problem::value("a tree leads nowhere"))?;
        }
        Ok(vec![Tensor::from_f64_slice(x.dtype(), [count, self.targets], &made)?])
    }
}
