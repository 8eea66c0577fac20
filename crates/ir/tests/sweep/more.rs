//! Further cases of the sweep: layers with a state, bodies that repeat, indices, and what finds.

use lepton_ir::ops::{
    algebra::*, binary::*, bits::*, cast::*, concat::*, couple::*, detection::*, find::*,
    fourier::*, image::*, integer_rnn::*, labels::*, ngram::*, order::*, pool_positions::*,
    random::*, repeat::*, resize::*, rnn::*, sample::*, scatter::*, strings::*, trees::*,
};
use lepton_ir::{Fact, Graph};
use lepton_tensor::{DType, Tensor};

use crate::cases::{Case, case, from, ints, of, x};

fn recurrent() -> Vec<Case> {
    let both = LSTM { direction: Direction::Bidirectional, cell_clip: 0.4 };
    let linear = GRU { linear_before_reset: true, direction: Direction::Reverse };
    vec![
        case(both, [x(&[3, 2, 4]), x(&[2, 12, 4]), x(&[2, 12, 3]), x(&[2, 24])]),
        case(GRU::default(), [x(&[3, 2, 4]), x(&[1, 9, 4]), x(&[1, 9, 3]), x(&[1, 18])]),
        case(RNN::default(), [x(&[3, 2, 4]), x(&[1, 3, 4]), x(&[1, 3, 3]), x(&[1, 6])]),
        Case {
            op: LSTM::default().into(),
            inputs: vec![
                Some(x(&[3, 2, 4])),
                Some(x(&[1, 12, 4])),
                Some(x(&[1, 12, 3])),
                None,
                Some(Tensor::vector(&[3i32, 1])),
                None,
                None,
                Some(x(&[1, 9])),
            ],
        },
        case(linear, [x(&[3, 2, 4]), x(&[1, 9, 4]), x(&[1, 9, 3]), x(&[1, 18])]),
        bytes(),
    ]
}

/// A layer of 3 units in fixed point with everything it may have.
fn bytes() -> Case {
    let numbers = |shape: &[usize]| {
        let count: usize = shape.iter().product();
        let values: Vec<i64> = (0..count as i64).map(|i| i * 37 % 201 - 100).collect();
        Tensor::from_i64_slice(DType::I8, shape.to_vec(), &values).unwrap()
    };
    let op = IntegerLSTM {
        coupled: true,
        x_scales: vec![0.3, 0.4, 0.5],
        h_scales: vec![0.2, 0.3, 0.4],
        peephole_scales: vec![0.01, 0.02],
        hidden_scale: 1.2e-7,
        hidden_zero: 3,
        projection_scale: 0.004,
        zero: -2,
        cell_power: -11,
        cell_bound: 900,
        bound: 90,
    };
    let peepholes = Tensor::vector(&[3000i16, -2000, 500, 700, -900, 1100]);
    let bias = Tensor::from_i64_slice(DType::I32, vec![18], &[70; 18]).unwrap();
    let [x, w, r, projection] = [[3, 2, 4].as_slice(), &[9, 4], &[9, 2], &[2, 3]].map(numbers);
    case(op, [x, w, r, bias, peepholes, projection, Tensor::vector(&[50i32, -50])])
}

fn matrix(shape: [usize; 2], values: &[i64]) -> Tensor {
    Tensor::from_slice(shape, values).unwrap()
}

fn indices() -> Vec<Case> {
    let mut cases = Vec::new();
    for &reduction in ScatterReduction::ALL {
        let op = ScatterElements { axis: 1, reduction };
        let at = matrix([2, 2], &[0, -1, 2, 2]);
        cases.push(case(op, [x(&[2, 3]), at, from(0.3, &[2, 2])]));
        let at = matrix([2, 1], &[2, -1]);
        cases.push(case(ScatterND { reduction }, [x(&[3, 2]), at, from(0.3, &[2, 2])]));
    }
    cases.push(case(GatherND::default(), [x(&[3, 2]), matrix([2, 1], &[2, -1])]));
    let batched = GatherND { batch_dims: 1 };
    cases.push(case(batched, [x(&[2, 3, 2]), matrix([2, 1], &[2, 0])]));
    cases
}

fn bits() -> Vec<Case> {
    let mut cases = Vec::new();
    for &function in BitFunction::ALL {
        cases.push(case(Bitwise { function }, [ints(&[12, -7, 3]), ints(&[2, 1, 70])]));
    }
    cases.push(case(BitCast { to: DType::I32 }, [of(DType::F32, &[2, 3])]));
    cases
}

fn samples() -> Vec<Case> {
    let mut cases = Vec::new();
    for &mode in ResizeMode::ALL {
        for &outside in Outside::ALL {
            let op = GridSample { mode, outside, align_corners: mode == ResizeMode::Linear };
            cases.push(case(op, [x(&[2, 2, 4, 3]), from(-1.4, &[2, 2, 3, 2])]));
        }
    }
    let boxes = Tensor::from_slice([2, 4], &[0.5f64, 0.2, 2.9, 3.0, 1.0, 0.0, 3.0, 2.0]).unwrap();
    for &function in CellFunction::ALL {
        let op = RoiAlign { function, height: 2, width: 3, samples: 2, ..RoiAlign::default() };
        cases.push(case(op, [x(&[2, 2, 4, 4]), boxes.clone(), ints(&[1, 0])]));
    }
    cases
}

fn finds() -> Vec<Case> {
    let rows = matrix([3, 2], &[4, 1, 0, 7, 4, 1]);
    let boxes = [0.0f32, 0.0, 1.0, 1.0, 0.0, 0.1, 1.0, 1.1, 0.0, 2.0, 1.0, 3.0];
    let boxes = Tensor::from_slice([1, 3, 4], &boxes).unwrap();
    let scores = Tensor::from_slice([1, 1, 3], &[0.9f32, 0.75, 0.6]).unwrap();
    let limits = [Tensor::scalar(3i64), Tensor::scalar(0.5f32), Tensor::scalar(0.0f32)];
    let [most, overlap, least] = limits;
    let pool = PoolPositions { kernel: vec![2, 2], strides: vec![2, 1], ..Default::default() };
    let ngrams = Ngrams {
        longest: 2,
        skips: 1,
        starts: vec![0, 2],
        pool: vec![2, 3, 5, 6, 7, 8],
        features: vec![0, 2, 1, 3],
        ..Ngrams::default()
    };
    let trees = TreeEnsemble {
        targets: 2,
        roots: vec![0, -1],
        features: vec![1, 0],
        modes: vec![0, 6],
        splits: Tensor::vector(&[0.0f32, 0.0]),
        true_sides: vec![1, -2],
        false_sides: vec![-3, -1],
        sets: Tensor::vector(&[0.5f32, 0.25, f32::NAN]),
        leaf_starts: vec![0, 1, 3],
        leaf_targets: vec![0, 0, 1, 1],
        leaf_weights: Tensor::vector(&[1.0f32, 2.0, 3.0, 4.0]),
        base: vec![0.5, 0.0],
        ..TreeEnsemble::default()
    };
    let detector = DetectBoxes {
        most: 2,
        classes_each: 2,
        classes: 3,
        scales: vec![10.0, 10.0, 5.0, 5.0],
        ..DetectBoxes::default()
    };
    let sides: Vec<f32> = (0..20).map(|i| if i % 4 < 2 { i as f32 } else { 2.0 }).collect();
    let real = |tensor: Tensor| {
        Tensor::from_f64_slice(DType::F32, tensor.shape().to_vec(), &tensor.to_f64_vec()).unwrap()
    };
    let anchors = Tensor::from_slice([5, 4], &sides).unwrap();
    let detected = [real(x(&[1, 5, 4])), real(x(&[1, 5, 4])), anchors];
    vec![
        case(DetectBoxes { per_class: true, ..detector.clone() }, detected.clone()),
        case(detector, detected),
        case(trees, [x(&[4, 2])]),
        case(NonZero {}, [rows.clone()]),
        case(Unique::default(), [rows.clone()]),
        case(Unique { axis: 0, sorted: false }, [rows]),
        case(NonMaxSuppression::default(), [boxes, scores, most, overlap, least]),
        case(PoolPositions { first_axis_fastest: true, ..pool.clone() }, [x(&[1, 2, 4, 4])]),
        case(pool, [x(&[1, 2, 4, 4])]),
        case(Det {}, [x(&[2, 3, 3])]),
        case(Fourier { length: 7, bins: 4, ..Fourier::default() }, [x(&[2, 5, 1])]),
        case(Fourier { length: 6, bins: 6, inverse: true, real: true }, [x(&[2, 4, 2])]),
        case(ngrams, [ints(&[2, 5, 6, 2, 7])]),
        case(CumSum { product: true, ..CumSum::default() }, [x(&[3, 2]), Tensor::scalar(1i64)]),
    ]
}

fn strings_and_others() -> Vec<Case> {
    let words = |words: &[&str]| Tensor::from_strings([words.len()], words).unwrap();
    let labels = LabelEncoder {
        keys: words(&["b", "a", "b"]),
        values: Tensor::vector(&[1.5f32, 2.5, 3.5]),
        otherwise: Tensor::vector(&[-1.0f32]),
    };
    let pair = [words(&["a, b", "", "c"]), words(&["b"])];
    vec![
        case(CouplePairs { classes: 3 }, [x(&[2, 3])]),
        case(Random::default(), [ints(&[2, 3])]),
        case(Draw { count: 3, seed: 1 }, [x(&[2, 4])]),
        case(ImageDecoder { colours: Colours::Bgr }, [Tensor::vector(b"P6\n1 2\n255\nabcdef")]),
        case(StringConcat {}, pair.clone()),
        case(Binary { function: BinaryFunction::Less }, pair.clone()),
        case(Concat { axis: 0 }, pair.clone()),
        case(StringSplit { delimiter: ",".into(), most: 1 }, [pair[0].clone()]),
        case(
            StringNormalizer { stop_words: vec!["C".into()], ..Default::default() },
            [pair[0].clone()],
        ),
        case(Tokenizer { word: "[a-c]".into(), ..Default::default() }, [pair[0].clone()]),
        case(Tokenizer { separators: vec![", ".into()], ..Default::default() }, [pair[0].clone()]),
        case(RegexFullMatch { pattern: "[a-c]?".into() }, [pair[0].clone()]),
        case(labels, [words(&["a", "b", "x"])]),
        case(Cast { to: DType::Str }, [ints(&[2, -5])]),
        case(Cast { to: DType::F32 }, [words(&["-1.5e3", "nan"])]),
    ]
}

/// `sum + slice`, given on and as a result.
fn body(with_round: bool) -> Graph {
    let mut graph = Graph::new("body");
    let mut outputs = Vec::new();
    if with_round {
        graph.add_input("round", Fact::dense(DType::I64, &[]));
        outputs.push(graph.add_input("go", Fact::dense(DType::Bool, &[])));
    }
    let sum = graph.add_input("sum", Fact::dense(DType::F64, &[2]));
    let slice = graph.add_input("slice", Fact::dense(DType::F64, &[2]));
    let made = graph.add_node("", Binary::default(), &[Some(sum), Some(slice)]).unwrap()[0];
    graph.set_value_name(made, "next");
    let twice = graph.add_node("", Binary::default(), &[Some(made), Some(slice)]).unwrap()[0];
    graph.set_value_name(twice, "twice");
    outputs.extend([made, twice]);
    graph.set_outputs(outputs);
    graph
}

fn repeats() -> Vec<Case> {
    let looped = Loop { body: body(true), states: 1 };
    let yes = Tensor::from_bools([], [true]).unwrap();
    let scan = Scan { body: body(false), states: 1, sequences: 1, ..Scan::default() };
    let back = Scan {
        axes: vec![1],
        reversed: vec![1],
        stack_axes: vec![-1],
        stack_reversed: vec![1],
        ..scan.clone()
    };
    vec![
        case(looped, [Tensor::scalar(3i64), yes, x(&[2]), x(&[2])]),
        case(scan, [x(&[2]), x(&[3, 2])]),
        case(back, [x(&[2]), x(&[2, 3])]),
    ]
}

/// These cases.
pub fn all() -> Vec<Case> {
    let families =
        [recurrent(), indices(), bits(), samples(), finds(), strings_and_others(), repeats()];
    families.into_iter().flatten().collect()
}
