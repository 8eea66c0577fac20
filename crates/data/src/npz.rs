//! Named tensors in and out of `.npz`.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use lepton_tensor::{DType, Storage, Tensor};
use zip::read::ZipFile;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::source::MAX_EXPANSION;
use crate::{DataError, npy};

/// The largest array that is read whole.
pub const MAX_ARRAY_BYTES: usize = 4 << 30;

/// Every array of numbers or strings of an `.npz` in the order of the archive, or the one of an
/// `.npy` under the name "". Arrays of other types (objects) are left out.
///
/// # Errors
/// For a broken archive, an array above [`MAX_ARRAY_BYTES`], big-endian or Fortran-order arrays.
pub fn read_npz(path: &Path) -> Result<Vec<(String, Tensor)>, DataError> {
    if path.extension().is_some_and(|extension| extension == "npy") {
        return Ok(vec![(String::new(), read_npy(path)?)]);
    }
    let mut archive = open(path)?;
    let mut arrays = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|e| DataError::broken(path, e))?;
        let Some(name) = array_name(path, &entry)? else { continue };
        let broken =
            |message: String| DataError::broken(path, format!("array `{name}`: {message}"));
        let available = entry.size().min(entry.compressed_size().saturating_mul(MAX_EXPANSION));
        let header = npy::read(&mut entry).map_err(broken)?;
        if header.dtype.is_err() {
            continue;
        }
        let tensor = read_elements(&mut entry, &header, available).map_err(broken)?;
        arrays.push((name, tensor));
    }
    Ok(arrays)
}

fn read_npy(path: &Path) -> Result<Tensor, DataError> {
    let mut file = io::BufReader::new(File::open(path).map_err(DataError::file(path))?);
    let available = file.get_ref().metadata().map_err(DataError::file(path))?.len();
    let broken = |message: String| DataError::broken(path, message);
    let header = npy::read(&mut file).map_err(broken)?;
    read_elements(&mut file, &header, available).map_err(broken)
}

fn read_elements(
    reader: &mut impl Read,
    header: &npy::Header,
    available: u64,
) -> Result<Tensor, String> {
    let size = header.payload()?;
    let there = available.saturating_sub(header.length as u64);
    if size as u64 > there {
        return Err(format!("shape {:?} takes {size} bytes, there are {there}", header.shape));
    }
    if size > MAX_ARRAY_BYTES {
        return Err(format!("{size} bytes are more than the limit of {MAX_ARRAY_BYTES}"));
    }
    let mut storage = Storage::zeroed(size);
    reader.read_exact(storage.make_mut()).map_err(|error| error.to_string())?;
    // To the end of the entry, so that its checksum is verified.
    io::copy(reader, &mut io::sink()).map_err(|error| error.to_string())?;
    let dtype = header.usable()?;
    let made = match dtype {
        DType::Str => {
            let strings = npy::strings(storage.bytes(), header.letters)?;
            Tensor::from_strings(header.shape.clone(), &strings)
        }
        _ => Tensor::new(dtype, header.shape.clone(), storage),
    };
    made.map_err(|error| error.to_string())
}

/// Writes tensors to an `.npz`, uncompressed like `numpy.savez`; `bf16`, which NumPy lacks, becomes
/// `f32` without loss.
pub fn write_npz<'a>(
    path: &Path,
    arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<(), DataError> {
    let file = File::create(path).map_err(DataError::file(path))?;
    let mut archive = ZipWriter::new(BufWriter::new(file));
    for (name, tensor) in arrays {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(tensor.bytes().len() > u32::MAX as usize / 2);
        let tensor = &widen(tensor);
        let text = tensor.strings().ok().map(|strings| npy::string_bytes(&strings));
        let (bytes, letters) = match &text {
            Some((bytes, letters)) => (bytes.as_slice(), *letters),
            None => (tensor.bytes(), 0),
        };
        let header = npy::write(tensor.dtype(), letters, tensor.shape()).ok_or_else(|| {
            DataError::broken(path, format!("{} has no NumPy type", tensor.dtype()))
        })?;
        archive
            .start_file(format!("{name}.npy"), options)
            .map_err(|e| DataError::broken(path, e))?;
        archive.write_all(&header).map_err(DataError::file(path))?;
        archive.write_all(bytes).map_err(DataError::file(path))?;
    }
    let file = archive.finish().map_err(|e| DataError::broken(path, e))?;
    file.into_inner().map_err(|e| DataError::file(path)(e.into_error()))?;
    Ok(())
}

/// The tensor with elements of a type that NumPy has and that holds every value of its own.
fn widen(tensor: &Tensor) -> Tensor {
    let dtype = tensor.dtype();
    let wide = match dtype {
        DType::BF16 => DType::F32,
        _ if !dtype.is_coded() => return tensor.clone(),
        _ if dtype.is_float() => DType::F32,
        _ if dtype.is_signed_integer() => DType::I8,
        _ => DType::U8,
    };
    let values = tensor.to_f64_vec();
    Tensor::from_f64_slice(wide, tensor.shape(), &values).expect("the same number of elements")
}

pub(crate) fn open(path: &Path) -> Result<ZipArchive<io::BufReader<File>>, DataError> {
    let file = File::open(path).map_err(DataError::file(path))?;
    ZipArchive::new(io::BufReader::new(file))
        .map_err(|error| DataError::broken(path, format!("not a whole zip archive: {error}")))
}

/// The array's name where a zip entry is an array.
pub(crate) fn array_name<R: Read>(
    path: &Path,
    entry: &ZipFile<'_, R>,
) -> Result<Option<String>, DataError> {
    let name = entry.name().map_err(|error| DataError::broken(path, error))?;
    Ok(name.strip_suffix(".npy").map(str::to_owned))
}
