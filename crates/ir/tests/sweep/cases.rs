//! The cases of the sweep: operators with operands, readable by hand.

use lepton_ir::Op;
use lepton_ir::ops::{
    attention::*, binary::*, branch::*, cast::*, concat::*, conv::*, conv_transpose::*, dynamic::*,
    expand::*, gather::*, generate::*, integer::*, lookup::*, matmul::*, moves::*, normalize::*,
    onnx_integer::*, order::*, pad::*, pool::*, pool_grad::*, quantize::*, reduce::*, reshape::*,
    resize::*, select::*, shape_of::*, slice::*, softmax::*, split::*, sum_to::*, transpose::*,
    unary::*,
};
use lepton_tensor::{DType, Tensor};

/// An operator and its operands.
pub struct Case {
    pub op: Op,
    pub inputs: Vec<Option<Tensor>>,
}

pub fn case(op: impl Into<Op>, inputs: impl IntoIterator<Item = Tensor>) -> Case {
    Case { op: op.into(), inputs: inputs.into_iter().map(Some).collect() }
}

/// Distinct f64 values between `low` and `low + 1`, in no order.
pub fn from(low: f64, shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let value = |i: usize| low + ((i * 37 + 11) % 101) as f64 / 101.0 + i as f64 * 1e-4;
    let values: Vec<f64> = (0..count).map(value).collect();
    Tensor::from_slice(shape, &values).unwrap()
}

/// Distinct f64 values around zero.
pub fn x(shape: &[usize]) -> Tensor {
    from(-0.53, shape)
}

pub fn ints(values: &[i64]) -> Tensor {
    Tensor::vector(values)
}

pub fn of(dtype: DType, shape: &[usize]) -> Tensor {
    let scale = if dtype.is_float() { 1.0 } else { 100.0 };
    let values: Vec<f64> = x(shape).to_f64_vec().iter().map(|v| (v * scale).abs()).collect();
    Tensor::from_f64_slice(dtype, shape, &values).unwrap()
}

fn unary() -> Vec<Case> {
    use UnaryFunction as F;
    let one = |&f: &F| {
        let low = if f == F::Acosh { 1.1 } else { 0.02 };
        let (alpha, beta) = match f {
            F::Clip => (0.25, 0.75),
            F::Shrink => (0.4, 0.1),
            F::HardSigmoid => (0.2, 0.5),
            _ => (0.45, 1.3),
        };
        let operand = from(low, &[2, 3]).to_f64_vec().into_iter().map(|v| low + (v - low) * 0.9);
        let operand: Vec<f64> = operand.collect();
        case(Unary::with(f, alpha, beta), [Tensor::from_slice([2, 3], &operand).unwrap()])
    };
    let mut cases: Vec<Case> = F::ALL.iter().map(one).collect();
    let negative = [F::Relu, F::LeakyRelu, F::Elu, F::Selu, F::Gelu, F::GeluTanh, F::Silu, F::Mish];
    cases.extend(negative.map(|f| case(Unary::with(f, 0.3, 1.1), [from(-1.2, &[5])])));
    cases
}

fn binary() -> Vec<Case> {
    let mut cases = Vec::new();
    for &f in BinaryFunction::ALL {
        cases.push(case(Binary::new(f), [from(0.2, &[2, 3]), from(0.6, &[3])]));
        cases.push(case(Binary::new(f), [of(DType::I64, &[2, 3]), ints(&[7, 3, 2])]));
    }
    let bools = |n: usize| Tensor::from_bools([n], (0..n).map(|i| i % 3 == 0)).unwrap();
    cases.push(case(Binary::new(BinaryFunction::Equal), [bools(4), bools(1)]));
    cases.push(case(Binary::new(BinaryFunction::And), [bools(4), bools(4)]));
    cases
}

fn windows() -> Vec<Case> {
    let strided = Conv { strides: vec![2, 1], pads: vec![1, 0, 1, 2], ..Conv::default() };
    let grouped = Conv { group: 2, dilations: vec![2, 1], ..Conv::default() };
    let same = lepton_ir::ops::window::AutoPad::SameUpper;
    let same = Conv { auto_pad: same, strides: vec![2, 2], ..Conv::default() };
    let pool = |function| Pool { function, kernel: vec![2, 3], ..Pool::default() };
    let padded = Pool {
        pads: vec![1, 1, 0, 1],
        strides: vec![2, 1],
        ceil: true,
        ..pool(PoolFunction::Average)
    };
    let up = ConvTranspose {
        strides: vec![2, 1],
        pads: vec![1, 0, 0, 1],
        output_padding: vec![1, 0],
        ..ConvTranspose::default()
    };
    let shaped =
        ConvTranspose { strides: vec![2, 2], output_shape: vec![6, 7], ..ConvTranspose::default() };
    let weight = ConvWeightGrad { kernel: vec![2, 2], ..ConvWeightGrad::default() };
    let pool_grad = PoolGrad { kernel: vec![2, 2], ..PoolGrad::default() };
    vec![
        case(Conv::default(), [x(&[2, 2, 4, 4]), x(&[3, 2, 3, 3]), x(&[3])]),
        case(strided, [x(&[1, 2, 6, 4]), x(&[2, 2, 3, 2])]),
        case(grouped, [x(&[1, 4, 5, 3]), x(&[2, 2, 2, 2]), x(&[2])]),
        case(same, [x(&[1, 1, 5, 4]), x(&[2, 1, 3, 3])]),
        case(up.clone(), [x(&[2, 2, 3, 3]), x(&[2, 3, 3, 2]), x(&[3])]),
        case(ConvTranspose { group: 2, ..up }, [x(&[1, 4, 2, 3]), x(&[4, 1, 3, 2])]),
        case(shaped, [x(&[1, 1, 3, 3]), x(&[1, 2, 3, 3])]),
        case(weight, [x(&[2, 2, 4, 4]), x(&[2, 3, 3, 3])]),
        case(pool(PoolFunction::Max), [x(&[1, 2, 4, 4])]),
        case(pool(PoolFunction::Average), [x(&[1, 2, 4, 4])]),
        case(pool(PoolFunction::Lp), [from(0.1, &[1, 2, 4, 4])]),
        case(Pool { count_padding: true, ..padded.clone() }, [x(&[1, 1, 4, 4])]),
        case(padded, [x(&[1, 1, 4, 4])]),
        case(Pool::global(PoolFunction::Average), [x(&[2, 2, 3, 3])]),
        case(pool_grad, [x(&[1, 2, 4, 4]), x(&[1, 2, 3, 3])]),
    ]
}

fn products() -> Vec<Case> {
    let gemm = Gemm { alpha: 0.5, beta: 2.0, trans_a: true, trans_b: true };
    vec![
        case(MatMul {}, [x(&[2, 3, 4]), x(&[4, 2])]),
        case(MatMul {}, [x(&[2, 1, 3, 4]), x(&[3, 4, 2])]),
        case(gemm, [x(&[3, 2]), x(&[4, 3]), x(&[4])]),
        case(Linear::default(), [x(&[2, 3]), x(&[3, 4]), x(&[4])]),
        Case {
            op: Linear::default().into(),
            inputs: vec![
                Some(of(DType::F32, &[2, 4])),
                Some(of(DType::U4, &[4, 3])),
                None,
                None,
                Some(of(DType::F32, &[2, 3])),
                Some(of(DType::U4, &[2, 3])),
            ],
        },
    ]
}

fn shapes() -> Vec<Case> {
    let last = Split { axis: -1, parts: 2 };
    vec![
        case(Reshape::default(), [x(&[2, 3, 4]), ints(&[0, -1])]),
        case(Flatten::default(), [x(&[2, 3, 4])]),
        case(Squeeze {}, [x(&[2, 1, 3]), ints(&[1])]),
        case(Unsqueeze {}, [x(&[2, 3]), ints(&[0, -1])]),
        case(last, [x(&[2, 5])]),
        case(Split { axis: 0, parts: 0 }, [x(&[5, 2]), ints(&[2, 3])]),
        case(SumTo {}, [x(&[2, 3]), x(&[1, 3])]),
        case(Transpose { permutation: vec![1, 2, 0] }, [x(&[2, 3, 4])]),
        case(Concat { axis: 1 }, [x(&[2, 3]), x(&[2, 1])]),
        case(
            Attention { scale: 0.5 },
            [x(&[2, 3, 2, 4]), x(&[2, 5, 2, 4]), x(&[2, 5, 2, 3]), x(&[2, 1, 1, 5])],
        ),
        case(Attention::default(), [x(&[1, 2, 1, 3]), x(&[1, 4, 1, 3]), x(&[1, 4, 1, 2])]),
        case(Softmax::default(), [x(&[2, 3])]),
        case(Softmax { axis: 0, log: true }, [x(&[2, 3])]),
        case(Shape::default(), [x(&[2, 3])]),
        case(Size {}, [x(&[2, 3])]),
    ]
}

fn reductions() -> Vec<Case> {
    let mut cases = Vec::new();
    for &function in ReduceFunction::ALL {
        cases.push(case(Reduce::new(function), [from(0.2, &[2, 3, 2]), ints(&[1])]));
        let all = Reduce { keep_dims: false, ..Reduce::new(function) };
        cases.push(case(all, [from(0.2, &[2, 3])]));
    }
    cases
}

fn moves() -> Vec<Case> {
    let gather = MoveBack { function: MoveFunction::Gather, ..MoveBack::default() };
    let mut cases = vec![
        case(Slice {}, [x(&[4, 5]), ints(&[1]), ints(&[i64::MAX]), ints(&[1])]),
        case(Slice {}, [x(&[4, 5]), ints(&[-1]), ints(&[i64::MIN]), ints(&[1]), ints(&[-2])]),
        case(Slice {}, [x(&[4, 5]), ints(&[1, -9]), ints(&[9, -1])]),
        case(Slice {}, [ints(&[5, 6, 7, 8]), ints(&[-1]), ints(&[0]), ints(&[0]), ints(&[-1])]),
        case(Gather { axis: 1 }, [x(&[2, 3, 2]), ints(&[2, 0, -1, 2])]),
        case(Gather::default(), [ints(&[4, 5, 6]), Tensor::scalar(-1i64)]),
        case(
            GatherElements { axis: 1 },
            [x(&[2, 3]), Tensor::from_slice([2, 2], &[0i64, 2, -1, 1]).unwrap()],
        ),
        case(Pad::default(), [x(&[2, 3]), ints(&[1, -1, 0, 2]), Tensor::scalar(0.5f64)]),
        case(Expand {}, [x(&[2, 1]), ints(&[3, 1, 4])]),
        case(Tile {}, [x(&[2, 2]), ints(&[1, 3])]),
        case(gather, [x(&[2, 2]), x(&[3, 2]), ints(&[2, 2])]),
    ];
    for mode in [PadMode::Reflect, PadMode::Edge, PadMode::Wrap] {
        cases.push(case(Pad { mode }, [x(&[2, 3]), ints(&[1, 2, 0, 1])]));
    }
    cases
}

fn choices() -> Vec<Case> {
    let condition = Tensor::from_bools([2, 1], [true, false]).unwrap();
    let clip = [x(&[2, 4]), Tensor::scalar(-0.2f64), Tensor::scalar(0.2f64)];
    let clip_integers = [ints(&[1, 5, 9]), Tensor::scalar(2i64), Tensor::scalar(6i64)];
    let range = [1i64, 8, 3].map(Tensor::scalar);
    let back = [8.0f64, 1.5, -2.0].map(Tensor::scalar);
    vec![
        case(Where {}, [condition.clone(), x(&[2, 3]), x(&[3])]),
        case(Not {}, [condition]),
        case(Clip {}, clip),
        case(Clip {}, clip_integers),
        case(Cast { to: DType::F32 }, [ints(&[1, 2])]),
        case(Cast { to: DType::I32 }, [from(-2.5, &[4])]),
        case(Cast { to: DType::I32 }, [ints(&[4, 9])]),
        case(Cast { to: DType::F64 }, [x(&[3])]),
        case(ConstantOfShape::default(), [ints(&[2, 3])]),
        case(ConstantOfShape { value: ints(&[7]) }, [ints(&[3])]),
        case(Range {}, range),
        case(Range {}, back),
        case(Trilu::default(), [x(&[2, 3, 4])]),
        case(Trilu { upper: false }, [x(&[3, 3]), Tensor::scalar(-1i64)]),
        case(CumSum::default(), [x(&[2, 4]), Tensor::scalar(1i64)]),
        case(
            CumSum { exclusive: true, reverse: true, product: false },
            [x(&[3, 2]), Tensor::scalar(0i64)],
        ),
        case(Arg { axis: 1, ..Arg::default() }, [x(&[2, 4])]),
        case(
            Arg { function: ArgFunction::Min, axis: 0, keep_dims: false, last: true },
            [x(&[4, 2])],
        ),
        case(TopK::default(), [x(&[2, 5]), ints(&[3])]),
        case(TopK { axis: 0, largest: false }, [x(&[4, 2]), ints(&[2])]),
    ]
}

fn normalisations() -> Vec<Case> {
    let layer = LayerNormalization { axis: 1, ..LayerNormalization::default() };
    let variance = from(0.5, &[3]);
    vec![
        case(layer, [x(&[2, 3, 2]), x(&[3, 2]), x(&[3, 2])]),
        case(LayerNormalization::default(), [x(&[2, 4]), x(&[4])]),
        case(
            BatchNormalization::default(),
            [x(&[2, 3, 2, 2]), x(&[3]), x(&[3]), from(0.1, &[3]), variance],
        ),
        case(InstanceNormalization::default(), [x(&[2, 2, 3, 2]), x(&[2]), x(&[2])]),
    ]
}

fn integers() -> Vec<Case> {
    use DType::{F32, I8, I32, U8};
    let byte = Tensor::scalar(7u8);
    let scale = Tensor::scalar(0.1f32);
    vec![
        case(QuantizeLinear::default(), [x(&[2, 3]), scale.clone(), byte.clone()]),
        case(DequantizeLinear::default(), [of(U8, &[2, 3]), scale, byte.clone()]),
        case(QuantizeLinear { axis: 0, dtype: DType::I4 }, [x(&[4, 3]), of(F32, &[2, 3])]),
        case(
            DequantizeLinear::default(),
            [of(DType::U4, &[2, 4]), of(F32, &[2, 2]), of(DType::U4, &[2, 2])],
        ),
        case(DequantizeLinear::default(), [of(DType::F8E4M3FN, &[2, 3]), of(F32, &[])]),
        case(DynamicQuantizeLinear {}, [of(F32, &[2, 3])]),
        case(MatMulInteger {}, [of(U8, &[2, 3]), of(I8, &[3, 4]), byte.clone(), of(I8, &[4])]),
        case(ConvInteger::default(), [of(U8, &[1, 2, 4, 4]), of(I8, &[3, 2, 2, 2]), byte]),
        case(
            IntegerConv::default(),
            [of(U8, &[1, 4, 4, 2]), of(I8, &[3, 3, 3, 2]), of(I32, &[3]), of(F32, &[3])],
        ),
        case(
            IntegerLinear { output: F32, ..IntegerLinear::default() },
            [of(U8, &[2, 3]), of(I8, &[3, 4]), of(I32, &[4]), of(F32, &[4])],
        ),
        case(
            DynamicConv::default(),
            [of(F32, &[1, 2, 4, 4]), of(I8, &[3, 2, 3, 3]), of(F32, &[3])],
        ),
        case(DynamicLinear::default(), [of(F32, &[2, 3]), of(I8, &[3, 4]), of(F32, &[4])]),
        case(Lookup {}, [of(U8, &[2, 3]), of(U8, &[256])]),
        case(Lookup {}, [of(I8, &[2, 3]), of(U8, &[256])]),
        case(IntegerBinary::default(), [of(U8, &[2, 3]), of(U8, &[2, 3])]),
    ]
}

fn resizes() -> Vec<Case> {
    let mut cases = Vec::new();
    let scales = Tensor::vector(&[1f32, 1.0, 2.0, 0.5]);
    for &coordinates in Coordinates::ALL {
        for &mode in ResizeMode::ALL {
            let op = Resize { mode, coordinates, ..Resize::default() };
            let sized = Case {
                op: op.clone().into(),
                inputs: vec![Some(x(&[1, 2, 3, 4])), None, None, Some(ints(&[1, 2, 5, 3]))],
            };
            cases.push(sized);
            let scaled = vec![Some(x(&[1, 2, 3, 4])), None, Some(scales.clone())];
            let op = Resize { antialias: coordinates == Coordinates::Asymmetric, ..op };
            cases.push(Case { op: op.into(), inputs: scaled });
        }
    }
    cases
}

fn branches() -> Vec<Case> {
    let branch = |function| {
        let mut graph = lepton_ir::Graph::new("branch");
        let a = graph.add_input("a", lepton_ir::Fact::dense(DType::F64, &[2, 3]));
        let made = graph.add_node("", Unary::new(function), &[Some(a)]).unwrap();
        graph.set_value_name(made[0], "b");
        graph.set_outputs(made);
        graph
    };
    let op =
        If { then_branch: branch(UnaryFunction::Exp), else_branch: branch(UnaryFunction::Neg) };
    [true, false]
        .map(|t| case(op.clone(), [Tensor::from_bools([], [t]).unwrap(), x(&[2, 3])]))
        .into_iter()
        .collect()
}

/// Every case.
pub fn all() -> Vec<Case> {
    let families = [
        unary(),
        binary(),
        windows(),
        products(),
        shapes(),
        reductions(),
        moves(),
        choices(),
        normalisations(),
        integers(),
        resizes(),
        super::more::all(),
        branches(),
    ];
    families.into_iter().flatten().collect()
}
