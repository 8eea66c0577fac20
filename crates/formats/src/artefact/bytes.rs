//! Varints, texts and a cursor that never reads outside.

use crate::error::{FormatError, at_most};

/// Appends seven bits a byte, lowest first.
pub fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// Appends a signed integer, small magnitudes short.
pub fn put_signed(to: &mut Vec<u8>, value: i64) {
    put_varint(to, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a length and UTF-8.
pub fn put_text(to: &mut Vec<u8>, text: &str) {
    put_varint(to, text.len() as u64);
    to.extend_from_slice(text.as_bytes());
}

/// A position in a section.
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    start: usize,
}

impl<'a> Cursor<'a> {
    /// At the front of `bytes`, which are at `start` of the file.
    pub fn new(bytes: &'a [u8], start: usize) -> Self {
        Cursor { bytes, at: 0, start }
    }

    /// An error at this position.
    pub fn error(&self, why: &str) -> FormatError {
        FormatError::Damaged { format: "Lepton", offset: self.start + self.at, why: why.into() }
    }

    /// The next `length` bytes.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| self.error("it ends too early"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A little-endian number of up to eight bytes.
    pub fn number(&mut self, length: usize) -> Result<u64, FormatError> {
        let bytes = self.take(length)?;
        Ok(bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | byte as u64))
    }

    /// A varint, in its shortest form.
    pub fn varint(&mut self) -> Result<u64, FormatError> {
        if let Some(&byte) = self.bytes.get(self.at).filter(|&&byte| byte < 0x80) {
            self.at += 1;
            return Ok(u64::from(byte));
        }
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.number(1)?;
            if shift == 63 && byte > 1 || shift > 0 && byte == 0 {
                break;
            }
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.error("not a number in its shortest form"))
    }

    /// A signed varint.
    pub fn signed(&mut self) -> Result<i64, FormatError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A count of at most `limit`, and of no more than the bytes that are left.
    pub fn count(&mut self, what: &'static str, limit: usize) -> Result<usize, FormatError> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        at_most(what, count, limit.min(self.bytes.len() - self.at))?;
        Ok(count)
    }

    /// A text of at most `limit` bytes, where it lies.
    pub fn word(&mut self, limit: usize) -> Result<&'a str, FormatError> {
        let length = self.count("length of a text", limit)?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.error("a text is not UTF-8"))
    }

    /// A text of at most `limit` bytes.
    pub fn text(&mut self, limit: usize) -> Result<String, FormatError> {
        self.word(limit).map(str::to_string)
    }

    /// An error if something is left over.
    pub fn finish(&self) -> Result<(), FormatError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.error("bytes left over")) }
    }
}
