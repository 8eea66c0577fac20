//! The runtime gives what the reference interpreter gives, on every instruction set and with one
//! and two threads; every step has a kernel.

mod batch;
mod case;
mod dynamic;
mod elements;
mod halves;
mod integers;
mod networks;
mod parts;
mod single;
mod sparse;
mod teams;
mod tiles;
mod trees;
