//! Damaged files: thousands of seeded mutations per reader. None may panic, hang, give a graph
//! that breaks the rules, or allocate out of proportion. Files that once did lie in `found/`, and
//! what coverage-guided fuzzing kept (`cargo xtask fuzz`) in `corpus/`.

mod attempt;
#[path = "../../../ir/tests/sweep/cases.rs"]
#[allow(dead_code)]
mod cases;
mod corpus;
mod damage;
#[path = "../../../ir/tests/sweep/more.rs"]
#[allow(dead_code)]
mod more;
#[path = "../tflite/cases.rs"]
#[allow(dead_code)]
mod tflite_cases;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use attempt::{Target, attempt};
use damage::{Random, damage};
use lepton_formats::artefact::{self, Artefact, Golden};
use lepton_formats::onnx::{self, WriteOptions};
use lepton_formats::safetensors;
use lepton_ir::{Fact, Graph};
use lepton_tensor::{DType, Tensor};

/// Every case of the sweep over the operators as a graph, and one of several nodes.
fn graphs() -> Vec<Graph> {
    let mut graphs = Vec::new();
    for case in cases::all() {
        let mut graph = Graph::new("case");
        let mut operands = Vec::new();
        for (index, tensor) in case.inputs.into_iter().enumerate() {
            operands.push(tensor.map(|tensor| match tensor.dtype() {
                DType::F64 if index == 0 => {
                    graph.add_input("x", Fact::dense(DType::F64, tensor.shape()))
                }
                _ => graph.add_constant(format!("c{index}"), tensor),
            }));
        }
        let made = graph.add_node("node", case.op, &operands).unwrap();
        for (index, id) in made.iter().enumerate() {
            graph.set_value_name(*id, format!("y{index}"));
        }
        graph.set_outputs(made);
        graphs.push(graph);
    }
    graphs
}

/// Files to start from, for each target.
fn files() -> Vec<(Target, Vec<Vec<u8>>)> {
    let file = |target: Target, graph: &Graph| match target {
        Target::Onnx => onnx::write(graph, &WriteOptions::default()).ok(),
        Target::Graph => Some(lepton_ir::text::print(graph).into_bytes()),
        Target::Lepton => {
            let tensor = Tensor::vector(&[1f32, 2.0]);
            let golden = Some(Golden { inputs: vec![tensor.clone()], outputs: vec![tensor] });
            let bare = Artefact::from(graph.clone());
            artefact::write(&Artefact { golden, provenance: "{}".into(), ..bare }).ok()
        }
        Target::Tflite => None,
        Target::Weights => {
            let named = graph.constants().len() > 1;
            named.then(|| safetensors::write(graph).ok()).flatten()
        }
    };
    let graphs = graphs();
    let files = |&target: &Target| {
        let mut list: Vec<Vec<u8>> = graphs.iter().filter_map(|g| file(target, g)).collect();
        if target == Target::Tflite {
            list.extend(tflite_cases::all().into_values().map(|case| case.model));
        }
        (target, list)
    };
    Target::ALL.iter().map(files).collect()
}

/// Mutates until `more` says no; gives how many files were read of each target, and how many of
/// them were graphs.
fn mutations(
    seed: u64,
    files: &[(Target, Vec<Vec<u8>>)],
    mut more: impl FnMut(usize) -> bool,
) -> Vec<(usize, usize)> {
    let mut random = Random(seed);
    let (mut count, mut counts) = (0, vec![(0, 0); files.len()]);
    while more(count) {
        let chosen = random.below(files.len());
        let (target, list) = &files[chosen];
        let mut bytes = list[random.below(list.len())].clone();
        let other = &list[random.below(list.len())];
        damage(&mut random, *target, &mut bytes, other);
        let outcome = catch_unwind(AssertUnwindSafe(|| attempt(*target, &bytes)));
        counts[chosen].0 += 1;
        counts[chosen].1 += *outcome.as_ref().unwrap_or(&false) as usize;
        if outcome.is_err() {
            let name = format!("seed{seed}-{count}.{}", target.extension());
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            std::fs::write(&path, &bytes).unwrap();
            panic!("move {} to tests/found and make it pass", path.display());
        }
        count += 1;
    }
    counts
}

/// Every prefix of the smallest file, and every value of each of its bytes.
fn cut_and_changed(target: Target, small: &[u8]) {
    for length in 0..small.len() {
        attempt(target, &small[..length]);
    }
    for at in 0..small.len() {
        for value in 0..=255 {
            let mut bytes = small.to_vec();
            bytes[at] = value;
            attempt(target, &bytes);
        }
    }
}

/// One test, because what others allocate meanwhile would count.
#[test]
fn damaged_files_are_errors_or_valid_graphs() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/found");
    for entry in std::fs::read_dir(found).unwrap() {
        let path = entry.unwrap().path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if let Some(target) = Target::ALL.iter().find(|f| f.extension() == extension) {
            println!("{}", path.display());
            attempt(*target, &std::fs::read(&path).unwrap());
        }
    }
    for &target in Target::ALL {
        let kept = corpus::read(target);
        let valid = kept.iter().filter(|bytes| attempt(target, bytes)).count();
        println!("{target:?}: {} files of the corpus, {valid} of them graphs", kept.len());
        assert!(valid > 0, "the corpus holds valid files too");
    }
    let files = files();
    for (target, list) in &files {
        for bytes in list {
            assert!(attempt(*target, bytes), "the files to start from are valid");
        }
        cut_and_changed(*target, list.iter().min_by_key(|bytes| bytes.len()).unwrap());
    }
    for (count, valid) in mutations(1, &files, |count| count < 100_000) {
        println!("{count} mutations, {valid} of them still graphs");
        assert!(valid > count / 20 && valid < count, "mutations must reach what is behind checks");
    }
}

/// Longer: `LEPTON_FUZZ_SECONDS` seconds (60 if not set) from another seed each time, starting
/// from the corpora too.
#[test]
#[ignore = "runs for LEPTON_FUZZ_SECONDS"]
fn damaged_files_for_longer() {
    let seconds = std::env::var("LEPTON_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(60));
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut files = files();
    files.iter_mut().for_each(|(target, list)| list.extend(corpus::read(*target)));
    for (count, valid) in mutations(clock.as_nanos() as u64, &files, |_| Instant::now() < end) {
        println!("{count} mutations, {valid} of them still graphs");
    }
}

/// Writes the files to start from below `LEPTON_FUZZ_SEEDS`, a folder per target, for
/// `cargo xtask fuzz`.
#[test]
#[ignore = "called by cargo xtask fuzz"]
fn write_seeds() {
    let Some(folder) = std::env::var_os("LEPTON_FUZZ_SEEDS") else { return };
    for (target, mut list) in files() {
        let folder = Path::new(&folder).join(target.extension());
        std::fs::create_dir_all(&folder).unwrap();
        list.extend(corpus::read(target));
        for (index, bytes) in list.iter().enumerate() {
            std::fs::write(folder.join(format!("seed{index}")), bytes).unwrap();
        }
    }
}
