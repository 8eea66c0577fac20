//! Gradients of pooling.

use lepton_tensor::{Layout, Tensor};

use super::facets::facets;
use super::pool::{Pool, PoolFunction};
use super::walk::require_rank;
use super::window::AutoPad;
use crate::attributes;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, Operands, Operator, Quant};

attributes! {
    /// The gradient of x of a [`Pool`] with the same attributes: inputs x and dy. The first of
    /// equal maxima gets all of its window's gradient.
    pub struct PoolGrad {
        /// What a window gives.
        pub function: PoolFunction = PoolFunction::Max,
        /// True to pool each image to a single position.
        pub global: bool = false,
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
        /// True if padding counts in an average.
        pub count_padding: bool = false,
        /// Exponent of the norm.
        pub p: i64 = 2,
        /// Order of the axes of x and the result.
        pub layout: Layout = Layout::Nchw,
    }
}

/// Gradient of x.
pub(crate) fn grad(pool: &Pool, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
    let (dy, x) = (g.output_grad()?, g.input(0));
    let pool = pool.clone();
    let back = PoolGrad {
        function: pool.function,
        global: pool.global,
        kernel: pool.kernel,
        strides: pool.strides,
        pads: pool.pads,
        dilations: pool.dilations,
        auto_pad: pool.auto_pad,
        ceil: pool.ceil,
        count_padding: pool.count_padding,
        p: pool.p,
        layout: pool.layout,
    };
    Ok(vec![Some(g.op(back, &[x, dy])?)])
}

impl PoolGrad {
    fn forward(&self) -> Pool {
        let back = self.clone();
        Pool {
            function: back.function,
            global: back.global,
            kernel: back.kernel,
            strides: back.strides,
            pads: back.pads,
            dilations: back.dilations,
            auto_pad: back.auto_pad,
            ceil: back.ceil,
            count_padding: back.count_padding,
            p: back.p,
            layout: back.layout,
        }
    }

    /// What each tap of a window gets for a gradient of 1.
    fn shares(&self, taps: &[f64], window: usize) -> Vec<f64> {
        match self.function {
            PoolFunction::Average => vec![1.0 / window as f64; taps.len()],
            PoolFunction::Max => {
                let mut best = 0;
                for (i, value) in taps.iter().enumerate() {
                    if *value > taps[best] {
                        best = i;
                    }
                }
                (0..taps.len()).map(|i| (i == best) as u8 as f64).collect()
            }
            PoolFunction::Lp => {
                let p = self.p as f64;
                let norm = taps.iter().map(|t| t.abs().powf(p)).sum::<f64>().powf(1.0 / p);
                let slope = |t: &f64| t.signum() * (t.abs() / norm).powf(p - 1.0);
                taps.iter().map(|t| if *t == 0.0 { 0.0 } else { slope(t) }).collect()
            }
        }
    }
}

impl Operator for PoolGrad {
    facets! {
        arity = Arity::exactly(2),
        stops = "it only occurs in gradients",
        frozen = "it only occurs in gradients",
        quant = Quant::FloatOnly("it only occurs in gradients"),
        element_ops = 2,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, dy) = (inputs.required(0, "x")?, inputs.required(1, "dy")?);
        require_rank("dy", dy, x.rank())?;
        Ok(vec![Fact::new(dy.dtype, x.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, dy) = (inputs.required(0, "x")?, inputs.required(1, "dy")?);
        let (source, gradient) = (x.to_f64_vec(), dy.to_f64_vec());
        let mut sums = vec![0.0; x.len()];
        let mut position = 0;
        let shape = self.forward().for_each_window(x.shape(), |at, window| {
            let taps: Vec<f64> = at.iter().map(|&at| source[at]).collect();
            let slope = gradient.get(position).copied().unwrap_or(0.0);
            for (&at, share) in at.iter().zip(self.shares(&taps, window)) {
                sums[at] += slope * share;
            }
            position += 1;
        })?;
        if dy.shape() != shape {
            return Err(Problem::shape(format!("dy must be {shape:?}, found {:?}", dy.shape())));
        }
        Ok(vec![Tensor::from_f64_slice(dy.dtype(), x.shape(), &sums)?])
    }
}
