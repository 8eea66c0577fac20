//! Compression on small graphs and on real models.

#![allow(clippy::result_large_err)]

mod assets;
mod graphs;
mod lowering;
mod methods;
mod static_int8;
