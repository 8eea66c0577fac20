//! Change of element type.

use lepton_tensor::{DType, Tensor};

use super::facets::facets;
use super::unary::same_axes;
use crate::attributes;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Operands, Operator, Quant};

attributes! {
    /// x as elements of type `to`: floats become integers by truncation toward zero (saturating,
    /// but wrapping into those below 8 bits), integers wrap into shorter ones, anything but zero is true. What is larger than a float type
    /// has becomes its infinity, else not-a-number, else (4 bits) its largest. Strings are numbers
    /// in decimal notation, in results with 8 significant digits (17 of f64) at most.
    pub struct Cast {
        /// Type of the result.
        pub to: DType = DType::F32,
    }
}

impl Operator for Cast {
    facets! {
        arity = Arity::exactly(1),
        quant = Quant::NotApplicable,
        element_ops = 1,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        // Extents fit 32 and 64 bits; shorter types could wrap, and reals are not followed.
        let follows = matches!(self.to, DType::I64 | DType::U64 | DType::I32 | DType::U32);
        let integers = x.integers.clone().filter(|values| {
            let fits = |value: i64| value >= 0 && value <= i32::MAX as i64;
            let known = values.iter().filter_map(|v| v.as_known());
            follows && (self.to == DType::I64 || known.clone().all(fits)) || self.to == x.dtype
        });
        Ok(vec![Fact::new(self.to, x.dims.clone()).with_integers(integers)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        if x.dtype() == DType::Str || self.to == DType::Str {
            return Ok(vec![with_strings(x, self.to)?]);
        }
        if x.dtype().is_integer() && self.to.is_integer() {
            return Ok(vec![Tensor::from_i64_slice(self.to, x.shape(), &x.to_i64_vec())?]);
        }
        if self.to.bits() < 8 && self.to.is_integer() {
            return Ok(vec![Tensor::from_i64_slice(self.to, x.shape(), &x.to_i64_vec())?]);
        }
        Ok(vec![Tensor::from_f64_slice(self.to, x.shape(), &x.to_f64_vec())?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let x = g.input(0);
        if !self.to.is_float() {
            return Err(Stops::Because("rounding to integers is flat"));
        }
        if !g.differentiable(x) {
            return Ok(vec![None]);
        }
        let (dy, to) = (g.output_grad()?, g.fact(x).dtype);
        Ok(vec![Some(g.op(Cast { to }, &[dy])?)])
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        same_axes(outputs[0].rank())
    }
}

/// Numbers from their decimal notation, or back.
fn with_strings(x: &Tensor, to: DType) -> Result<Tensor, Problem> {
    if x.dtype() == to {
        return Ok(x.clone());
    }
    if to == DType::Str {
        let strings: Vec<String> = match x.dtype() {
            DType::U64 => x.to_i64_vec().into_iter().map(|v| (v as u64).to_string()).collect(),
            DType::F64 => x.to_f64_vec().into_iter().map(|v| decimal(v, 17)).collect(),
            float if float.is_float() => x.to_f64_vec().iter().map(|&v| decimal(v, 8)).collect(),
            _ => x.to_i64_vec().iter().map(i64::to_string).collect(),
        };
        return Ok(Tensor::from_strings(x.shape(), &strings)?);
    }
    let strings = x.strings()?;
    let wrong = |string: &str| Problem::value(format!("`{string}` is no number of type {to}"));
    if to.is_integer() {
        let whole = |string: &&str| {
            let text = string.trim();
            let wide = text.parse::<i64>().ok().or_else(|| Some(text.parse::<u64>().ok()? as i64));
            wide.ok_or_else(|| wrong(string))
        };
        let values = strings.iter().map(whole).collect::<Result<Vec<i64>, _>>()?;
        return Ok(Tensor::from_i64_slice(to, x.shape(), &values)?);
    }
    let real = |string: &&str| string.trim().parse::<f64>().map_err(|_| wrong(string));
    let values = strings.iter().map(real).collect::<Result<Vec<f64>, _>>()?;
    Ok(Tensor::from_f64_slice(to, x.shape(), &values)?)
}

/// A number with at most so many significant digits, as C's `%g` writes it.
fn decimal(value: f64, digits: usize) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "INF" } else { "-INF" }.into();
    }
    let exact = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = exact.split_once('e').unwrap_or((&exact, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let short = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", short(mantissa), exponent.abs());
    }
    short(&format!("{value:.*}", (digits as i32 - 1 - exponent).max(0) as usize))
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn decimals_are_those_of_c() {
        let eight =
            [(0.1, "0.1"), (1e20, "1e+20"), (-1.5e-7, "-1.5e-07"), (314.15927, "314.15927")];
        for (value, text) in eight {
            assert_eq!(decimal(value, 8), text);
        }
        assert_eq!(decimal(0.1, 17), "0.10000000000000001");
        assert_eq!((decimal(0.0, 8), decimal(100.0, 8)), ("0".into(), "100".into()));
    }
}
