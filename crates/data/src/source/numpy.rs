//! Arrays of an `.npz` (or the one of an `.npy`), streamed along their first axis.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;
use lepton_tensor::{DType, Tensor};
use zip::CompressionMethod;

use super::stream::Stream;
use super::{RowReader, Source, Stored, classes};
use crate::labels::Labels;
use crate::options::{Kind, OneOrMany};
use crate::{DataError, DataOptions, npy, npz};

/// Arrays taken for labels where the options name none.
const LABELS: &str = "labels";

/// One array: where its bytes are, and what they are.
#[derive(Clone, Debug)]
struct Array {
    name: String,
    header: npy::Header,
    /// Offset of the (possibly compressed) bytes within the file, and how many.
    offset: u64,
    compressed: u64,
    deflated: bool,
}

impl Array {
    fn stream(&self, file: &Path) -> Result<Stream, DataError> {
        let mut opened = File::open(file).map_err(DataError::file(file))?;
        opened.seek(SeekFrom::Start(self.offset)).map_err(DataError::file(file))?;
        let bytes = BufReader::with_capacity(1 << 16, opened).take(self.compressed);
        Ok(Stream::new(match self.deflated {
            true => Box::new(BufReader::with_capacity(1 << 16, DeflateDecoder::new(bytes))),
            false => Box::new(bytes),
        }))
    }

    fn rows(&self) -> usize {
        self.header.shape.first().copied().unwrap_or(0)
    }

    fn numeric(&self) -> bool {
        self.header.dtype.as_ref().is_ok_and(|dtype| *dtype != DType::Str)
    }
}

pub(super) fn open(path: &Path, kind: Kind, options: &DataOptions) -> Result<Source, DataError> {
    let arrays = match kind {
        Kind::Npy => list_npy(path)?,
        _ => list_npz(path)?,
    };
    let (labels, mut files) = labels(path, &arrays, options)?;
    let chosen = choose(path, &arrays, options)?;
    let names = names(path, &chosen, options)?;
    let mut inputs = Vec::new();
    for (array, name) in chosen.iter().zip(names) {
        let unusable = |message| broken_array(path, &array.name, message);
        let size = array.header.payload().map_err(unusable)?;
        if !array.deflated && (size + array.header.length) as u64 > array.compressed {
            return Err(unusable(format!("cut off: shape {:?} needs more", array.header.shape)));
        }
        let shape = array.header.shape.get(1..).unwrap_or(&[]).to_vec();
        if array.rows() != chosen[0].rows() || array.header.shape.is_empty() {
            return Err(DataError::options(
                path,
                format!(
                    "`{}` has {} rows but `{}` has {}; name the input arrays with `array`",
                    chosen[0].name,
                    chosen[0].rows(),
                    array.name,
                    array.rows()
                ),
            ));
        }
        let dtype = array.header.usable().map_err(unusable)?;
        if dtype == DType::Str {
            return Err(unusable("data sets of strings are not supported".to_owned()));
        }
        inputs.push(Stored { name, dtype, shape, layout: None });
    }
    files.insert(0, path.to_owned());
    let (file, sizes) = (path.to_owned(), inputs.clone());
    Ok(Source {
        file: path.to_owned(),
        rows: chosen[0].rows(),
        inputs,
        labels,
        files,
        cache: Default::default(),
        reader: Box::new(move || {
            let opened = chosen.iter().zip(&sizes).map(|(array, stored)| {
                let size = stored.bytes();
                Ok(ArrayRows { stream: array.stream(&file)?, start: array.header.length, size })
            });
            let arrays = opened.collect::<Result<_, DataError>>()?;
            Ok(Box::new(NumpyRows { arrays, file: file.clone() }))
        }),
    })
}

fn broken_array(file: &Path, name: &str, message: impl std::fmt::Display) -> DataError {
    DataError::broken(file, format!("array `{name}`: {message}"))
}

fn list_npy(path: &Path) -> Result<Vec<Array>, DataError> {
    let mut file = File::open(path).map_err(DataError::file(path))?;
    let compressed = file.metadata().map_err(DataError::file(path))?.len();
    let header = npy::read(&mut file).map_err(|message| DataError::broken(path, message))?;
    Ok(vec![Array { name: String::new(), header, offset: 0, compressed, deflated: false }])
}

fn list_npz(path: &Path) -> Result<Vec<Array>, DataError> {
    let mut archive = npz::open(path)?;
    let mut arrays = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|e| DataError::broken(path, e))?;
        let Some(name) = npz::array_name(path, &entry)? else { continue };
        let deflated = match entry.compression() {
            CompressionMethod::Stored => false,
            CompressionMethod::Deflated => true,
            other => return Err(broken_array(path, &name, format!("compressed by {other}"))),
        };
        let compressed = entry.compressed_size();
        let offset = entry
            .data_start()
            .ok_or_else(|| broken_array(path, &name, "its place in the archive is unknown"))?;
        let header = npy::read(&mut entry).map_err(|e| broken_array(path, &name, e))?;
        arrays.push(Array { name, header, offset, compressed, deflated });
    }
    match arrays.is_empty() {
        true => Err(DataError::Empty { file: path.to_owned(), hint: " (no arrays)".into() }),
        false => Ok(arrays),
    }
}

fn labels(
    path: &Path,
    arrays: &[Array],
    options: &DataOptions,
) -> Result<(Option<Labels>, Vec<PathBuf>), DataError> {
    let wanted = options.labels.as_deref();
    let name = wanted.unwrap_or(LABELS);
    let found = arrays.iter().any(|array| array.name == name && !name.is_empty());
    let beside = path.parent().unwrap_or(Path::new("")).join(name);
    let (file, name) = match wanted {
        _ if found => (path.to_owned(), name),
        None => return Ok((None, vec![])),
        Some(_) if name.ends_with(".npy") && beside.is_file() => (beside, ""),
        Some(_) => return Err(DataError::options(path, missing(name, arrays))),
    };
    let tensor = npz::read_npz(&file)?.into_iter().find(|(found, _)| found == name);
    let Some((_, tensor)) = tensor else {
        return Err(DataError::options(path, format!("labels `{name}` are not numbers")));
    };
    let labels = labels_of(&file, &tensor, options)?;
    let files = if file == path { vec![] } else { vec![file] };
    Ok((Some(labels), files))
}

fn labels_of(file: &Path, tensor: &Tensor, options: &DataOptions) -> Result<Labels, DataError> {
    Labels::from_tensor(file, tensor, classes(options)?)
}

fn missing(name: &str, arrays: &[Array]) -> String {
    let known: Vec<_> = arrays.iter().map(|array| array.name.as_str()).collect();
    format!("no array `{name}`; there are: {}", known.join(", "))
}

fn choose(path: &Path, arrays: &[Array], options: &DataOptions) -> Result<Vec<Array>, DataError> {
    let labels = options.labels.as_deref().unwrap_or(LABELS);
    let chosen: Vec<Array> = match &options.array {
        None => arrays.iter().filter(|a| a.numeric() && a.name != labels).cloned().collect(),
        Some(names) => names
            .as_slice()
            .iter()
            .map(|name| {
                let found = arrays.iter().find(|array| array.name == *name).cloned();
                found.ok_or_else(|| DataError::options(path, missing(name, arrays)))
            })
            .collect::<Result<_, _>>()?,
    };
    match chosen.is_empty() {
        true => Err(DataError::options(path, "no numeric array that could be an input")),
        false => Ok(chosen),
    }
}

fn names(path: &Path, chosen: &[Array], options: &DataOptions) -> Result<Vec<String>, DataError> {
    match options.input.as_ref().map(OneOrMany::as_slice) {
        None => Ok(chosen.iter().map(|array| array.name.clone()).collect()),
        Some(names) if names.len() == chosen.len() => Ok(names.to_vec()),
        Some(names) => Err(DataError::options(
            path,
            format!(
                "`input` names {} inputs for {} arrays ({}); name the arrays with `array`",
                names.len(),
                chosen.len(),
                chosen.iter().map(|array| array.name.as_str()).collect::<Vec<_>>().join(", ")
            ),
        )),
    }
}

struct ArrayRows {
    stream: Stream,
    start: usize,
    size: usize,
}

struct NumpyRows {
    arrays: Vec<ArrayRows>,
    file: PathBuf,
}

impl RowReader for NumpyRows {
    fn read(&mut self, row: usize, into: &mut Vec<u8>) -> Result<(), DataError> {
        for array in &mut self.arrays {
            let offset = array.start as u64 + row as u64 * array.size as u64;
            let read = array.stream.read_at(offset, array.size, into);
            read.map_err(DataError::file(&self.file))?;
        }
        Ok(())
    }
}
