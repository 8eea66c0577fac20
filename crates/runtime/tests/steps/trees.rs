//! Ensembles of trees give what the interpreter gives, to the last bit.

use lepton_ir::ops::trees::{TreeAggregate, TreeEnsemble};
use lepton_ir::{Fact, Graph, interpret};
use lepton_kernels::Isa;
use lepton_runtime::{Session, SessionOptions};
use lepton_tensor::{DType, Tensor};
use proptest::prelude::*;

/// Numbers that look random, from a seed.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }

    /// One of few values, so that equal ones meet.
    fn value(&mut self) -> f32 {
        [-1.5, -0.0, 0.0, 0.1, 0.75, 1.0, f32::INFINITY, f32::NEG_INFINITY][self.below(8)]
    }
}

/// What an ensemble is made of.
#[derive(Clone, Debug)]
struct Kind {
    seed: u64,
    trees: usize,
    depth: usize,
    width: usize,
    targets: usize,
    /// Modes are below this.
    modes: usize,
    /// Weights of a leaf: each result once, one each, or any number.
    leaves: usize,
    aggregate: TreeAggregate,
    doubles: bool,
}

/// Appends a subtree and gives the side that leads to it.
fn grow(op: &mut TreeEnsemble, made: &mut Made, kind: &Kind, tree: usize, depth: usize) -> i64 {
    if depth == 0 || made.noise.below(6) == 0 {
        op.leaf_starts.push(made.weights.len());
        let single = vec![tree % kind.targets];
        let targets: Vec<usize> = match kind.leaves {
            0 => (0..kind.targets).collect(),
            1 => single,
            _ => (0..made.noise.below(3)).map(|_| made.noise.below(kind.targets)).collect(),
        };
        for target in targets {
            op.leaf_targets.push(target);
            made.weights.push(made.noise.below(1000) as f32 / 7.0 - 70.0);
        }
        return -(op.leaf_starts.len() as i64);
    }
    let node = op.features.len();
    op.features.push(made.noise.below(kind.width));
    let mode = made.noise.below(kind.modes);
    op.modes.push(mode as i64);
    made.splits.push(f64::from(made.noise.value()) + if kind.doubles { 1e-12 } else { 0.0 });
    op.missing_true.push(made.noise.below(2) as i64);
    if mode == 6 {
        let count = made.noise.below(4);
        made.sets.extend((0..count).map(|_| made.noise.value()));
        made.sets.push(f32::NAN);
    }
    op.true_sides.push(0);
    op.false_sides.push(0);
    op.true_sides[node] = grow(op, made, kind, tree, depth - 1);
    op.false_sides[node] = grow(op, made, kind, tree, depth - 1);
    node as i64
}

struct Made {
    noise: Noise,
    splits: Vec<f64>,
    sets: Vec<f32>,
    weights: Vec<f32>,
}

fn ensemble(kind: &Kind) -> TreeEnsemble {
    let (splits, sets, weights) = Default::default();
    let mut made = Made { noise: Noise(kind.seed), splits, sets, weights };
    let mut op = TreeEnsemble { targets: kind.targets, ..TreeEnsemble::default() };
    for tree in 0..kind.trees {
        let root = grow(&mut op, &mut made, kind, tree, kind.depth);
        op.roots.push(root);
    }
    op.aggregate = kind.aggregate;
    let short: Vec<f32> = made.splits.iter().map(|&v| v as f32).collect();
    op.splits = if kind.doubles { Tensor::vector(&made.splits) } else { Tensor::vector(&short) };
    op.sets = Tensor::vector(&made.sets);
    op.leaf_weights = Tensor::vector(&made.weights);
    op.base = (0..made.noise.below(kind.targets + 1)).map(|i| i as f32 * 0.3).collect();
    op
}

fn table(rows: usize, width: usize, seed: u64) -> Tensor {
    let mut noise = Noise(seed);
    let mut value = || if noise.below(9) == 0 { f32::NAN } else { noise.value() };
    let values: Vec<f32> = (0..rows * width).map(|_| value()).collect();
    Tensor::from_slice([rows, width], &values).unwrap()
}

fn check(kind: &Kind, rows: usize) {
    let mut graph = Graph::new("trees");
    let x = graph.add_input("x", Fact::dense(DType::F32, &[rows, kind.width]));
    let y = graph.add_node("", ensemble(kind), &[Some(x)]).unwrap()[0];
    graph.set_value_name(y, "y");
    graph.set_outputs(vec![y]);
    let inputs = [table(rows, kind.width, kind.seed + 1)];
    let want = interpret::run(&graph, &inputs).unwrap();
    for isa in Isa::available() {
        for threads in [1, 2] {
            let options = SessionOptions { isa, threads, ..SessionOptions::default() };
            let session = Session::new(&graph, options).unwrap();
            let (have, profile) = session.profile(&inputs).unwrap();
            assert_eq!(profile[0].kernel, "trees", "{kind:?}");
            let bits = |tensors: &[Tensor]| -> Vec<u32> {
                let list = tensors[0].as_slice::<f32>().unwrap();
                list.iter().map(|v| (v + 0.0).to_bits()).collect()
            };
            assert_eq!(bits(&want), bits(&have), "{isa} {threads} {rows} {kind:?}");
        }
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    let sizes = (1..70_usize, 0..7_usize, 1..9_usize, 1..4_usize);
    let forms = (1..8_usize, 0..3_usize, 0..4_usize, any::<bool>());
    (any::<u32>(), sizes, forms).prop_map(|(seed, sizes, forms)| Kind {
        seed: u64::from(seed),
        trees: sizes.0,
        depth: sizes.1,
        width: sizes.2,
        targets: sizes.3,
        modes: forms.0,
        leaves: forms.1,
        aggregate: TreeAggregate::ALL[forms.2],
        doubles: forms.3,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_trees_as_the_interpreter_walks_them(kind in kinds(), rows in 0..140_usize) {
        check(&kind, rows);
    }
}

#[test]
fn rows_that_fill_no_lane_or_all() {
    let kind = Kind {
        seed: 3,
        trees: 40,
        depth: 5,
        width: 6,
        targets: 1,
        modes: 2,
        leaves: 1,
        aggregate: TreeAggregate::Sum,
        doubles: false,
    };
    for rows in [0, 1, 15, 16, 31, 32, 33, 63, 64, 65, 500] {
        check(&kind, rows);
    }
}

#[test]
fn trees_that_lead_nowhere_are_errors_of_the_interpreter() {
    let mut graph = Graph::new("trees");
    let x = graph.add_input("x", Fact::dense(DType::F32, &[2, 1]));
    let loops = TreeEnsemble {
        roots: vec![0],
        features: vec![0],
        modes: vec![0],
        splits: Tensor::vector(&[0.0f32]),
        true_sides: vec![0],
        false_sides: vec![0],
        ..TreeEnsemble::default()
    };
    let y = graph.add_node("", loops, &[Some(x)]).unwrap()[0];
    graph.set_value_name(y, "y");
    graph.set_outputs(vec![y]);
    let session = Session::new(&graph, SessionOptions::default()).unwrap();
    assert!(session.run(&[table(2, 1, 5)]).is_err());
}
