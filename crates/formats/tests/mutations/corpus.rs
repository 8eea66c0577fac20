//! What fuzzing kept: for each target an archive of small files that reach different parts of it.

use std::io::Read;
use std::path::Path;

use super::attempt::Target;

/// The files of a target's corpus, in the order of the archive.
pub fn read(target: Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let packed = std::fs::read(folder.join(format!("{}.tar.xz", target.extension()))).unwrap();
    let mut unpacked = Vec::new();
    lzma_rs::xz_decompress(&mut packed.as_slice(), &mut unpacked).unwrap();
    let mut files = Vec::new();
    for entry in tar::Archive::new(unpacked.as_slice()).entries().unwrap() {
        let mut bytes = Vec::new();
        entry.unwrap().read_to_end(&mut bytes).unwrap();
        files.push(bytes);
    }
    files
}
