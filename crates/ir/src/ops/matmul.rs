//! Matrix products: ONNX's `MatMul` and `Gemm`, and the fused `Linear` they become.

use lepton_tensor::{Tensor, row_major_strides};

use super::quantize::DequantizeLinear;
use super::unary::Unary;
use super::walk::{
    broadcast_all, broadcast_dims, broadcast_strides, for_each_index, offset, require_float,
    require_rank, require_same,
};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};

attributes! {
    /// Product of `a [… ,M,K]` and `b [… ,K,N]` with leading axes broadcast (NumPy's `matmul`:
    /// operands of rank one count as a row or a column).
    pub struct MatMul {}
}

attributes! {
    /// `alpha·a′·b′ + beta·c`, where a′ is a `[M,K]` or its transpose, b′ is b `[K,N]` or its
    /// transpose, and c broadcasts to `[M,N]`.
    pub struct Gemm {
        /// Factor of the product.
        pub alpha: f32 = 1.0,
        /// Factor of c.
        pub beta: f32 = 1.0,
        /// True if a is given as `[K,M]`.
        pub trans_a: bool = false,
        /// True if b is given as `[N,K]`.
        pub trans_b: bool = false,
    }
}

attributes! {
    /// `activation(x·w + b + residual)`: x `[…,K]`, w `[K,N]`, optional b `[N]`, optional
    /// residual shaped like the result `[…,N]`. bf16 weights as in
    /// [`Conv`](super::conv::Conv). With scales `[G,N]` as fifth operand, and optional zero points
    /// `[G,N]` as sixth, w is stored in codes that stand for what
    /// [`DequantizeLinear`] along K gives.
    pub struct Linear {
        /// Applied to the sum.
        pub activation: Unary = Unary::default(),
    }
}

impl Operator for MatMul {
    fn arity(&self) -> Arity {
        Arity::exactly(2)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (a, b) = (inputs.required(0, "a")?, inputs.required(1, "b")?);
        require_same("b", a.dtype, b.dtype)?;
        Ok(vec![Fact::new(a.dtype, product_dims(&a.dims, &b.dims)?)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (a, b) = (inputs.required(0, "a")?, inputs.required(1, "b")?);
        let (shape, values) = multiply(a.shape(), &a.to_f64_vec(), b.shape(), &b.to_f64_vec())?;
        Ok(vec![Tensor::from_f64_slice(a.dtype(), shape, &values)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        super::matmul_grad::matmul(g)
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let (Some(a), Some(b)) = (inputs.optional(0), inputs.optional(1)) else { return vec![] };
        product_axes(a, b, &outputs[0])
    }

    fn quant(&self) -> Quant {
        Quant::Weighted { weight: 1, channel_axis: 1, bias: usize::MAX }
    }

    fn cost(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        product_cost(inputs, outputs)
    }
}

impl Operator for Gemm {
    fn arity(&self) -> Arity {
        Arity::between(2, 3)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (a, b) = (inputs.required(0, "a")?, inputs.required(1, "b")?);
        require_same("b", a.dtype, b.dtype)?;
        require_rank("a", a, 2)?;
        require_rank("b", b, 2)?;
        let swap = |d: &[Dim], swap: bool| {
            if swap { vec![d[1].clone(), d[0].clone()] } else { d.to_vec() }
        };
        let dims = product_dims(&swap(&a.dims, self.trans_a), &swap(&b.dims, self.trans_b))?;
        if let Some(c) = inputs.optional(2) {
            broadcast_dims(&dims, &c.dims)?;
        }
        Ok(vec![Fact::new(a.dtype, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (a, b) = (inputs.required(0, "a")?, inputs.required(1, "b")?);
        let (a_shape, a_values) = transposed(a, self.trans_a);
        let (b_shape, b_values) = transposed(b, self.trans_b);
        let (shape, mut values) = multiply(&a_shape, &a_values, &b_shape, &b_values)?;
        for value in &mut values {
            *value *= self.alpha as f64;
        }
        if let Some(c) = inputs.optional(2) {
            let strides = broadcast_strides(c.shape(), &shape);
            let own = row_major_strides(&shape);
            let c = c.to_f64_vec();
            for_each_index(&shape, |index| {
                values[offset(index, &own)] += self.beta as f64 * c[offset(index, &strides)];
            });
        }
        Ok(vec![Tensor::from_f64_slice(a.dtype(), shape, &values)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        super::matmul_grad::gemm(self, g)
    }

    fn axes(&self, inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Vec<AxisLink> {
        let (m, ka) = if self.trans_a { (1, 0) } else { (0, 1) };
        let (kb, n) = if self.trans_b { (1, 0) } else { (0, 1) };
        let same = |output_axis, input, input_axis| AxisLink::Same {
            output: 0,
            output_axis,
            input,
            input_axis,
        };
        let mut links = vec![
            same(0, 0, m),
            same(1, 1, n),
            AxisLink::Contracted { input: 0, input_axis: ka, other: 1, other_axis: kb },
        ];
        if let Some(c) = inputs.optional(2).filter(|c| c.rank() >= 1) {
            let last = c.rank() - 1;
            if !c.dims[last].is(1) {
                links.push(same(1, 2, last));
            }
        }
        links
    }

    fn quant(&self) -> Quant {
        let channel_axis = if self.trans_b { 0 } else { 1 };
        Quant::Weighted { weight: 1, channel_axis, bias: 2 }
    }

    fn cost(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        let Some(a) = inputs.optional(0) else { return Cost::free() };
        let k = a.dims[if self.trans_a { 0 } else { 1 }].clone();
        Cost::multiply_adds(outputs[0].count() * k)
    }
}

impl Operator for Linear {
    fn arity(&self) -> Arity {
        Arity::between(2, 6)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        if let Some(codes) = codes(inputs) {
            let real = DequantizeLinear { axis: 0 }.infer(Operands(&codes))?;
            let plain = [Some(x), Some(&real[0])];
            return self.infer(Operands(&plain));
        }
        require_float("x", x.dtype)?;
        super::conv::require_weight(x.dtype, w.dtype)?;
        require_rank("w", w, 2)?;
        if x.rank() == 0 {
            return Err(Problem::shape("x must have at least one axis"));
        }
        Ok(vec![Fact::new(x.dtype, product_dims(&x.dims, &w.dims)?)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        if let Some(codes) = codes(inputs) {
            let real = DequantizeLinear { axis: 0 }.eval(Operands(&codes))?;
            let plain = [Some(x), real.first(), inputs.optional(2), inputs.optional(3)];
            return self.eval(Operands(&plain));
        }
        let x_values = super::conv::product_operand(x, w.dtype());
        let (shape, values) = multiply(x.shape(), &x_values, w.shape(), &w.to_f64_vec())?;
        let residual = super::conv::rounded_like(inputs.optional(3), w.dtype())?;
        let (bias, residual) = (inputs.optional(2), residual.as_ref());
        let channel = shape.len() - 1;
        let values =
            super::conv::epilogue(values, &shape, channel, bias, residual, &self.activation)?;
        Ok(vec![Tensor::from_f64_slice(x.dtype(), shape, &values)?])
    }

    fn grad(&self, _g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        Err(Stops::Because("gradients are taken before fusion"))
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let (Some(x), Some(w)) = (inputs.optional(0), inputs.optional(1)) else { return vec![] };
        if codes(inputs).is_some() {
            // A group that loses an element no longer has its extent.
            return vec![];
        }
        let mut links = product_axes(x, w, &outputs[0]);
        let last = outputs[0].rank() - 1;
        if inputs.optional(2).is_some() {
            links.push(AxisLink::Same { output: 0, output_axis: last, input: 2, input_axis: 0 });
        }
        if inputs.optional(3).is_some() {
            links.extend((0..=last).map(|axis| AxisLink::Same {
                output: 0,
                output_axis: axis,
                input: 3,
                input_axis: axis,
            }));
        }
        links
    }

    fn quant(&self) -> Quant {
        Quant::Weighted { weight: 1, channel_axis: 1, bias: 2 }
    }

    fn cost(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        product_cost(inputs, outputs)
    }
}

/// The operands of the [`DequantizeLinear`] inside a [`Linear`] whose weights are codes.
fn codes<'a, T>(inputs: Operands<'a, T>) -> Option<[Option<&'a T>; 3]> {
    let scale = inputs.optional(4)?;
    Some([inputs.optional(1), Some(scale), inputs.optional(5)])
}

fn product_cost(inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
    let k = inputs.optional(0).and_then(|a| a.dims.last().cloned());
    Cost::multiply_adds(outputs[0].count() * k.unwrap_or_default())
}

fn transposed(tensor: &Tensor, swap: bool) -> (Vec<usize>, Vec<f64>) {
    let (shape, values) = (tensor.shape().to_vec(), tensor.to_f64_vec());
    if !swap {
        return (shape, values);
    }
    let (rows, columns) = (shape[0], shape[1]);
    let at = |i: usize| values[i % rows * columns + i / rows];
    (vec![columns, rows], (0..values.len()).map(at).collect())
}

/// Extents of a NumPy matrix product.
pub(crate) fn product_dims(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, Problem> {
    if a.is_empty() || b.is_empty() {
        return Err(Problem::shape("operands of a matrix product need at least one axis"));
    }
    let k_b = if b.len() == 1 { &b[0] } else { &b[b.len() - 2] };
    let k_a = &a[a.len() - 1];
    if let (Some(x), Some(y)) = (k_a.as_known(), k_b.as_known())
        && x != y
    {
        return Err(Problem::shape(format!("inner extents differ: {x} and {y}")));
    }
    let lead_a = &a[..a.len().saturating_sub(2)];
    let lead_b = &b[..b.len().saturating_sub(2)];
    let mut dims = broadcast_dims(lead_a, lead_b)?;
    if a.len() > 1 {
        dims.push(a[a.len() - 2].clone());
    }
    if b.len() > 1 {
        dims.push(b[b.len() - 1].clone());
    }
    Ok(dims)
}

fn product_axes(a: &Fact, b: &Fact, output: &Fact) -> Vec<AxisLink> {
    let mut links = Vec::new();
    if a.rank() < 2 || b.rank() < 2 {
        return links;
    }
    let rank = output.rank();
    let same = |output_axis, input, input_axis| AxisLink::Same {
        output: 0,
        output_axis,
        input,
        input_axis,
    };
    for (input, fact) in [(0, a), (1, b)] {
        for axis in 0..fact.rank() - 2 {
            if !fact.dims[axis].is(1) {
                links.push(same(axis + rank - fact.rank(), input, axis));
            }
        }
    }
    links.push(same(rank - 2, 0, a.rank() - 2));
    links.push(same(rank - 1, 1, b.rank() - 1));
    links.push(AxisLink::Contracted {
        input: 0,
        input_axis: a.rank() - 1,
        other: 1,
        other_axis: b.rank() - 2,
    });
    links
}

/// NumPy's matrix product on values; integers below 2⁵³ are exact.
pub(crate) fn multiply(
    a_shape: &[usize],
    a: &[f64],
    b_shape: &[usize],
    b: &[f64],
) -> Result<(Vec<usize>, Vec<f64>), Problem> {
    let dims = |shape: &[usize]| shape.iter().map(|&d| Dim::from(d)).collect::<Vec<_>>();
    product_dims(&dims(a_shape), &dims(b_shape))?;
    let a_full: Vec<usize> =
        if a_shape.len() == 1 { vec![1, a_shape[0]] } else { a_shape.to_vec() };
    let b_full: Vec<usize> =
        if b_shape.len() == 1 { vec![b_shape[0], 1] } else { b_shape.to_vec() };
    let (m, k) = (a_full[a_full.len() - 2], a_full[a_full.len() - 1]);
    let n = b_full[b_full.len() - 1];
    let (lead_a, lead_b) = (&a_full[..a_full.len() - 2], &b_full[..b_full.len() - 2]);
    let lead = broadcast_all(&[lead_a, lead_b])?;
    let (sa, sb) = (broadcast_strides(lead_a, &lead), broadcast_strides(lead_b, &lead));
    let mut values = Vec::new();
    for_each_index(&lead, |index| {
        let (at_a, at_b) = (offset(index, &sa) * m * k, offset(index, &sb) * k * n);
        for i in 0..m {
            let mut row = vec![0.0; n];
            for p in 0..k {
                let x = a[at_a + i * k + p];
                for (sum, y) in row.iter_mut().zip(&b[at_b + p * n..at_b + (p + 1) * n]) {
                    *sum += x * y;
                }
            }
            values.extend(row);
        }
    });
    let mut shape = lead;
    if a_shape.len() > 1 {
        shape.push(m);
    }
    if b_shape.len() > 1 {
        shape.push(n);
    }
    Ok((shape, values))
}
