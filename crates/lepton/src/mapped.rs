//! Files as bytes: mapped where large, read where small.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;

use crate::error::Error;
use crate::foreign;

/// Files below this are read; mapping costs more than copying them.
const READ_BELOW: u64 = 1 << 16;

/// Bytes of packed forms from which mapping them at once is faster: the system maps small ones in a few
/// requests anyway.
#[cfg(target_os = "linux")]
const EXPECT_FROM: usize = 8 << 20;

/// Has the pages from the first to the last of these parts of a file's bytes mapped at once: one after
/// the other, when they are met, costs twice as much.
#[cfg(target_os = "linux")]
pub(crate) fn expect<'a>(file: &[u8], parts: impl Iterator<Item = &'a [u8]>) {
    let file = file.as_ptr_range();
    let inside =
        |part: &&[u8]| file.contains(&part.as_ptr()) && part.as_ptr_range().end <= file.end;
    let (mut first, mut last) = (file.end, file.start);
    for part in parts.filter(inside).map(<[u8]>::as_ptr_range) {
        (first, last) = (first.min(part.start), last.max(part.end));
    }
    if last.addr().saturating_sub(first.addr()) >= EXPECT_FROM {
        let into_page = first.addr() % rustix::param::page_size();
        let start = first.wrapping_sub(into_page).cast_mut().cast();
        let length = last.addr() - first.addr() + into_page;
        let advice = rustix::mm::Advice::LinuxPopulateRead;
        // SAFETY: the range lies in the file's bytes but for the rest of a page, and no byte changes.
        // It is a request, which the system may refuse.
        let _ = unsafe { rustix::mm::madvise(start, length, advice) };
    }
}

/// Pages are mapped when they are met.
#[cfg(not(target_os = "linux"))]
pub(crate) fn expect<'a>(_: &[u8], _: impl Iterator<Item = &'a [u8]>) {}

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
    // What is not in memory yet is then read in large pages: fewer requests now, fewer page faults in every
    // process later. The system may refuse.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(Bytes::from_owner(map))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_mapped_file_are_there_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let written: Vec<u8> = (0..EXPECT_FROM + 12345).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &written).unwrap();
        let (file, elsewhere) = (file_bytes(&path).unwrap(), vec![7u8; 100]);
        let parts = [&file[100..200], &elsewhere[..], &file[EXPECT_FROM + 5000..], &[]];
        expect(&file, parts.into_iter());
        expect(&file, [].into_iter());
        assert!(file == written && elsewhere == [7; 100]);
    }
}
