//! Images in one sub-folder a class.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lepton_tensor::{DType, Tensor};

use super::{RowReader, Source, Stored, classes, only_name};
use crate::image::{ImageSteps, is_image};
use crate::labels::Labels;
use crate::options::StoredLayout;
use crate::resize::Pixels;
use crate::{DataError, DataOptions};

/// Larger files are refused before they are read.
pub(super) const MAX_IMAGE_BYTES: u64 = 256 << 20;

pub(super) fn open(path: &Path, options: &DataOptions) -> Result<Source, DataError> {
    let steps = ImageSteps::new(options).map_err(|e| DataError::options(path, e))?;
    let names = class_folders(path)?;
    let given = classes(options)?;
    let (mut files, mut labels) = (Vec::new(), Vec::new());
    for name in &names {
        let class = match &given {
            Some(classes) => classes.iter().position(|class| class == name).ok_or_else(|| {
                DataError::options(path, format!("folder `{name}` is none of the classes"))
            })?,
            None => labels_index(&names, name),
        };
        for file in images(&path.join(name))? {
            files.push(file);
            labels.push(class as i64);
        }
    }
    let mut unlabelled = files.is_empty();
    if unlabelled {
        files = images(path)?;
        unlabelled = !files.is_empty();
    }
    let Some(first) = files.first() else {
        let hint = " (no .jpg, .png or .bmp images in sub-folders)".to_owned();
        return Err(DataError::Empty { file: path.to_owned(), hint });
    };
    let stored = image_input(only_name(path, options)?, &read_image(first, &steps)?);
    let labels = match unlabelled {
        true => None,
        false => {
            let classes = given.unwrap_or(names);
            Some(Labels::from_tensor(path, &Tensor::vector(&labels), Some(classes))?)
        }
    };
    let (shared, shape) = (Arc::new(files.clone()), stored.shape.clone());
    Ok(Source {
        file: path.to_owned(),
        rows: files.len(),
        inputs: vec![stored],
        labels,
        files,
        cache: Default::default(),
        reader: Box::new(move || {
            let (files, steps, shape) = (shared.clone(), steps.clone(), shape.clone());
            Ok(Box::new(FolderRows { files, steps, shape }))
        }),
    })
}

fn labels_index(names: &[String], name: &str) -> usize {
    names.iter().position(|known| known == name).expect("names come from the same list")
}

/// The input that images of this size make.
pub(super) fn image_input(name: String, first: &Pixels) -> Stored {
    let shape = vec![first.height, first.width, first.channels];
    Stored { name, dtype: DType::U8, shape, layout: Some(StoredLayout::Nhwc) }
}

/// Appends the pixels of an image that must have the size of the first.
pub(super) fn push_image(
    pixels: &Pixels,
    shape: &[usize],
    into: &mut Vec<u8>,
) -> Result<(), String> {
    let found = [pixels.height, pixels.width, pixels.channels];
    if found != shape {
        return Err(format!(
            "the image is {found:?} (height, width, channels), the first is {shape:?}; set \
             `resize = [height, width]` or `crop`, and `channels`"
        ));
    }
    into.extend_from_slice(&pixels.bytes);
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(DataError::file(folder))? {
        paths.push(entry.map_err(DataError::file(folder))?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Sub-folders with a name that is text, sorted, hidden ones left out.
fn class_folders(folder: &Path) -> Result<Vec<String>, DataError> {
    let folders = entries(folder)?.into_iter().filter(|path| path.is_dir());
    let names = folders.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
    Ok(names.filter(|name| !name.starts_with('.')).collect())
}

fn images(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let named = |path: &PathBuf| path.to_str().is_some_and(is_image);
    Ok(entries(folder)?.into_iter().filter(|path| named(path) && path.is_file()).collect())
}

fn read_image(file: &Path, steps: &ImageSteps) -> Result<Pixels, DataError> {
    let size = file.metadata().map_err(DataError::file(file))?.len();
    if size > MAX_IMAGE_BYTES {
        return Err(DataError::broken(file, format!("{size} bytes are too many for an image")));
    }
    let bytes = fs::read(file).map_err(DataError::file(file))?;
    steps.apply(&bytes).map_err(|error| DataError::broken(file, error))
}

struct FolderRows {
    files: Arc<Vec<PathBuf>>,
    steps: ImageSteps,
    shape: Vec<usize>,
}

impl RowReader for FolderRows {
    fn read(&mut self, row: usize, into: &mut Vec<u8>) -> Result<(), DataError> {
        let file = &self.files[row];
        let pixels = read_image(file, &self.steps)?;
        push_image(&pixels, &self.shape, into).map_err(|error| DataError::broken(file, error))
    }
}
