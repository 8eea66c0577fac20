//! A data description in TOML: the keys of [`DataOptions`], with `[train]` and `[test]` tables that
//! override them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::options::DescriptionFile;
use crate::{DataError, DataOptions};

/// A description is small; this keeps a mistaken path from being read whole.
const MAX_BYTES: u64 = 1 << 20;

/// What a description says, with its paths made relative to the working folder.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) base: DataOptions,
    pub(crate) train: Option<DataOptions>,
    pub(crate) test: Option<DataOptions>,
}

pub(crate) fn read(file: &Path) -> Result<Description, DataError> {
    let mut text = String::new();
    let opened = File::open(file).map_err(DataError::file(file))?;
    opened.take(MAX_BYTES).read_to_string(&mut text).map_err(DataError::file(file))?;
    parse(file, &text)
}

fn parse(file: &Path, text: &str) -> Result<Description, DataError> {
    let parsed: DescriptionFile =
        toml::from_str(text).map_err(|error| explain(file, text, &error))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let located = |mut options: DataOptions| {
        let join = |path: &mut PathBuf| *path = folder.join(&*path);
        options.path.as_mut().map(join);
        options.classes.as_mut().map(join);
        options
    };
    let (base, train, test) = parsed.parts();
    Ok(Description { base: located(base), train: train.map(located), test: test.map(located) })
}

fn explain(file: &Path, text: &str, error: &toml::de::Error) -> DataError {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count() + 1;
    let mut message = error.message().to_owned();
    if let Some(rest) = message.strip_prefix("unknown field `")
        && let Some((key, _)) = rest.split_once('`')
    {
        message = format!("unknown key `{key}`{}", nearest(key));
    }
    DataError::Description { file: file.to_owned(), line, message }
}

fn nearest(key: &str) -> String {
    let distance = |known: &&&str| strsim::damerau_levenshtein(key, known);
    match DataOptions::KEYS.iter().chain(&["train", "test"]).min_by_key(distance) {
        Some(known) if distance(&known) <= key.len().div_ceil(2) => {
            format!("; did you mean `{known}`?")
        }
        _ => format!("; known: {}", DataOptions::KEYS.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        parse(Path::new("d/data.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn tables_override_and_paths_are_relative_to_the_file() {
        let text = "path = \"../a.npz\"\nscale = \"1/255\"\n[test]\npath = \"/b.npz\"\nlimit = 3";
        let description = parse(Path::new("d/data.toml"), text).unwrap();
        let test = description.base.overridden_by(&description.test.unwrap());
        assert_eq!(description.base.path.unwrap(), Path::new("d/../a.npz"));
        assert_eq!(test.path.as_deref(), Some(Path::new("/b.npz")));
        assert!(test.scale.is_some() && description.train.is_none());
    }

    #[test]
    fn unknown_keys_name_file_line_and_the_nearest() {
        let found = message("path = \"a\"\n\nresise = 3");
        assert_eq!(found, "d/data.toml:3: unknown key `resise`; did you mean `resize`?");
        let found = message("[train]\nlayuot = \"nchw\"");
        assert_eq!(found, "d/data.toml:2: unknown key `layuot`; did you mean `layout`?");
        assert!(message("qqqqqqqqqqqqqqqq = 1").contains("known: path, kind"));
    }

    #[test]
    fn wrong_types_and_syntax_name_the_line() {
        assert!(message("limit = 1\nlayout = \"nhcw\"").starts_with("d/data.toml:2: "));
        assert!(message("limit = \"many\"").starts_with("d/data.toml:1: "));
        assert!(message("path = \"a\"\n[train\n").starts_with("d/data.toml:2: "));
    }
}
