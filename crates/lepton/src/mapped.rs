//! Files as bytes: mapped where large, read where small.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;

use crate::error::Error;
use crate::foreign;

/// Files below this are read; mapping costs more than copying them.
const READ_BELOW: u64 = 1 << 20;

/// The bytes of a file.
pub(crate) fn file_bytes(path: &Path) -> Result<Bytes, Error> {
    let failed = |error| Error::File { path: path.to_path_buf(), error };
    let file = File::open(path).map_err(|error| failed(foreign::missing(path, error)))?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(std::io::Error::other(foreign::directory(path))));
    }
    if !metadata.is_file() {
        return Err(failed(std::io::Error::other("not a regular file")));
    }
    if metadata.len() < READ_BELOW {
        return std::fs::read(path).map(Bytes::from).map_err(failed);
    }
    // SAFETY: the map is private and only read. Another process that truncates the file while it
    // is mapped would raise SIGBUS; model files are replaced by renaming, not by truncation.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(failed)?;
    Ok(Bytes::from_owner(map))
}
