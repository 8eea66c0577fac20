//! Every matrix kernel on every instruction set of this machine, against naive references.

mod case;
mod float;
mod integer;
