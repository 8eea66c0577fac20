//! Cases whose results are random: the numbers cannot be those of the files, but their form is, and
//! what a share says holds on average.

use lepton_formats::onnx;
use lepton_tensor::Tensor;

use crate::{Way, archive, cases, given, read, tensors};

const BEGINNING: &str = "test_bernoulli";
const FOUND: usize = 6;

#[test]
fn random_results_have_the_right_form() {
    let Some(archive) = archive() else { return };
    let cases = cases(&archive);
    let mut seen = 0;
    for (name, files) in cases.iter().filter(|(name, _)| name.starts_with(BEGINNING)) {
        let [inputs, outputs] = onnx::slots(files["model.onnx"].clone().into()).unwrap();
        let (graph, _) = read(files, &inputs).unwrap_or_else(|why| panic!("{name}: {why}"));
        let given = given(files, 0, "input", &inputs).unwrap();
        let given: Vec<Tensor> = given.into_iter().flatten().flatten().collect();
        let expected = tensors(files, 0, "output", &outputs).unwrap();
        for way in Way::all() {
            let found = way.run(&graph, &given).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert_eq!(found[0].dtype(), expected[0].dtype(), "{name}");
            assert_eq!(found[0].shape(), expected[0].shape(), "{name}");
            assert!(found[0].to_f64_vec().iter().all(|v| [0.0, 1.0].contains(v)), "{name}");
            assert_eq!(found, way.run(&graph, &given).unwrap(), "{name}: the same in every run");
        }
        seen += 1;
    }
    assert_eq!(seen, FOUND);
}
