//! The IDX format of MNIST: a magic number, big-endian extents, bytes.

use std::io::Read;
use std::path::{Path, PathBuf};

use lepton_tensor::{DType, Storage, Tensor, checked_product};

use super::stream::{self, Stream};
use super::{RowReader, Source, Stored, classes, only_name};
use crate::labels::Labels;
use crate::npz::{MAX_ARRAY_BYTES, read_npz};
use crate::options::StoredLayout;
use crate::{DataError, DataOptions};

struct Header {
    dtype: DType,
    shape: Vec<usize>,
    length: u64,
}

fn read_header(file: &Path, reader: &mut dyn Read) -> Result<Header, DataError> {
    let broken = |message: &str| DataError::broken(file, message);
    let mut magic = [0; 4];
    reader.read_exact(&mut magic).map_err(|_| broken("cut off inside the IDX header"))?;
    let dtype = match magic {
        [0, 0, 0x08, _] => DType::U8,
        [0, 0, 0x09, _] => DType::I8,
        [0, 0, 0x0b..=0x0e, _] => return Err(broken("only IDX files of bytes are supported")),
        _ => return Err(broken("not an IDX file")),
    };
    let mut shape = Vec::new();
    for _ in 0..magic[3] {
        let mut extent = [0; 4];
        reader.read_exact(&mut extent).map_err(|_| broken("cut off inside the IDX header"))?;
        shape.push(u32::from_be_bytes(extent) as usize);
    }
    if shape.is_empty() || checked_product(&shape).is_none_or(|size| size > isize::MAX as usize) {
        return Err(broken("the IDX header claims an impossible shape"));
    }
    Ok(Header { dtype, shape, length: 4 + 4 * u64::from(magic[3]) })
}

pub(super) fn open(path: &Path, options: &DataOptions) -> Result<Source, DataError> {
    let mut reader = stream::open(path).map_err(DataError::file(path))?;
    let header = read_header(path, &mut *reader)?;
    let shape = header.shape[1..].to_vec();
    let image = matches!(shape.len(), 2 | 3);
    let stored = Stored {
        name: only_name(path, options)?,
        dtype: header.dtype,
        layout: image.then_some(options.stored_layout.unwrap_or(StoredLayout::Nhwc)),
        shape,
    };
    let mut files = vec![path.to_owned()];
    let mut labels = None;
    if let Some(file) = labels_file(path, options) {
        let tensor = read_labels(&file)?;
        labels = Some(Labels::from_tensor(&file, &tensor, classes(options)?)?);
        files.push(file);
    }
    let (file, size, start) = (path.to_owned(), stored.bytes(), header.length);
    Ok(Source {
        file: path.to_owned(),
        rows: header.shape[0],
        inputs: vec![stored],
        labels,
        files,
        cache: Default::default(),
        reader: Box::new(move || {
            let stream = Stream::new(stream::open(&file).map_err(DataError::file(&file))?);
            Ok(Box::new(IdxRows { stream, file: file.clone(), size, start }))
        }),
    })
}

/// The labels named by the options, or beside the images under MNIST's naming.
fn labels_file(path: &Path, options: &DataOptions) -> Option<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new(""));
    if let Some(name) = &options.labels {
        return Some(folder.join(name));
    }
    let name = path.file_name()?.to_str()?;
    let beside = folder.join(name.replace("images-idx3", "labels-idx1"));
    (beside != path && beside.is_file()).then_some(beside)
}

/// Reads a file of labels: IDX (compressed or not) or NumPy.
fn read_labels(file: &Path) -> Result<Tensor, DataError> {
    if file.extension().is_some_and(|extension| extension == "npy") {
        let mut arrays = read_npz(file)?;
        return Ok(arrays.remove(0).1);
    }
    let mut reader = stream::open(file).map_err(DataError::file(file))?;
    let header = read_header(file, &mut *reader)?;
    let size: usize = header.shape.iter().product();
    if size > MAX_ARRAY_BYTES {
        return Err(DataError::broken(file, format!("{size} bytes of labels are too many")));
    }
    let mut bytes = Vec::new();
    reader.take(size as u64).read_to_end(&mut bytes).map_err(DataError::file(file))?;
    Tensor::new(header.dtype, header.shape, Storage::copied(&bytes))
        .map_err(|error| DataError::broken(file, format!("cut off: {error}")))
}

struct IdxRows {
    stream: Stream,
    file: PathBuf,
    size: usize,
    start: u64,
}

impl RowReader for IdxRows {
    fn read(&mut self, row: usize, into: &mut Vec<u8>) -> Result<(), DataError> {
        let offset = self.start + row as u64 * self.size as u64;
        self.stream.read_at(offset, self.size, into).map_err(DataError::file(&self.file))
    }
}
