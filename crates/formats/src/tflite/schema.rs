//! What a model file holds, decoded: numbers of fields are those of TensorFlow Lite's schema
//! (`schema.fbs`, version 3). Fields Lepton has no use for are not read.

use std::ops::Range;

use super::flat::{self, Table, Vector};
use crate::error::{FormatError, at_most};
use crate::limits;

/// A file names this at byte 4.
pub const IDENTIFIER: &[u8] = b"TFL3";

/// The only version of the schema in use.
const SCHEMA_VERSION: u32 = 3;

/// Bytes of structures that every file may need, and those for each byte of it: tables and lists may
/// share their bytes.
const ALLOWANCE: usize = 1 << 16;
const RATIO: usize = 16;

/// A model.
pub struct Model<'a> {
    /// The operators that occur.
    pub codes: Vec<Code>,
    /// Its graphs; the first is run.
    pub subgraphs: Vec<SubGraph<'a>>,
    /// Where the contents of tensors are in the file.
    pub buffers: Vec<Range<usize>>,
    /// Names that a signature gives to inputs and outputs.
    pub signatures: Vec<Signature>,
}

/// An operator that occurs.
#[derive(Clone, Debug)]
pub struct Code {
    /// Its number.
    pub builtin: i32,
    /// Its name, where it is not built in.
    pub custom: String,
    /// Its version.
    pub version: i32,
}

/// A graph.
pub struct SubGraph<'a> {
    /// Its tensors.
    pub tensors: Vec<TensorInfo>,
    /// Which of them it is given.
    pub inputs: Vec<i32>,
    /// Which of them it gives.
    pub outputs: Vec<i32>,
    /// What runs, in order.
    pub operators: Vec<Operator<'a>>,
    /// Its name.
    pub name: String,
}

/// A tensor's declaration.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Extents.
    pub shape: Vec<i32>,
    /// Extents with −1 where any will do; empty where `shape` is all there is.
    pub signature: Vec<i32>,
    /// Number of the element type.
    pub kind: i8,
    /// Which buffer has the elements; an empty one if they are computed.
    pub buffer: usize,
    /// Its name.
    pub name: String,
    /// Steps: none if not quantised, one, or one per slice.
    pub scale: Vec<f32>,
    /// The integers that stand for zero.
    pub zero: Vec<i64>,
    /// The axis of the slices.
    pub axis: i32,
    /// True if it keeps its contents from run to run.
    pub is_variable: bool,
    /// True if only some elements are stored.
    pub is_sparse: bool,
}

/// A node.
pub struct Operator<'a> {
    /// Which operator.
    pub code: usize,
    /// Operands; −1 where absent.
    pub inputs: Vec<i32>,
    /// Results.
    pub outputs: Vec<i32>,
    /// Tensors that only say how what it computes within is quantised.
    pub intermediates: Vec<i32>,
    /// Its attributes.
    pub options: Option<Table<'a>>,
    /// Attributes of an operator that is not built in.
    pub custom: &'a [u8],
}

/// Names of inputs and outputs, with the numbers of their tensors.
#[derive(Clone, Debug)]
pub struct Signature {
    /// The graph it is about.
    pub subgraph: usize,
    /// Inputs.
    pub inputs: Vec<(String, i32)>,
    /// Outputs.
    pub outputs: Vec<(String, i32)>,
}

/// Decodes and counts the memory of what it makes.
struct Decoder {
    file_length: usize,
    spent: usize,
}

/// The model in a file.
pub fn decode(bytes: &[u8]) -> Result<Model<'_>, FormatError> {
    if bytes.get(4..8) != Some(IDENTIFIER) {
        let why = "it does not say `TFL3` at byte 4".into();
        return Err(FormatError::Damaged { format: "TFLite", offset: 4, why });
    }
    let root = flat::root(bytes)?;
    let version = root.u32(0, 0)?;
    if version != SCHEMA_VERSION {
        let why = format!("schema version {version}; convert the model with TensorFlow 2");
        return Err(FormatError::Unsupported(why));
    }
    let mut decoder = Decoder { file_length: bytes.len(), spent: 0 };
    decoder.model(root)
}

impl Decoder {
    /// Counts a list of elements that take `size` bytes each.
    fn spend<'a>(&mut self, list: Vector<'a>, size: usize) -> Result<Vector<'a>, FormatError> {
        self.spent = self.spent.saturating_add(list.len().saturating_mul(size)).saturating_add(1);
        let limit = self.file_length.saturating_mul(RATIO).saturating_add(ALLOWANCE);
        let limit = limit.min(limits::STRUCTURE_BYTES);
        at_most("bytes of the structures of a file", self.spent, limit)?;
        Ok(list)
    }

    fn text(&mut self, table: &Table<'_>, field: usize) -> Result<String, FormatError> {
        let length = self.spend(table.vector(field)?, 1)?.len();
        at_most("length of a name", length, limits::NAME_BYTES)?;
        table.text(field)
    }

    /// The tables of a list, each of which becomes a `Made`.
    fn tables<'a, Made>(
        &mut self,
        table: &Table<'a>,
        field: usize,
    ) -> Result<Vec<Table<'a>>, FormatError> {
        let list = table.vector(field)?;
        at_most("number of values", list.len(), limits::VALUES)?;
        self.spend(list, size_of::<Made>() + size_of::<Table<'_>>())?.tables()
    }

    fn integers(&mut self, table: &Table<'_>, field: usize) -> Result<Vec<i32>, FormatError> {
        self.spend(table.vector(field)?, 4)?.i32s()
    }

    fn model<'a>(&mut self, root: Table<'a>) -> Result<Model<'a>, FormatError> {
        let codes = self.tables::<Code>(&root, 1)?;
        let codes: Result<_, _> = codes.iter().map(|table| self.code(table)).collect();
        let subgraphs = self.tables::<SubGraph<'_>>(&root, 2)?;
        at_most("number of graphs", subgraphs.len(), limits::ELEMENTS)?;
        let subgraphs: Result<Vec<_>, _> = subgraphs.iter().map(|t| self.subgraph(t)).collect();
        let subgraphs = subgraphs?;
        let nodes = subgraphs.iter().map(|graph| graph.operators.len()).sum();
        at_most("number of nodes", nodes, limits::NODES)?;
        let buffers = self.tables::<Range<usize>>(&root, 4)?;
        let buffers: Result<_, _> = buffers.iter().map(|table| self.buffer(table)).collect();
        let signatures = self.tables::<Signature>(&root, 7)?;
        let signatures: Result<_, _> = signatures.iter().map(|t| self.signature(t)).collect();
        Ok(Model { codes: codes?, subgraphs, buffers: buffers?, signatures: signatures? })
    }

    fn code(&mut self, table: &Table<'_>) -> Result<Code, FormatError> {
        // Operators above 127 do not fit in the older field, which then says 127.
        let builtin = table.i32(3, 0)?.max(i32::from(table.i8(0, 0)?));
        Ok(Code { builtin, custom: self.text(table, 1)?, version: table.i32(2, 1)? })
    }

    fn subgraph<'a>(&mut self, table: &Table<'a>) -> Result<SubGraph<'a>, FormatError> {
        let tensors = self.tables::<TensorInfo>(table, 0)?;
        let tensors: Result<_, _> = tensors.iter().map(|tensor| self.tensor(tensor)).collect();
        let operators = self.tables::<Operator<'_>>(table, 3)?;
        let operators: Result<_, _> = operators.iter().map(|node| self.operator(node)).collect();
        Ok(SubGraph {
            tensors: tensors?,
            inputs: self.integers(table, 1)?,
            outputs: self.integers(table, 2)?,
            operators: operators?,
            name: self.text(table, 4)?,
        })
    }

    fn tensor(&mut self, table: &Table<'_>) -> Result<TensorInfo, FormatError> {
        let shape = self.integers(table, 0)?;
        at_most("rank of a tensor", shape.len(), limits::RANK)?;
        let signature = self.integers(table, 7)?;
        at_most("rank of a tensor", signature.len(), limits::RANK)?;
        let (mut scale, mut zero, mut axis) = (Vec::new(), Vec::new(), 0);
        if let Some(quantised) = table.table(4)? {
            scale = self.spend(quantised.vector(2)?, 4)?.f32s()?;
            zero = self.spend(quantised.vector(3)?, 8)?.i64s()?;
            axis = quantised.i32(6, 0)?;
        }
        Ok(TensorInfo {
            shape,
            signature,
            kind: table.i8(1, 0)?,
            buffer: table.u32(2, 0)? as usize,
            name: self.text(table, 3)?,
            scale,
            zero,
            axis,
            is_variable: table.bool(5, false)?,
            is_sparse: table.table(6)?.is_some(),
        })
    }

    fn operator<'a>(&mut self, table: &Table<'a>) -> Result<Operator<'a>, FormatError> {
        let newer = table.table(12)?;
        Ok(Operator {
            code: table.u32(0, 0)? as usize,
            inputs: self.integers(table, 1)?,
            outputs: self.integers(table, 2)?,
            intermediates: self.integers(table, 8)?,
            custom: table.vector(5)?.bytes()?,
            options: table.table(4)?.or(newer),
        })
    }

    fn buffer(&mut self, table: &Table<'_>) -> Result<Range<usize>, FormatError> {
        // Files above 2 GiB have their buffers behind the tables.
        let (start, length) = (table.u64(1, 0)?, table.u64(2, 0)?);
        if start <= 1 {
            return table.vector(0)?.byte_range();
        }
        let end = start.checked_add(length).and_then(|end| usize::try_from(end).ok());
        let end = end.filter(|&end| end <= self.file_length);
        let why = "a buffer lies behind the file".to_string();
        let offset = table.offset();
        let end = end.ok_or(FormatError::Damaged { format: "TFLite", offset, why })?;
        Ok(start as usize..end)
    }

    fn signature(&mut self, table: &Table<'_>) -> Result<Signature, FormatError> {
        let mut maps = [Vec::new(), Vec::new()];
        for (field, map) in maps.iter_mut().enumerate() {
            for entry in self.tables::<(String, i32)>(table, field)? {
                map.push((self.text(&entry, 0)?, entry.i32(1, 0)?));
            }
        }
        let [inputs, outputs] = maps;
        let subgraph = table.u32(4, 0)? as usize;
        Ok(Signature { subgraph, inputs, outputs })
    }
}
