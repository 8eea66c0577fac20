//! Every matrix kernel on every instruction set of this machine, against naive references.

mod attention;
mod bf16;
mod case;
mod depthwise;
mod float;
mod grouped;
mod groups;
mod integer;
mod sparse;
mod stem;
