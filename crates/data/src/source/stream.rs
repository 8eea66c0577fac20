//! A stream read forwards, which remembers where it is.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

/// Forward-only reading at rising offsets.
pub(crate) struct Stream {
    reader: Box<dyn Read>,
    position: u64,
}

impl Stream {
    pub(crate) fn new(reader: Box<dyn Read>) -> Self {
        Stream { reader, position: 0 }
    }

    /// Appends `length` bytes at `offset`, which must not lie before what was read already.
    pub(crate) fn read_at(
        &mut self,
        offset: u64,
        length: usize,
        into: &mut Vec<u8>,
    ) -> io::Result<()> {
        let skip = offset.checked_sub(self.position).expect("rows are read in increasing order");
        let skipped = io::copy(&mut (&mut self.reader).take(skip), &mut io::sink())?;
        let read = (&mut self.reader).take(length as u64).read_to_end(into)?;
        if skipped != skip || read != length {
            let message = "the file ends before its last row: it is cut off";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        self.position = offset + length as u64;
        Ok(())
    }
}

/// Opens a file that may be compressed with gzip, as its first bytes tell.
pub(crate) fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut magic = Vec::new();
    File::open(path)?.take(2).read_to_end(&mut magic)?;
    let file = BufReader::with_capacity(1 << 16, File::open(path)?);
    if magic == [0x1f, 0x8b] {
        return Ok(Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))));
    }
    Ok(Box::new(file))
}
