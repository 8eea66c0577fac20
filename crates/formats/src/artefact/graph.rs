//! The graph section: names, operators by name with their attributes, constants by reference.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use lepton_ir::{Attribute, Dim, Fact, Graph, Op, StoredPack, ValueId};
use lepton_tensor::{DType, Storage, Tensor, checked_product};

use super::bytes::{Cursor, put_signed, put_text, put_varint};
use super::{Owner, coding};
use crate::error::{FormatError, at_most};
use crate::limits;

const LARGE_BYTES: usize = 4096;
const MAPPED_BYTES: usize = 1 << 20;

/// The weights section of a file.
pub struct Weights {
    /// The file.
    pub owner: Owner,
    /// Where the section starts.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// True if tensors say whether they are coded.
    pub coding: bool,
    /// Bytes decoded so far.
    pub decoded: Cell<usize>,
    /// True while the file is looked through: coded tensors are left zero.
    pub looking: bool,
    /// About as many bytes as the structures of graphs take so far.
    pub structures: Cell<usize>,
}

impl Weights {
    /// Counts structures of `bytes` bytes; an error if they are too many.
    fn spend(&self, bytes: usize) -> Result<(), FormatError> {
        let total = self.structures.get().saturating_add(bytes);
        self.structures.set(total);
        at_most("bytes of the structures of a graph", total, limits::STRUCTURE_BYTES)
    }
}

/// Zero bytes before something of `length` bytes at `offset`: none if it is small, to a multiple
/// of 64 from 4096 bytes on, to a page of 4096 from 1 MiB on.
pub fn padding(offset: usize, length: usize) -> usize {
    let unit = match length {
        MAPPED_BYTES.. => 4096,
        LARGE_BYTES.. => 64,
        _ => 1,
    };
    offset.next_multiple_of(unit) - offset
}

/// The section of weights while it grows.
#[derive(Default)]
pub struct WeightsOut {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// True if tensors say whether they are coded, as feature [`CODED`] has it.
    pub coding: bool,
    /// True once a tensor was coded.
    pub any_coded: bool,
    /// Where constants of the outermost graph lie that were put there before it was written.
    placed: HashMap<ValueId, usize>,
}

/// Constants with more bytes have pages of their own.
const FEW_BYTES: usize = 1 << 16;

impl WeightsOut {
    /// An empty section.
    pub fn new(coding: bool) -> Self {
        WeightsOut { coding, ..WeightsOut::default() }
    }

    /// Puts small constants of a graph at the front that are read where they lie, as those with packed
    /// forms are not: side by side they take few pages of a file that is mapped, each from a cache
    /// line on.
    pub fn gather(&mut self, graph: &Graph, packs: &[StoredPack]) {
        let constants = graph.constants();
        let mut packed = vec![false; constants.len()];
        let of_constants = packs.iter().filter(|pack| pack.constant < constants.len());
        of_constants.for_each(|pack| packed[pack.constant] = true);
        for (&id, _) in constants.iter().zip(&packed).filter(|(_, packed)| !**packed) {
            let tensor = graph.constant(id).expect("listed as a constant");
            if tensor.dtype() != DType::Str && tensor.bytes().len() <= FEW_BYTES {
                self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
                let start = self.append(tensor.bytes());
                self.placed.insert(id, start);
            }
        }
    }

    /// Appends bytes that are used in place; where they begin.
    fn append(&mut self, bytes: &[u8]) -> usize {
        let start = self.bytes.len() + padding(self.bytes.len(), bytes.len());
        self.bytes.resize(start, 0);
        self.bytes.extend_from_slice(bytes);
        start
    }
}

/// The required feature bit of files in which a tensor may be entropy-coded.
pub const CODED: u64 = 1;

/// Tensors with fewer bytes are never coded.
const CODED_FROM: usize = 1024;

/// Values in a row of a byte tensor: all axes but the first.
fn columns(shape: &[usize]) -> usize {
    shape.iter().skip(1).product::<usize>().max(1)
}

/// The coded bytes of a tensor that is half as large with them, or at least a tenth smaller where its
/// numbers are on a grid of 7 bits or fewer: whoever chose that grid did it for the size.
fn coded(tensor: &Tensor) -> Option<Vec<u8>> {
    let bytes = tensor.bytes();
    if !matches!(tensor.dtype(), DType::I8 | DType::U8) || bytes.len() < CODED_FROM {
        return None;
    }
    let values: Vec<i8> = bytes.iter().map(|&byte| byte as i8).collect();
    let coded = coding::encode(columns(tensor.shape()), &values);
    let coarse =
        tensor.dtype() == DType::I8 && values.iter().all(|value| (-63..64).contains(value));
    let most = if coarse { bytes.len() / 10 * 9 } else { bytes.len() / 2 };
    (coded.len() <= most && !coded.is_empty()).then_some(coded)
}

/// Bytes that an artefact takes for the values of a tensor, coded or not.
pub fn coded_bytes(tensor: &Tensor) -> usize {
    coded(tensor).map_or(tensor.bytes().len(), |coded| coded.len())
}

/// Appends a reference to a tensor whose bytes go to `weights`.
pub fn write_tensor(to: &mut Vec<u8>, tensor: &Tensor, weights: &mut WeightsOut) {
    put_type(to, tensor);
    let coded = match tensor.strings() {
        Ok(strings) => Some(listed(&strings)),
        Err(_) => weights.coding.then(|| coded(tensor)).flatten(),
    };
    let start = match &coded {
        // Coded bytes are not used in place.
        Some(_) => weights.bytes.len(),
        None => weights.append(tensor.bytes()),
    };
    put_varint(to, start as u64);
    if weights.coding || tensor.dtype() == DType::Str {
        put_varint(to, coded.as_ref().map_or(0, |coded| coded.len() as u64));
    }
    weights.any_coded |= weights.coding && coded.is_some();
    weights.bytes.extend_from_slice(coded.as_deref().unwrap_or_default());
}

/// Appends the type and the shape of a tensor.
fn put_type(to: &mut Vec<u8>, tensor: &Tensor) {
    put_text(to, tensor.dtype().name());
    put_varint(to, tensor.rank() as u64);
    tensor.shape().iter().for_each(|&extent| put_varint(to, extent as u64));
}

/// The bytes of strings: each after its length.
fn listed(strings: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    strings.iter().for_each(|string| put_text(&mut bytes, string));
    bytes
}

/// Strings from the `length` bytes at `start` of the file.
fn strings(
    from: &Cursor<'_>,
    weights: &Weights,
    shape: Vec<usize>,
    place: (usize, usize),
) -> Result<Tensor, FormatError> {
    let (start, length) = place;
    let end = start.checked_add(length).filter(|&end| end <= weights.end);
    let bytes = end.and_then(|end| (*weights.owner).as_ref().get(start..end));
    let bytes = bytes.ok_or_else(|| from.error("a tensor is outside the weights"))?;
    // A string takes a byte at least.
    let count = checked_product(&shape).filter(|&count| count <= bytes.len());
    let count = count.ok_or_else(|| from.error("more strings than bytes"))?;
    weights.spend(count.saturating_mul(2 * size_of::<String>()))?;
    let mut cursor = Cursor::new(bytes, start);
    let strings: Result<Vec<String>, FormatError> =
        (0..count).map(|_| cursor.text(bytes.len())).collect();
    cursor.finish()?;
    Tensor::from_strings(shape, &strings?).map_err(|error| from.error(&error.to_string()))
}

fn read_dtype(from: &mut Cursor<'_>) -> Result<DType, FormatError> {
    let text = from.word(8)?;
    text.parse().map_err(|why: String| from.error(&why))
}

/// Reads a reference to a tensor; its bytes are shared.
pub fn read_tensor(from: &mut Cursor<'_>, weights: &Weights) -> Result<Tensor, FormatError> {
    let dtype = read_dtype(from)?;
    let rank = from.count("rank of a tensor", limits::RANK)?;
    let mut shape = Vec::with_capacity(rank);
    for _ in 0..rank {
        shape.push(usize::try_from(from.varint()?).unwrap_or(usize::MAX));
    }
    let start = usize::try_from(from.varint()?).unwrap_or(usize::MAX);
    let length = checked_product(&shape).and_then(|count| count.checked_mul(dtype.size()));
    let start = weights.start.checked_add(start);
    let has_length = weights.coding || dtype == DType::Str;
    let coded = if has_length { usize::try_from(from.varint()?).unwrap_or(usize::MAX) } else { 0 };
    if dtype == DType::Str {
        return strings(from, weights, shape, (start.unwrap_or(usize::MAX), coded));
    }
    if coded > 0 {
        let storage = decoded(weights, &shape, dtype, start.zip(length), coded);
        let storage = storage.map_err(|why| from.error(why))?;
        return Tensor::new(dtype, shape, storage).map_err(|error| from.error(&error.to_string()));
    }
    let range = start
        .zip(length)
        .filter(|(start, length)| start.checked_add(*length).is_some_and(|end| end <= weights.end));
    let storage = range.and_then(|(at, length)| Storage::shared(weights.owner.clone(), at, length));
    let storage = storage.ok_or_else(|| from.error("a tensor is outside the weights"))?;
    Tensor::new(dtype, shape, storage).map_err(|error| from.error(&error.to_string()))
}

/// The bytes of a coded tensor: at a start in the file, so many when decoded, from `coded` bytes.
fn decoded(
    weights: &Weights,
    shape: &[usize],
    dtype: DType,
    place: Option<(usize, usize)>,
    coded: usize,
) -> Result<Storage, &'static str> {
    let (start, length) = place.ok_or("a tensor is outside the weights")?;
    if !matches!(dtype, DType::I8 | DType::U8) {
        return Err("only byte tensors can be coded");
    }
    if length > coded.saturating_mul(coding::MOST_VALUES_PER_BYTE) {
        return Err("a coded tensor claims more values than its bytes can hold");
    }
    let end = start.checked_add(coded).filter(|&end| end <= weights.end);
    let end = end.ok_or("a tensor is outside the weights")?;
    // Tensors may share bytes: what they decode to together is bounded too.
    let total = weights.decoded.get().saturating_add(length);
    if total > limits::DECODED_BYTES {
        return Err("the coded tensors are too large together");
    }
    weights.decoded.set(total);
    if weights.looking {
        let zeros = Storage::shared(Arc::new(vec![0u8; length]), 0, length);
        return zeros.ok_or("a tensor is outside the weights");
    }
    let bytes = &(*weights.owner).as_ref()[start..end];
    let values = coding::decode(columns(shape), length, bytes);
    Ok(Storage::copied(&values.iter().map(|&value| value as u8).collect::<Vec<u8>>()))
}

/// Appends a graph: inputs, constants, nodes, outputs. Values are numbered in that order.
pub fn write_graph(
    to: &mut Vec<u8>,
    graph: &Graph,
    weights: &mut WeightsOut,
) -> Result<(), FormatError> {
    let placed = std::mem::take(&mut weights.placed);
    let mut numbers = vec![0u64; graph.value_count()];
    let mut next = 1;
    let mut number = |numbers: &mut Vec<u64>, id: ValueId| {
        numbers[id.index()] = next;
        next += 1;
    };
    put_text(to, &graph.name);
    put_varint(to, graph.inputs().len() as u64);
    for &id in graph.inputs() {
        number(&mut numbers, id);
        put_text(to, &graph.value(id).name);
        write_fact(to, graph.fact(id))?;
    }
    let constants = graph.constants();
    put_varint(to, constants.len() as u64);
    for id in constants {
        number(&mut numbers, id);
        put_text(to, &graph.value(id).name);
        let tensor = graph.constant(id).expect("listed as a constant");
        match placed.get(&id) {
            None => write_tensor(to, tensor, weights),
            Some(&start) => {
                put_type(to, tensor);
                put_varint(to, start as u64);
            }
        }
    }
    put_varint(to, graph.node_count() as u64);
    for (_, node) in graph.nodes() {
        put_text(to, &node.name);
        write_op(to, &node.op, weights)?;
        put_varint(to, node.inputs.len() as u64);
        for input in &node.inputs {
            put_varint(to, input.map_or(0, |id| numbers[id.index()]));
        }
        put_varint(to, node.outputs.len() as u64);
        for output in &node.outputs {
            put_varint(to, output.is_some() as u64);
            if let Some(id) = *output {
                number(&mut numbers, id);
                put_text(to, &graph.value(id).name);
            }
        }
    }
    put_varint(to, graph.outputs().len() as u64);
    graph.outputs().iter().for_each(|id| put_varint(to, numbers[id.index()]));
    Ok(())
}

fn write_fact(to: &mut Vec<u8>, fact: &Fact) -> Result<(), FormatError> {
    put_text(to, fact.dtype.name());
    put_varint(to, fact.dims.len() as u64);
    for dim in &fact.dims {
        match (dim.as_usize(), dim.symbols().first()) {
            (Some(extent), _) => {
                put_varint(to, 0);
                put_varint(to, extent as u64);
            }
            (None, Some(symbol)) if *dim == Dim::symbol(symbol.clone()) => {
                put_varint(to, 1);
                put_text(to, symbol);
            }
            _ => return Err(FormatError::Unsupported(format!("an input with extent {dim}"))),
        }
    }
    Ok(())
}

fn write_op(to: &mut Vec<u8>, op: &Op, weights: &mut WeightsOut) -> Result<(), FormatError> {
    put_text(to, op.name());
    let attributes = op.attributes();
    put_varint(to, attributes.len() as u64);
    for (name, attribute) in attributes {
        put_text(to, name);
        match attribute {
            Attribute::Int(v) => {
                to.push(0);
                put_signed(to, v);
            }
            Attribute::Float(v) => {
                to.push(1);
                to.extend_from_slice(&v.to_le_bytes());
            }
            Attribute::Text(v) => {
                to.push(2);
                put_text(to, &v);
            }
            Attribute::Ints(v) => {
                to.push(3);
                put_varint(to, v.len() as u64);
                v.iter().for_each(|&v| put_signed(to, v));
            }
            Attribute::Floats(v) => {
                to.push(4);
                put_varint(to, v.len() as u64);
                v.iter().for_each(|v| to.extend_from_slice(&v.to_le_bytes()));
            }
            Attribute::Texts(v) => {
                to.push(5);
                put_varint(to, v.len() as u64);
                v.iter().for_each(|v| put_text(to, v));
            }
            Attribute::Tensor(v) => {
                to.push(6);
                write_tensor(to, &v, weights);
            }
            Attribute::Graph(v) => {
                to.push(7);
                write_graph(to, &v.compacted(), weights)?;
            }
        }
    }
    Ok(())
}

/// Reads a graph and infers every value again.
pub fn read_graph(
    from: &mut Cursor<'_>,
    weights: &Weights,
    depth: usize,
) -> Result<Graph, FormatError> {
    at_most("nesting of graphs", depth, limits::NESTING)?;
    let mut graph = Graph::new(from.text(limits::NAME_BYTES)?);
    let mut values: Vec<Option<ValueId>> = vec![None];
    for _ in 0..from.count("number of inputs", limits::VALUES)? {
        let name = from.text(limits::NAME_BYTES)?;
        weights.spend(limits::VALUE_BYTES + name.len())?;
        let fact = read_fact(from)?;
        values.push(Some(graph.add_input(name, fact)));
    }
    for _ in 0..from.count("number of constants", limits::VALUES)? {
        let name = from.text(limits::NAME_BYTES)?;
        weights.spend(2 * limits::VALUE_BYTES + name.len())?;
        let tensor = read_tensor(from, weights)?;
        values.push(Some(graph.add_constant(name, tensor)));
    }
    for _ in 0..from.count("number of nodes", limits::NODES)? {
        read_node(from, weights, depth, &mut graph, &mut values)?;
    }
    let mut outputs = Vec::new();
    for _ in 0..from.count("number of outputs", limits::VALUES)? {
        let id = read_value(from, &values)?;
        outputs.push(id.ok_or_else(|| from.error("an output is absent"))?);
    }
    graph.set_outputs(outputs);
    // Every node was inferred when it was added, from values made before; none is an output that
    // nobody makes.
    graph.verify_interface()?;
    debug_assert!(graph.verify().is_ok());
    Ok(graph)
}

fn read_value(
    from: &mut Cursor<'_>,
    values: &[Option<ValueId>],
) -> Result<Option<ValueId>, FormatError> {
    let number = usize::try_from(from.varint()?).unwrap_or(usize::MAX);
    values.get(number).copied().ok_or_else(|| from.error("a value is used before it is made"))
}

fn read_node(
    from: &mut Cursor<'_>,
    weights: &Weights,
    depth: usize,
    graph: &mut Graph,
    values: &mut Vec<Option<ValueId>>,
) -> Result<(), FormatError> {
    let name = from.text(limits::NAME_BYTES)?;
    weights.spend(limits::NODE_BYTES + name.len())?;
    let op = read_op(from, weights, depth)?;
    let operands = from.count("number of operands", limits::VALUES)?;
    let mut inputs = Vec::with_capacity(operands);
    for _ in 0..operands {
        inputs.push(read_value(from, values)?);
    }
    let node = graph.append_node(name, op, inputs)?;
    let count = from.count("number of results", limits::VALUES)?;
    if count != graph.node(node).outputs.len() {
        return Err(from.error("a node has another number of results than it makes"));
    }
    for position in 0..count {
        if from.varint()? == 0 {
            graph.drop_output(node, position);
        } else if let Some(id) = graph.node(node).outputs[position] {
            graph.set_value_name(id, from.text(limits::NAME_BYTES)?);
            values.push(Some(id));
        }
    }
    Ok(())
}

fn read_fact(from: &mut Cursor<'_>) -> Result<Fact, FormatError> {
    let dtype = read_dtype(from)?;
    let mut dims = Vec::new();
    for _ in 0..from.count("rank of an input", limits::RANK)? {
        dims.push(match from.varint()? {
            0 => match i64::try_from(from.varint()?) {
                Ok(extent) => Dim::known(extent),
                Err(_) => return Err(from.error("an extent is too large")),
            },
            1 => Dim::symbol(from.text(limits::NAME_BYTES)?),
            _ => return Err(from.error("unknown kind of extent")),
        });
    }
    Ok(Fact::new(dtype, dims))
}

fn read_op(from: &mut Cursor<'_>, weights: &Weights, depth: usize) -> Result<Op, FormatError> {
    let operator = from.word(limits::NAME_BYTES)?;
    let count = from.count("number of attributes", 256)?;
    let mut attributes = Vec::with_capacity(count);
    for _ in 0..count {
        let name = from.word(limits::NAME_BYTES)?;
        attributes.push((name, read_attribute(from, weights, depth)?));
    }
    Op::from_parts(operator, &attributes)
        .map_err(|problem| from.error(&format!("operator `{operator}`: {problem}")))
}

fn read_float(from: &mut Cursor<'_>) -> Result<f32, FormatError> {
    Ok(f32::from_bits(from.number(4)? as u32))
}

fn read_attribute(
    from: &mut Cursor<'_>,
    weights: &Weights,
    depth: usize,
) -> Result<Attribute, FormatError> {
    Ok(match from.number(1)? {
        0 => Attribute::Int(from.signed()?),
        1 => Attribute::Float(read_float(from)?),
        2 => Attribute::Text(from.text(limits::NAME_BYTES)?),
        kind @ 3..=5 => {
            let count = from.count("length of a list", limits::LIST)?;
            weights.spend(count * if kind == 5 { size_of::<String>() } else { 8 })?;
            match kind {
                3 => Attribute::Ints((0..count).map(|_| from.signed()).collect::<Result<_, _>>()?),
                4 => Attribute::Floats(
                    (0..count).map(|_| read_float(from)).collect::<Result<_, _>>()?,
                ),
                _ => Attribute::Texts(
                    (0..count).map(|_| from.text(limits::NAME_BYTES)).collect::<Result<_, _>>()?,
                ),
            }
        }
        6 => Attribute::Tensor(read_tensor(from, weights)?),
        7 => Attribute::Graph(Box::new(read_graph(from, weights, depth + 1)?)),
        _ => return Err(from.error("unknown kind of attribute")),
    })
}
