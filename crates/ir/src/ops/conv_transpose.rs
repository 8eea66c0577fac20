//! Transposed convolution, and the gradient of convolution weights.

use lepton_tensor::{Tensor, row_major_strides};

use super::facets::facets;
use super::walk::{for_each_index, offset, require_float, require_rank, require_same};
use super::window::{AutoPad, Window, tap_index};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};

attributes! {
    /// The transpose of a convolution: x `[N,C,spatial…]`, w `[C,M/group,kernel…]`, optional b
    /// `[M]`; result `[N,M,spatial…]` of `stride·(n − 1) + span + output_padding − pads`.
    pub struct ConvTranspose {
        /// Step along each spatial axis of the result; empty means 1.
        pub strides: Vec<usize> = Vec::new(),
        /// Cut off before each axis, then after each; empty means 0.
        pub pads: Vec<usize> = Vec::new(),
        /// Distance between taps; empty means 1.
        pub dilations: Vec<usize> = Vec::new(),
        /// Number of groups of channels that do not see each other.
        pub group: usize = 1,
        /// How padding is given.
        pub auto_pad: AutoPad = AutoPad::Explicit,
        /// Added at the end of each axis of the result; empty means 0.
        pub output_padding: Vec<usize> = Vec::new(),
        /// Extents of the result, which then decide the padding; empty if they follow from it.
        pub output_shape: Vec<usize> = Vec::new(),
    }
}

attributes! {
    /// The gradient of the weights of a convolution: inputs x `[N,C,spatial…]` and dy
    /// `[N,M,positions…]`, result `[M,C/group,kernel…]`.
    pub struct ConvWeightGrad {
        /// Extents of the kernel.
        pub kernel: Vec<usize> = Vec::new(),
        /// Step along each spatial axis; empty means 1.
        pub strides: Vec<usize> = Vec::new(),
        /// Padding before each axis, then after each; empty means 0.
        pub pads: Vec<usize> = Vec::new(),
        /// Distance between taps; empty means 1.
        pub dilations: Vec<usize> = Vec::new(),
        /// Number of groups of channels that do not see each other.
        pub group: usize = 1,
    }
}

impl ConvTranspose {
    fn window(&self, kernel: Vec<usize>) -> Result<Window, Problem> {
        let axes = kernel.len();
        for (name, list) in
            [("output_padding", &self.output_padding), ("output_shape", &self.output_shape)]
        {
            if !list.is_empty() && list.len() != axes {
                return Err(Problem::attribute(name, format!("{list:?} for {axes} axes")));
            }
        }
        if self.group == 0 {
            return Err(Problem::attribute("group", "must be positive"));
        }
        Window::new(kernel, &self.strides, &self.dilations, &self.pads, self.auto_pad, false)
    }

    /// Extent of the result along a spatial axis and what is cut off before it.
    fn extent(&self, window: &Window, axis: usize, extent: &Dim) -> (Dim, Dim) {
        let stride = Dim::from(window.strides[axis]);
        let span = (window.kernel[axis] - 1) * window.dilations[axis] + 1;
        let added = self.output_padding.get(axis).copied().unwrap_or(0);
        let full = stride.clone() * (extent.clone() - Dim::known(1)) + Dim::from(span + added);
        let same = matches!(self.auto_pad, AutoPad::SameUpper | AutoPad::SameLower);
        let wanted = match self.output_shape.get(axis) {
            Some(&wanted) => Dim::from(wanted),
            None if same => extent.clone() * stride,
            None if self.auto_pad == AutoPad::Valid => return (full, Dim::known(0)),
            None => {
                let (before, after) = (window.pads[axis], window.pads[axis + window.kernel.len()]);
                return (full - Dim::from(before + after), Dim::from(before));
            }
        };
        let total = full - wanted.clone();
        let total = if total.as_known().is_some_and(|t| t < 0) { Dim::known(0) } else { total };
        let half = total.floor_div(&Dim::known(2));
        let before = if self.auto_pad == AutoPad::SameUpper { half } else { total - half };
        (wanted, before)
    }
}

fn kernel_of(w: &Fact) -> Result<Vec<usize>, Problem> {
    let kernel: Option<Vec<usize>> = w.dims.iter().skip(2).map(Dim::as_usize).collect();
    kernel.ok_or(Problem::NotConstant("kernel extents of w"))
}

impl Operator for ConvTranspose {
    facets! {
        arity = Arity::between(2, 3),
        quant = Quant::FloatOnly("no integer kernel for transposed convolution"),
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        require_float("x", x.dtype)?;
        require_same("w", x.dtype, w.dtype)?;
        if x.rank() < 3 {
            return Err(Problem::shape(format!("x must have rank 3 or more, found {x}")));
        }
        require_rank("w", w, x.rank())?;
        let window = self.window(kernel_of(w)?)?;
        if let (Some(have), Some(want)) = (x.dims[1].as_known(), w.dims[0].as_known())
            && (have != want || have % self.group as i64 != 0)
        {
            return Err(Problem::shape(format!("{x} does not go with w {w}")));
        }
        let channels = w.dims[1].clone() * Dim::from(self.group);
        if let Some(b) = inputs.optional(2) {
            require_same("b", x.dtype, b.dtype)?;
            if b.rank() != 1 || (b.dims[0].as_known().is_some() && b.dims[0] != channels) {
                return Err(Problem::shape(format!("b must be [{channels}], found {b}")));
            }
        }
        let mut dims = vec![x.dims[0].clone(), channels];
        for axis in 0..x.rank() - 2 {
            let extent = self.extent(&window, axis, &x.dims[axis + 2]).0;
            if extent.as_known().is_some_and(|e| e < 0) {
                return Err(Problem::shape("pads cut off more than there is"));
            }
            dims.push(extent);
        }
        Ok(vec![Fact::new(x.dtype, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        let made = self.infer(Operands(&[Some(&Fact::of(x)), Some(&Fact::of(w))]))?;
        let shape = made[0].shape().ok_or_else(|| Problem::shape("a negative extent"))?;
        let window = self.window(w.shape()[2..].to_vec())?;
        let axes = x.rank() - 2;
        let before = |axis| self.extent(&window, axis, &Dim::from(x.shape()[axis + 2])).1;
        let before: Option<Vec<usize>> = (0..axes).map(|axis| before(axis).as_usize()).collect();
        let before = before.ok_or_else(|| Problem::shape("negative padding"))?;
        let (per_group, outputs) = (x.shape()[1] / self.group, w.shape()[1]);
        let (xv, wv, xs) = (x.to_f64_vec(), w.to_f64_vec(), row_major_strides(x.shape()));
        let (ws, ys) = (row_major_strides(w.shape()), row_major_strides(&shape));
        let mut sums = vec![0.0; shape.iter().product()];
        for_each_index(x.shape(), |index| {
            let value = xv[offset(index, &xs)];
            let group = index[1] / per_group;
            for_each_index(&window.kernel, |tap| {
                let mut at = index[0] * ys[0];
                for axis in 0..axes {
                    let reach =
                        index[axis + 2] * window.strides[axis] + tap[axis] * window.dilations[axis];
                    let inside = reach.checked_sub(before[axis]).filter(|&i| i < shape[axis + 2]);
                    let Some(i) = inside else { return };
                    at += i * ys[axis + 2];
                }
                let at_w = index[1] * ws[0] + offset(tap, &ws[2..]);
                for m in 0..outputs {
                    sums[at + (group * outputs + m) * ys[1]] += value * wv[at_w + m * ws[1]];
                }
            });
        });
        if let Some(b) = inputs.optional(2) {
            let b = b.to_f64_vec();
            sums.iter_mut().enumerate().for_each(|(i, v)| *v += b[i / ys[1] % shape[1]]);
        }
        Ok(vec![Tensor::from_f64_slice(x.dtype(), shape, &sums)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        super::conv_grad::grad_of_transpose(self, g)
    }

    fn axes(&self, inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Vec<AxisLink> {
        let same = |output_axis, input, input_axis| AxisLink::Same {
            output: 0,
            output_axis,
            input,
            input_axis,
        };
        let mut links = vec![same(0, 0, 0)];
        if self.group == 1 {
            links.push(same(1, 1, 1));
            links.push(AxisLink::Contracted { input: 0, input_axis: 1, other: 1, other_axis: 0 });
            if inputs.optional(2).is_some() {
                links.push(same(1, 2, 0));
            }
        }
        links
    }

    fn cost(&self, inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Cost {
        let (Some(x), Some(w)) = (inputs.optional(0), inputs.optional(1)) else {
            return Cost::free();
        };
        let taps = w.dims[1..].iter().cloned().fold(Dim::known(1), |a, b| a * b);
        Cost::multiply_adds(x.count() * taps)
    }
}

impl ConvTranspose {
    /// The plain convolution it is the transpose of, for an operand of these spatial extents.
    pub fn resolved(&self, w: &Fact, spatial: &[usize]) -> Result<Window, Problem> {
        let window = self.window(kernel_of(w)?)?;
        let axes = spatial.len();
        let mut pads = vec![0; 2 * axes];
        for (axis, &extent) in spatial.iter().enumerate() {
            let (result, before) = self.extent(&window, axis, &Dim::from(extent));
            let span = (window.kernel[axis] - 1) * window.dilations[axis] + 1;
            let reach = window.strides[axis] * extent.saturating_sub(1) + span;
            let negative = || Problem::shape("a negative extent");
            let result = result.as_usize().ok_or_else(negative)?;
            pads[axis] = before.as_usize().ok_or_else(negative)?;
            // What a window at the last position needs beyond the result.
            pads[axis + axes] = (reach).saturating_sub(pads[axis] + result);
        }
        Ok(Window { pads, auto_pad: AutoPad::Explicit, ..window })
    }
}

impl Operator for ConvWeightGrad {
    facets! {
        arity = Arity::exactly(2),
        stops = "it only occurs in gradients",
        frozen = "it only occurs in gradients",
        quant = Quant::FloatOnly("it only occurs in gradients"),
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, dy) = (inputs.required(0, "x")?, inputs.required(1, "dy")?);
        require_rank("dy", dy, x.rank())?;
        if x.rank() != self.kernel.len() + 2 || self.group == 0 {
            return Err(Problem::shape(format!("a kernel of {:?} over {x}", self.kernel)));
        }
        let mut dims = vec![dy.dims[1].clone(), x.dims[1].floor_div(&Dim::from(self.group))];
        dims.extend(self.kernel.iter().map(|&k| Dim::from(k)));
        Ok(vec![Fact::new(x.dtype, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, dy) = (inputs.required(0, "x")?, inputs.required(1, "dy")?);
        let made = self.infer(Operands(&[Some(&Fact::of(x)), Some(&Fact::of(dy))]))?;
        let shape = made[0].shape().ok_or_else(|| Problem::shape("a negative extent"))?;
        let (strides, pads) = (&self.strides, &self.pads);
        let kernel = self.kernel.clone();
        let w = Window::new(kernel, strides, &self.dilations, pads, AutoPad::Explicit, false)?;
        let (xs, ys) = (row_major_strides(x.shape()), row_major_strides(dy.shape()));
        let (xv, yv) = (x.to_f64_vec(), dy.to_f64_vec());
        let outputs = (shape[0] / self.group).max(1);
        let mut values = Vec::with_capacity(shape.iter().product());
        for_each_index(&shape, |index| {
            let channel = index[0] / outputs * shape[1] + index[1];
            let mut sum = 0.0;
            for_each_index(&dy.shape()[2..], |position| {
                let (mut at_x, mut at_y) = (channel * xs[1], index[0] * ys[1]);
                for (axis, &p) in position.iter().enumerate() {
                    let (stride, dilation) = (w.strides[axis], w.dilations[axis]);
                    let extent = x.shape()[axis + 2];
                    let tap = index[axis + 2];
                    let read = tap_index(p, stride, tap, dilation, w.pads[axis], extent);
                    let Some(i) = read else { return };
                    at_x += i * xs[axis + 2];
                    at_y += p * ys[axis + 2];
                }
                for n in 0..x.shape()[0] {
                    sum += xv[at_x + n * xs[0]] * yv[at_y + n * ys[0]];
                }
            });
            values.push(sum);
        });
        Ok(vec![Tensor::from_f64_slice(x.dtype(), shape, &values)?])
    }

    fn cost(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        let positions = inputs.optional(1).map_or(Dim::known(0), |dy| {
            dy.dims[2..].iter().cloned().fold(dy.dims[0].clone(), |a, b| a * b)
        });
        Cost::multiply_adds(outputs[0].count() * positions)
    }
}
