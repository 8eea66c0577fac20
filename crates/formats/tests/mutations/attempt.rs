//! What is tried with damaged files, and what must hold whatever they are.

use std::sync::Arc;
use std::time::Duration;

use lepton_formats::{Format, NoExternalData, artefact, onnx, safetensors, tflite};
use lepton_ir::ops::unary::Unary;
use lepton_ir::{Graph, dim::Bindings};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Most bytes that reading may allocate: a fixed part, which values and nodes at their limits, in lists
/// that have just grown, or the constants that decompositions make may take, and a part per byte of
/// the file.
const FIXED_BYTES: usize = 168 << 20;
const BYTES_PER_BYTE: usize = 256;
const LONGEST: Duration = Duration::from_secs(5);

/// Extents that symbols are bound to.
const EXTENTS: &[i64] = &[0, 1, 3, 64, 1 << 40, i64::MAX];

/// What reads the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The reader of ONNX.
    Onnx,
    /// The reader of TFLite.
    Tflite,
    /// The reader of artefacts.
    Lepton,
    /// The reader of weights.
    Weights,
    /// The text form of graphs, and shape inference on any operator, attributes and extents.
    Graph,
}

impl Target {
    /// All of them, in this order.
    pub const ALL: &[Target] =
        &[Target::Onnx, Target::Tflite, Target::Lepton, Target::Weights, Target::Graph];

    /// The end of the names of its files, and the name of its corpus.
    pub fn extension(self) -> &'static str {
        match self {
            Target::Onnx => Format::Onnx.extension(),
            Target::Tflite => Format::Tflite.extension(),
            Target::Lepton => Format::Lepton.extension(),
            Target::Weights => safetensors::EXTENSION,
            Target::Graph => "graph",
        }
    }
}

fn read(target: Target, owned: Vec<u8>) -> Result<Graph, String> {
    let read = match target {
        Target::Onnx => onnx::read(owned.into(), &NoExternalData),
        Target::Tflite => tflite::read(owned.into()),
        Target::Lepton => {
            artefact::read(Arc::new(owned)).map(|artefact| Arc::unwrap_or_clone(artefact.graph))
        }
        Target::Weights => safetensors::read(owned.into()).map(|weights| holding(&weights)),
        Target::Graph => {
            let text = String::from_utf8_lossy(&owned);
            return lepton_ir::text::parse(&text).map_err(|error| error.to_string());
        }
    };
    read.map_err(|error| error.to_string())
}

/// A graph of these weights, which takes them again.
fn holding(weights: &safetensors::Weights) -> Graph {
    let mut graph = Graph::new("weights");
    for (name, tensor) in weights {
        let constant = graph.add_constant(name.as_str(), tensor.clone());
        // Extents beside a zero may be larger than any graph takes.
        let _ = graph.add_node("", Unary::default(), &[Some(constant)]);
    }
    // Integers that are no weights have no place, and names may be empty or twice.
    if safetensors::replace(&mut graph, weights).is_ok() {
        for (name, tensor) in weights.iter().filter(|(name, _)| !name.is_empty()) {
            let kept = graph.constant(graph.find_value(name).unwrap()).unwrap();
            assert_eq!(kept.bytes(), tensor.bytes());
        }
    }
    graph
}

/// What this thread has worked, whatever else the machine does.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Reads a file, checks what comes of it, and says whether it was a graph.
pub fn attempt(target: Target, bytes: &[u8]) -> bool {
    let owned = bytes.to_vec();
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let start = processor_time();
    let graph = read(target, owned);
    let spent = processor_time() - start;
    let used = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(spent < LONGEST, "reading took {spent:?}");
    let limit = FIXED_BYTES + bytes.len() * BYTES_PER_BYTE;
    assert!(used <= limit, "{used} bytes were allocated for a file of {}", bytes.len());
    match graph {
        Ok(graph) => {
            graph.verify().unwrap();
            infer(&graph);
            true
        }
        Err(why) => {
            assert!(!why.is_empty());
            false
        }
    }
}

/// Infers all shapes again, for extents that the graph leaves open.
fn infer(graph: &Graph) {
    let symbols = graph.symbols();
    for &extent in EXTENTS.iter().take(if symbols.is_empty() { 0 } else { EXTENTS.len() }) {
        let bindings: Bindings = symbols.iter().map(|name| (name.clone(), extent)).collect();
        if let Ok(bound) = graph.specialised(&bindings) {
            bound.verify().unwrap();
        }
    }
}
