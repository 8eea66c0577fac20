//! TFLite files whose lists share their elements, and others that ask for far more than they hold.

use crate::parts::{Parts, each, joined, once, repeated};

/// What a field of a table holds.
enum Field {
    Number(u32),
    /// The position in the file of what it leads to.
    Place(usize),
}

/// Where the table lies of which all that [`table`] gives is written at `at`.
fn table_at(at: usize, slots: usize) -> usize {
    at + 4 + 2 * slots
}

/// A table and before it where its fields are.
fn table(at: usize, slots: usize, fields: &[(usize, Field)]) -> Vec<u8> {
    let mut places = vec![0u16; slots];
    fields.iter().enumerate().for_each(|(i, (slot, _))| places[*slot] = 4 + 4 * i as u16);
    let head = [4 + 2 * slots as u16, 4 + 4 * fields.len() as u16];
    let mut bytes: Vec<u8> = head.iter().chain(&places).flat_map(|v| v.to_le_bytes()).collect();
    bytes.extend((4 + 2 * slots as u32).to_le_bytes());
    for (_, field) in fields {
        let value = match field {
            Field::Number(value) => *value,
            Field::Place(place) => (place - at - bytes.len()) as u32,
        };
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

/// A list of `count` places, all of the same table, which follows.
fn places(count: usize, slots: usize) -> Parts {
    let entry = move |i: usize| (table_at(4 * (count - i), slots) as u32).to_le_bytes().to_vec();
    joined([once((count as u32).to_le_bytes()), each(count, entry)])
}

fn integers(values: &[u32]) -> Vec<u8> {
    let length = values.len() as u32;
    std::iter::once(&length).chain(values).flat_map(|v| v.to_le_bytes()).collect()
}

const ROOT_SLOTS: usize = 8;
const GRAPH_SLOTS: usize = 5;

/// The head of a file whose root has these fields; the first position after it.
fn root(fields: impl Fn(usize) -> Vec<(usize, Field)>) -> (Parts, usize) {
    let start = 8;
    let length = |next| table(start, ROOT_SLOTS, &fields(next)).len();
    let next = start + length(1 << 20);
    let head = [(table_at(start, ROOT_SLOTS) as u32).to_le_bytes(), *b"TFL3"].concat();
    (once([head, table(start, ROOT_SLOTS, &fields(next))].concat()), next)
}

fn version() -> (usize, Field) {
    (0, Field::Number(3))
}

/// A file with one list of the root, of `count` places of one table, then the rest.
fn in_root(field: usize, count: usize, slots: usize, rest: impl Fn(usize) -> Vec<u8>) -> Parts {
    let (head, at) = root(|next| vec![version(), (field, Field::Place(next))]);
    joined([head, places(count, slots), once(rest(at + 4 + 4 * count))])
}

/// A file with one graph, which has the list, in the same way.
fn in_graph(field: usize, count: usize, slots: usize, rest: impl Fn(usize) -> Vec<u8>) -> Parts {
    let (head, at) = root(|next| vec![version(), (2, Field::Place(next))]);
    let graph = at + 8;
    let one = integers(&[(table_at(graph, GRAPH_SLOTS) - at - 4) as u32]);
    let length = table(graph, GRAPH_SLOTS, &[(field, Field::Place(1 << 20))]).len();
    let list = graph + length;
    let graph = table(graph, GRAPH_SLOTS, &[(field, Field::Place(list))]);
    joined([
        head,
        once([one, graph].concat()),
        places(count, slots),
        once(rest(list + 4 + 4 * count)),
    ])
}

/// A table with one field, a list of bytes or integers that follows.
fn with_list(slots: usize, slot: usize, list: Vec<u8>) -> impl Fn(usize) -> Vec<u8> {
    move |at| {
        let length = table(at, slots, &[(slot, Field::Place(1 << 20))]).len();
        [table(at, slots, &[(slot, Field::Place(at + length))]), list.clone()].concat()
    }
}

fn text(length: usize) -> Vec<u8> {
    [&(length as u32).to_le_bytes()[..], &vec![b'a'; length]].concat()
}

/// A chain of so many operators; the output is a tensor that is not there.
fn chain(count: usize) -> Parts {
    let codes =
        |next: usize| vec![version(), (1, Field::Place(next)), (2, Field::Place(next + 30))];
    let (head, at) = root(codes);
    let code = [integers(&[16]), table(at + 8, 4, &[(3, Field::Number(19))])].concat();
    let code = [code, vec![0; 2]].concat();
    assert_eq!(code.len(), 30);
    // RELU, then one graph: its tensors, outputs and operators follow in this order.
    let list = at + 30;
    let graph = list + 8;
    let one = integers(&[(table_at(graph, GRAPH_SLOTS) - list - 4) as u32]);
    let fields = |tensors: usize| {
        let outputs = tensors + 4 + 4 * (count + 1) + 100;
        [
            (0, Field::Place(tensors)),
            (1, Field::Place(outputs)),
            (2, Field::Place(outputs + 8)),
            (3, Field::Place(outputs + 16)),
        ]
    };
    let length = table(graph, GRAPH_SLOTS, &fields(1 << 20)).len();
    let tensors = graph + length;
    let graph = table(graph, GRAPH_SLOTS, &fields(tensors));
    let shared = with_list(8, 0, integers(&[1, 4]))(tensors + 4 + 4 * (count + 1));
    let shared = [shared.clone(), vec![0; 100 - shared.len()]].concat();
    let step = 52;
    let entry = move |i: usize| {
        ((4 * (count - i) + i * step + table_at(0, 3)) as u32).to_le_bytes().to_vec()
    };
    let node = move |i: usize| {
        let fields = [(0, Field::Number(0)), (1, Field::Place(26)), (2, Field::Place(34))];
        let own = [table(0, 3, &fields), integers(&[i as u32]), integers(&[i as u32 + 1])].concat();
        [own.clone(), vec![0; step - own.len()]].concat()
    };
    joined([
        head,
        once([code, one, graph].concat()),
        places(count + 1, 8),
        once([shared, integers(&[0]), integers(&[u32::MAX >> 2])].concat()),
        once((count as u32).to_le_bytes()),
        each(count, entry),
        each(count, node),
    ])
}

/// All kinds, each of about so many bytes.
pub fn kinds(size: usize) -> Vec<(&'static str, Parts)> {
    let filled = |parts: Parts| joined([parts, repeated(size, vec![0; 64])]);
    let many = size / 4;
    let some = 250_000;
    let name = || with_list(8, 3, text(4000));
    let scale = |count: usize| {
        move |at: usize| {
            let quantised = at + table(at, 8, &[(4, Field::Place(1 << 20))]).len();
            let own = table(at, 8, &[(4, Field::Place(table_at(quantised, 3)))]);
            let inner = with_list(3, 2, integers(&vec![1; count]));
            [own, inner(quantised)].concat()
        }
    };
    let (shared, at) = root(|next| vec![version(), (2, Field::Place(next))]);
    let graphs = 4096;
    let tensors = with_list(GRAPH_SLOTS, 0, Vec::new());
    let inner = tensors(0).len();
    let graphs = joined([
        shared,
        places(graphs, GRAPH_SLOTS),
        once(tensors(at + 4 + 4 * graphs)),
        places(60_000, 8),
        once(with_list(8, 3, text(8))(at + 4 + 4 * graphs + inner + 4 + 4 * 60_000)),
    ]);
    vec![
        ("tensors", in_graph(0, many, 8, name())),
        ("tensors that share a long name", filled(in_graph(0, some, 8, name()))),
        ("tensors that share many steps", filled(in_graph(0, 1000, 8, scale(1 << 20)))),
        ("operators", in_graph(3, many, 9, with_list(9, 1, integers(&[0; 1000])))),
        (
            "operators of many operands",
            filled(in_graph(3, 60_000, 9, with_list(9, 1, integers(&[0; 1000])))),
        ),
        ("codes", filled(in_root(1, some, 4, with_list(4, 1, text(4000))))),
        ("buffers", in_root(4, many, 1, with_list(1, 0, text(64)))),
        ("buffers that fit", filled(in_root(4, some, 1, with_list(1, 0, text(64))))),
        ("signatures", filled(in_root(7, some, 5, with_list(5, 0, integers(&[0]))))),
        ("graphs that share tensors", filled(graphs)),
        ("a chain", filled(chain(65_000))),
        ("nothing but zeros", joined([root(|_| vec![version()]).0, repeated(size, vec![0; 64])])),
        (
            "an offset of everything",
            joined([once(*b"\x08\0\0\0TFL3"), repeated(size, vec![0xff; 64])]),
        ),
    ]
}
