//! The optional sections of a prepared artefact: which packed forms there are, and their bytes.

use lepton_ir::StoredPack;
use lepton_tensor::Storage;

use super::Owner;
use super::bytes::{Cursor, put_text, put_varint};
use super::graph::padding;
use crate::error::{FormatError, at_most};
use crate::limits;

/// What was made when the file was written, for the program that has the same key.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// Stands for the version of the passes and of the forms.
    pub key: String,
    /// Forms of the graph's constants.
    pub packs: Vec<StoredPack>,
}

/// Most parts of a form.
const MAX_PARTS: usize = 1 << 16;

/// The two sections.
pub fn write_packs(prepared: &Prepared) -> [Vec<u8>; 2] {
    let [mut table, mut packed] = [Vec::new(), Vec::new()];
    put_text(&mut table, &prepared.key);
    put_varint(&mut table, prepared.packs.len() as u64);
    for pack in &prepared.packs {
        put_varint(&mut table, pack.constant as u64);
        put_text(&mut table, &pack.form);
        put_varint(&mut table, pack.parts.len() as u64);
        for part in &pack.parts {
            // Panels are read in whole cache lines, whatever their number.
            let large = padding(packed.len(), part.len().max(1 << 12));
            packed.resize(packed.len() + large, 0);
            put_varint(&mut table, packed.len() as u64);
            put_varint(&mut table, part.len() as u64);
            packed.extend_from_slice(part.bytes());
        }
    }
    [table, packed]
}

/// Reads the table in `from`; the parts share `owner`, where they lie in `packed`.
pub fn read_packs(
    from: &mut Cursor<'_>,
    owner: &Owner,
    packed: (usize, usize),
) -> Result<Prepared, FormatError> {
    let key = from.text(limits::NAME_BYTES)?;
    let mut packs = Vec::new();
    let mut count = 0;
    for _ in 0..from.count("number of packed forms", limits::VALUES)? {
        let constant = usize::try_from(from.varint()?).unwrap_or(usize::MAX);
        let form = from.text(limits::NAME_BYTES)?;
        let mut parts = Vec::new();
        let own = from.count("parts of a packed form", MAX_PARTS)?;
        count += own;
        at_most("parts of packed forms", count, limits::VALUES)?;
        for _ in 0..own {
            let (start, length) = (from.varint()?, from.varint()?);
            let start = usize::try_from(start).ok().and_then(|at| at.checked_add(packed.0));
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let inside = |start: &usize| start.checked_add(length).is_some_and(|e| e <= packed.1);
            let part = start
                .filter(inside)
                .and_then(|start| Storage::shared(owner.clone(), start, length));
            parts.push(part.ok_or_else(|| from.error("a packed form is outside its section"))?);
        }
        packs.push(StoredPack { constant, form, parts });
    }
    from.finish()?;
    Ok(Prepared { key, packs })
}
