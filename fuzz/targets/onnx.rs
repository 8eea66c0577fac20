//! Fuzzes the reader of ONNX.
#![no_main]

mod target;

target::target!(Onnx);
