//! The command line: `lepton VERB`. Data on stdout, messages on stderr, `--json` on every verb.
#![allow(clippy::result_large_err)]

mod arguments;
mod arrays;
mod bench;
mod check;
mod convert;
mod diff;
mod eval;
mod inspect;
mod optimize;
mod output;
mod profile;
mod rows;
mod run;
mod units;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Cli, Verb};

/// Opening and planning a graph takes many small pieces of memory.
#[global_allocator]
static HEAP: lepton::StartHeap = lepton::StartHeap::new();

/// Exit code of a search that found nothing within the limits.
const GOAL_NOT_MET: u8 = 4;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let done = match &cli.verb {
        Verb::Inspect(arguments) => inspect::inspect(arguments),
        Verb::Check(arguments) => check::check(arguments),
        Verb::Convert(arguments) => convert::convert(arguments),
        Verb::Run(arguments) => run::run(arguments),
        Verb::Eval(arguments) => eval::eval(arguments),
        Verb::Bench(arguments) => bench::bench(arguments),
        Verb::Profile(arguments) => profile::profile(arguments),
        Verb::Diff(arguments) => diff::diff(arguments),
        Verb::Optimize(arguments) => match optimize::optimize(arguments) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::from(GOAL_NOT_MET),
            Err(error) => Err(error),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lepton: {}", output::told(&error));
            let code = error.downcast_ref::<lepton::Error>().map_or(1, lepton::Error::exit_code);
            ExitCode::from(code)
        }
    }
}
