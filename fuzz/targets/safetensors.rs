//! Fuzzes the reader of weights.
#![no_main]

mod target;

target::target!(Weights);
