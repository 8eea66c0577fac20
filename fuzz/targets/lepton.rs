//! Fuzzes the reader of artefacts, whose sections keep their right hashes.
#![no_main]

mod target;

target::target!(Lepton);
