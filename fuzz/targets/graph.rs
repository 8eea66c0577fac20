//! Fuzzes shape inference, through the text form of graphs.
#![no_main]

mod target;

target::target!(Graph);
