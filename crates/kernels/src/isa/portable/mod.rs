//! Kernels in plain Rust, for any machine.

pub(crate) mod vector;
