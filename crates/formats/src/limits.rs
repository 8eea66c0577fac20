//! The most of each thing that a file may hold; checked before anything is allocated for it.

/// Nodes of one graph.
pub const NODES: usize = 1 << 16;
/// Values (inputs, constants, results) of one graph.
pub const VALUES: usize = 1 << 18;
/// Elements of a list of an operator's attributes.
pub const LIST: usize = 1 << 20;
/// About so many bytes takes a node of a graph with its result.
pub const NODE_BYTES: usize = 1 << 10;
/// About so many bytes takes a value of a graph.
pub const VALUE_BYTES: usize = 1 << 8;
/// Axes of a tensor.
pub const RANK: usize = 32;
/// Bytes of a name.
pub const NAME_BYTES: usize = 4096;
/// Bytes of the structures that a file becomes, elements of tensors apart: of ONNX's messages, of
/// the bodies of functions, each as often as it is called, and of TFLite's tables.
pub const STRUCTURE_BYTES: usize = 64 << 20;
/// Bytes of the header of a safetensors file: names and extents.
pub const HEADER_BYTES: usize = 1 << 23;
/// Sub-graphs within sub-graphs.
pub const NESTING: usize = 8;

/// Bytes of all entropy-coded tensors of an artefact, decoded.
pub const DECODED_BYTES: usize = 1 << 31;
/// Elements of a list of tensors, and rounds of a loop that is read in place.
pub const ELEMENTS: usize = 4096;
