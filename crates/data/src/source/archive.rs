//! Images in a tar archive, plain or gzipped, with the label in their name.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use regex_lite::Regex;

use super::folder::{MAX_IMAGE_BYTES, image_input, push_image};
use super::stream::{self, Stream};
use super::{RowReader, Source, classes, only_name};
use crate::image::{ImageSteps, is_image};
use crate::labels::Labels;
use crate::{DataError, DataOptions};

/// What follows the last underscore of the name, up to the extension.
const LABEL_PATTERN: &str = r"_([^_/]*)\.[^./]*$";

/// Where an image lies in the uncompressed archive.
struct Entry {
    name: String,
    offset: u64,
    size: usize,
}

pub(super) fn open(path: &Path, options: &DataOptions) -> Result<Source, DataError> {
    let steps = ImageSteps::new(options).map_err(|e| DataError::options(path, e))?;
    let (entries, first) = list(path)?;
    let Some(first) = first else {
        let hint = " (no .jpg, .png or .bmp images in it)".to_owned();
        return Err(DataError::Empty { file: path.to_owned(), hint });
    };
    let pixels = steps.apply(&first).map_err(|error| broken(path, &entries[0].name, error))?;
    let stored = image_input(only_name(path, options)?, &pixels);
    let labels = labels(path, &entries, options)?;
    let (file, entries, shape) = (path.to_owned(), Arc::new(entries), stored.shape.clone());
    Ok(Source {
        file: path.to_owned(),
        rows: entries.len(),
        inputs: vec![stored],
        labels,
        files: vec![path.to_owned()],
        cache: Default::default(),
        reader: Box::new(move || {
            let stream = Stream::new(stream::open(&file).map_err(DataError::file(&file))?);
            let (file, entries) = (file.clone(), entries.clone());
            let (steps, shape) = (steps.clone(), shape.clone());
            Ok(Box::new(ArchiveRows { stream, file, entries, steps, shape }))
        }),
    })
}

fn broken(file: &Path, entry: &str, message: impl std::fmt::Display) -> DataError {
    DataError::broken(file, format!("{entry}: {message}"))
}

/// Every image of the archive, and the bytes of the first.
fn list(path: &Path) -> Result<(Vec<Entry>, Option<Vec<u8>>), DataError> {
    let unreadable = |error: std::io::Error| {
        DataError::broken(path, format!("not a whole tar archive: {error}"))
    };
    let mut archive = tar::Archive::new(stream::open(path).map_err(DataError::file(path))?);
    let (mut entries, mut first) = (Vec::new(), None);
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let name = entry.path().map_err(unreadable)?.to_string_lossy().into_owned();
        if !entry.header().entry_type().is_file() || !is_image(&name) {
            continue;
        }
        if entry.size() > MAX_IMAGE_BYTES {
            let message = format!("{} bytes are too many for an image", entry.size());
            return Err(broken(path, &name, message));
        }
        if first.is_none() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(unreadable)?;
            first = Some(bytes);
        }
        let (offset, size) = (entry.raw_file_position(), entry.size() as usize);
        entries.push(Entry { name, offset, size });
    }
    Ok((entries, first))
}

/// The label of every image, or none at all where not one name has one.
fn labels(
    path: &Path,
    entries: &[Entry],
    options: &DataOptions,
) -> Result<Option<Labels>, DataError> {
    let pattern = options.label_pattern.as_deref().unwrap_or(LABEL_PATTERN);
    let regex = Regex::new(pattern)
        .map_err(|error| DataError::options(path, format!("`label_pattern`: {error}")))?;
    let label = |entry: &Entry| Some(regex.captures(&entry.name)?.get(1)?.as_str().to_owned());
    let texts: Vec<Option<String>> = entries.iter().map(label).collect();
    let Some(bare) = texts.iter().position(Option::is_none) else {
        let texts: Vec<String> = texts.into_iter().flatten().collect();
        let place = |at: usize| (at, entries[at].name.clone());
        return Labels::from_texts(path, &texts, classes(options)?, place).map(Some);
    };
    if options.label_pattern.is_none() && texts.iter().all(Option::is_none) {
        return Ok(None);
    }
    let message = format!("the name has no label after the pattern `{pattern}`");
    Err(broken(path, &entries[bare].name, message))
}

struct ArchiveRows {
    stream: Stream,
    file: PathBuf,
    entries: Arc<Vec<Entry>>,
    steps: ImageSteps,
    shape: Vec<usize>,
}

impl RowReader for ArchiveRows {
    fn read(&mut self, row: usize, into: &mut Vec<u8>) -> Result<(), DataError> {
        let entry = &self.entries[row];
        let mut bytes = Vec::new();
        let read = self.stream.read_at(entry.offset, entry.size, &mut bytes);
        read.map_err(DataError::file(&self.file))?;
        let pixels = self.steps.apply(&bytes);
        pixels
            .and_then(|pixels| push_image(&pixels, &self.shape, into))
            .map_err(|error| broken(&self.file, &entry.name, error))
    }
}
