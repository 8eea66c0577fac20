//! Steps of recurrent layers, ensembles of trees, regions and boxes.

use lepton_kernels::Isa;
use lepton_kernels::pack::{PackedBf16, PackedF32};
use lepton_kernels::recurrent::{
    PackedI16, RecurrentMatrix, RecurrentStep, SharedState, gru_blend, gru_reset, gru_step,
    lstm_step, recurrent_order,
};
use lepton_kernels::regions::Regions;
use lepton_kernels::suppress::{Boxes, Limits};
use lepton_kernels::trees::{Collect, Forest, Leaves, Side, Test, TreeNode, evaluate};
use proptest::prelude::*;

use half::bf16;

use crate::data::{Random, lengths};
use crate::frame::{Compare, Row, Values, on_slices, on_threads, parts, undefined};

pub const ROWS: &[Row] = &[
    Row {
        name: "recurrent::lstm_step",
        compare: Compare::Close(8e-6),
        run: |row| row.run(layers(Kind::Lstm), stepped, Layer::results),
    },
    Row {
        name: "recurrent::gru_step",
        compare: Compare::Close(8e-6),
        run: |row| row.run(layers(Kind::Gru), stepped, Layer::results),
    },
    Row {
        name: "recurrent::gru_reset",
        compare: Compare::Close(8e-6),
        run: |row| row.run(layers(Kind::GruReset), stepped, Layer::results),
    },
    // After `gru_reset`.
    Row {
        name: "recurrent::gru_blend",
        compare: Compare::Close(8e-6),
        run: |row| row.run(layers(Kind::GruBlend), stepped, Layer::results),
    },
    Row {
        name: "trees::evaluate",
        compare: Compare::Bits,
        run: |row| row.run(woods(), evaluated, Wood::results),
    },
    // Against the reference operator in the tests of the runtime.
    Row {
        name: "regions::Regions::means",
        compare: Compare::Bits,
        run: |row| row.run(regions(), averaged, undefined),
    },
    Row {
        name: "suppress::Boxes::suppress",
        compare: Compare::Bits,
        run: |row| row.run(boxes(), suppressed, Crowd::results),
    },
];

/// A recurrent layer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Lstm,
    Gru,
    GruReset,
    GruBlend,
}

/// How its matrix is held.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    F32,
    Bf16,
    I16,
}

/// A step of a layer.
#[derive(Clone, Debug)]
struct Layer {
    kind: Kind,
    form: Form,
    hidden: usize,
    batch: usize,
    bound: f32,
    /// Factor of the states.
    size: f32,
    seed: u64,
}

fn layers(kind: Kind) -> impl Strategy<Value = Layer> {
    let forms = prop_oneof![Just(Form::F32), Just(Form::Bf16), Just(Form::I16)];
    let bounds = prop_oneof![Just(f32::INFINITY), Just(0.1f32)];
    let sizes =
        prop_oneof![6 => Just(1.0f32), 1 => Just(0.0f32), 1 => Just(1e-35f32), 1 => Just(4.0f32)];
    let extents = (prop_oneof![1..40usize, 1..140usize], lengths(9));
    (forms, extents, bounds, sizes, any::<u64>()).prop_map(
        move |(form, (hidden, batch), bound, size, seed)| {
            // Pairs of bf16 are whole.
            let hidden = if form == Form::Bf16 { hidden.next_multiple_of(2) } else { hidden };
            Layer { kind, form, hidden, batch, bound, size, seed }
        },
    )
}

/// Operands of a step.
struct States {
    /// Values that bf16 holds.
    matrix: Vec<f32>,
    product: Vec<f32>,
    bias: Vec<f32>,
    h: Vec<f32>,
    cell: Vec<f32>,
}

impl Layer {
    fn gates(&self) -> usize {
        if self.kind == Kind::Lstm { 4 } else { 3 }
    }

    fn operands(&self) -> States {
        let (gates, hidden, mut random) = (self.gates(), self.hidden, Random(self.seed));
        let size = (hidden as f32).sqrt().recip();
        let matrix = random.floats(gates * hidden * hidden);
        let matrix = matrix.iter().map(|v| bf16::from_f32(v * size).to_f32()).collect();
        let state = self.batch * hidden;
        States {
            matrix,
            product: random.floats(gates * state),
            bias: random.floats(gates * hidden),
            h: random.floats(state).iter().map(|h| h * self.size).collect(),
            cell: random.floats(state),
        }
    }

    /// By definition, but for matrices whose numbers are not known.
    fn results(&self) -> Option<Vec<Values>> {
        if self.form == Form::I16 {
            return None;
        }
        let (data, hidden, each) = (self.operands(), self.hidden, self.gates() * self.hidden);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for n in 0..self.batch {
            let sequence = Sequence {
                data: &data,
                x: &data.product[n * each..][..each],
                h: data.h[n * hidden..][..hidden].iter().map(|&h| f64::from(h)).collect(),
            };
            for j in 0..hidden {
                let old = f64::from(data.cell[n * hidden + j]);
                let values = match self.kind {
                    Kind::Lstm => sequence.lstm(j, old, f64::from(self.bound)).to_vec(),
                    Kind::Gru => vec![sequence.gru(j)],
                    Kind::GruReset => vec![sequence.update(j), sequence.scaled(j)],
                    Kind::GruBlend => vec![sequence.gru_reset_first(j)],
                };
                first.push(values[0] as f32);
                second.extend(values.get(1).map(|&value| value as f32));
            }
        }
        Some(vec![Values::Floats(first), Values::Floats(second)])
    }
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// One sequence of a step.
struct Sequence<'a> {
    data: &'a States,
    x: &'a [f32],
    h: Vec<f64>,
}

impl Sequence<'_> {
    /// The product of a state with one row of the recurrent matrix.
    fn dot(&self, state: &[f64], row: usize) -> f64 {
        let row = &self.data.matrix[row * self.h.len()..][..self.h.len()];
        row.iter().zip(state).map(|(&r, h)| f64::from(r) * h).sum()
    }

    fn x(&self, gate: usize, j: usize) -> f64 {
        f64::from(self.x[gate * self.h.len() + j])
    }

    fn gate(&self, gate: usize, j: usize) -> f64 {
        self.x(gate, j) + self.dot(&self.h, gate * self.h.len() + j)
    }

    /// The next state and cell state.
    fn lstm(&self, j: usize, cell: f64, bound: f64) -> [f64; 2] {
        let [input, output, forget] = [0, 1, 2].map(|gate| logistic(self.gate(gate, j)));
        let cell = (forget * cell + input * self.gate(3, j).tanh()).clamp(-bound, bound);
        [output * cell.tanh(), cell]
    }

    fn gru(&self, j: usize) -> f64 {
        let size = self.h.len();
        let bias = |gate: usize| f64::from(self.data.bias[gate * size + j]);
        let reset = logistic(self.gate(1, j) + bias(1));
        let product = self.dot(&self.h, 2 * size + j) + bias(2);
        self.blended(j, logistic(self.gate(0, j) + bias(0)), self.x(2, j) + reset * product)
    }

    /// The update gate, and h times the reset gate, where that scales h before the product.
    fn update(&self, j: usize) -> f64 {
        logistic(self.gate(0, j))
    }

    fn scaled(&self, j: usize) -> f64 {
        logistic(self.gate(1, j)) * self.h[j]
    }

    fn gru_reset_first(&self, j: usize) -> f64 {
        let size = self.h.len();
        let scaled: Vec<f64> = (0..size).map(|k| self.scaled(k)).collect();
        self.blended(j, self.update(j), self.x(2, j) + self.dot(&scaled, 2 * size + j))
    }

    fn blended(&self, j: usize, update: f64, new: f64) -> f64 {
        (1.0 - update) * new.tanh() + update * self.h[j]
    }
}

/// Threads get blocks of units.
fn stepped(case: &Layer, isa: Isa, threads: usize) -> Vec<Values> {
    let (data, gates, hidden) = (case.operands(), case.gates(), case.hidden);
    let order = recurrent_order(gates, hidden);
    let wide = PackedF32::pack(&data.matrix, &order);
    let half = PackedBf16::pack(&data.matrix, &order);
    let fixed = PackedI16::pack(&data.matrix, &order);
    let weights = match (case.form, &fixed) {
        (Form::Bf16, _) => RecurrentMatrix::Bf16(&half),
        (Form::I16, Some(fixed)) => RecurrentMatrix::I16(fixed),
        _ => RecurrentMatrix::F32(&wide),
    };
    let kernels: &[fn(Isa, RecurrentStep<'_>)] = match case.kind {
        Kind::Lstm => &[lstm_step],
        Kind::Gru => &[gru_step],
        Kind::GruReset => &[gru_reset],
        Kind::GruBlend => &[gru_reset, gru_blend],
    };
    let count = data.h.len();
    let (mut next, mut cell) = (vec![9.0; count], data.cell.clone());
    let mut scaled = vec![f32::NAN; count];
    let (next_at, cell_at) = (next.as_mut_ptr(), cell.as_mut_ptr());
    let scaled_at = scaled.as_mut_ptr();
    for kernel in kernels {
        // SAFETY: parts write the units of their own blocks; between kernels all threads have ended.
        unsafe {
            on_threads(parts(threads, weights.blocks(), 1, case.seed), |blocks| {
                let step = RecurrentStep {
                    isa,
                    weights,
                    blocks,
                    product: &data.product,
                    recurrent_bias: &data.bias,
                    h: &data.h,
                    next: SharedState::at(next_at, count),
                    cell: SharedState::at(cell_at, count),
                    scaled: SharedState::at(scaled_at, count),
                    cell_bound: case.bound,
                };
                kernel(isa, step);
            });
        }
    }
    let results = match case.kind {
        Kind::Lstm => [next, cell],
        Kind::GruReset => [cell, scaled],
        Kind::Gru | Kind::GruBlend => [next, Vec::new()],
    };
    results.map(Values::Floats).into()
}

/// Rows and an ensemble of trees.
#[derive(Clone, Debug)]
struct Wood {
    rows: usize,
    width: usize,
    targets: usize,
    trees: usize,
    depth: usize,
    /// Kinds of tests: 1 for equality, 2 for sets as well.
    tests: usize,
    /// True if a leaf has one weight.
    single: bool,
    collect: Collect,
    seed: u64,
}

fn woods() -> impl Strategy<Value = Wood> {
    let collects =
        prop::sample::select(vec![Collect::Sum, Collect::Mean, Collect::Min, Collect::Max]);
    let sizes =
        (prop_oneof![0..6usize, 30..150usize], 1..9usize, 1..4usize, lengths(80), 0..6usize);
    (sizes, 0..3usize, any::<bool>(), collects, any::<u64>()).prop_map(
        |((rows, width, targets, trees, depth), tests, single, collect, seed)| Wood {
            rows,
            width,
            targets,
            trees,
            depth,
            tests,
            single,
            collect,
            seed,
        },
    )
}

/// Trees as they are made.
struct Grown {
    nodes: Vec<TreeNode>,
    roots: Vec<Side>,
    leaves: Leaves,
    base: Vec<f32>,
    x: Vec<f32>,
}

impl Wood {
    fn side(&self, grown: &mut Grown, random: &mut Random, depth: usize) -> Side {
        if depth == 0 || random.bits().is_multiple_of(5) {
            let leaf = grown.leaves.starts.len() - 1;
            for target in 0..if self.single { 1 } else { self.targets } {
                let own = if self.single { leaf % self.targets } else { target };
                grown.leaves.targets.push(own);
                grown.leaves.weights.push(random.float());
            }
            grown.leaves.starts.push(grown.leaves.weights.len());
            return Side::Leaf(leaf);
        }
        let value = (random.below(5) as f32 - 2.0) * 0.5;
        let test = match random.below(1 + self.tests) {
            0 => Test::AtMost(value),
            1 => Test::Equal(value),
            _ => Test::Member(vec![f64::from(value), 1.0]),
        };
        let node = grown.nodes.len();
        let feature = random.below(self.width);
        let (missing_holds, nowhere) = (random.bits().is_multiple_of(2), Side::Leaf(0));
        grown.nodes.push(TreeNode { feature, test, missing_holds, sides: [nowhere; 2] });
        let sides = [(); 2].map(|()| self.side(grown, random, depth - 1));
        grown.nodes[node].sides = sides;
        Side::Node(node)
    }

    fn grown(&self) -> Grown {
        let mut random = Random(self.seed);
        let leaves = Leaves { starts: vec![0], ..Leaves::default() };
        let (nodes, roots) = (Vec::new(), Vec::new());
        let base = random.floats(self.targets);
        // Halves, so that values meet what nodes ask.
        let mut x: Vec<f32> =
            (0..self.rows * self.width).map(|_| (random.below(7) as f32 - 3.0) * 0.5).collect();
        random.disturb(&mut x);
        let mut grown = Grown { nodes, roots, leaves, base, x };
        for _ in 0..self.trees {
            let root = self.side(&mut grown, &mut random, self.depth);
            grown.roots.push(root);
        }
        grown
    }

    fn results(&self) -> Option<Vec<Values>> {
        let grown = self.grown();
        let mut y = Vec::new();
        for n in 0..self.rows {
            let row = &grown.x[n * self.width..][..self.width];
            let mut found = vec![None::<f64>; self.targets];
            for &root in &grown.roots {
                let leaf = walked(&grown.nodes, root, row);
                for at in grown.leaves.starts[leaf]..grown.leaves.starts[leaf + 1] {
                    let weight = f64::from(grown.leaves.weights[at]);
                    let old = &mut found[grown.leaves.targets[at]];
                    *old = Some(match (self.collect, *old) {
                        (_, None) => weight,
                        (Collect::Min, Some(old)) => old.min(weight),
                        (Collect::Max, Some(old)) => old.max(weight),
                        (_, Some(old)) => old + weight,
                    });
                }
            }
            let divisor =
                if self.collect == Collect::Mean { self.trees.max(1) as f64 } else { 1.0 };
            let result = |(value, base): (Option<f64>, &f32)| {
                (value.unwrap_or(0.0) / divisor + f64::from(*base)) as f32
            };
            y.extend(found.into_iter().zip(&grown.base).map(result));
        }
        Some(vec![Values::Floats(y)])
    }
}

/// The leaf a row reaches.
fn walked(nodes: &[TreeNode], mut side: Side, row: &[f32]) -> usize {
    loop {
        let node = match side {
            Side::Leaf(leaf) => return leaf,
            Side::Node(node) => &nodes[node],
        };
        let value = row[node.feature];
        let holds = match &node.test {
            Test::AtMost(split) => value <= *split,
            Test::Equal(split) => value == *split,
            Test::Member(set) => set.contains(&f64::from(value)),
        };
        let holds = holds || (value.is_nan() && node.missing_holds);
        side = node.sides[usize::from(!holds)];
    }
}

fn evaluated(case: &Wood, isa: Isa, threads: usize) -> Vec<Values> {
    let grown = case.grown();
    let sizes = [case.width, case.targets];
    let forest =
        Forest::new(&grown.nodes, &grown.roots, grown.leaves, sizes, case.collect, grown.base);
    let forest = forest.expect("whole trees");
    let mut y = vec![9.0; case.rows * case.targets];
    on_slices(threads, &mut y, case.targets, case.seed, |range, y| {
        let rows = range.start / case.targets..range.end / case.targets;
        evaluate(isa, &forest, &grown.x[rows.start * case.width..rows.end * case.width], y);
    });
    vec![Values::Floats(y)]
}

/// An image and a box in it, or beyond.
#[derive(Clone, Debug)]
struct Region {
    regions: Regions,
    image: [usize; 3],
    corners: [f32; 4],
    seed: u64,
}

fn regions() -> impl Strategy<Value = Region> {
    let how = ([1..5usize, 1..5usize], 0..4usize, 0.2f32..2.0, any::<bool>());
    let image = (1..9usize, 1..9usize, lengths(70));
    let corner = || -4.0f32..16.0;
    (how, image, [corner(), corner(), corner(), corner()], any::<u64>()).prop_map(
        |((cells, samples, scale, halves), (height, width, channels), corners, seed)| Region {
            regions: Regions { cells, samples, scale, halves },
            image: [height, width, channels],
            corners,
            seed,
        },
    )
}

fn averaged(case: &Region, isa: Isa, _threads: usize) -> Vec<Values> {
    let mut random = Random(case.seed);
    let mut image = random.floats(case.image.iter().product());
    random.disturb(&mut image);
    let [down, across] = case.regions.cells;
    let mut y = vec![9.0; down * across * case.image[2]];
    case.regions.means(isa, &image, case.image, &case.corners, &mut y);
    vec![Values::Floats(y)]
}

/// Boxes with scores.
#[derive(Clone, Debug)]
struct Crowd {
    count: usize,
    centres: bool,
    limits: Limits,
    /// How far boxes are spread.
    spread: f32,
    seed: u64,
}

fn boxes() -> impl Strategy<Value = Crowd> {
    let least = prop_oneof![Just(None), (-1.0f32..1.0).prop_map(Some)];
    let limits = (0..60usize, prop_oneof![Just(0.0f32), 0.0f32..1.0], least)
        .prop_map(|(most, overlap, least)| Limits { most, overlap, least });
    (lengths(140), any::<bool>(), limits, 0.5f32..30.0, any::<u64>()).prop_map(
        |(count, centres, limits, spread, seed)| Crowd { count, centres, limits, spread, seed },
    )
}

impl Crowd {
    /// Boxes as they are given, and scores, of which some are equal.
    fn operands(&self) -> [Vec<f32>; 2] {
        let mut random = Random(self.seed);
        let mut values = Vec::new();
        for _ in 0..self.count {
            let [x, y] = [random.float() * self.spread, random.float() * self.spread];
            let [w, h] = [random.float().abs() + 0.1, random.float().abs() + 0.1];
            values.extend(if self.centres { [x, y, w, h] } else { [x, y + h, x + w, y] });
        }
        let scores = (0..self.count).map(|_| (random.float() * 20.0).round() / 20.0).collect();
        [values, scores]
    }

    fn results(&self) -> Option<Vec<Values>> {
        let [values, scores] = self.operands();
        let corner = |v: &[f32; 4]| match self.centres {
            true => [v[0] - v[2] / 2.0, v[1] - v[3] / 2.0, v[0] + v[2] / 2.0, v[1] + v[3] / 2.0],
            false => [v[0].min(v[2]), v[1].min(v[3]), v[0].max(v[2]), v[1].max(v[3])],
        };
        let corners: Vec<[f32; 4]> = values.as_chunks::<4>().0.iter().map(corner).collect();
        let area = |c: &[f32; 4]| (c[2] - c[0]) * (c[3] - c[1]);
        let overlap = |a: &[f32; 4], b: &[f32; 4]| {
            let side = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
            let common = side(0) * side(1);
            let all = area(a) + area(b) - common;
            if common > 0.0 { common / all } else { 0.0 }
        };
        let mut order: Vec<usize> = (0..self.count)
            .filter(|&i| self.limits.least.is_none_or(|least| scores[i] > least))
            .collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut kept: Vec<usize> = Vec::new();
        for i in order {
            let free = |&k: &usize| overlap(&corners[k], &corners[i]) <= self.limits.overlap;
            if kept.len() < self.limits.most && kept.iter().all(free) {
                kept.push(i);
            }
        }
        Some(vec![places(&kept)])
    }
}

fn places(kept: &[usize]) -> Values {
    Values::Integers(kept.iter().map(|&place| place as i64).collect())
}

fn suppressed(case: &Crowd, isa: Isa, _threads: usize) -> Vec<Values> {
    let [values, scores] = case.operands();
    let boxes = Boxes::new(&values, case.centres).expect("small numbers");
    let kept = boxes.suppress(isa, &scores, case.limits).expect("a limit that is a number");
    vec![places(&kept)]
}
