//! The sliding window that convolution and pooling share.

use crate::dim::Dim;
use crate::error::Problem;
use crate::words;

words! {
    /// How padding is given.
    pub enum AutoPad {
        /// By the `pads` attribute.
        Explicit = "explicit",
        /// So that the output has ⌈input/stride⌉ positions, an odd one over at the end.
        SameUpper = "same_upper",
        /// So that the output has ⌈input/stride⌉ positions, an odd one over at the start.
        SameLower = "same_lower",
        /// None.
        Valid = "valid",
    }
}

/// One window over the spatial axes of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Extent of the window along each spatial axis.
    pub kernel: Vec<usize>,
    /// Step along each axis.
    pub strides: Vec<usize>,
    /// Distance between taps along each axis.
    pub dilations: Vec<usize>,
    /// Padding before each axis, then after each axis.
    pub pads: Vec<usize>,
    /// How padding is given.
    pub auto_pad: AutoPad,
    /// True if an incomplete last window counts.
    pub ceil: bool,
}

impl Window {
    /// A window over `kernel`; empty attribute lists mean ones (strides, dilations) or zeros.
    pub fn new(
        kernel: Vec<usize>,
        strides: &[usize],
        dilations: &[usize],
        pads: &[usize],
        auto_pad: AutoPad,
        ceil: bool,
    ) -> Result<Self, Problem> {
        let rank = kernel.len();
        let or = |name: &str, given: &[usize], default: usize, count: usize| {
            if given.is_empty() {
                Ok(vec![default; count])
            } else if given.len() == count {
                Ok(given.to_vec())
            } else {
                let why = format!("needs {count} numbers for {rank} spatial axes, has {given:?}");
                Err(Problem::attribute(name, why))
            }
        };
        let strides = or("strides", strides, 1, rank)?;
        let dilations = or("dilations", dilations, 1, rank)?;
        let pads = or("pads", pads, 0, 2 * rank)?;
        let limit = 1usize << 31;
        if strides.contains(&0) || dilations.contains(&0) || kernel.contains(&0) {
            return Err(Problem::value("strides, dilations and kernel extents must be positive"));
        }
        if [&kernel, &strides, &dilations, &pads].iter().any(|l| l.iter().any(|&v| v > limit)) {
            return Err(Problem::value("strides, dilations, pads or kernel are absurdly large"));
        }
        Ok(Window { kernel, strides, dilations, pads, auto_pad, ceil })
    }

    /// Extent from the first to the last tap.
    fn span(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1).saturating_mul(self.dilations[axis]).saturating_add(1)
    }

    /// Number of positions along a spatial axis of `extent`.
    pub fn output_dim(&self, axis: usize, extent: &Dim) -> Result<Dim, Problem> {
        let stride = Dim::from(self.strides[axis]);
        if matches!(self.auto_pad, AutoPad::SameUpper | AutoPad::SameLower) {
            return Ok(extent.ceil_div(&stride));
        }
        let (before, after) = self.explicit_pads(axis);
        let room = extent.clone() + Dim::from(before + after) - Dim::from(self.span(axis));
        if room.as_known().is_some_and(|room| room < 0) {
            return Err(Problem::shape(format!(
                "a window of {} does not fit into {extent} with padding {before}+{after}",
                self.span(axis)
            )));
        }
        if !self.ceil {
            return Ok(room.floor_div(&stride) + Dim::known(1));
        }
        let positions = room.ceil_div(&stride) + Dim::known(1);
        // A last window that would start in the padding after the data does not count.
        match (positions.as_known(), extent.as_known()) {
            (Some(count), Some(extent))
                if (count - 1) * self.strides[axis] as i64 >= extent + before as i64 =>
            {
                Ok(Dim::known(count - 1))
            }
            _ => Ok(positions),
        }
    }

    fn explicit_pads(&self, axis: usize) -> (usize, usize) {
        match self.auto_pad {
            AutoPad::Explicit => (self.pads[axis], self.pads[axis + self.kernel.len()]),
            _ => (0, 0),
        }
    }

    /// Number of positions along each axis, and padding before each axis, for a known input.
    pub fn resolve(&self, spatial: &[usize]) -> Result<(Vec<usize>, Vec<usize>), Problem> {
        let mut outputs = Vec::with_capacity(spatial.len());
        let mut before = Vec::with_capacity(spatial.len());
        for (axis, &extent) in spatial.iter().enumerate() {
            let positions = self.output_dim(axis, &Dim::from(extent))?;
            let positions = positions
                .as_usize()
                .ok_or_else(|| Problem::shape("a window has no positions on its input"))?;
            let needed = positions.saturating_sub(1) * self.strides[axis] + self.span(axis);
            let total = needed.saturating_sub(extent);
            before.push(match self.auto_pad {
                AutoPad::SameUpper => total / 2,
                AutoPad::SameLower => total - total / 2,
                _ => self.explicit_pads(axis).0,
            });
            outputs.push(positions);
        }
        Ok((outputs, before))
    }

    /// True if it only looks at one element without moving it: 1×1, stride 1, no padding.
    pub fn is_pointwise(&self) -> bool {
        self.kernel.iter().all(|&k| k == 1)
            && self.strides.iter().all(|&s| s == 1)
            && (self.auto_pad != AutoPad::Explicit || self.pads.iter().all(|&p| p == 0))
    }
}

/// Where a tap of a window at `position` reads, or `None` for padding.
pub fn tap_index(
    position: usize,
    stride: usize,
    tap: usize,
    dilation: usize,
    before: usize,
    extent: usize,
) -> Option<usize> {
    (position * stride + tap * dilation).checked_sub(before).filter(|&i| i < extent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(ceil: bool, auto_pad: AutoPad) -> Window {
        Window::new(vec![3], &[2], &[], &[1, 1], auto_pad, ceil).unwrap()
    }

    #[test]
    fn positions_follow_the_onnx_formula() {
        let at = |w: &Window, n: usize| w.resolve(&[n]).unwrap().0[0];
        assert_eq!(at(&window(false, AutoPad::Explicit), 6), 3);
        assert_eq!(at(&window(true, AutoPad::Explicit), 6), 4);
        assert_eq!(at(&window(false, AutoPad::SameUpper), 7), 4);
        assert_eq!(at(&window(false, AutoPad::Valid), 7), 3);
        assert!(window(false, AutoPad::Valid).resolve(&[2]).is_err());
    }

    #[test]
    fn symbolic_positions_bind_to_the_same_number() {
        let w = window(false, AutoPad::Explicit);
        let dim = w.output_dim(0, &Dim::symbol("n")).unwrap();
        let bound = dim.bind(&crate::dim::Bindings::from([("n".into(), 9)]));
        assert_eq!(bound.as_usize().unwrap(), w.resolve(&[9]).unwrap().0[0]);
    }
}
