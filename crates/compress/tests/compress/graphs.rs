//! Small graphs and inputs that look random and never change.

use lepton_compress::{
    Calibration, QuantizeOptions, Ranges, calibrate, quantize_static, simplified,
};
use lepton_ir::{Graph, text};
use lepton_tensor::Tensor;

/// Values between −1 and 1 that look random and never change.
pub fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2654435761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A constant in the text form, with weights of usual size: magnitude falls with the fan-in.
pub fn constant(name: &str, shape: &[usize], seed: u32) -> String {
    let count: usize = shape.iter().product();
    let fan_in = count / shape[0].max(1);
    let size = (3.0f32 / fan_in.max(1) as f32).sqrt();
    let list: Vec<String> = values(count, seed).iter().map(|v| format!("{:?}", v * size)).collect();
    format!("const %{name}: f32{shape:?} = [{}]\n", list.join(", "))
}

/// A residual network with a depthwise convolution, two products that meet in a sum, pools, a
/// concatenation and a linear layer.
pub fn network() -> Graph {
    let source = format!(
        "graph \"net\" {{ input %x: f32[n,3,12,12]\n{}{}{}{}{}{}{}{}
         %a: f32[n,16,12,12] = Conv(%x, %w1, %b1) {{pads=[1, 1, 1, 1]}}
         %r: f32[n,16,12,12] = Unary(%a) {{function=\"relu\"}}
         %c: f32[n,16,12,12] = Conv(%r, %w2) {{pads=[1, 1, 1, 1]}}
         %s: f32[n,16,12,12] = Binary(%c, %r)
         %t: f32[n,16,12,12] = Unary(%s) {{function=\"relu\"}}
         %d: f32[n,16,6,6] = Conv(%t, %w3) {{pads=[1, 1, 1, 1], strides=[2, 2], group=16}}
         %e: f32[n,16,6,6] = Unary(%d) {{function=\"clip\", alpha=0.0, beta=6.0}}
         %f: f32[n,24,6,6] = Conv(%e, %w4)
         %g: f32[n,24,6,6] = Conv(%t, %w5) {{strides=[2, 2]}}
         %h: f32[n,24,6,6] = Binary(%f, %g)
         %i: f32[n,24,6,6] = Unary(%h) {{function=\"relu\"}}
         %j: f32[n,24,3,3] = Pool(%i) {{kernel=[2, 2], strides=[2, 2]}}
         %k: f32[n,24,3,3] = Conv(%j, %w6)
         %l: f32[n,48,3,3] = Concat(%j, %k) {{axis=1}}
         %m: f32[n,432] = Flatten(%l)
         %o: f32[n,5] = Gemm(%m, %w7, %b7) {{trans_b=1}}
         output %o }}",
        constant("w1", &[16, 3, 3, 3], 1) + &constant("b1", &[16], 2),
        constant("w2", &[16, 16, 3, 3], 3),
        constant("w3", &[16, 1, 3, 3], 4),
        constant("w4", &[24, 16, 1, 1], 5),
        constant("w5", &[24, 16, 1, 1], 6),
        constant("w6", &[24, 24, 1, 1], 7),
        constant("w7", &[5, 432], 8),
        constant("b7", &[5], 9),
    );
    simplified(&text::parse(&source).unwrap()).unwrap()
}

/// Batches of one input `[rows, …]` each.
pub fn batches(shape: &[usize], count: usize) -> Vec<Vec<Tensor>> {
    let length = shape.iter().product();
    let batch = |i| vec![Tensor::from_slice(shape.to_vec(), &values(length, 500 + i)).unwrap()];
    (0..count as u32).map(batch).collect()
}

/// Ranges from the batches.
pub fn ranges(graph: &Graph, batches: &[Vec<Tensor>], calibration: Calibration) -> Ranges {
    let all = batches.iter().cloned().map(Ok);
    calibrate(graph, all, calibration, &mut |_| true).unwrap()
}

/// The graph quantised by the least and greatest values of the batches.
pub fn quantised(graph: &Graph, batches: &[Vec<Tensor>]) -> Graph {
    let ranges = ranges(graph, batches, Calibration::MinMax);
    quantize_static(graph, &QuantizeOptions::new(&ranges)).unwrap()
}

/// Root mean square of the difference, relative to that of `want`.
pub fn relative_error(want: &[Tensor], have: &[Tensor]) -> f64 {
    let (mut error, mut energy) = (0.0, 0.0);
    for (want, have) in want.iter().zip(have) {
        assert_eq!((want.shape(), want.dtype()), (have.shape(), have.dtype()));
        for (w, h) in want.to_f64_vec().into_iter().zip(have.to_f64_vec()) {
            error += (w - h).powi(2);
            energy += w * w;
        }
    }
    (error / energy).sqrt()
}
