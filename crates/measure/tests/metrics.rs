//! Metrics and paired tests against numbers worked by hand.

use lepton_measure::{Accumulator, Evaluation, MeasureError, Metric, MetricResult, paired_drop};
use lepton_tensor::Tensor;

fn matrix(rows: &[&[f32]]) -> Tensor {
    Tensor::from_slice([rows.len(), rows[0].len()], &rows.concat()).unwrap()
}

fn evaluate(name: &str, output: &Tensor, target: &Tensor) -> Result<Evaluation, MeasureError> {
    let mut accumulator = Accumulator::new(Metric::find(name)?);
    accumulator.update(output, Some(target))?;
    accumulator.finish()
}

fn value(name: &str, output: &Tensor, target: &Tensor) -> f64 {
    evaluate(name, output, target).unwrap().result.value
}

fn three_classes() -> (Tensor, Tensor) {
    let output = matrix(&[
        &[3.0, 1.0, 0.0],
        &[0.0, 1.0, 2.0],
        &[0.0, 5.0, 5.0],
        &[1.0, 1.0, 1.0],
        &[0.0, 0.0, 9.0],
    ]);
    (output, Tensor::vector(&[0i64, 1, 2, 0, 2]))
}

#[test]
fn top_k_takes_the_first_of_equals() {
    let (output, labels) = three_classes();
    assert_eq!(value("top1", &output, &labels), 3.0 / 5.0);
    assert_eq!(value("top5", &output, &labels), 1.0);
    let wide = matrix(&[&[6.0, 5.0, 4.0, 3.0, 2.0, 1.0], &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]);
    assert_eq!(value("top5", &wide, &Tensor::vector(&[5u8, 4])), 0.5);
}

#[test]
fn macro_precision_recall_and_f1() {
    // Predicted 0 2 1 0 2, given 0 1 2 0 2.
    let (output, labels) = three_classes();
    let close = |name, expected: f64| {
        let found = value(name, &output, &labels);
        assert!((found - expected).abs() < 1e-12, "{name}: {found}");
    };
    close("precision", (1.0 + 0.0 + 0.5) / 3.0);
    close("recall", (1.0 + 0.0 + 0.5) / 3.0);
    close("f1", (1.0 + 0.0 + 0.5) / 3.0);
}

#[test]
fn binary_metrics_agree_between_one_output_and_two() {
    let logits = [-2.0f32, 0.5, 1.5, -0.5, 3.0, -1.0];
    let labels = Tensor::vector(&[0u8, 0, 1, 1, 1, 0]);
    let one = Tensor::from_slice([6, 1], &logits).unwrap();
    let pairs: Vec<f32> = logits.iter().flat_map(|&logit| [0.0, logit]).collect();
    let two = Tensor::from_slice([6, 2], &pairs).unwrap();
    let sigmoid: Vec<f32> = logits.iter().map(|&x| 1.0 / (1.0 + (-x).exp())).collect();
    let probabilities = Tensor::vector(&sigmoid);
    for output in [&one, &two, &probabilities] {
        assert_eq!(value("top1", output, &labels), 4.0 / 6.0);
        assert_eq!(value("precision", output, &labels), 2.0 / 3.0);
        assert_eq!(value("recall", output, &labels), 2.0 / 3.0);
        assert!((value("auc", output, &labels) - 8.0 / 9.0).abs() < 1e-12);
    }
    let mut strict = Accumulator::new(Metric::find("recall").unwrap()).with_threshold(2.0);
    strict.update(&one, Some(&labels)).unwrap();
    assert_eq!(strict.finish().unwrap().result.value, 1.0 / 3.0);
}

#[test]
fn regression_means_over_outputs_and_samples() {
    let output = matrix(&[&[1.0, 2.0], &[3.0, 4.0]]);
    let target = matrix(&[&[1.0, 4.0], &[0.0, 4.0]]);
    assert_eq!(value("mae", &output, &target), 5.0 / 4.0);
    assert_eq!(value("mse", &output, &target), 13.0 / 4.0);
    let column = Tensor::from_slice([2, 1], &[1.0f32, 3.0]).unwrap();
    assert_eq!(value("mae", &column, &Tensor::vector(&[0.0f64, 5.0])), 1.5);
}

#[test]
fn agreement_is_held_against_the_original() {
    let (output, _) = three_classes();
    let other = matrix(&[
        &[9.0, 1.0, 0.0],
        &[0.0, 2.0, 1.0],
        &[0.0, 5.0, 4.0],
        &[1.0, 0.0, 0.0],
        &[0.0, 0.0, 1.0],
    ]);
    let metric = Metric::find("agreement").unwrap();
    assert!(!metric.needs_labels());
    assert_eq!(value("agreement", &other, &output), 4.0 / 5.0);
    let logits = Tensor::vector(&[-1.0f32, 2.0, 3.0]);
    assert_eq!(value("agreement", &logits, &Tensor::vector(&[-5.0f32, 1.0, -1.0])), 2.0 / 3.0);
}

#[test]
fn batches_of_any_size_give_the_same() {
    let scores: Vec<f32> = (0..300).map(|i| ((i * 7919) % 101) as f32 / 10.0).collect();
    let labels: Vec<u8> = (0..100).map(|i| ((i * i) % 3) as u8).collect();
    for name in ["top1", "f1", "precision"] {
        let metric = Metric::find(name).unwrap();
        let results: Vec<MetricResult> = [1, 7, 100]
            .into_iter()
            .map(|size| {
                let mut accumulator = Accumulator::new(metric);
                for (x, y) in scores.chunks(3 * size).zip(labels.chunks(size)) {
                    let output = Tensor::from_slice([y.len(), 3], x).unwrap();
                    accumulator.update(&output, Some(&Tensor::vector(y))).unwrap();
                }
                accumulator.finish().unwrap().result
            })
            .collect();
        assert_eq!(results[0], results[1]);
        assert_eq!(results[0], results[2]);
        assert!(results[0].low <= results[0].value && results[0].value <= results[0].high);
        assert!(results[0].high - results[0].low < 0.25);
    }
}

#[test]
fn trailing_ones_and_leading_axes_are_understood() {
    let (output, labels) = three_classes();
    let image = output.reshaped([5, 3, 1, 1]).unwrap();
    assert_eq!(value("top1", &image, &labels), 3.0 / 5.0);
    let sequence = output.reshaped([1, 5, 3]).unwrap();
    assert_eq!(value("top1", &sequence, &labels.reshaped([1, 5]).unwrap()), 3.0 / 5.0);
}

#[test]
fn bad_input_is_named() {
    let (output, labels) = three_classes();
    let message = |name: &str, output: &Tensor, target: &Tensor| {
        evaluate(name, output, target).unwrap_err().to_string()
    };
    let outside = message("top1", &output, &Tensor::vector(&[0i64, 1, 3, 0, 0]));
    assert_eq!(outside, "label 3 of sample 2 is outside the model's 3 classes");
    let negative = message("f1", &output, &Tensor::vector(&[0i64, -1, 0, 0, 0]));
    assert!(negative.starts_with("label -1 of sample 1"), "{negative}");
    assert!(message("auc", &output, &labels).contains("the model gives 3"));
    let short = message("top1", &output, &Tensor::vector(&[0i64, 1]));
    assert!(short.contains("[5, 3] do not belong to 2 labels"), "{short}");
    let nan = matrix(&[&[0.0, 1.0], &[f32::NAN, 1.0]]);
    let poisoned = message("top1", &nan, &Tensor::vector(&[0u8, 1]));
    assert!(poisoned.contains("output of sample 1"), "{poisoned}");
    let missing = Accumulator::new(Metric::find("top1").unwrap()).update(&output, None);
    assert!(missing.unwrap_err().to_string().contains("needs labels"));
    let empty = Accumulator::new(Metric::find("mae").unwrap()).finish();
    assert!(empty.unwrap_err().to_string().contains("no samples"));
    let one_class = message("auc", &Tensor::vector(&[0.1f32, 0.2]), &Tensor::vector(&[1u8, 1]));
    assert!(one_class.contains("one class"), "{one_class}");
}

fn hits(pattern: impl Fn(usize) -> bool, samples: usize) -> Evaluation {
    let scores: Vec<f32> = (0..samples)
        .flat_map(|i| if pattern(i) { [1.0, 0.0, 0.0] } else { [0.0, 1.0, 0.0] })
        .collect();
    let output = Tensor::from_slice([samples, 3], &scores).unwrap();
    evaluate("top1", &output, &Tensor::vector(&vec![0u8; samples])).unwrap()
}

#[test]
fn mcnemar_counts_the_discordant() {
    let original = hits(|i| i % 10 != 0, 1000);
    let candidate = hits(|i| i % 10 != 0 && i % 50 != 1, 1000);
    let test = paired_drop(&original, &candidate).unwrap();
    assert_eq!((test.only_original, test.only_candidate), (Some(20), Some(0)));
    assert!((test.drop - 0.02).abs() < 1e-12 && test.is_worse(), "{test:?}");
    assert!((test.p_value - 2.0 * 0.5f64.powi(20)).abs() < 1e-15);
    assert!(test.low > 0.0 && test.high < 0.04 && test.within(0.04) && !test.within(0.02));
    let back = paired_drop(&candidate, &original).unwrap();
    assert!((back.drop + 0.02).abs() < 1e-12 && !back.is_worse());
    let same = paired_drop(&original, &original).unwrap();
    assert_eq!((same.drop, same.p_value), (0.0, 1.0));
}

#[test]
fn the_paired_bootstrap_knows_which_way_is_worse() {
    let target = Tensor::vector(&(0..200).map(|i| i as f32).collect::<Vec<_>>());
    let shifted = |by: f32| {
        let values: Vec<f32> = (0..200).map(|i| i as f32 + by * (1.0 + (i % 3) as f32)).collect();
        evaluate("mae", &Tensor::vector(&values), &target).unwrap()
    };
    let test = paired_drop(&shifted(0.1), &shifted(0.2)).unwrap();
    assert!(test.drop > 0.0 && test.is_worse() && test.p_value < 0.01, "{test:?}");
    assert_eq!(test.test, "paired_bootstrap");
    assert!(paired_drop(&shifted(0.2), &shifted(0.1)).unwrap().high < 0.0);
}

#[test]
fn what_cannot_be_paired_is_refused() {
    let error = |a: &Evaluation, b: &Evaluation| paired_drop(a, b).unwrap_err().to_string();
    let original = hits(|_| true, 10);
    assert!(error(&original, &hits(|_| true, 11)).contains("10 samples against 11"));
    let (output, labels) = three_classes();
    let f1 = evaluate("f1", &output, &labels).unwrap();
    assert!(error(&original, &f1).contains("`top1` against `f1`"));
    let relabelled = evaluate("f1", &output, &Tensor::vector(&[0i64, 1, 2, 0, 1])).unwrap();
    assert!(error(&f1, &relabelled).contains("labels differ"));
}

#[test]
fn evaluations_survive_json() {
    let (output, labels) = three_classes();
    for name in ["top1", "f1"] {
        let evaluation = evaluate(name, &output, &labels).unwrap();
        let json = serde_json::to_string(&evaluation).unwrap();
        assert_eq!(serde_json::from_str::<Evaluation>(&json).unwrap(), evaluation);
    }
}
