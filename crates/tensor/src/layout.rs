//! Where the channel axis of an image tensor is.

use std::fmt;
use std::str::FromStr;

/// The order of the axes of an image-like tensor (any number of spatial axes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Batch, channels, spatial axes: the order of ONNX and PyTorch.
    #[default]
    Nchw,
    /// Batch, spatial axes, channels: the order of TFLite and of the engine.
    Nhwc,
}

impl Layout {
    /// The channel axis of a tensor with `rank` axes.
    pub fn channel_axis(self, rank: usize) -> usize {
        match self {
            Layout::Nchw => 1,
            Layout::Nhwc => rank - 1,
        }
    }

    /// The first spatial axis.
    pub fn spatial_axis(self) -> usize {
        match self {
            Layout::Nchw => 2,
            Layout::Nhwc => 1,
        }
    }

    /// The permutation that takes a tensor in this layout to `target`, as in a transpose:
    /// output axis `i` is input axis `permutation[i]`.
    pub fn permutation_to(self, target: Layout, rank: usize) -> Vec<usize> {
        match (self, target) {
            (Layout::Nchw, Layout::Nhwc) => {
                std::iter::once(0).chain(2..rank).chain(std::iter::once(1)).collect()
            }
            (Layout::Nhwc, Layout::Nchw) => [0, rank - 1].into_iter().chain(1..rank - 1).collect(),
            _ => (0..rank).collect(),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Nchw => "nchw",
            Layout::Nhwc => "nhwc",
        })
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "nchw" => Ok(Layout::Nchw),
            "nhwc" => Ok(Layout::Nhwc),
            _ => Err(format!("unknown layout `{text}`; known: nchw, nhwc")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_are_inverse() {
        let to = Layout::Nchw.permutation_to(Layout::Nhwc, 4);
        let back = Layout::Nhwc.permutation_to(Layout::Nchw, 4);
        assert_eq!(to, [0, 2, 3, 1]);
        assert_eq!(back.iter().map(|&i| to[i]).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
