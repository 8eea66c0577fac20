//! Fuzzes the reader of TFLite.
#![no_main]

mod target;

target::target!(Tflite);
