//! Damaged files: thousands of seeded mutations per reader. None may panic, hang, give a graph
//! that breaks the rules, or allocate out of proportion. Files that once did lie in `found/`.

#[path = "../../ir/tests/sweep/cases.rs"]
#[allow(dead_code)]
mod cases;
#[path = "../../ir/tests/sweep/more.rs"]
#[allow(dead_code)]
mod more;
#[path = "tflite/cases.rs"]
#[allow(dead_code)]
mod tflite_cases;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lepton_formats::artefact::{self, Artefact, Golden};
use lepton_formats::onnx::{self, WriteOptions};
use lepton_formats::{Format, NoExternalData, tflite};
use lepton_ir::{Fact, Graph};
use lepton_tensor::{DType, Tensor};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Most bytes that reading may allocate: a fixed part, and a part per byte of the file.
const FIXED_BYTES: usize = 24 << 20;
const BYTES_PER_BYTE: usize = 256;
const LONGEST: Duration = Duration::from_secs(5);

/// A small, fast generator (SplitMix64, Steele, Lea and Flood 2014), so that runs repeat.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
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
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
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

/// The sections of a valid artefact.
fn sections(bytes: &[u8]) -> Vec<Vec<u8>> {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let section = |entry: usize| {
        let (start, length) = (number(entry + 8), number(entry + 16));
        bytes[start..start + length].to_vec()
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

/// Changes a file in one way, mostly behind what its lengths and hashes would catch.
fn damage(random: &mut Random, format: Format, bytes: &mut Vec<u8>, other: &[u8]) {
    if random.below(8) == 0 {
        return mutate(random, bytes, other);
    }
    match format {
        Format::Onnx => mutate_inside(random, bytes, other),
        Format::Tflite => {
            for _ in 0..=random.below(3) {
                mutate_in_place(random, bytes, other);
            }
        }
        Format::Lepton => {
            let (mut own, others) = (sections(bytes), sections(other));
            let chosen = [0, 0, 0, 1, 2, 4][random.below(6)];
            for _ in 0..=random.below(3) {
                mutate(random, &mut own[chosen], &others[chosen]);
            }
            *bytes = sealed(bytes, &own);
        }
    }
}

/// Every case of the sweep over the operators as a graph, and one of several nodes.
fn graphs() -> Vec<Graph> {
    let mut graphs = Vec::new();
    for case in cases::all() {
        let mut graph = Graph::new("case");
        let mut operands = Vec::new();
        for (index, tensor) in case.inputs.into_iter().enumerate() {
            operands.push(tensor.map(|tensor| match tensor.dtype() {
                DType::F64 if index == 0 => {
                    graph.add_input("x", Fact::dense(DType::F64, tensor.shape()))
                }
                _ => graph.add_constant(format!("c{index}"), tensor),
            }));
        }
        let made = graph.add_node("node", case.op, &operands).unwrap();
        for (index, id) in made.iter().enumerate() {
            graph.set_value_name(*id, format!("y{index}"));
        }
        graph.set_outputs(made);
        graphs.push(graph);
    }
    graphs
}

/// The models directly in, or one folder below, the folder `LEPTON_FUZZ_FILES`.
fn given_files(files: &mut [(Format, Vec<Vec<u8>>)]) {
    let Some(folder) = std::env::var_os("LEPTON_FUZZ_FILES") else { return };
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        for bytes in [path.clone(), path.join("model.onnx")].iter().flat_map(std::fs::read) {
            let format = lepton_formats::sniff(&bytes).unwrap_or(Format::Onnx);
            let of_format = files.iter_mut().find(|(kind, _)| *kind == format);
            of_format.expect("every format has files").1.push(bytes);
        }
    }
}

/// Files to start from, for each format.
fn files() -> Vec<(Format, Vec<Vec<u8>>)> {
    let (mut onnx_files, mut lepton_files) = (Vec::new(), Vec::new());
    for graph in graphs() {
        onnx_files.extend(onnx::write(&graph, &WriteOptions::default()).ok());
        let tensor = Tensor::vector(&[1f32, 2.0]);
        let golden = Some(Golden { inputs: vec![tensor.clone()], outputs: vec![tensor] });
        let whole = Artefact { golden, provenance: "{}".into(), ..Artefact::from(graph) };
        lepton_files.push(artefact::write(&whole).unwrap());
    }
    let tflite_files = tflite_cases::all().into_values().map(|case| case.model).collect();
    vec![(Format::Onnx, onnx_files), (Format::Tflite, tflite_files), (Format::Lepton, lepton_files)]
}

/// Reads a file, checks what comes of it, and says whether it was a graph.
fn attempt(format: Format, bytes: &[u8]) -> bool {
    let owned = bytes.to_vec();
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let start = Instant::now();
    let graph = match format {
        Format::Onnx => onnx::read(owned.into(), &NoExternalData),
        Format::Tflite => tflite::read(owned.into()),
        Format::Lepton => artefact::read(Arc::new(owned)).map(|artefact| artefact.graph),
    };
    let (spent, used) = (start.elapsed(), ALLOCATOR.peak_usage().saturating_sub(before));
    assert!(spent < LONGEST, "reading took {spent:?}");
    let limit = FIXED_BYTES + bytes.len() * BYTES_PER_BYTE;
    assert!(used <= limit, "{used} bytes were allocated for a file of {}", bytes.len());
    match graph {
        Ok(graph) => {
            graph.verify().unwrap();
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// Mutates until `more` says no; gives how many files were read of each format, and how many of
/// them were graphs.
fn mutations(seed: u64, mut more: impl FnMut(usize) -> bool) -> [(usize, usize); 3] {
    let mut files = files();
    given_files(&mut files);
    let mut random = Random(seed);
    let (mut count, mut counts) = (0, [(0, 0); 3]);
    while more(count) {
        let chosen = random.below(files.len());
        let (format, list) = &files[chosen];
        let mut bytes = list[random.below(list.len())].clone();
        let other = &list[random.below(list.len())];
        damage(&mut random, *format, &mut bytes, other);
        let outcome = catch_unwind(AssertUnwindSafe(|| attempt(*format, &bytes)));
        counts[chosen].0 += 1;
        counts[chosen].1 += *outcome.as_ref().unwrap_or(&false) as usize;
        if outcome.is_err() {
            let name = format!("seed{seed}-{count}.{}", format.extension());
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            std::fs::write(&path, &bytes).unwrap();
            panic!("move {} to tests/found and make it pass", path.display());
        }
        count += 1;
    }
    counts
}

/// One test, because what others allocate meanwhile would count.
#[test]
fn damaged_files_are_errors_or_valid_graphs() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/found");
    for entry in std::fs::read_dir(found).unwrap() {
        let path = entry.unwrap().path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if let Some(format) = Format::ALL.iter().find(|f| f.extension() == extension) {
            println!("{}", path.display());
            attempt(*format, &std::fs::read(&path).unwrap());
        }
    }
    for (format, list) in files() {
        for bytes in &list {
            assert!(attempt(format, bytes), "the files to start from are valid");
        }
        let small = list.iter().min_by_key(|bytes| bytes.len()).unwrap();
        for length in 0..small.len() {
            attempt(format, &small[..length]);
        }
        for at in 0..small.len() {
            for value in 0..=255 {
                let mut bytes = small.clone();
                bytes[at] = value;
                attempt(format, &bytes);
            }
        }
    }
    for (count, valid) in mutations(1, |count| count < 100_000) {
        println!("{count} mutations, {valid} of them still graphs");
        assert!(valid > count / 20 && valid < count, "mutations must reach what is behind checks");
    }
}

/// Longer: `LEPTON_FUZZ_SECONDS` seconds (60 if not set) from another seed each time, starting
/// from the models in the folder `LEPTON_FUZZ_FILES` too.
#[test]
#[ignore = "runs for LEPTON_FUZZ_SECONDS"]
fn damaged_files_for_longer() {
    let seconds = std::env::var("LEPTON_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(60));
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    for (count, valid) in mutations(clock.as_nanos() as u64, |_| Instant::now() < end) {
        println!("{count} mutations, {valid} of them still graphs");
    }
}
