//! The command line: `lepton VERB`. Data on stdout, messages on stderr, `--json` on every verb.
#![allow(clippy::result_large_err)]

mod arguments;
mod bench;
mod check;
mod eval;
mod inspect;
mod output;
mod profile;
mod run;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Cli, Verb};

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
        Verb::Run(arguments) => run::run(arguments),
        Verb::Eval(arguments) => eval::eval(arguments),
        Verb::Bench(arguments) => bench::bench(arguments),
        Verb::Profile(arguments) => profile::profile(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lepton: {error:#}");
            let code = error.downcast_ref::<lepton::Error>().map_or(1, lepton::Error::exit_code);
            ExitCode::from(code)
        }
    }
}
