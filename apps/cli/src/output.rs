//! What verbs print: one JSON object with its schema, or lines for people.

use std::io::Write;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

/// `println!` to a reader that may go away, as `head` does: the program then ends quietly.
macro_rules! say {
    ($($text:tt)*) => { $crate::output::line(format_args!("{}\n", format_args!($($text)*))) };
}

/// `print!` in the manner of [`say`].
macro_rules! say_part {
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}

pub(crate) use {say, say_part};

/// Writes to stdout; a reader that went away ends the program.
pub fn line(text: std::fmt::Arguments<'_>) {
    if let Err(error) = std::io::stdout().lock().write_fmt(text) {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            eprintln!("lepton: cannot write the output: {error}");
            std::process::exit(1);
        }
        std::process::exit(0);
    }
}

/// An error and its causes in one line; a cause that the error's own text has is not repeated.
pub fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(|cause| cause.to_string()) {
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

/// Version of the JSON that verbs print.
const SCHEMA: u32 = 1;

/// Prints `value` as JSON with its schema and verb.
pub fn print_json(verb: &str, value: Value) -> Result<()> {
    let mut object = json!({ "schema": format!("lepton.{verb}/{SCHEMA}") });
    if let (Some(into), Some(from)) = (object.as_object_mut(), value.as_object()) {
        into.extend(from.clone());
    }
    say!("{}", serde_json::to_string_pretty(&object)?);
    Ok(())
}

/// A number of bytes as people write it, as in the report.
pub fn bytes(count: usize) -> String {
    lepton::report::bytes(count as u64)
}

/// A count as people write it.
pub fn count(value: u64) -> String {
    match value {
        0..10_000 => value.to_string(),
        10_000..10_000_000 => format!("{:.1} k", value as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} M", value as f64 / 1e6),
        _ => format!("{:.2} G", value as f64 / 1e9),
    }
}

/// A progress bar with ETA on stderr; invisible where that is no terminal.
pub struct Bar(ProgressBar);

impl Bar {
    /// Of `total` units of work.
    pub fn new(total: u64, unit: &str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let template = format!("{{bar:30}} {{percent:>3}} % {{msg}} {unit} (ETA {{eta}})");
        bar.set_style(ProgressStyle::with_template(&template).expect("the template is fixed"));
        Bar(bar)
    }

    /// So much is done.
    pub fn at(&self, done: u64) {
        self.0.set_position(done);
    }

    /// So much of `total` is done, and this is going on.
    pub fn tell(&self, done: u64, total: u64, message: String) {
        self.0.set_length(total);
        self.0.set_position(done.min(total));
        self.0.set_message(message);
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.0.finish_and_clear();
    }
}
