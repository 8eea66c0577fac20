//! Short forms of the facets that many operators answer in the same way.

/// Writes facets of an `impl Operator` from a list `facet = value`.
///
/// - `arity = Arity`, `quant = Quant`;
/// - `stops = "why"`: no gradient;
/// - `frozen = "why"`: no axis can be followed; the reason is for the reader of the source;
/// - `element_ops = n`: so many element-wise operations per element of the first result.
macro_rules! facets {
    ($($facet:ident = $value:expr),* $(,)?) => {
        $($crate::ops::facets::facet!($facet, $value);)*
    };
}

macro_rules! facet {
    (arity, $value:expr) => {
        fn arity(&self) -> $crate::operator::Arity {
            $value
        }
    };
    (quant, $value:expr) => {
        fn quant(&self) -> $crate::operator::Quant {
            $value
        }
    };
    (stops, $why:expr) => {
        fn grad(
            &self,
            _g: &mut $crate::gradient::Backward<'_>,
        ) -> Result<Vec<Option<$crate::graph::ValueId>>, $crate::gradient::Stops> {
            Err($crate::gradient::Stops::Because($why))
        }
    };
    (frozen, $why:literal) => {
        fn axes(
            &self,
            _inputs: $crate::operator::Operands<'_, $crate::fact::Fact>,
            _outputs: &[$crate::fact::Fact],
        ) -> Vec<$crate::operator::AxisLink> {
            Vec::new()
        }
    };
    (element_ops, $each:expr) => {
        fn cost(
            &self,
            _inputs: $crate::operator::Operands<'_, $crate::fact::Fact>,
            outputs: &[$crate::fact::Fact],
        ) -> $crate::operator::Cost {
            $crate::operator::Cost::element_ops(outputs[0].count() * $crate::dim::Dim::known($each))
        }
    };
}

pub(crate) use {facet, facets};
