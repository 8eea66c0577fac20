//! Compression on small graphs and on real models.

mod assets;
mod graphs;
mod lowering;
mod methods;
mod static_int8;
