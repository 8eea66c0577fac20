//! How files are damaged: mutations that know a format well enough to get behind its first checks.

use super::attempt::Target;

/// A small, fast generator (SplitMix64, Steele, Lea and Flood 2014), so that runs repeat.
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// A range of at most `longest` within `length`.
    fn range(&mut self, length: usize, longest: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let count = self.below(longest + 1).min(length - start);
        start..start + count
    }
}

/// Numbers at the edges of what fields can hold.
const EXTREMES: &[u64] =
    &[0, 1, 0x7f, 0x80, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 40, i64::MAX as u64, u64::MAX];

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Changes `bytes` in one way; `other` is a file to take parts from.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let length = bytes.len();
    let extreme = EXTREMES[random.below(EXTREMES.len())];
    match random.below(8) {
        0 if length > 0 => bytes[random.below(length)] ^= 1 << random.below(8),
        1 if length > 0 => bytes[random.below(length)] = random.next() as u8,
        2 => bytes.truncate(random.below(length + 1)),
        3 => drop(bytes.drain(random.range(length, 16))),
        4 => {
            let copy = bytes[random.range(length, 64)].to_vec();
            let at = random.below(length + 1);
            bytes.splice(at..at, copy);
        }
        5 => {
            let part = other[random.range(other.len(), 64)].to_vec();
            let over = random.range(length, 64);
            bytes.splice(over, part);
        }
        6 => {
            let at = random.range(length, 2);
            bytes.splice(at, varint(extreme));
        }
        _ => {
            let at = random.range(length, 8);
            let count = at.len();
            bytes[at].copy_from_slice(&extreme.to_le_bytes()[..count]);
        }
    }
}

/// Changes bytes where they lie, as what follows them is found by its position: a bit, a byte, a
/// number at the edge of what fits, a small number, or a part of `other`.
fn mutate_in_place(random: &mut Random, bytes: &mut [u8], other: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let extreme = EXTREMES[random.below(EXTREMES.len())];
    // Numbers lie at multiples of their size.
    let word = random.below(bytes.len()) & !3;
    let at = match random.below(5) {
        0 => return bytes[random.below(bytes.len())] ^= 1 << random.below(8),
        1 => return bytes[random.below(bytes.len())] = random.next() as u8,
        2 => random.range(bytes.len(), 8),
        3 => {
            let small = (random.below(64) as u64).wrapping_sub(4).to_le_bytes();
            let end = bytes.len().min(word + 4);
            return bytes[word..end].copy_from_slice(&small[..end - word]);
        }
        _ => {
            let part = random.range(other.len().min(bytes.len()), 32);
            let start = word.min(bytes.len() - part.len());
            return bytes[start..start + part.len()].copy_from_slice(&other[part]);
        }
    };
    let count = at.len();
    bytes[at].copy_from_slice(&extreme.to_le_bytes()[..count]);
}

/// The sections of an artefact; `None` if its table is no longer right.
fn sections(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let number = |at: usize| {
        let field = bytes.get(at..at + 8)?.try_into().ok()?;
        usize::try_from(u64::from_le_bytes(field)).ok()
    };
    let section = |entry: usize| {
        let (start, length) = (number(entry + 8)?, number(entry + 16)?);
        Some(bytes.get(start..start.checked_add(length)?)?.to_vec())
    };
    (32..232).step_by(40).map(section).collect()
}

/// An artefact of these sections, whose table is right, so that damage reaches what is behind it.
fn sealed(header: &[u8], sections: &[Vec<u8>]) -> Vec<u8> {
    let mut file = header[..32].to_vec();
    let mut offset = 232u64;
    for (index, section) in sections.iter().enumerate() {
        file.extend((index as u32 + 1).to_le_bytes());
        file.extend(0u32.to_le_bytes());
        file.extend(offset.to_le_bytes());
        file.extend((section.len() as u64).to_le_bytes());
        file.extend(&blake3::hash(section).as_bytes()[..16]);
        offset += section.len() as u64;
    }
    [file, sections.concat()].concat()
}

/// The start, the content and the end of a field that holds bytes, and its tag.
type Field = (u64, std::ops::Range<usize>, usize);

/// The fields of a message that hold bytes; `None` if it is not a message.
fn fields(bytes: &[u8]) -> Option<Vec<Field>> {
    let (mut at, mut found) = (0, Vec::new());
    let varint = |at: &mut usize| {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = *bytes.get(*at)?;
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    };
    while at < bytes.len() {
        let start = at;
        let tag = varint(&mut at)?;
        match tag & 7 {
            0 => drop(varint(&mut at)?),
            1 => at += 8,
            5 => at += 4,
            2 => {
                let length = varint(&mut at)? as usize;
                let end = at.checked_add(length).filter(|end| *end <= bytes.len())?;
                found.push((tag, at..end, start));
                at = end;
            }
            _ => return None,
        }
    }
    (at == bytes.len()).then_some(found)
}

/// Changes something inside a message of messages and corrects the lengths around it.
fn mutate_inside(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let found = fields(bytes).filter(|list| !list.is_empty() && random.below(8) > 0);
    let Some(list) = found else { return mutate(random, bytes, other) };
    let (tag, content, start) = list[random.below(list.len())].clone();
    let mut inner = bytes[content.clone()].to_vec();
    mutate_inside(random, &mut inner, other);
    let field = [varint(tag), varint(inner.len() as u64), inner].concat();
    // Once in a while the field comes twice or goes.
    let field = match random.below(16) {
        0 => [field.clone(), field].concat(),
        1 => Vec::new(),
        _ => field,
    };
    bytes.splice(start..content.end, field);
}

/// Changes a number, a word or a line of a text, or anything.
fn mutate_text(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let digits: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at].is_ascii_digit()).collect();
    match random.below(4) {
        0 | 1 if !digits.is_empty() => {
            let at = digits[random.below(digits.len())];
            let number = match random.below(3) {
                0 => EXTREMES[random.below(EXTREMES.len())].to_string(),
                1 => format!("-{}", random.below(4)),
                _ => random.below(9).to_string(),
            };
            bytes.splice(at..at + 1, number.into_bytes());
        }
        2 => {
            let words = |text: &[u8]| -> Vec<std::ops::Range<usize>> {
                let letter = |at: usize| text[at].is_ascii_alphanumeric() || text[at] == b'_';
                let starts =
                    (0..text.len()).filter(|&at| letter(at) && (at == 0 || !letter(at - 1)));
                starts
                    .map(|at| at..(at..text.len()).find(|&end| !letter(end)).unwrap_or(text.len()))
                    .collect()
            };
            let (own, others) = (words(bytes), words(other));
            if !own.is_empty() && !others.is_empty() {
                let word = other[others[random.below(others.len())].clone()].to_vec();
                bytes.splice(own[random.below(own.len())].clone(), word);
            }
        }
        _ => mutate(random, bytes, other),
    }
}

/// Changes the header of weights and corrects its length, or anything.
fn mutate_header(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let header = |bytes: &[u8]| -> Option<std::ops::Range<usize>> {
        let length = u64::from_le_bytes(*bytes.first_chunk()?) as usize;
        8usize.checked_add(length).filter(|end| *end <= bytes.len()).map(|end| 8..end)
    };
    let (Some(own), Some(others)) = (header(bytes), header(other)) else {
        return mutate(random, bytes, other);
    };
    let mut text = bytes[own.clone()].to_vec();
    mutate_text(random, &mut text, &other[others]);
    bytes[..8].copy_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.splice(own, text);
}

/// Changes a file in one way, mostly behind what its lengths and hashes would catch.
pub fn damage(random: &mut Random, target: Target, bytes: &mut Vec<u8>, other: &[u8]) {
    if random.below(8) == 0 {
        return mutate(random, bytes, other);
    }
    match target {
        Target::Weights => mutate_header(random, bytes, other),
        Target::Graph => mutate_text(random, bytes, other),
        Target::Onnx => mutate_inside(random, bytes, other),
        Target::Tflite => {
            for _ in 0..=random.below(3) {
                mutate_in_place(random, bytes, other);
            }
        }
        Target::Lepton => {
            let (Some(mut own), Some(others)) = (sections(bytes), sections(other)) else {
                return mutate(random, bytes, other);
            };
            let chosen = [0, 0, 0, 1, 2, 4][random.below(6)];
            for _ in 0..=random.below(3) {
                mutate(random, &mut own[chosen], &others[chosen]);
            }
            *bytes = sealed(bytes, &own);
        }
    }
}
