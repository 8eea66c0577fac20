//! Artefacts with right hashes that ask for far more than they hold, and weights.

use crate::parts::{Parts, each, fill, joined, length, once, repeated, write};

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [varint(text.len()), text.as_bytes().to_vec()].concat()
}

/// A file of these sections.
fn file(required: u64, sections: &[Parts]) -> Parts {
    let mut head = [b"LEPTON\r\n", &[1, 0, 1, 0, sections.len() as u8, 0, 0, 0][..]].concat();
    head.extend(required.to_le_bytes());
    head.extend([0; 8]);
    let mut offset = head.len() + 40 * sections.len();
    for (index, section) in sections.iter().enumerate() {
        let mut hasher = blake3::Hasher::new();
        write(section, &mut hasher).unwrap();
        head.extend((index as u32 + 1).to_le_bytes());
        head.extend([0; 4]);
        head.extend((offset as u64).to_le_bytes());
        head.extend((length(section) as u64).to_le_bytes());
        head.extend(&hasher.finalize().as_bytes()[..16]);
        offset += length(section);
    }
    once(head)
}

fn sections(required: u64, graph: Parts, texts: [Parts; 2], weights: Parts) -> Parts {
    let [provenance, measurements] = texts;
    let all = [graph, Vec::new(), provenance, measurements, weights];
    let head = file(required, &all);
    joined(std::iter::once(head).chain(all))
}

fn empty() -> [Parts; 2] {
    [once([0]), once([0])]
}

/// A graph of lists of inputs, constants and nodes, each with how many there are.
fn graph(lists: [(usize, Parts); 3]) -> Parts {
    let list = |(count, parts): (usize, Parts)| joined([once(varint(count)), parts]);
    // One output, which is absent.
    joined([once([0])].into_iter().chain(lists.map(list)).chain([once([1, 0])]))
}

fn none() -> (usize, Parts) {
    (0, Vec::new())
}

/// As many of these as fit.
fn filled(size: usize, make: impl Fn(usize) -> Vec<u8> + 'static) -> (usize, Parts) {
    (size / make(0).len(), fill(size, make))
}

/// A node without operands that has a list of `count` bytes as an attribute.
fn listed(kind: u8, count: usize) -> Parts {
    let head = [text("n"), text("Transpose"), varint(1), text("permutation"), vec![kind]].concat();
    joined([once([head, varint(count)].concat()), each(count, |_| vec![0]), once([0, 1, 0])])
}

/// All kinds of artefacts, each of about so many bytes.
pub fn kinds(size: usize) -> Vec<(&'static str, Parts)> {
    let input = |i: usize| [text(&format!("x{i:08}")), text("f32"), vec![1, 0, 4]].concat();
    let constant = |i: usize| [text(&format!("w{i:08}")), text("f32"), vec![1, 1, 0]].concat();
    let node = |_| [text(""), text("Shape"), vec![0, 1, 1, 1, 1], text("")].concat();
    let rest = || repeated(size, vec![7; 64]);
    let plain = |graph: Parts| sections(0, graph, empty(), rest());
    let whole = |graph: Parts| sections(0, graph, empty(), once([0; 64]));
    let strings = [text("w"), text("str"), vec![1], varint(size), vec![0], varint(size)].concat();
    let strings = graph([none(), (1, once(strings)), none()]);
    let one = (1, once(input(0)));
    // Coded tensors that share all the bytes there are, and claim all that these may hold.
    let coded = move |i: usize| {
        let large = (1usize << 27) + (i & 1);
        [text(&format!("w{i:08}")), text("i8"), vec![1], varint(large), vec![0], varint(size)]
            .concat()
    };
    let wrong = || joined([plain(graph([none(), none(), none()])), once([1])]);
    vec![
        ("inputs", whole(graph([filled(size, input), none(), none()]))),
        ("inputs that fit", plain(graph([filled(3_000_000, input), none(), none()]))),
        ("constants", whole(graph([none(), filled(size, constant), none()]))),
        ("constants that fit", plain(graph([none(), filled(1_500_000, constant), none()]))),
        ("nodes", whole(graph([one, none(), filled(size, node)]))),
        (
            "nodes that fit",
            plain(graph([(1, once(input(0))), none(), (60_000, each(60_000, node))])),
        ),
        (
            "integers",
            whole(graph([none(), none(), (90, joined((0..90).map(|_| listed(3, 1_000_000))))])),
        ),
        (
            "texts",
            whole(graph([none(), none(), (90, joined((0..90).map(|_| listed(5, 1_000_000))))])),
        ),
        ("a list too long", whole(graph([none(), none(), (1, listed(3, size))]))),
        ("strings", sections(0, strings, empty(), repeated(size, vec![0]))),
        (
            "coded tensors",
            sections(1, graph([none(), (15, each(15, coded)), none()]), empty(), rest()),
        ),
        (
            "a long text",
            sections(
                0,
                graph([none(), none(), none()]),
                [joined([once(varint(size)), repeated(size, vec![b'a'])]), once([0])],
                Vec::new(),
            ),
        ),
        ("bytes behind the end", wrong()),
    ]
}

fn header(json: Parts, size: usize) -> Parts {
    let length = length(&json) as u64;
    joined([once(length.to_le_bytes()), json, repeated(size, vec![0; 64])])
}

/// All kinds of weights, each of about so many bytes.
pub fn weights(size: usize) -> Vec<(&'static str, Parts)> {
    let most = 1 << 23;
    let tensor = |i: usize| {
        let shape = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
        format!(r#""w{i:08}":{shape},"#).into_bytes()
    };
    let last = br#""z":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let tensors = |bytes: usize| joined([once(*b"{"), fill(bytes, tensor), once(*last)]);
    let deep =
        |open: &'static [u8]| joined([once(*b"{\"a\":"), repeated(most - 64, open.to_vec())]);
    vec![
        ("tensors", header(tensors(size), 64)),
        ("tensors that fit", header(tensors(most - 200), size)),
        ("lists in lists", header(deep(b"["), size)),
        ("tables in tables", header(deep(b"{\"a\":"), size)),
        (
            "a long name",
            header(joined([once(*b"{\""), repeated(most - 64, vec![b'a']), once(*b"\":1}")]), size),
        ),
        (
            "many extents",
            header(
                joined([
                    once(*b"{\"a\":{\"dtype\":\"F32\",\"shape\":["),
                    repeated(most - 100, b"1,".to_vec()),
                    once(*b"1],\"data_offsets\":[0,4]}}"),
                ]),
                size,
            ),
        ),
        ("zeros", header(repeated(most, vec![0]), size)),
    ]
}
