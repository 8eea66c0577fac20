//! The journal: every finished step of a search, one line of JSON each, so that a search that was
//! interrupted goes on where it was.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::NavigateError;

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    what: String,
    value: Value,
}

/// Finished steps by their key. A key is a digest of everything the step's result depends on.
pub struct Journal {
    path: PathBuf,
    file: File,
    done: HashMap<String, Value>,
    found: usize,
    added: usize,
}

impl Journal {
    /// Opens or creates the journal. A last line that was cut off is dropped: its step is done
    /// again.
    pub fn open(path: &Path) -> Result<Self, NavigateError> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(NavigateError::file(path))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(NavigateError::file(path))?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            file.set_len(whole as u64).map_err(NavigateError::file(path))?;
        }
        let mut done = HashMap::new();
        for (index, line) in text[..whole].split(|&byte| byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let line: Line = serde_json::from_slice(line).map_err(|error| {
                let why = error.to_string();
                NavigateError::Journal { path: path.to_owned(), line: index + 1, why }
            })?;
            done.insert(line.key, line.value);
        }
        let found = done.len();
        Ok(Journal { path: path.to_owned(), file, done, found, added: 0 })
    }

    /// Steps that were there when the journal was opened.
    pub fn found(&self) -> usize {
        self.found
    }

    /// Steps added since.
    pub fn added(&self) -> usize {
        self.added
    }

    /// The result under `key`, if that step is done and its result can be read.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        self.done.get(key).and_then(|value| T::deserialize(value).ok())
    }

    /// Adds a finished step; it is on the disk when this returns.
    pub fn put<T: Serialize>(
        &mut self,
        key: &str,
        what: &str,
        value: &T,
    ) -> Result<(), NavigateError> {
        let failed = |error: serde_json::Error| NavigateError::File {
            path: self.path.clone(),
            error: std::io::Error::other(error),
        };
        let value = serde_json::to_value(value).map_err(failed)?;
        let line = Line { key: key.to_owned(), what: what.to_owned(), value };
        let mut text = serde_json::to_vec(&line).map_err(failed)?;
        text.push(b'\n');
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        written.map_err(NavigateError::file(&self.path))?;
        self.done.insert(line.key, line.value);
        self.added += 1;
        Ok(())
    }
}

/// 32 hexadecimal digits that stand for these parts.
pub fn key(parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Writes a file so that it is there whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), NavigateError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(&part, path)
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&part);
        NavigateError::File { path: path.to_owned(), error }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_line_is_dropped_and_the_rest_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        journal.put("a", "first", &1.5).unwrap();
        journal.put("b", "second", &vec![1u64, 2]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut journal = Journal::open(&path).unwrap();
            let lines = whole[..cut].iter().filter(|&&b| b == b'\n').count();
            assert_eq!(journal.found(), lines, "cut at {cut}");
            journal.put("c", "third", &"x").unwrap();
            let again = Journal::open(&path).unwrap();
            assert_eq!(again.get::<String>("c").as_deref(), Some("x"));
            assert_eq!(again.get::<f64>("a"), (lines > 0).then_some(1.5));
        }
    }

    #[test]
    fn a_foreign_file_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        std::fs::write(&path, "my notes\nmore\n").unwrap();
        let error = Journal::open(&path).err().expect("not a journal").to_string();
        assert!(error.contains("line 1"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"my notes\nmore\n");
    }
}
