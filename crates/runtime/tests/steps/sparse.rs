//! Products whose weights are mostly blocks of zeros.

use lepton_kernels::Isa;

use crate::case::check;

/// The text of weights of which one row of K in sixteen, or one group of four, is not zero.
fn weights(dtype: &str, shape: &[usize], depth: usize, deep: usize, k_last: bool) -> String {
    let count: usize = shape.iter().product();
    let columns = count / depth;
    let value = |i: usize| {
        let k = if k_last { i % depth } else { i / columns };
        if k / deep % 16 == 3 { (i * 7 % 11) as i64 - 5 } else { 0 }
    };
    let list: Vec<String> = (0..count).map(|i| value(i).to_string()).collect();
    format!("const %w: {dtype}{shape:?} = [{}]\n", list.join(", "))
}

/// True if the widest set skips blocks.
fn skips() -> bool {
    Isa::best().has_avx512()
}

#[test]
fn blocks_of_zeros_are_skipped() {
    let per_column = |value: &str| vec![value; 20].join(", ");
    let cases = [
        (
            "linear-sparse-f32",
            weights("f32", &[64, 20], 64, 1, false),
            "input %x: f32[9,64]",
            "%y: f32[9,20] = Linear(%x, %w) {activation=\"relu\"}",
        ),
        (
            "conv-sparse-f32",
            weights("f32", &[20, 1, 1, 64], 64, 1, true),
            "input %x: f32[1,7,6,64]",
            "%y: f32[1,4,3,20] = Conv(%x, %w) {layout=\"nhwc\", strides=[2, 2]}",
        ),
        (
            "linear-sparse-u8s8",
            weights("i8", &[64, 20], 64, 4, false),
            "input %x: u8[9,64]",
            "%y: u8[9,20] = IntegerLinear(%x, %w, %b, %m) {zero=130}",
        ),
        (
            "conv-sparse-u8s8",
            weights("i8", &[20, 1, 1, 64], 64, 4, true),
            "input %x: u8[1,7,6,64]",
            "%y: f32[1,7,6,20] = IntegerConv(%x, %w, %b, %m) {x_zero=7, output=\"f32\"}",
        ),
    ];
    for (kernel, weights, input, node) in cases {
        let source = format!(
            "graph \"g\" {{ {input}\n{weights}
             const %b: i32[20] = [{}] const %m: f32[20] = [{}]
             {node}
             output %y }}",
            per_column("3"),
            per_column("0.01"),
        );
        let kernels = check(&source, &[]);
        assert!(!skips() || kernels.contains(&kernel), "{kernel}: {kernels:?}\n{source}");
    }
}
