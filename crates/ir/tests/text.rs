//! The text form: printing and parsing are inverse, and errors name the line.

use lepton_ir::{GraphError, interpret, text};
use lepton_tensor::Tensor;

const SMALL: &str = r#"graph "small" {
  input %x: f32[batch,1,4,4]
  const %w: f32[2,1,3,3] = [1., 0., 0., 0., 1., 0., 0., 0., 1., 0.5, 0., 0., 0., 0.5, 0., 0., 0., -0.5]
  const %"odd name": f32[2] = [0.25, -1.]
  %conv: f32[batch,2,4,4] = Conv(%x, %w, %"odd name") {pads=[1, 1, 1, 1], activation="clip(0,6)"} "first"
  %pooled: f32[batch,2,1,1] = Pool(%conv) {function="average", global=1}
  %flat: f32[batch,2] = Flatten(%pooled)
  %y: f32[batch,2] = Softmax(%flat)
  output %y
}
"#;

#[test]
fn printing_and_parsing_are_inverse() {
    let graph = text::parse(SMALL).unwrap();
    assert_eq!(text::print(&graph), SMALL);
    assert_eq!(text::parse(&text::print(&graph)).unwrap(), graph);
}

#[test]
fn the_interpreter_runs_it() {
    let graph = text::parse(SMALL).unwrap();
    let x = Tensor::from_slice([2, 1, 4, 4], &[1.0f32; 32]).unwrap();
    let y = interpret::run(&graph, &[x]).unwrap();
    assert_eq!(y[0].shape(), [2, 2]);
    let y = y[0].as_slice::<f32>().unwrap();
    assert!((y[0] + y[1] - 1.0).abs() < 1e-6 && y[0] > y[1]);
}

#[test]
fn specialising_binds_every_extent() {
    let graph = text::parse(SMALL).unwrap();
    let bindings = graph.bindings_for(&[&[3, 1, 4, 4]]).unwrap();
    let bound = graph.specialised(&bindings).unwrap();
    assert_eq!(bound.output_specs()[0].1.shape(), Some(vec![3, 2]));
    let error = graph.bindings_for(&[&[3, 1, 4, 5]]).unwrap_err();
    assert!(matches!(error, GraphError::Input { ref name, .. } if name == "x"), "{error}");
}

#[test]
fn errors_name_line_and_node() {
    let wrong = SMALL.replace("f32[batch,2,4,4]", "f32[batch,2,4,5]");
    let error = text::parse(&wrong).unwrap_err().to_string();
    assert!(error.starts_with("line 5:") && error.contains("f32[batch,2,4,4]"), "{error}");
    let unknown = SMALL.replace("Softmax", "Softmux");
    assert!(text::parse(&unknown).unwrap_err().to_string().contains("Softmux"));
    let attribute = SMALL.replace("global=1", "globl=1");
    assert!(text::parse(&attribute).unwrap_err().to_string().contains("known: function"));
}
