//! Random graphs: every value finite, every operator one that exporters write.

use lepton_ir::ops::binary::{Binary, BinaryFunction as B};
use lepton_ir::ops::concat::Concat;
use lepton_ir::ops::conv::Conv;
use lepton_ir::ops::expand::Expand;
use lepton_ir::ops::gather::Gather;
use lepton_ir::ops::matmul::MatMul;
use lepton_ir::ops::normalize::{BatchNormalization, LayerNormalization};
use lepton_ir::ops::pad::{Pad, PadMode};
use lepton_ir::ops::pool::{Pool, PoolFunction};
use lepton_ir::ops::quantize::{DequantizeLinear, QuantizeLinear};
use lepton_ir::ops::reduce::{Reduce, ReduceFunction as R};
use lepton_ir::ops::reshape::Reshape;
use lepton_ir::ops::slice::Slice;
use lepton_ir::ops::softmax::Softmax;
use lepton_ir::ops::split::Split;
use lepton_ir::ops::transpose::Transpose;
use lepton_ir::ops::unary::{Unary, UnaryFunction as U};
use lepton_ir::{Dim, Fact, Graph, Op, ValueId};
use lepton_tensor::{DType, Tensor};

/// Nodes of a graph.
const NODES: std::ops::Range<usize> = 4..24;
/// Elements of a value.
const MAX_ELEMENTS: usize = 20_000;

/// A generator of numbers (xorshift), the same everywhere.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }

    fn within(&mut self, range: std::ops::Range<usize>) -> usize {
        range.start + self.below(range.end - range.start)
    }

    pub fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// Reals between −1 and 1.
    pub fn reals(&mut self, shape: &[usize]) -> Tensor {
        let count = shape.iter().product();
        let values: Vec<f32> =
            (0..count).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect();
        Tensor::from_slice(shape, &values).expect("as many values as the shape has")
    }
}

/// A graph that grows.
pub struct Growing {
    pub(super) graph: Graph,
    pub(super) numbers: Numbers,
    pub(super) live: Vec<ValueId>,
    /// With quantisation between.
    quantised: bool,
}

/// A graph of its own for each seed, and inputs for it. With `quantised`, activations and weights
/// go through 8 bits here and there.
pub fn graph(seed: u64, quantised: bool) -> (Graph, Vec<Tensor>) {
    let mut numbers = Numbers::new(seed);
    let mut growing = Growing {
        graph: Graph::new("random"),
        numbers: Numbers::new(seed ^ 0x5555),
        live: vec![],
        quantised,
    };
    let mut inputs = Vec::new();
    for index in 0..1 + numbers.below(2) {
        let rank = numbers.one_of(&[2, 3, 4, 4, 4]);
        let shape: Vec<usize> = (0..rank)
            .map(|axis| if axis == 0 { numbers.within(1..3) } else { numbers.within(1..13) })
            .collect();
        let dims = shape.iter().map(|&extent| Dim::from(extent)).collect();
        let id = growing.graph.add_input(format!("x{index}"), Fact::new(DType::F32, dims));
        growing.live.push(id);
        inputs.push(numbers.reals(&shape));
    }
    for _ in 0..numbers.within(NODES) {
        growing.grow();
    }
    let users = growing.graph.users();
    let mut outputs: Vec<ValueId> = growing.live.clone();
    outputs.retain(|id| users[id.index()].is_empty() && growing.graph.producer(*id).is_some());
    if outputs.is_empty() {
        let x = growing.live[0];
        outputs.extend(growing.node(Unary::new(U::Tanh), &[Some(x)]));
    }
    for (index, &id) in outputs.iter().enumerate() {
        growing.graph.set_value_name(id, format!("y{index}"));
    }
    growing.graph.set_outputs(outputs);
    (growing.graph, inputs)
}

impl Growing {
    pub(super) fn shape(&self, id: ValueId) -> Vec<usize> {
        self.graph.fact(id).shape().expect("all extents are known")
    }

    pub(super) fn constant(&mut self, shape: &[usize], scale: f32) -> ValueId {
        let reals = self.numbers.reals(shape);
        let values: Vec<f32> =
            reals.as_slice::<f32>().expect("reals").iter().map(|v| v * scale).collect();
        let tensor = Tensor::from_slice(shape, &values).expect("the same shape");
        self.graph.add_constant("", tensor)
    }

    pub(super) fn integers(&mut self, values: &[i64]) -> ValueId {
        self.graph.add_constant("", Tensor::vector(values))
    }

    /// Adds a node if it is one: sizes that do not fit are no defect here.
    pub(super) fn node(
        &mut self,
        op: impl Into<Op>,
        inputs: &[Option<ValueId>],
    ) -> Option<ValueId> {
        let name = format!("n{}", self.graph.node_count());
        let made = self.graph.add_node(name, op, inputs).ok()?;
        let elements = |id: ValueId| self.shape(id).iter().product::<usize>();
        made.iter().all(|&id| (1..=MAX_ELEMENTS).contains(&elements(id))).then(|| made[0])
    }

    /// One more operator on a value, the latest more often than others.
    fn grow(&mut self) {
        let latest = self.live.len() - 1;
        let at = if self.numbers.below(3) > 0 { latest } else { self.numbers.below(latest + 1) };
        let x = self.live[at];
        let made = match self.numbers.below(17) {
            0..3 => self.product(x),
            3..5 => self.unary(x),
            5..7 => self.binary(x),
            7 => self.pool(x),
            8 => self.normalise(x),
            9 => self.reshape(x),
            10 => self.transpose(x),
            11 => self.cut(x),
            12 => self.join(x),
            13 => self.reduce(x),
            14 => self.pad(x),
            15 => self.repeat(x),
            _ => self.attend(x),
        };
        let made = match made {
            Some(made) if self.quantised && self.numbers.below(2) == 0 => self.through_bytes(made),
            made => made,
        };
        self.live.extend(made);
    }

    fn unary(&mut self, x: ValueId) -> Option<ValueId> {
        const FUNCTIONS: &[U] = &[
            U::Relu,
            U::Sigmoid,
            U::Tanh,
            U::Abs,
            U::Neg,
            U::Gelu,
            U::GeluTanh,
            U::Silu,
            U::HardSwish,
            U::Erf,
            U::Softplus,
            U::Softsign,
            U::Mish,
            U::LeakyRelu,
            U::Elu,
        ];
        let function = self.numbers.one_of(FUNCTIONS);
        let alpha = match function {
            U::LeakyRelu => 0.1,
            U::Elu | U::Silu => 1.0,
            _ => return self.node(Unary::new(function), &[Some(x)]),
        };
        self.node(Unary::with(function, alpha, 0.0), &[Some(x)])
    }

    /// With a constant that broadcasts, or with another value.
    fn binary(&mut self, x: ValueId) -> Option<ValueId> {
        let function = self.numbers.one_of(&[B::Add, B::Sub, B::Mul, B::Max, B::Min]);
        let other = self.live[self.numbers.below(self.live.len())];
        if self.numbers.below(2) == 0
            && let Some(made) = self.node(Binary::new(function), &[Some(x), Some(other)])
        {
            return Some(made);
        }
        let mut shape = self.shape(x);
        for extent in &mut shape {
            if self.numbers.below(2) == 0 {
                *extent = 1;
            }
        }
        shape.drain(..self.numbers.below(shape.len()));
        let constant = self.constant(&shape, 1.0);
        let operands = [Some(x), Some(constant)];
        let swapped = self.numbers.below(3) == 0;
        self.node(
            Binary::new(function),
            &if swapped { [operands[1], operands[0]] } else { operands },
        )
    }

    /// A convolution of an image, a matrix product of anything else.
    fn product(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        let &[_, channels, height, width] = &shape[..] else { return self.matmul(x) };
        if self.numbers.below(4) == 0 {
            return self.matmul(x);
        }
        let group = if channels > 1 && self.numbers.below(3) == 0 { channels } else { 1 };
        let each = self.numbers.within(1..if group > 1 { 3 } else { 20 });
        let kernel = [height, width].map(|extent| self.numbers.one_of(&[1, 3, 3, 5]).min(extent));
        let dilation = self.numbers.one_of(&[1, 1, 1, 2]);
        let spread = |k: usize| (k - 1) * dilation + 1;
        let pads: Vec<usize> = (0..4).map(|i| self.numbers.below(spread(kernel[i % 2]))).collect();
        let stride = self.numbers.one_of(&[1, 1, 2]);
        let depth = channels / group;
        let scale = 1.0 / ((depth * kernel[0] * kernel[1]) as f32).sqrt();
        let w = self.weights(&[each * group, depth, kernel[0], kernel[1]], scale);
        let bias = (self.numbers.below(2) == 0).then(|| self.constant(&[each * group], 0.5));
        let (strides, dilations) = (vec![stride; 2], vec![dilation; 2]);
        let conv = Conv { strides, pads, dilations, group, ..Conv::default() };
        self.node(conv, &[Some(x), Some(w), bias])
    }

    fn matmul(&mut self, x: ValueId) -> Option<ValueId> {
        let depth = *self.shape(x).last()?;
        let columns = self.numbers.within(1..40);
        let w = self.weights(&[depth, columns], 1.0 / (depth as f32).sqrt());
        self.node(MatMul {}, &[Some(x), Some(w)])
    }

    /// A constant, in 8 bits where the graph is quantised.
    fn weights(&mut self, shape: &[usize], scale: f32) -> ValueId {
        if !self.quantised || self.numbers.below(4) == 0 {
            return self.constant(shape, scale);
        }
        let bytes: Vec<f64> =
            (0..shape.iter().product()).map(|_| self.numbers.below(255) as f64 - 127.0).collect();
        let bytes = Tensor::from_f64_slice(DType::I8, shape, &bytes).expect("as many values");
        let bytes = self.graph.add_constant("", bytes);
        let scale = self.graph.add_constant("", Tensor::scalar(scale / 127.0));
        let made =
            self.graph.add_node("", DequantizeLinear::default(), &[Some(bytes), Some(scale)]);
        made.expect("a constant dequantises")[0]
    }

    /// Quantised and back: reals become multiples of 1/32.
    fn through_bytes(&mut self, x: ValueId) -> Option<ValueId> {
        let scale = self.graph.add_constant("", Tensor::scalar(1.0f32 / 32.0));
        let zero = Tensor::from_f64_slice(DType::U8, [0usize; 0], &[128.0]).expect("a scalar");
        let zero = self.graph.add_constant("", zero);
        let bytes = self.node(QuantizeLinear::default(), &[Some(x), Some(scale), Some(zero)])?;
        self.node(DequantizeLinear::default(), &[Some(bytes), Some(scale), Some(zero)])
    }

    fn pool(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        let &[_, _, height, width] = &shape[..] else { return self.unary(x) };
        let function = self.numbers.one_of(&[PoolFunction::Max, PoolFunction::Average]);
        if self.numbers.below(4) == 0 {
            return self.node(Pool { function, global: true, ..Pool::default() }, &[Some(x)]);
        }
        let kernel =
            vec![self.numbers.within(1..4).min(height), self.numbers.within(1..4).min(width)];
        let pads = (0..4).map(|i| self.numbers.below(kernel[i % 2])).collect();
        let strides = vec![self.numbers.within(1..3), self.numbers.within(1..3)];
        let count_padding = self.numbers.below(2) == 0;
        let pool = Pool { function, kernel, strides, pads, count_padding, ..Pool::default() };
        self.node(pool, &[Some(x)])
    }

    fn normalise(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        match self.numbers.below(3) {
            0 => {
                let row = [*shape.last()?];
                let [scale, bias] = [1.0, 0.5].map(|s| self.constant(&row, s));
                // One element has no deviation: what remains is rounding.
                (row[0] > 1).then_some(())?;
                let op = LayerNormalization { axis: -1, epsilon: 1e-2 };
                self.node(op, &[Some(x), Some(scale), Some(bias)])
            }
            1 if shape.len() > 1 => {
                let row = [shape[1]];
                let [scale, bias, mean] = [1.0, 0.5, 0.5].map(|s| self.constant(&row, s));
                let variance = Tensor::from_slice(row, &vec![0.7f32; row[0]]).ok()?;
                let variance = self.graph.add_constant("", variance);
                let inputs = [x, scale, bias, mean, variance].map(Some);
                self.node(BatchNormalization::default(), &inputs)
            }
            _ => {
                let axis = self.numbers.below(shape.len()) as i64;
                self.node(Softmax { axis, log: false }, &[Some(x)])
            }
        }
    }

    fn reshape(&mut self, x: ValueId) -> Option<ValueId> {
        let mut left: usize = self.shape(x).iter().product();
        let mut shape = Vec::new();
        for _ in 0..self.numbers.within(1..4) {
            let divisors: Vec<usize> =
                (1..=left.min(16)).filter(|d| left.is_multiple_of(*d)).collect();
            let extent = self.numbers.one_of(&divisors);
            left /= extent;
            shape.push(extent as i64);
        }
        shape.push(left as i64);
        let shape = self.integers(&shape);
        self.node(Reshape::default(), &[Some(x), Some(shape)])
    }

    fn transpose(&mut self, x: ValueId) -> Option<ValueId> {
        let mut permutation: Vec<usize> = (0..self.shape(x).len()).collect();
        for i in (1..permutation.len()).rev() {
            permutation.swap(i, self.numbers.below(i + 1));
        }
        self.node(Transpose { permutation }, &[Some(x)])
    }

    /// A slice, a part, or picked rows.
    fn cut(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        let axis = self.numbers.below(shape.len());
        let extent = shape[axis];
        match self.numbers.below(3) {
            0 => {
                let start = self.numbers.below(extent);
                let end = self.numbers.within(start + 1..extent + 1);
                let step = self.numbers.within(1..3);
                let [start, end, axis, step] =
                    [start, end, axis, step].map(|value| Some(self.integers(&[value as i64])));
                self.node(Slice {}, &[Some(x), start, end, axis, step])
            }
            1 if extent > 1 => {
                let first = self.numbers.within(1..extent);
                let sizes = self.integers(&[first as i64, (extent - first) as i64]);
                self.node(Split { axis: axis as i64, parts: 2 }, &[Some(x), Some(sizes)])
            }
            _ => {
                let rows: Vec<i64> = (0..self.numbers.within(1..5))
                    .map(|_| self.numbers.below(extent) as i64)
                    .collect();
                let rows = self.integers(&rows);
                self.node(Gather { axis: axis as i64 }, &[Some(x), Some(rows)])
            }
        }
    }

    fn join(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        let axis = self.numbers.below(shape.len()) as i64;
        let other = self.live[self.numbers.below(self.live.len())];
        if let Some(made) = self.node(Concat { axis }, &[Some(x), Some(other)]) {
            return Some(made);
        }
        let mut target: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
        target.insert(0, self.numbers.within(1..3) as i64);
        let target = self.integers(&target);
        self.node(Expand {}, &[Some(x), Some(target)])
    }

    fn reduce(&mut self, x: ValueId) -> Option<ValueId> {
        let function = self.numbers.one_of(&[R::Mean, R::Max, R::Min, R::L1, R::LogSumExp]);
        let rank = self.shape(x).len();
        let axis = self.numbers.below(rank) as i64;
        let axes = self.integers(&[axis]);
        let keep_dims = rank == 1 || self.numbers.below(2) == 0;
        self.node(Reduce { function, keep_dims, ..Reduce::default() }, &[Some(x), Some(axes)])
    }

    fn pad(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        let mode = self.numbers.one_of(&[PadMode::Constant, PadMode::Edge, PadMode::Reflect]);
        let pads: Vec<i64> = (0..2 * shape.len())
            .map(|i| self.numbers.below(3.min(shape[i % shape.len()])) as i64)
            .collect();
        let pads = self.integers(&pads);
        self.node(Pad { mode }, &[Some(x), Some(pads)])
    }

    /// A product of a value with itself, transposed, as in attention.
    fn attend(&mut self, x: ValueId) -> Option<ValueId> {
        let rank = self.shape(x).len();
        if rank < 2 {
            return self.unary(x);
        }
        let mut permutation: Vec<usize> = (0..rank).collect();
        permutation.swap(rank - 2, rank - 1);
        let turned = self.node(Transpose { permutation }, &[Some(x)])?;
        let scores = self.node(MatMul {}, &[Some(x), Some(turned)])?;
        let scale = self.constant(&[1], 0.3);
        let scaled = self.node(Binary::new(B::Mul), &[Some(scores), Some(scale)])?;
        let shares = self.node(Softmax { axis: -1, log: false }, &[Some(scaled)])?;
        self.node(MatMul {}, &[Some(shares), Some(x)])
    }
}
