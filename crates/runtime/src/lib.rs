//! Plans and runs graphs; the only crate that joins `ir` and `kernels`.
//!
//! A [`Session`] lowers a graph once, specialises it to each set of input shapes it meets, and
//! keeps a bounded number of plans. A plan is a flat list of steps over one arena.
#![allow(clippy::result_large_err)]

mod arena;
mod batch;
mod choices;
mod cores;
mod engine;
mod error;
mod heap;
mod limits;
mod pace;
mod packs;
mod parts;
mod place;
mod plan;
mod rounds;
mod sections;
mod session;
mod single;
mod steps;
mod stepwise;
mod team;
mod threads;
mod trace;
mod watch;
mod workers;

pub use error::RuntimeError;
pub use heap::StartHeap;
pub use limits::{Arithmetic, Limit, Limits};
pub use packs::PREPARED_KEY;
pub use session::{Lowering, PlanSummary, Session, SessionOptions, SmallSteps};
pub use threads::Threads;
pub use trace::StepProfile;
