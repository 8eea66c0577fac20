//! The rules of the house, so that `cargo test` can hold the repository to them: who may use whom,
//! how long things may be, where `unsafe` may stand, what may not be called what.
//!
//! Each rule is a function from what it looks at to a list of [`Finding`]s, so that each can be
//! shown to fail.

pub mod layers;
pub mod names;
pub mod shape;
pub mod unsafety;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One broken rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// File, relative to the repository.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong, the limit, and what to do.
    pub message: String,
}

impl Finding {
    /// A finding at a line of a file.
    pub fn new(file: &str, line: usize, message: impl Into<String>) -> Self {
        Finding { file: file.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// A Rust file, read and parsed.
pub struct RustFile {
    /// Path relative to the repository, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
    /// Its items.
    pub items: syn::File,
    /// Its tokens, macros included.
    pub tokens: proc_macro2::TokenStream,
}

impl RustFile {
    /// Parses a file's text.
    ///
    /// # Panics
    /// Where it is not Rust; the compiler would refuse it too.
    pub fn parse(path: &str, text: &str) -> Self {
        let fault = |error| panic!("{path}: not Rust: {error}");
        RustFile {
            path: path.to_owned(),
            text: text.to_owned(),
            items: syn::parse_file(text).unwrap_or_else(fault),
            tokens: text.parse().unwrap_or_else(|error| panic!("{path}: not Rust: {error}")),
        }
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the package lies two folders below the root")
}

/// The files git tracks, and those it would: relative paths. `None`, said on the output, outside a
/// git checkout (a published archive has been through this already).
pub fn files() -> Option<Vec<String>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .ok()
        .filter(|output| output.status.success());
    let Some(listed) = listed else {
        println!("skipped: not a git checkout");
        return None;
    };
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let there = |path: &&str| !path.is_empty() && root().join(path).is_file();
    Some(listed.split('\0').filter(there).map(str::to_owned).collect())
}

/// Every Rust file among [`files`].
pub fn rust_files() -> Option<Vec<RustFile>> {
    let rust = files()?.into_iter().filter(|path| path.ends_with(".rs"));
    let parse = |path: String| {
        let text = fs::read_to_string(root().join(&path)).expect("git lists files that exist");
        RustFile::parse(&path, &text)
    };
    Some(rust.map(parse).collect())
}
