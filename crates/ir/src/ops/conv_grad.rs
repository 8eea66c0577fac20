//! The gradient of a convolution, as graph nodes.

use super::conv::Conv;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::ops::unary::UnaryFunction;
use lepton_tensor::Layout;

/// Gradients of x, w and b of a plain convolution.
pub(crate) fn grad(conv: &Conv, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
    if conv.layout != Layout::Nchw
        || conv.activation.function != UnaryFunction::Identity
        || g.inputs.get(3).is_some_and(Option::is_some)
    {
        return Err(Stops::Because("gradients are taken before fusion and layout"));
    }
    let _ = g;
    Err(Stops::Because("not written yet"))
}
