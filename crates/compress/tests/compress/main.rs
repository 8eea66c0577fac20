//! Compression on small graphs and on real models.

mod assets;
mod static_int8;
