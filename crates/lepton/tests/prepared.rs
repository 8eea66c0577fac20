//! A prepared artefact gives the same bits as the model it was made of, starts where its key is
//! this version's, and is only slower where it is not; damage to it is found.

use lepton::{Format, Model, Session, SessionOptions, Tensor, convert, sample_inputs};
use lepton_formats::artefact::{self, Artefact};
use lepton_ir::ops::conv::Conv;
use lepton_ir::ops::matmul::MatMul;
use lepton_ir::ops::pool::Pool;
use lepton_ir::ops::reshape::Flatten;
use lepton_ir::ops::unary::{Unary, UnaryFunction};
use lepton_ir::{Dim, Fact, Graph};
use lepton_tensor::DType;

/// Convolution, depthwise convolution, grouped convolution, product.
fn network() -> Graph {
    let mut graph = Graph::new("small");
    let dims = vec![Dim::symbol("batch"), Dim::from(3), Dim::from(20), Dim::from(20)];
    let mut x = graph.add_input("image", Fact::new(DType::F32, dims));
    let mut seed = 1u32;
    let mut values = |shape: &[usize]| {
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let list: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
        Tensor::from_slice(shape, &list).unwrap()
    };
    for (name, shape, group) in [
        ("dense", [24, 3, 3, 3], 1),
        ("depthwise", [24, 1, 3, 3], 24),
        ("grouped", [32, 12, 1, 1], 2),
    ] {
        let w = graph.add_constant(format!("{name}.weight"), values(&shape));
        // Of stride 2: one algorithm serves it, so that bits can be compared.
        let strides = if group == 1 { vec![2, 2] } else { Vec::new() };
        let conv = Conv { group, strides, ..Conv::default() };
        x = graph.add_node(name, conv, &[Some(x), Some(w)]).unwrap()[0];
        let relu = Unary::new(UnaryFunction::Relu);
        x = graph.add_node(format!("{name}.relu"), relu, &[Some(x)]).unwrap()[0];
    }
    let pool = Pool { kernel: vec![7, 7], ..Pool::default() };
    x = graph.add_node("pool", pool, &[Some(x)]).unwrap()[0];
    x = graph.add_node("flat", Flatten::default(), &[Some(x)]).unwrap()[0];
    let w = graph.add_constant("head.weight", values(&[32, 5]));
    x = graph.add_node("head", MatMul {}, &[Some(x), Some(w)]).unwrap()[0];
    graph.set_value_name(x, "logits");
    graph.set_outputs(vec![x]);
    graph.verify().unwrap();
    graph
}

fn bytes_of(artefact: &Artefact) -> Vec<u8> {
    artefact::write(artefact).unwrap()
}

fn plain() -> Vec<u8> {
    bytes_of(&Artefact::from(network()))
}

fn open(bytes: Vec<u8>) -> Model {
    Model::from_bytes("model.lepton", bytes).unwrap()
}

fn bits(session: &Session, model: &Model, batch: usize) -> Vec<u8> {
    let inputs = sample_inputs(model.graph(), &[("batch".to_string(), batch)]).unwrap();
    session.run(&inputs).unwrap()[0].bytes().to_vec()
}

#[test]
fn prepared_gives_the_same_bits_at_every_shape() {
    let model = open(plain());
    let prepared = open(convert(&model, Format::Lepton, true).unwrap());
    let sessions = [&model, &prepared].map(|m| m.session(SessionOptions::default()).unwrap());
    for batch in [1, 3] {
        assert_eq!(bits(&sessions[0], &model, batch), bits(&sessions[1], &prepared, batch));
    }
    let kept = &prepared.artefact().unwrap().prepared.as_ref().unwrap().packs;
    let forms: Vec<&str> = kept.iter().map(|pack| pack.form.as_str()).collect();
    assert_eq!(forms, ["stem", "depthwise", "grouped", "dense"]);
    // Packs are those of the file, not made again.
    let again = sessions[1].packs();
    assert_eq!(again.len(), kept.len());
    assert!(again.iter().zip(kept).all(|(a, b)| a == b));
}

#[test]
fn forms_for_long_axes_are_kept() {
    let mut graph = Graph::new("open");
    let symbols = ["batch", "height", "width"].map(Dim::symbol);
    let [batch, height, width] = symbols;
    let dims = vec![batch, Dim::from(16), height, width];
    let x = graph.add_input("image", Fact::new(DType::F32, dims));
    let values: Vec<f32> = (0..16 * 16 * 9).map(|i| ((i * 37) % 101) as f32 / 101.0).collect();
    let w = graph.add_constant("w", Tensor::from_slice([16, 16, 3, 3], &values).unwrap());
    // On the single pixel of the samples it has one tap; of stride 2, one algorithm serves it.
    let conv = Conv { pads: vec![1; 4], strides: vec![2, 2], ..Conv::default() };
    let y = graph.add_node("conv", conv, &[Some(x), Some(w)]).unwrap()[0];
    graph.set_value_name(y, "y");
    graph.set_outputs(vec![y]);
    let model = open(bytes_of(&Artefact::from(graph)));
    let prepared = open(convert(&model, Format::Lepton, true).unwrap());
    let kept = &prepared.artefact().unwrap().prepared.as_ref().unwrap().packs;
    let extents = ["height", "width"].map(|name| (name.to_string(), 24));
    let inputs = sample_inputs(model.graph(), &extents).unwrap();
    let sessions = [&model, &prepared].map(|m| m.session(SessionOptions::default()).unwrap());
    let [expected, found] = sessions.each_ref().map(|s| s.run(&inputs).unwrap());
    assert_eq!(found, expected);
    assert_eq!(kept.len(), 1);
    assert_eq!(&sessions[1].packs(), kept);
}

#[test]
fn another_key_or_plain_lowering_starts_without_the_packs() {
    let model = open(plain());
    let mut artefact =
        artefact::read(std::sync::Arc::new(convert(&model, Format::Lepton, true).unwrap()))
            .unwrap();
    artefact.prepared.as_mut().unwrap().key = "another version".into();
    let other = open(bytes_of(&artefact));
    let expected = bits(&model.session(SessionOptions::default()).unwrap(), &model, 2);
    let session = other.session(SessionOptions::default()).unwrap();
    assert_eq!(bits(&session, &other, 2), expected);
    // Converting again without preparing leaves the packs out.
    let back = open(convert(&other, Format::Lepton, false).unwrap());
    assert!(back.artefact().unwrap().prepared.is_none());
    assert_eq!(bits(&back.session(SessionOptions::default()).unwrap(), &back, 2), expected);
}

#[test]
fn packs_that_do_not_fit_are_made_again() {
    let model = open(plain());
    let file = convert(&model, Format::Lepton, true).unwrap();
    let mut artefact = artefact::read(std::sync::Arc::new(file)).unwrap();
    for pack in &mut artefact.prepared.as_mut().unwrap().packs {
        // The parts of one constant for another, one too few, one of another length.
        pack.constant += 1;
    }
    artefact.prepared.as_mut().unwrap().packs[0].parts.clear();
    let damaged = open(bytes_of(&artefact));
    let expected = bits(&model.session(SessionOptions::default()).unwrap(), &model, 2);
    let session = damaged.session(SessionOptions::default()).unwrap();
    assert_eq!(bits(&session, &damaged, 2), expected);
}

#[test]
fn damaged_weights_of_a_prepared_file_are_found_on_request() {
    let model = open(plain());
    let mut file = convert(&model, Format::Lepton, true).unwrap();
    assert!(open(file.clone()).check_bytes().is_ok());
    let last = file.len() - 1;
    file[last] ^= 1;
    let error = open(file.clone()).check_bytes().unwrap_err().to_string();
    assert!(error.contains("`packed` is damaged"), "{error}");
    // Everything but weights and packs is checked when the file is opened.
    file[240] ^= 1;
    assert!(Model::from_bytes("model.lepton", file).is_err());
}

#[test]
fn only_lepton_files_are_prepared() {
    let error = convert(&open(plain()), Format::Onnx, true).unwrap_err().to_string();
    assert!(error.contains("only a .lepton file"), "{error}");
    let onnx = convert(&open(plain()), Format::Onnx, false).unwrap();
    assert_eq!(Model::from_bytes("model.onnx", onnx).unwrap().format(), "onnx");
}

#[test]
fn the_fastest_algorithm_is_chosen_and_kept() {
    let mut graph = Graph::new("tiles");
    let dims = [1, 16, 24, 24].map(Dim::from).to_vec();
    let x = graph.add_input("image", Fact::new(DType::F32, dims));
    let values: Vec<f32> =
        (0..16 * 16 * 9).map(|i| ((i * 37) % 101) as f32 / 101.0 - 0.5).collect();
    let w = graph.add_constant("w", Tensor::from_slice([16, 16, 3, 3], &values).unwrap());
    let y = graph.add_node("conv", Conv::default(), &[Some(x), Some(w)]).unwrap()[0];
    graph.set_value_name(y, "y");
    graph.set_outputs(vec![y]);
    let model = open(bytes_of(&Artefact::from(graph)));
    let prepared = open(convert(&model, Format::Lepton, true).unwrap());
    let kept = &prepared.artefact().unwrap().prepared.as_ref().unwrap().packs;
    assert_eq!(kept.len(), 1, "one form of the weights: the one that was the fastest");
    let inputs = sample_inputs(model.graph(), &[]).unwrap();
    let exact = SessionOptions { exact: true, ..SessionOptions::default() };
    let kernel = |model: &Model, options: SessionOptions| {
        let (outputs, steps) = model.session(options).unwrap().profile(&inputs).unwrap();
        let step = steps.iter().find(|step| step.op.starts_with("Conv")).unwrap();
        (outputs[0].to_f64_vec(), step.kernel)
    };
    let (found, chosen) = kernel(&prepared, SessionOptions::default());
    let names = [
        ("dense", "conv-f32"),
        ("winograd-2x2", "conv-winograd-2x2-f32"),
        ("winograd-4x4", "conv-winograd-4x4-f32"),
    ];
    assert!(names.contains(&(kept[0].form.as_str(), chosen)), "{} {chosen}", kept[0].form);
    let (expected, direct) = kernel(&prepared, exact);
    assert_eq!(direct, "conv-f32");
    let largest = expected.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5 * largest;
    assert!(found.iter().zip(&expected).all(close));
}
