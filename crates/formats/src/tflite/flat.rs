//! FlatBuffers as bytes: tables, vectors and strings, every offset checked before it is followed.
//!
//! An encoding of tables with optional fields: a table starts with the distance back to its
//! vtable, which holds for each field its distance from the table, or 0 where it has its default
//! (flatbuffers.dev/internals). Nothing is copied, and nothing is followed twice by itself: a
//! reader of nested tables bounds its own depth.

use crate::error::FormatError;

/// Where in a file something is wrong.
fn damaged(offset: usize, why: impl Into<String>) -> FormatError {
    FormatError::Damaged { format: "TFLite", offset, why: why.into() }
}

/// A table of a file.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Distances of the fields from `at`, two bytes each.
    fields: &'a [u8],
}

/// The list of a field: its elements are read where it is walked.
#[derive(Clone, Copy, Debug)]
pub struct Vector<'a> {
    bytes: &'a [u8],
    start: usize,
    length: usize,
}

macro_rules! scalars {
    ($($name:ident: $type:ty;)*) => {$(
        #[doc = concat!("The `", stringify!($type), "` in a field, or its default.")]
        pub fn $name(&self, field: usize, default: $type) -> Result<$type, FormatError> {
            match self.position(field)? {
                None => Ok(default),
                Some(at) => Ok(<$type>::from_le_bytes(array(self.bytes, at)?)),
            }
        }
    )*};
}

macro_rules! elements {
    ($($name:ident: $type:ty;)*) => {$(
        #[doc = concat!("The elements as `", stringify!($type), "`.")]
        pub fn $name(&self) -> Result<Vec<$type>, FormatError> {
            const SIZE: usize = size_of::<$type>();
            let bytes = self.slice(SIZE)?;
            let element = |b: &[u8]| <$type>::from_le_bytes(b.try_into().expect("a whole chunk"));
            Ok(bytes.chunks_exact(SIZE).map(element).collect())
        }
    )*};
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], FormatError> {
    let found = at.checked_add(N).and_then(|end| bytes.get(at..end));
    let found = found.ok_or_else(|| damaged(at, format!("{N} bytes are needed here")))?;
    Ok(found.try_into().expect("a slice of that length"))
}

fn offset(bytes: &[u8], at: usize) -> Result<usize, FormatError> {
    let distance = u32::from_le_bytes(array(bytes, at)?) as usize;
    let target = at.checked_add(distance).filter(|&target| target < bytes.len());
    target.filter(|_| distance > 0).ok_or_else(|| damaged(at, "an offset leads out of the file"))
}

/// The table a file begins with.
pub fn root(bytes: &[u8]) -> Result<Table<'_>, FormatError> {
    Table::at(bytes, offset(bytes, 0)?)
}

impl<'a> Table<'a> {
    fn at(bytes: &'a [u8], at: usize) -> Result<Self, FormatError> {
        let back = i32::from_le_bytes(array(bytes, at)?);
        let vtable = (at as i64).checked_sub(i64::from(back));
        let vtable = vtable.and_then(|v| usize::try_from(v).ok());
        let vtable = vtable.ok_or_else(|| damaged(at, "a table's fields lie before the file"))?;
        let size = usize::from(u16::from_le_bytes(array(bytes, vtable)?));
        let end = vtable.checked_add(size);
        let fields = end.filter(|_| size >= 4).and_then(|end| bytes.get(vtable + 4..end));
        let fields = fields.ok_or_else(|| damaged(vtable, "a table's fields do not fit"))?;
        Ok(Table { bytes, at, fields })
    }

    /// Where the table is in the file.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Where a field is, if it has not its default.
    fn position(&self, field: usize) -> Result<Option<usize>, FormatError> {
        let Some(pair) = self.fields.get(2 * field..2 * field + 2) else { return Ok(None) };
        match u16::from_le_bytes(pair.try_into().expect("two bytes")) {
            0 => Ok(None),
            distance => {
                let at = self.at.checked_add(usize::from(distance));
                let at = at.filter(|&at| at < self.bytes.len());
                at.map(Some).ok_or_else(|| damaged(self.at, "a field lies behind the file"))
            }
        }
    }

    scalars! {
        i8: i8;
        u8: u8;
        i32: i32;
        u32: u32;
        u64: u64;
        f32: f32;
    }

    /// The truth value in a field, or its default.
    pub fn bool(&self, field: usize, default: bool) -> Result<bool, FormatError> {
        Ok(self.u8(field, u8::from(default))? != 0)
    }

    /// The table in a field.
    pub fn table(&self, field: usize) -> Result<Option<Table<'a>>, FormatError> {
        let Some(at) = self.position(field)? else { return Ok(None) };
        Table::at(self.bytes, offset(self.bytes, at)?).map(Some)
    }

    /// The list in a field; empty where it is absent.
    pub fn vector(&self, field: usize) -> Result<Vector<'a>, FormatError> {
        let Some(at) = self.position(field)? else {
            return Ok(Vector { bytes: self.bytes, start: 0, length: 0 });
        };
        let at = offset(self.bytes, at)?;
        let length = u32::from_le_bytes(array(self.bytes, at)?) as usize;
        if length > self.bytes.len() - at {
            return Err(damaged(at, format!("a list of {length} elements does not fit")));
        }
        Ok(Vector { bytes: self.bytes, start: at + 4, length })
    }

    /// The text in a field; empty where it is absent.
    pub fn text(&self, field: usize) -> Result<String, FormatError> {
        Ok(String::from_utf8_lossy(self.vector(field)?.slice(1)?).into_owned())
    }
}

impl<'a> Vector<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.length
    }

    /// The bytes of elements of `size` bytes.
    fn slice(&self, size: usize) -> Result<&'a [u8], FormatError> {
        let end = self.length.checked_mul(size).and_then(|n| self.start.checked_add(n));
        let found = end.and_then(|end| self.bytes.get(self.start..end));
        found.ok_or_else(|| damaged(self.start, "a list does not fit in the file"))
    }

    elements! {
        i32s: i32;
        i64s: i64;
        f32s: f32;
    }

    /// The elements, of one byte.
    pub fn bytes(&self) -> Result<&'a [u8], FormatError> {
        self.slice(1)
    }

    /// Where the elements, of one byte, are in the file.
    pub fn byte_range(&self) -> Result<std::ops::Range<usize>, FormatError> {
        self.slice(1)?;
        Ok(self.start..self.start + self.length)
    }

    /// The tables.
    pub fn tables(&self) -> Result<Vec<Table<'a>>, FormatError> {
        self.slice(4)?;
        let place = |index: usize| offset(self.bytes, self.start + 4 * index);
        (0..self.length).map(|index| Table::at(self.bytes, place(index)?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root offset, a vtable of two fields, a table with an i32 and a list of two bytes.
    fn file() -> Vec<u8> {
        let mut bytes = vec![12, 0, 0, 0];
        bytes.extend([8u8, 0, 12, 0, 4, 0, 8, 0]);
        bytes.extend(8i32.to_le_bytes());
        bytes.extend((-7i32).to_le_bytes());
        bytes.extend(4u32.to_le_bytes());
        bytes.extend(2u32.to_le_bytes());
        bytes.extend([5, 6]);
        bytes
    }

    #[test]
    fn fields_are_found() {
        let bytes = file();
        let table = root(&bytes).unwrap();
        assert_eq!(table.i32(0, 3).unwrap(), -7);
        assert_eq!(table.i32(2, 3).unwrap(), 3);
        let place = table.vector(1).unwrap().byte_range().unwrap();
        assert_eq!(bytes[place], [5, 6]);
    }

    #[test]
    fn any_byte_may_be_wrong() {
        for at in 0..file().len() {
            for value in 0..=255 {
                let mut bytes = file();
                bytes[at] = value;
                let Ok(table) = root(&bytes) else { continue };
                let _ = (table.i32(0, 0), table.table(1), table.text(1));
                if let Ok(list) = table.vector(1) {
                    let _ = (list.byte_range(), list.tables(), list.i64s());
                }
            }
        }
    }
}
