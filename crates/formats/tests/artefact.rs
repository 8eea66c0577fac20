//! Artefacts round-trip, and no damage to one makes the reader panic.

use std::sync::Arc;

use lepton_formats::artefact::{Artefact, Golden, read, write};
use lepton_ir::ops::matmul::MatMul;
use lepton_ir::{Dim, Fact, Graph};
use lepton_tensor::{DType, Tensor};

fn sample() -> Artefact {
    let mut graph = Graph::new("tiny");
    let dims = vec![Dim::symbol("batch"), Dim::known(2)];
    let x = graph.add_input("x", Fact::new(DType::F32, dims));
    let w = Tensor::from_slice([2, 1], &[0.5f32, -1.0]).unwrap();
    let w = graph.add_constant("w", w);
    let y = graph.add_node("product", MatMul {}, &[Some(x), Some(w)]).unwrap()[0];
    graph.set_value_name(y, "y");
    graph.set_outputs(vec![y]);
    let golden = Golden {
        inputs: vec![Tensor::from_slice([1, 2], &[2.0f32, 1.0]).unwrap()],
        outputs: vec![Tensor::from_slice([1, 1], &[0.0f32]).unwrap()],
    };
    Artefact { graph, golden: Some(golden), provenance: "{}".into(), measurements: "{}".into() }
}

#[test]
fn writing_and_reading_are_inverse_and_canonical() {
    let artefact = sample();
    let bytes = write(&artefact).unwrap();
    assert_eq!(bytes, write(&artefact).unwrap());
    assert!(bytes.len() < 1024, "{} bytes", bytes.len());
    let back = read(Arc::new(bytes.clone())).unwrap();
    assert_eq!(write(&back).unwrap(), bytes);
    let golden = back.golden.unwrap();
    assert_eq!(lepton_ir::interpret::run(&back.graph, &golden.inputs).unwrap(), golden.outputs);
}

#[test]
fn damage_is_an_error_never_a_panic() {
    let bytes = write(&sample()).unwrap();
    for length in 0..bytes.len() {
        assert!(read(Arc::new(bytes[..length].to_vec())).is_err(), "cut to {length}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let _ = read(Arc::new(changed));
    }
}
