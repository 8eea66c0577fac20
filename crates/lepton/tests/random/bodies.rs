//! Random loops: states and sequences through bodies that multiply, bend and stop.

use lepton_ir::ops::binary::{Binary, BinaryFunction as B};
use lepton_ir::ops::matmul::MatMul;
use lepton_ir::ops::reduce::{Reduce, ReduceFunction as R};
use lepton_ir::ops::repeat::{Loop, Scan};
use lepton_ir::ops::unary::{Unary, UnaryFunction as U};
use lepton_ir::{Fact, Graph, Op, ValueId};
use lepton_tensor::{DType, Tensor};

use super::generate::Growing;

/// How rounds of a loop end.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// With the trip count.
    Count,
    /// Before a certain round.
    Round,
    /// Where a sum passes a bound.
    Sum,
}

/// A body that grows by nodes of one result.
struct Inside(Graph);

impl Inside {
    fn node(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        let made = self.0.add_node("", op, &inputs);
        made.expect("a body of operators that fit")[0]
    }

    fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.0.add_constant("", tensor)
    }

    /// The body with these outputs, named as those of a graph have to be.
    fn ends(mut self, outputs: Vec<ValueId>) -> Graph {
        for (at, &output) in outputs.iter().enumerate() {
            if self.0.value(output).name.is_empty() {
                self.0.set_value_name(output, format!("made {at}"));
            }
        }
        self.0.set_outputs(outputs);
        self.0
    }
}

impl Growing {
    /// A loop or scan over a value.
    pub fn repeat(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        if shape.is_empty() || shape.iter().product::<usize>() > 2000 {
            return None;
        }
        if self.numbers.below(2) == 0 { self.counted(x, &shape) } else { self.scanned(x, &shape) }
    }

    /// tanh of the state, multiplied by weights from inside or around, and of what is added.
    fn next(
        &mut self,
        body: &mut Inside,
        state: ValueId,
        more: &[ValueId],
        weights: Option<ValueId>,
    ) -> ValueId {
        let depth = body.0.fact(state).shape().and_then(|s| s.last().copied());
        let mut sum = state;
        if let Some(depth) = depth {
            let weights = weights.unwrap_or_else(|| {
                let scale = 0.7 / (depth as f32).sqrt();
                let reals = self.numbers.reals(&[depth, depth]);
                let values: Vec<f32> =
                    reals.as_slice::<f32>().expect("reals").iter().map(|v| v * scale).collect();
                body.constant(Tensor::from_slice([depth, depth], &values).expect("the same shape"))
            });
            if body.0.fact(state).rank() > 1 {
                sum = body.node(MatMul {}, &[state, weights]);
            }
        }
        for &other in more {
            sum = body.node(Binary::new(B::Add), &[sum, other]);
        }
        let function = self.numbers.one_of(&[U::Tanh, U::Sigmoid, U::Softsign]);
        body.node(Unary::new(function), &[sum])
    }

    /// A square matrix around the loop, or none.
    fn outside(&mut self, shape: &[usize]) -> Option<ValueId> {
        let depth = *shape.last()?;
        (shape.len() > 1 && self.numbers.below(2) == 0)
            .then(|| self.constant(&[depth, depth], 0.7 / (depth as f32).sqrt()))
    }

    fn counted(&mut self, x: ValueId, shape: &[usize]) -> Option<ValueId> {
        let weights = self.outside(shape);
        let mut body = Inside(Graph::new("rounds"));
        let round = body.0.add_input("round", Fact::dense(DType::I64, &[]));
        let holds = body.0.add_input("holds", Fact::dense(DType::Bool, &[]));
        let state = body.0.add_input("state", Fact::dense(DType::F32, shape));
        // A state that no round changes, and an operand that is none.
        let kept = body.0.add_input("kept", Fact::dense(DType::F32, shape));
        let taken = body.0.add_input("taken", Fact::dense(DType::F32, shape));
        let inner = weights.map(|w| body.0.add_input("weights", self.graph.fact(w).clone()));
        let next = self.next(&mut body, state, &[kept, taken], inner);
        let end = self.numbers.one_of(&[End::Count, End::Round, End::Sum]);
        let most = self.numbers.below(5) as i64;
        let goes_on = match end {
            End::Count => body.node(Unary::new(U::Identity), &[holds]),
            End::Round => {
                let last = body.constant(Tensor::scalar(self.numbers.below(4) as i64));
                body.node(Binary::new(B::Less), &[round, last])
            }
            End::Sum => {
                let sum = body.node(
                    Reduce { function: R::Sum, keep_dims: false, ..Reduce::default() },
                    &[next],
                );
                let bound = body.constant(Tensor::scalar(0.1f32));
                body.node(Binary::new(B::Less), &[sum, bound])
            }
        };
        let same = body.node(Unary::new(U::Identity), &[kept]);
        let slice =
            if self.numbers.below(2) == 0 { next } else { body.node(Unary::new(U::Abs), &[next]) };
        let body = body.ends(vec![goes_on, next, same, slice]);
        let count = self.graph.add_constant("", Tensor::scalar(most));
        let begins = (self.numbers.below(2) == 0).then(|| {
            let truth = self.numbers.below(8) > 0;
            self.graph.add_constant("", Tensor::from_bools(Vec::new(), [truth]).expect("a scalar"))
        });
        let other = self.constant(shape, 1.0);
        let mut operands = vec![Some(count), begins, Some(x), Some(x), Some(other)];
        operands.extend(weights.map(Some));
        let name = format!("n{}", self.graph.node_count());
        let op = Loop { body, states: 2 };
        let made = self.graph.add_node(name, op, &operands).expect("a loop of its body");
        // The sum of all rounds has the shape of one, however many there are.
        let first = self.integers(&[0]);
        let sum = Reduce { function: R::L1, keep_dims: false, ..Reduce::default() };
        let sum = self.node(sum, &[Some(made[2]), Some(first)])?;
        self.node(Binary::new(B::Sub), &[Some(made[0]), Some(sum)])
    }

    fn scanned(&mut self, x: ValueId, shape: &[usize]) -> Option<ValueId> {
        let axis = self.numbers.below(shape.len());
        let mut slice = shape.to_vec();
        slice.remove(axis);
        let weights = self.outside(&slice);
        let start = self.constant(&slice, 1.0);
        let mut body = Inside(Graph::new("slices"));
        let state = body.0.add_input("state", Fact::dense(DType::F32, &slice));
        let now = body.0.add_input("now", Fact::dense(DType::F32, &slice));
        let inner = weights.map(|w| body.0.add_input("weights", self.graph.fact(w).clone()));
        let next = self.next(&mut body, state, &[now], inner);
        let other = body.node(Unary::new(U::Abs), &[next]);
        let body = body.ends(vec![next, next, other]);
        let mut flag = || self.numbers.below(2) as i64;
        let (reversed, stack_reversed) = (vec![flag()], vec![flag(), flag()]);
        let stack_axes = vec![0, self.numbers.below(shape.len()) as i64];
        let op = Scan {
            body,
            states: 1,
            sequences: 1,
            axes: vec![axis as i64],
            reversed,
            stack_axes,
            stack_reversed,
        };
        let mut operands = vec![Some(start), Some(x)];
        operands.extend(weights.map(Some));
        let name = format!("n{}", self.graph.node_count());
        let made = self.graph.add_node(name, op, &operands).expect("a scan of its body");
        self.live.extend([made[0], made[1]]);
        Some(made[2])
    }
}
