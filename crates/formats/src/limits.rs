//! The most of each thing that a file may hold; checked before anything is allocated for it.

/// Nodes of one graph.
pub const NODES: usize = 1 << 18;
/// Values (inputs, constants, results) of one graph.
pub const VALUES: usize = 1 << 20;
/// Axes of a tensor.
pub const RANK: usize = 32;
/// Bytes of a name.
pub const NAME_BYTES: usize = 4096;
/// Bytes of the bodies of all functions that a model calls, each as often as it is called.
pub const EXPANDED_BYTES: usize = 1 << 28;
/// Bytes of the header of a safetensors file: names and extents.
pub const HEADER_BYTES: usize = 1 << 25;
/// Sub-graphs within sub-graphs.
pub const NESTING: usize = 8;

/// Bytes of all entropy-coded tensors of an artefact, decoded.
pub const DECODED_BYTES: usize = 1 << 31;
/// Elements of a list of tensors, and rounds of a loop that is read in place.
pub const ELEMENTS: usize = 4096;
