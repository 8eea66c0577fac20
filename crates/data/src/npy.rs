//! NumPy's `.npy` header (format versions 1 to 3), read and written.

use std::io::Read;

use lepton_tensor::{DType, checked_product};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// NumPy writes some 128 bytes; structured types may take more, absurd lengths are refused.
const MAX_HEADER_BYTES: usize = 1 << 16;
/// NumPy's own limit of axes.
const MAX_RANK: usize = 64;
/// NumPy keeps strings in UTF-32.
const BYTES_PER_LETTER: usize = 4;

/// What the header says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Header {
    /// Element type; `Err` holds NumPy's name of one Lepton cannot hold.
    pub(crate) dtype: Result<DType, String>,
    /// Letters of a string, four bytes each; 0 for numbers.
    pub(crate) letters: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) fortran_order: bool,
    /// Bytes before the first element.
    pub(crate) length: usize,
}

impl Header {
    /// Bytes of the elements, or why there cannot be such an array.
    pub(crate) fn payload(&self) -> Result<usize, String> {
        let size = match self.usable()? {
            DType::Str => self.letters.checked_mul(BYTES_PER_LETTER),
            dtype => Some(dtype.size()),
        };
        checked_product(&self.shape)
            .zip(size)
            .and_then(|(count, size)| count.checked_mul(size))
            .ok_or_else(|| format!("shape {:?} is larger than memory can address", self.shape))
    }

    /// The element type, where the elements can be used as they lie.
    pub(crate) fn usable(&self) -> Result<DType, String> {
        let dtype = self.dtype.clone().map_err(|name| {
            format!("element type {name} is not supported; save it as a little-endian number")
        })?;
        if self.fortran_order && self.shape.len() > 1 {
            return Err("stored in Fortran order; save it with numpy.ascontiguousarray".to_owned());
        }
        Ok(dtype)
    }
}

/// The strings in the bytes of an array of `letters` letters each; NUL fills their ends.
pub(crate) fn strings(bytes: &[u8], letters: usize) -> Result<Vec<String>, String> {
    let (codes, _) = bytes.as_chunks::<BYTES_PER_LETTER>();
    let string = |codes: &[[u8; BYTES_PER_LETTER]]| {
        let end = codes.iter().rposition(|code| *code != [0; BYTES_PER_LETTER]);
        let letter = |code: &[u8; BYTES_PER_LETTER]| char::from_u32(u32::from_le_bytes(*code));
        let found: Option<String> =
            codes[..end.map_or(0, |end| end + 1)].iter().map(letter).collect();
        found.ok_or_else(|| "a string has a code that is no letter".to_owned())
    };
    codes.chunks_exact(letters.max(1)).map(string).collect()
}

/// The bytes of strings, and how many letters each has.
pub(crate) fn string_bytes(strings: &[&str]) -> (Vec<u8>, usize) {
    let letters = strings.iter().map(|s| s.chars().count()).max().unwrap_or(0).max(1);
    let mut bytes = Vec::with_capacity(strings.len() * letters * BYTES_PER_LETTER);
    for (i, string) in strings.iter().enumerate() {
        string.chars().for_each(|letter| bytes.extend(u32::from(letter).to_le_bytes()));
        bytes.resize((i + 1) * letters * BYTES_PER_LETTER, 0);
    }
    (bytes, letters)
}

/// Reads a header, leaving `reader` at the first element.
pub(crate) fn read(reader: &mut impl Read) -> Result<Header, String> {
    let mut start = [0; 8];
    reader.read_exact(&mut start).map_err(|_| "cut off inside the .npy header")?;
    if &start[..6] != MAGIC {
        return Err("not a .npy array".to_owned());
    }
    let mut size = [0; 4];
    let width = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(format!("unknown .npy version {version}")),
    };
    reader.read_exact(&mut size[..width]).map_err(|_| "cut off inside the .npy header")?;
    let size = u32::from_le_bytes(size) as usize;
    if size > MAX_HEADER_BYTES {
        return Err(format!("the .npy header claims {size} bytes"));
    }
    let mut text = vec![0; size];
    reader.read_exact(&mut text).map_err(|_| "cut off inside the .npy header")?;
    let text = String::from_utf8(text).map_err(|_| "the .npy header is not text")?;
    let mut header = parse(&text).ok_or_else(|| format!("unreadable .npy header `{text}`"))?;
    header.length = 8 + width + size;
    Ok(header)
}

/// The header of a little-endian array in C order, of strings of so many letters or of numbers;
/// `None` for a type NumPy does not have.
pub(crate) fn write(dtype: DType, letters: usize, shape: &[usize]) -> Option<Vec<u8>> {
    let name = match dtype {
        DType::Str => format!("U{letters}"),
        _ => NAMES.iter().find(|(_, known)| *known == dtype)?.0.to_owned(),
    };
    let byte_order = if dtype.size() == 1 { '|' } else { '<' };
    let extents: String = shape.iter().map(|extent| format!("{extent}, ")).collect();
    let extents = if shape.len() > 1 { extents.trim_end_matches(", ") } else { extents.trim_end() };
    let mut text = format!(
        "{{'descr': '{byte_order}{name}', 'fortran_order': False, 'shape': ({extents}), }}"
    );
    // The elements start on a multiple of 64 bytes; the last byte of the header is a line feed.
    let padding = 63 - (10 + text.len()) % 64;
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend(u16::try_from(text.len()).ok()?.to_le_bytes());
    bytes.extend(text.as_bytes());
    Some(bytes)
}

const NAMES: [(&str, DType); 12] = [
    ("f4", DType::F32),
    ("f8", DType::F64),
    ("f2", DType::F16),
    ("i1", DType::I8),
    ("i2", DType::I16),
    ("i4", DType::I32),
    ("i8", DType::I64),
    ("u1", DType::U8),
    ("u2", DType::U16),
    ("u4", DType::U32),
    ("u8", DType::U64),
    ("b1", DType::Bool),
];

/// The dictionary is Python source, but NumPy always writes the same three keys.
fn parse(text: &str) -> Option<Header> {
    let after = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}'"))?;
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    };
    let fortran_order = match after("fortran_order")? {
        rest if rest.starts_with("True") => true,
        rest if rest.starts_with("False") => false,
        _ => return None,
    };
    let (extents, _) = after("shape")?.strip_prefix('(')?.split_once(')')?;
    let shape: Vec<usize> = extents
        .split(',')
        .map(|extent| extent.trim().trim_end_matches('L'))
        .filter(|extent| !extent.is_empty())
        .map(|extent| extent.parse().ok())
        .collect::<Option<_>>()?;
    if shape.len() > MAX_RANK {
        return None;
    }
    let (dtype, letters) = match after("descr")?.strip_prefix('\'') {
        None => (Err("(structured)".to_owned()), 0),
        Some(rest) => {
            let name = rest.split_once('\'')?.0;
            match name.strip_prefix("<U").and_then(|letters| letters.parse().ok()) {
                Some(letters @ 1..) => (Ok(DType::Str), letters),
                _ => (element_type(name), 0),
            }
        }
    };
    Some(Header { dtype, letters, shape, fortran_order, length: 0 })
}

fn element_type(name: &str) -> Result<DType, String> {
    let bare = name.trim_start_matches(['<', '|', '=']);
    let known = NAMES.iter().find(|(known, _)| *known == bare);
    known.map(|(_, dtype)| *dtype).ok_or_else(|| format!("`{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip() {
        for (_, dtype) in NAMES {
            for shape in [vec![], vec![3], vec![2, 0], vec![1, 2, 3, 4]] {
                let bytes = write(dtype, 0, &shape).unwrap();
                assert_eq!(bytes.len() % 64, 0);
                let header = read(&mut bytes.as_slice()).unwrap();
                let length = bytes.len();
                let expected =
                    Header { dtype: Ok(dtype), letters: 0, shape, fortran_order: false, length };
                assert_eq!(header, expected);
            }
        }
        assert!(write(DType::BF16, 0, &[1]).is_none());
    }

    fn header(dictionary: &str) -> Header {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0]);
        bytes.extend((dictionary.len() as u16).to_le_bytes());
        bytes.extend(dictionary.as_bytes());
        read(&mut bytes.as_slice()).unwrap()
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let big = header("{'descr': '>f4', 'fortran_order': False, 'shape': (2,)}");
        assert!(big.payload().unwrap_err().contains("`>f4`"));
        let fortran = header("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2)}");
        assert!(fortran.payload().unwrap_err().contains("ascontiguousarray"));
        let huge = "{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 9)}";
        assert!(header(huge).payload().unwrap_err().contains("larger than memory"));
    }

    #[test]
    fn broken_headers_are_errors() {
        for bytes in [&b""[..], b"\x93NUMPY\x01", b"PK\x03\x04aaaa", b"\x93NUMPY\x09\x00\x00\x00"] {
            assert!(read(&mut &bytes[..]).is_err());
        }
        let mut huge = MAGIC.to_vec();
        huge.extend([2, 0, 255, 255, 255, 255]);
        assert!(read(&mut huge.as_slice()).unwrap_err().contains("claims"));
        assert!(parse("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}").is_none());
    }
}
