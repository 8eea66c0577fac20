//! Lepton's own file, version 1: a header, a table of sections with their hashes, the sections.

mod bytes;
mod coding;
mod graph;
mod packs;

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
const MINOR: u16 = 1;
const HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 40;
const HASH_BYTES: usize = 16;
const MAX_SECTIONS: usize = 64;
/// Bytes of provenance and of measurements.
const MAX_TEXT: usize = 1 << 24;

pub use self::graph::coded_bytes;
pub use self::packs::Prepared;

/// The owner of an artefact's bytes.
pub type Owner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The sections, in the order of the file, with their numbers.
const SECTIONS: &[(&str, u32)] =
    &[("graph", 1), ("golden", 2), ("provenance", 3), ("measurements", 4), ("weights", 5)];

/// The sections of a prepared artefact, which follow.
const PREPARED: &[(&str, u32)] = &[("prepared", 6), ("packed", 7)];

/// The sections that a prepared artefact is mapped to use in place, not read.
const MAPPED: &[&str] = &["weights", "packed"];

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
    pub graph: Arc<Graph>,
    /// For checking that it still computes what it did.
    pub golden: Option<Golden>,
    /// Where it comes from, as JSON.
    pub provenance: String,
    /// What was measured on it, as JSON.
    pub measurements: String,
    /// Packed forms of the graph's constants, if the graph is lowered.
    pub prepared: Option<Prepared>,
}

impl From<Graph> for Artefact {
    /// The graph alone: nothing is said of it, and nothing of it is prepared.
    fn from(graph: Graph) -> Self {
        let (provenance, measurements) = (String::new(), String::new());
        let graph = Arc::new(graph);
        Artefact { graph, golden: None, provenance, measurements, prepared: None }
    }
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

/// With `coding`, byte tensors that are small enough when coded are coded.
fn parts(artefact: &Artefact, coding: bool) -> Result<Parts, FormatError> {
    let mut weights = WeightsOut::new(coding);
    let (mut graph, mut golden) = (Vec::new(), Vec::new());
    let compacted = artefact.graph.compacted();
    if let Some(prepared) = &artefact.prepared {
        weights.gather(&compacted, &prepared.packs);
    }
    write_graph(&mut graph, &compacted, &mut weights)?;
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
    let mut parts = parts(artefact, artefact.prepared.is_none())?;
    if parts.weights.coding && !parts.weights.any_coded {
        parts = self::parts(artefact, false)?;
    }
    let required = if parts.weights.coding { graph::CODED } else { 0 };
    let mut texts = [Vec::new(), Vec::new()];
    put_text(&mut texts[0], &artefact.provenance);
    put_text(&mut texts[1], &artefact.measurements);
    let [provenance, measurements] = texts;
    let mut bodies = vec![parts.graph, parts.golden, provenance, measurements, parts.weights.bytes];
    bodies.extend(artefact.prepared.iter().flat_map(packs::write_packs));
    let mut offset = HEADER_BYTES + ENTRY_BYTES * bodies.len();
    let mut table = Vec::new();
    let mut body = Vec::new();
    for ((name, number), bytes) in SECTIONS.iter().chain(PREPARED).zip(&bodies) {
        let mapped = MAPPED.contains(name);
        // Packed forms are aligned however few they are.
        let least = if *name == "packed" { 1 << 12 } else { 0 };
        let padding = if mapped { graph::padding(offset, bytes.len().max(least)) } else { 0 };
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
    file.extend_from_slice(&(bodies.len() as u32).to_le_bytes());
    file.extend_from_slice(&required.to_le_bytes());
    file.extend_from_slice(&0u64.to_le_bytes());
    file.extend_from_slice(&table);
    file.extend_from_slice(&body);
    Ok(file)
}

/// Reads an artefact and checks the hashes; in a prepared one not those of the weights and packed
/// forms, which are used where they lie: [`check_hashes`] does. Weights share `owner`.
pub fn read(owner: Owner) -> Result<Artefact, FormatError> {
    let (required, ranges) = read_table((*owner).as_ref(), false)?;
    if required & graph::CODED != 0 {
        // Nothing is decoded of a file that will be refused.
        read_sections(&owner, required, &ranges, true)?;
    }
    read_sections(&owner, required, &ranges, false)
}

/// Reads all sections; with `looking`, coded tensors are not decoded.
fn read_sections(
    owner: &Owner,
    required: u64,
    ranges: &[(usize, usize)],
    looking: bool,
) -> Result<Artefact, FormatError> {
    let all = (**owner).as_ref();
    let section = |i: usize| Cursor::new(&all[ranges[i].0..ranges[i].1], ranges[i].0);
    let weights = graph::Weights {
        owner: owner.clone(),
        start: ranges[4].0,
        end: ranges[4].1,
        coding: required & graph::CODED != 0,
        decoded: Cell::new(0),
        looking,
        structures: Cell::new(0),
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
        texts.push(cursor.text(MAX_TEXT)?);
        cursor.finish()?;
    }
    let measurements = texts.pop().unwrap_or_default();
    let provenance = texts.pop().unwrap_or_default();
    let prepared = match ranges[..] {
        [.., _, packed] if ranges.len() > SECTIONS.len() => {
            Some(packs::read_packs(&mut section(5), owner, packed)?)
        }
        _ => None,
    };
    Ok(Artefact { graph: Arc::new(graph), golden, provenance, measurements, prepared })
}

/// Checks the hash of every section.
pub fn check_hashes(file: &[u8]) -> Result<(), FormatError> {
    read_table(file, true).map(|_| ())
}

/// The required features, and start and end of every section, in the order of [`SECTIONS`] and
/// [`PREPARED`]. Hashes are checked; with `every`, those of sections that are used in place too.
fn read_table(all: &[u8], every: bool) -> Result<(u64, Vec<(usize, usize)>), FormatError> {
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
    let prepared = count == SECTIONS.len() + PREPARED.len();
    if count != SECTIONS.len() && !prepared {
        return Err(cursor.error("wrong number of sections"));
    }
    let mut end = HEADER_BYTES + ENTRY_BYTES * count;
    let mut ranges = Vec::with_capacity(count);
    for (name, number) in SECTIONS.iter().chain(PREPARED).take(count) {
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
        let trusted = prepared && !every && MAPPED.contains(name);
        let intact = trusted || digest(&all[start..stop]) == *hash;
        if all[end..start].iter().any(|&byte| byte != 0) || !intact {
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
