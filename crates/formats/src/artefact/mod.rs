//! Lepton's own file, version 1: a header, a table of sections with their hashes, the sections.

mod bytes;
mod coding;
mod graph;

use std::cell::Cell;
use std::sync::Arc;

use lepton_ir::Graph;
use lepton_tensor::Tensor;

use self::bytes::{Cursor, put_text, put_varint};
use self::graph::{WeightsOut, read_graph, read_tensor, write_graph, write_tensor};
use crate::error::{FormatError, at_most};

/// The first eight bytes.
pub const MAGIC: &[u8] = b"LEPTON\r\n";

const MAJOR: u16 = 1;
const MINOR: u16 = 0;
const HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 40;
const HASH_BYTES: usize = 16;
const MAX_SECTIONS: usize = 64;

/// The owner of an artefact's bytes.
pub type Owner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The sections, in the order of the file, with their numbers.
const SECTIONS: &[(&str, u32)] =
    &[("graph", 1), ("golden", 2), ("provenance", 3), ("measurements", 4), ("weights", 5)];

/// An input of the model and the output it must give.
#[derive(Clone, Debug, PartialEq)]
pub struct Golden {
    /// One tensor per input.
    pub inputs: Vec<Tensor>,
    /// One tensor per output.
    pub outputs: Vec<Tensor>,
}

/// What a `.lepton` file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Artefact {
    /// The model.
    pub graph: Graph,
    /// For checking that it still computes what it did.
    pub golden: Option<Golden>,
    /// Where it comes from, as JSON.
    pub provenance: String,
    /// What was measured on it, as JSON.
    pub measurements: String,
}

fn digest(bytes: &[u8]) -> [u8; HASH_BYTES] {
    let hash = blake3::hash(bytes);
    let mut short = [0; HASH_BYTES];
    short.copy_from_slice(&hash.as_bytes()[..HASH_BYTES]);
    short
}

/// The sections that refer to weights, and the weights.
struct Parts {
    graph: Vec<u8>,
    golden: Vec<u8>,
    weights: WeightsOut,
}

/// With `coding`, byte tensors that are half as large when coded are coded.
fn parts(artefact: &Artefact, coding: bool) -> Result<Parts, FormatError> {
    let mut weights = WeightsOut { coding, ..WeightsOut::default() };
    let (mut graph, mut golden) = (Vec::new(), Vec::new());
    write_graph(&mut graph, &artefact.graph.compacted(), &mut weights)?;
    if let Some(pair) = &artefact.golden {
        for list in [&pair.inputs, &pair.outputs] {
            put_varint(&mut golden, list.len() as u64);
            list.iter().for_each(|tensor| write_tensor(&mut golden, tensor, &mut weights));
        }
    }
    Ok(Parts { graph, golden, weights })
}

/// The bytes of an artefact; the same artefact always gives the same bytes.
pub fn write(artefact: &Artefact) -> Result<Vec<u8>, FormatError> {
    let mut parts = parts(artefact, true)?;
    if !parts.weights.any_coded {
        parts = self::parts(artefact, false)?;
    }
    let required = if parts.weights.coding { graph::CODED } else { 0 };
    let mut texts = [Vec::new(), Vec::new()];
    put_text(&mut texts[0], &artefact.provenance);
    put_text(&mut texts[1], &artefact.measurements);
    let [provenance, measurements] = texts;
    let bodies = [parts.graph, parts.golden, provenance, measurements, parts.weights.bytes];
    let mut offset = HEADER_BYTES + ENTRY_BYTES * SECTIONS.len();
    let mut table = Vec::new();
    let mut body = Vec::new();
    for ((name, number), bytes) in SECTIONS.iter().zip(&bodies) {
        let padding = if *name == "weights" { graph::padding(offset, bytes.len()) } else { 0 };
        body.resize(body.len() + padding, 0);
        offset += padding;
        table.extend_from_slice(&number.to_le_bytes());
        table.extend_from_slice(&(padding as u32).to_le_bytes());
        table.extend_from_slice(&(offset as u64).to_le_bytes());
        table.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        table.extend_from_slice(&digest(bytes));
        body.extend_from_slice(bytes);
        offset += bytes.len();
    }
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(&MAJOR.to_le_bytes());
    file.extend_from_slice(&MINOR.to_le_bytes());
    file.extend_from_slice(&(SECTIONS.len() as u32).to_le_bytes());
    file.extend_from_slice(&required.to_le_bytes());
    file.extend_from_slice(&0u64.to_le_bytes());
    file.extend_from_slice(&table);
    file.extend_from_slice(&body);
    Ok(file)
}

/// Reads an artefact and checks every hash. Weights share `owner`.
pub fn read(owner: Owner) -> Result<Artefact, FormatError> {
    let all = (*owner).as_ref();
    let (required, table) = read_table(all)?;
    let mut ranges = [(0usize, 0usize); 5];
    for (index, range) in table.into_iter().enumerate() {
        ranges[index] = range;
    }
    let section = |i: usize| Cursor::new(&all[ranges[i].0..ranges[i].1], ranges[i].0);
    let weights = graph::Weights {
        owner: owner.clone(),
        start: ranges[4].0,
        end: ranges[4].1,
        coding: required & graph::CODED != 0,
        decoded: Cell::new(0),
    };
    let mut cursor = section(0);
    let graph = read_graph(&mut cursor, &weights, 0)?;
    cursor.finish()?;
    let mut cursor = section(1);
    let mut golden = None;
    if ranges[1].0 < ranges[1].1 {
        let mut lists = [Vec::new(), Vec::new()];
        for list in &mut lists {
            for _ in 0..cursor.count("number of golden tensors", 4096)? {
                list.push(read_tensor(&mut cursor, &weights)?);
            }
        }
        let [inputs, outputs] = lists;
        golden = Some(Golden { inputs, outputs });
    }
    cursor.finish()?;
    let mut texts = Vec::new();
    for index in [2, 3] {
        let mut cursor = section(index);
        texts.push(cursor.text(1 << 26)?);
        cursor.finish()?;
    }
    let measurements = texts.pop().unwrap_or_default();
    let provenance = texts.pop().unwrap_or_default();
    Ok(Artefact { graph, golden, provenance, measurements })
}

/// The required features, and start and end of every section, in the order of [`SECTIONS`], hashes checked.
fn read_table(all: &[u8]) -> Result<(u64, Vec<(usize, usize)>), FormatError> {
    let mut cursor = Cursor::new(all, 0);
    if cursor.take(MAGIC.len())? != MAGIC {
        return Err(cursor.error("the first bytes are not `LEPTON`"));
    }
    let (major, _minor) = (cursor.number(2)?, cursor.number(2)?);
    if major != MAJOR as u64 {
        let why = format!("artefact version {major}; this program reads {MAJOR}");
        return Err(FormatError::Unsupported(why));
    }
    let count = cursor.number(4)? as usize;
    at_most("number of sections", count, MAX_SECTIONS)?;
    let required = cursor.number(8)?;
    let unknown = required & !graph::CODED;
    if unknown != 0 {
        let why = format!("required feature bit {}", unknown.trailing_zeros());
        return Err(FormatError::Unsupported(why));
    }
    cursor.number(8)?;
    if count != SECTIONS.len() {
        return Err(cursor.error("wrong number of sections"));
    }
    let mut end = HEADER_BYTES + ENTRY_BYTES * count;
    let mut ranges = Vec::with_capacity(count);
    for (name, number) in SECTIONS {
        if cursor.number(4)? != *number as u64 {
            return Err(cursor.error(&format!("section `{name}` expected")));
        }
        let padding = cursor.number(4)? as usize;
        let (start, length) = (cursor.number(8)? as usize, cursor.number(8)? as usize);
        let hash = cursor.take(HASH_BYTES)?;
        let gap = end.checked_add(padding).filter(|&at| at == start && padding < 4096);
        let stop = gap.and_then(|at| at.checked_add(length)).filter(|&at| at <= all.len());
        let Some(stop) = stop else {
            return Err(cursor.error(&format!("section `{name}` overlaps or is outside")));
        };
        if all[end..start].iter().any(|&byte| byte != 0) || digest(&all[start..stop]) != *hash {
            return Err(cursor.error(&format!("section `{name}` is damaged: its hash differs")));
        }
        ranges.push((start, stop));
        end = stop;
    }
    if end == all.len() {
        Ok((required, ranges))
    } else {
        Err(cursor.error("bytes after the last section"))
    }
}
