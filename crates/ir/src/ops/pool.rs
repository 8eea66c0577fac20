//! Pooling over sliding windows and over whole images.

use lepton_tensor::{Layout, Tensor, row_major_strides};

use super::walk::{for_each_index, offset};
use super::window::{AutoPad, Window, tap_index};
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};
use crate::{attributes, words};

words! {
    /// What a window gives.
    pub enum PoolFunction {
        /// Its largest element.
        Max = "max",
        /// The mean of its elements.
        Average = "average",
        /// The p-norm of its elements.
        Lp = "lp",
    }
}

attributes! {
    /// Pools x `[N,C,spatial…]` (or `[N,spatial…,C]`) over windows; over all of the image where
    /// `global`.
    pub struct Pool {
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

impl Pool {
    /// Pools each image to one position.
    pub fn global(function: PoolFunction) -> Self {
        Pool { function, global: true, ..Pool::default() }
    }

    /// The window over an image of these spatial extents.
    pub fn window(&self, spatial: &[Dim]) -> Result<Window, Problem> {
        if !self.global {
            if self.kernel.len() != spatial.len() {
                let why = format!("{:?} for {} spatial axes", self.kernel, spatial.len());
                return Err(Problem::attribute("kernel", why));
            }
            return Window::new(
                self.kernel.clone(),
                &self.strides,
                &self.dilations,
                &self.pads,
                self.auto_pad,
                self.ceil,
            );
        }
        let kernel: Option<Vec<usize>> = spatial.iter().map(Dim::as_usize).collect();
        let kernel = kernel.ok_or(Problem::NotConstant("spatial extents"))?;
        Window::new(kernel, &[], &[], &[], AutoPad::Valid, false)
    }

    /// Calls `visit` for every element of the result in order, with the positions in x of its taps
    /// and the number an average divides by; returns the shape of the result.
    pub(crate) fn for_each_window(
        &self,
        x_shape: &[usize],
        mut visit: impl FnMut(&[usize], usize),
    ) -> Result<Vec<usize>, Problem> {
        let rank = x_shape.len();
        let start = self.layout.spatial_axis();
        let spatial = &x_shape[start..start + rank - 2];
        let dims: Vec<Dim> = spatial.iter().map(|&d| Dim::from(d)).collect();
        let window = self.window(&dims)?;
        let (positions, before) = window.resolve(spatial)?;
        let mut shape = x_shape.to_vec();
        shape[start..start + rank - 2].copy_from_slice(&positions);
        let strides = row_major_strides(x_shape);
        for_each_index(&shape, |index| {
            let mut base = index.to_vec();
            base[start..start + rank - 2].fill(0);
            let base = offset(&base, &strides);
            let (mut taps, mut padded) = (Vec::new(), 0);
            for_each_index(&window.kernel, |tap| {
                let mut at = base;
                let mut inside = true;
                let mut counted = true;
                for axis in 0..tap.len() {
                    let (position, stride) = (index[start + axis], window.strides[axis]);
                    let dilation = window.dilations[axis];
                    let extent = spatial[axis];
                    match tap_index(position, stride, tap[axis], dilation, before[axis], extent) {
                        Some(i) => at += i * strides[start + axis],
                        None => inside = false,
                    }
                    let after = window.pads[axis + tap.len()];
                    counted &=
                        position * stride + tap[axis] * dilation < extent + before[axis] + after;
                }
                padded += (counted && !inside) as usize;
                if inside {
                    taps.push(at);
                }
            });
            let count = taps.len() + if self.count_padding { padded } else { 0 };
            visit(&taps, count);
        });
        Ok(shape)
    }

    fn reduce(&self, taps: &[f64], window: usize) -> f64 {
        match self.function {
            PoolFunction::Max => taps.iter().copied().fold(f64::NEG_INFINITY, |a, b| {
                if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
            }),
            PoolFunction::Average => taps.iter().sum::<f64>() / window as f64,
            PoolFunction::Lp => {
                let p = self.p as f64;
                taps.iter().map(|t| t.abs().powf(p)).sum::<f64>().powf(1.0 / p)
            }
        }
    }
}

impl Operator for Pool {
    fn arity(&self) -> Arity {
        Arity::exactly(1)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        if x.rank() < 3 {
            return Err(Problem::shape(format!("x must have rank 3 or more, found {x}")));
        }
        if self.function != PoolFunction::Max && !x.dtype.is_float() {
            return Err(Problem::dtype("x", "floating point", x.dtype));
        }
        let start = self.layout.spatial_axis();
        let count = x.rank() - 2;
        let mut dims = x.dims.clone();
        if self.global {
            dims[start..start + count].fill(Dim::known(1));
            return Ok(vec![Fact::new(x.dtype, dims)]);
        }
        let window = self.window(&x.dims[start..start + count])?;
        for axis in 0..count {
            dims[start + axis] = window.output_dim(axis, &x.dims[start + axis])?;
        }
        Ok(vec![Fact::new(x.dtype, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let source = x.to_f64_vec();
        let mut values = Vec::new();
        let shape = self.for_each_window(x.shape(), |taps, window| {
            let taps: Vec<f64> = taps.iter().map(|&at| source[at]).collect();
            values.push(self.reduce(&taps, window));
        })?;
        Ok(vec![Tensor::from_f64_slice(x.dtype(), shape, &values)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        super::pool_grad::grad(self, g)
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let channel = self.layout.channel_axis(outputs[0].rank());
        [0, channel]
            .map(|axis| AxisLink::Same { output: 0, output_axis: axis, input: 0, input_axis: axis })
            .to_vec()
    }

    fn quant(&self) -> Quant {
        match self.function {
            PoolFunction::Max => Quant::SameAsInput,
            PoolFunction::Average => Quant::Requantise,
            PoolFunction::Lp => Quant::FloatOnly("no integer kernel for norms"),
        }
    }

    fn cost(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        if self.global {
            return inputs.optional(0).map_or_else(Cost::free, |x| Cost::element_ops(x.count()));
        }
        let taps = self.kernel.iter().fold(Dim::known(1), |a, &k| a * Dim::from(k));
        Cost::element_ops(outputs[0].count() * taps)
    }
}
