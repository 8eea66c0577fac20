//! TensorFlow Lite's operators and models through the engine, against its interpreter.

#[path = "../../formats/tests/tflite/cases.rs"]
mod cases;

use std::path::{Path, PathBuf};

use lepton::{DType, Model, Session, SessionOptions, Tensor, read_npz};
use lepton_ir::ValueId;

fn assets() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
    let folder = std::env::var_os("LEPTON_ASSETS").map_or_else(beside, PathBuf::from);
    if folder.join("CATALOGUE.md").exists() {
        return Some(folder.canonicalize().expect("it exists"));
    }
    println!("skipped: no assets");
    None
}

#[test]
fn operators_give_what_the_interpreter_gives() {
    let mut wrong = Vec::new();
    for (name, case) in cases::all() {
        let model = Model::from_bytes(&name, case.model.clone()).unwrap();
        let given = cases::operands(model.graph(), &case);
        let session = Session::new(model.graph(), SessionOptions::default()).unwrap();
        let outcome = match session.run(&given) {
            Ok(outputs) => cases::difference(&case, &outputs),
            Err(error) => Some(error.to_string()),
        };
        wrong.extend(outcome.map(|why| format!("{name}: {why}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The inputs of the stored outputs; benches/parity_tflite.py makes the same.
fn made_up(name: &str, dtype: DType, shape: &[usize], number: usize) -> Tensor {
    let value = |i: usize| {
        let byte = ((31 * i + 13 * (i / 7) + 17 * number) % 256) as f64;
        match dtype {
            DType::F32 if name.contains("text_classification") => byte,
            DType::F32 => (byte - 128.0) / 64.0,
            DType::I8 => byte - 128.0,
            _ => byte,
        }
    };
    let values: Vec<f64> = (0..shape.iter().product()).map(value).collect();
    Tensor::from_f64_slice(dtype, shape, &values).unwrap()
}

/// Models whose outputs differ by more than a step, and by how much they may: ranges found at each
/// run round elsewhere where a value is half-way.
const APART: &[(&str, f64)] = &[("kws_ref_model_float32", 0.06), ("model_quant_", 0.01)];

fn compare(assets: &Path, line: &str) -> Option<String> {
    let mut words = line.split(' ');
    let (name, output) = (words.next()?, words.next()?.parse::<usize>().ok()?);
    let expected: Vec<f64> = words.map(|word| word.parse().unwrap()).collect();
    let model = Model::open(assets.join(name)).unwrap();
    let graph = model.graph();
    let input = |(k, &id): (usize, &ValueId)| {
        let fact = graph.fact(id);
        let shape: Vec<usize> = fact.dims.iter().map(|dim| dim.as_usize().unwrap_or(1)).collect();
        made_up(name, fact.dtype, &shape, k)
    };
    let inputs: Vec<Tensor> = graph.inputs().iter().enumerate().map(input).collect();
    let session = Session::new(graph, SessionOptions::default()).unwrap();
    let found = session.run(&inputs).unwrap().swap_remove(output);
    let values = found.to_f64_vec();
    let some = values.iter().step_by(values.len().div_ceil(16));
    let exception = APART.iter().find(|(part, _)| name.contains(part)).map(|(_, apart)| *apart);
    let apart = exception.unwrap_or(if found.dtype() == DType::F32 { 1e-4 } else { 1.0 });
    let relative = found.dtype() == DType::F32;
    let far =
        |e: f64, f: f64| (e - f).abs() > apart * if relative { e.abs().max(1.0) } else { 1.0 };
    let count = expected.iter().zip(some.clone()).filter(|&(e, f)| far(*e, *f)).count();
    (count > 0 || some.count() != expected.len()).then(|| format!("{name} {output}: {count} apart"))
}

#[test]
#[ignore = "seconds in release; .ci/run runs it by name"]
fn models_give_what_the_interpreter_gives() {
    let Some(assets) = assets() else { return };
    let lines = include_str!("tflite_reference.txt").lines();
    let wrong: Vec<String> = lines.filter_map(|line| compare(&assets, line)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a model takes of a stored number.
type Conversion = fn(f64) -> f64;

/// Model, data, the names of rows and labels there, conversion, and how many rows the interpreter
/// gets right (as the assets' catalogue says).
const MODELS: &[(&str, &str, &str, Conversion, usize)] = &[
    (RESNET, IC01, "images", |v| v, 171),
    (RESNET_INT8, IC01, "images", |v| v - 128.0, 170),
    (VWW, VWW01, "images", |v| v / 255.0, 209),
    (VWW_INT8, VWW01, "images", |v| v - 128.0, 207),
    (KWS, KWS01, "features", |v| (v - 83.0) * 0.58470291, 899),
    (KWS_INT8, KWS01, "features", |v| v, 902),
];
const RESNET: &str = "image/mlperf_tiny_resnet8/pretrainedResnet.tflite";
const RESNET_INT8: &str = "image/mlperf_tiny_resnet8/pretrainedResnet_quant.tflite";
const IC01: &str = "image/mlperf_tiny_resnet8/ic01_200_u8_nhwc.npz";
const VWW: &str = "image/mlperf_tiny_vww/vww_96_float.tflite";
const VWW_INT8: &str = "image/mlperf_tiny_vww/vww_96_int8.tflite";
const VWW01: &str = "image/mlperf_tiny_vww/vww01_240_u8_nhwc.npz";
const KWS: &str = "audio/mlperf_tiny_kws/kws_ref_model_float32.tflite";
const KWS_INT8: &str = "audio/mlperf_tiny_kws/kws_ref_model.tflite";
const KWS01: &str = "audio/mlperf_tiny_kws/kws01_mfcc_int8_1000.npz";

fn right(model: &Model, rows: &Tensor, labels: &[i64], convert: Conversion) -> usize {
    let session = Session::new(model.graph(), SessionOptions::default()).unwrap();
    let fact = model.graph().fact(model.graph().inputs()[0]);
    let shape: Vec<usize> = fact.dims.iter().map(|dim| dim.as_usize().unwrap_or(1)).collect();
    let values: Vec<f64> = rows.to_f64_vec().into_iter().map(convert).collect();
    let size = values.len() / labels.len();
    let is_right = |(row, label): (&[f64], &i64)| {
        let x = Tensor::from_f64_slice(fact.dtype, shape.clone(), row).unwrap();
        let scores = session.run(&[x]).unwrap()[0].to_f64_vec();
        let best =
            (0..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
        best as i64 == *label
    };
    values.chunks_exact(size).zip(labels).filter(|pair| is_right(*pair)).count()
}

#[test]
#[ignore = "seconds in release; .ci/run runs it by name"]
fn accuracies_are_those_of_the_interpreter() {
    let Some(assets) = assets() else { return };
    for &(model, data, name, convert, expected) in MODELS {
        let model = Model::open(assets.join(model)).unwrap();
        let arrays = read_npz(&assets.join(data)).unwrap();
        let array = |name: &str| &arrays.iter().find(|(n, _)| n == name).unwrap().1;
        let labels = array("labels").to_i64_vec();
        let found = right(&model, array(name), &labels, convert);
        let of = labels.len();
        println!("{}: {found} of {of}, expected {expected}", model.path().display());
        assert_eq!(found, expected);
    }
}
