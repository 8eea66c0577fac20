//! Max pooling that says where the maxima lie.

use lepton_tensor::{DType, Tensor};

use super::facets::facets;
use super::pool::{Pool, PoolFunction};
use super::walk::pick;
use super::window::AutoPad;
use crate::attributes;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, Operands, Operator, Quant};

attributes! {
    /// Max [`Pool`] of x `[N,C,spatial…]` that also says where its maxima are: the second result,
    /// i64, holds for each window the position of its first maximum, counted over all of x.
    pub struct PoolPositions {
        /// Extent of the window along each spatial axis.
        pub kernel: Vec<usize> = Vec::new(),
        /// Step; empty means 1.
        pub strides: Vec<usize> = Vec::new(),
        /// Padding before each axis, then after each; empty means 0.
        pub pads: Vec<usize> = Vec::new(),
        /// Distance between taps; empty means 1.
        pub dilations: Vec<usize> = Vec::new(),
        /// How padding is given.
        pub auto_pad: AutoPad = AutoPad::Explicit,
        /// True if an incomplete last window counts.
        pub ceil: bool = false,
        /// True to count the elements of an image with its first spatial axis running fastest.
        pub first_axis_fastest: bool = false,
    }
}

impl PoolPositions {
    /// The pooling whose maxima these are.
    pub fn pool(&self) -> Pool {
        Pool {
            function: PoolFunction::Max,
            kernel: self.kernel.clone(),
            strides: self.strides.clone(),
            pads: self.pads.clone(),
            dilations: self.dilations.clone(),
            auto_pad: self.auto_pad,
            ceil: self.ceil,
            ..Pool::default()
        }
    }

    /// Position `at` of x, in the order that is asked for.
    fn counted(&self, at: usize, spatial: &[usize]) -> i64 {
        if !self.first_axis_fastest {
            return at as i64;
        }
        let plane: usize = spatial.iter().product();
        let (mut rest, mut step, mut sum) = (at % plane, plane, at / plane * plane);
        for &extent in spatial.iter().rev() {
            step /= extent;
            sum += rest % extent * step;
            rest /= extent;
        }
        sum as i64
    }
}

impl Operator for PoolPositions {
    facets! {
        arity = Arity::exactly(1).outputs(2, 2),
        frozen = "positions count every axis",
        quant = Quant::FloatOnly("the kernels give no positions"),
        element_ops = 8,
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        self.pool().grad(g)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let y = self.pool().infer(inputs)?.remove(0);
        let positions = Fact::new(DType::I64, y.dims.clone());
        Ok(vec![y, positions])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        self.infer(Operands(&[Some(&Fact::of(x))]))?;
        let source = x.to_f64_vec();
        let (mut found, mut places): (Vec<i64>, Vec<usize>) = (Vec::new(), Vec::new());
        let shape = self.pool().for_each_window(x.shape(), |taps, _| {
            let better = |best: usize, at: usize| if source[at] > source[best] { at } else { best };
            let best = taps.iter().copied().reduce(better).unwrap_or(0);
            found.push(self.counted(best, &x.shape()[2..]));
            places.push(best);
        })?;
        let y = pick(x, shape.clone(), &places)?;
        Ok(vec![y, Tensor::from_slice(shape, &found)?])
    }
}
