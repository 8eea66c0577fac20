//! ONNX files that ask for far more than they hold.

use crate::parts::{Parts, each, fill, joined, length, once, repeated};

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A field of bytes or of a message.
fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [&varint(number << 3 | 2)[..], &varint(bytes.len() as u64), bytes].concat()
}

/// A field of an integer.
fn integer(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

/// A field of a message that is large.
fn large(number: u64, parts: Parts) -> Parts {
    let head = [varint(number << 3 | 2), varint(length(&parts) as u64)].concat();
    joined([once(head), parts])
}

/// The fields of a model before its graph.
fn head() -> Parts {
    once([integer(1, 8), field(8, &integer(2, 17))].concat())
}

fn model(graph: Parts) -> Parts {
    joined([head(), large(7, graph)])
}

fn node(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| field(1, name.as_bytes())).collect();
    let named = [field(2, output.as_bytes()), field(4, operator.as_bytes())].concat();
    field(1, &[inputs, named].concat())
}

/// A declared value: a vector of floats.
fn value(name: &str) -> Vec<u8> {
    let shape = field(2, &field(1, &integer(1, 4)));
    let kind = field(1, &[integer(1, 1), shape].concat());
    [field(1, name.as_bytes()), field(2, &kind)].concat()
}

fn input() -> Parts {
    once(field(11, &value("x")))
}

/// What ends each file: a result that nothing makes.
fn end() -> Parts {
    once(field(12, &value("absent")))
}

/// A tensor of one float, with the fields `more`.
fn tensor(name: &str, more: &[u8]) -> Vec<u8> {
    [integer(1, 1), integer(2, 1), field(8, name.as_bytes()), more.to_vec()].concat()
}

/// A graph with one node that has a large attribute.
fn attribute(content: Parts) -> Parts {
    let named = joined([once(field(1, b"value")), content]);
    let node = joined([once([field(2, b"y"), field(4, b"Constant")].concat()), large(5, named)]);
    model(joined([large(1, node), end()]))
}

/// A graph with one large constant.
fn constant(content: Parts) -> Parts {
    let tensor = joined([once([integer(2, 1), field(8, b"w")].concat()), content]);
    model(joined([large(5, tensor), end()]))
}

/// A model whose functions call each other: `calls` times the next one, `levels` deep, and the
/// last has a text of `size` bytes.
fn functions(levels: usize, calls: usize, size: usize) -> Parts {
    let call = |level: usize| {
        let node = node(&format!("f{level}"), &["x"], "y");
        let (head, body) = node.split_at(node.len() - node[1] as usize);
        assert_eq!(head.len(), 2);
        field(7, &[body, &field(7, b"own")].concat())
    };
    let function = |level: usize, body: Parts| {
        let named = [field(1, format!("f{level}").as_bytes()), field(4, b"x"), field(5, b"y")];
        large(25, joined([once([named.concat(), field(10, b"own")].concat()), body]))
    };
    let mut parts = head();
    for level in 0..levels {
        parts.extend(function(level, each(calls, move |_| call(level + 1))));
    }
    let text = large(5, joined([once(field(1, b"text")), large(4, repeated(size, vec![b'a']))]));
    let last = joined([once([field(1, b"x"), field(2, b"y"), field(4, b"Relu")].concat()), text]);
    parts.extend(function(levels, large(7, last)));
    let first = call(0);
    let called = [&varint(1 << 3 | 2)[..], &first[1..]].concat();
    joined([parts, large(7, joined([input(), once(called), end()]))])
}

/// A loop of 4096 rounds over a graph of `size` bytes, which is read in place, round by round, where
/// its state is a list.
fn rounds(size: usize, list: bool) -> Parts {
    let truth = [integer(2, 9), field(8, b"go"), field(9, &[1])].concat();
    let count = [integer(2, 7), field(8, b"n"), field(9, &4096u64.to_le_bytes())].concat();
    let step = |i: usize| node("Relu", &["x"], &format!("t{i:07}"));
    let count_of = size / step(1).len();
    let state = if list { "s".to_string() } else { format!("t{:07}", count_of - 1) };
    let body = joined([
        once(field(11, &field(1, b"i"))),
        once(field(11, &field(1, b"c"))),
        once(field(11, &field(1, b"s"))),
        each(count_of, step),
        once(node("Identity", &["c"], "d")),
        once([field(12, &field(1, b"d")), field(12, &field(1, state.as_bytes()))].concat()),
    ]);
    let first = if list { "l" } else { "x" };
    let named: Vec<u8> = ["n", "go", first].iter().flat_map(|n| field(1, n.as_bytes())).collect();
    let attribute = large(5, joined([once(field(1, b"body")), large(6, body)]));
    let head = once([named, field(2, b"y"), field(4, b"Loop")].concat());
    let constants = once([field(5, &count), field(5, &truth)].concat());
    let empty = once(node("SequenceEmpty", &[], "l"));
    model(joined([input(), constants, empty, large(1, joined([head, attribute])), end()]))
}

/// Graphs in the branches of conditions, so deep, each with its share of the bytes.
fn nested(depth: usize, size: usize) -> Parts {
    let mut graph =
        joined([fill(size / depth, |i| node("Abs", &["x"], &format!("y{i:08}"))), end()]);
    for _ in 1..depth {
        let branch = |name: &str, graph: Parts| {
            large(5, joined([once(field(1, name.as_bytes())), large(6, graph)]))
        };
        let head = once([field(1, b"c"), field(2, b"z"), field(4, b"If")].concat());
        let own = fill(size / depth, |i| node("Abs", &["x"], &format!("y{i:08}")));
        let branches = [branch("then_branch", graph), branch("else_branch", end())];
        graph = joined([own, large(1, joined([vec![], head, joined(branches)])), end()]);
    }
    model(joined([input(), graph]))
}

/// A type of sequences of sequences of …, with as many bytes as it may have.
fn sequences(depth: usize) -> Parts {
    let mut kind = value("x").split_off(3);
    for _ in 0..depth {
        kind = field(4, &field(1, &kind));
    }
    model(joined([once(field(11, &[field(1, b"x"), field(2, &kind)].concat())), end()]))
}

/// Messages of few bytes that become structures of hundreds.
fn structures(size: usize) -> Vec<(&'static str, Parts)> {
    let graph = |parts: Parts| model(joined([input(), parts, end()]));
    let entry = |i: usize| field(14, &field(1, format!("{i:08}").as_bytes()));
    vec![
        ("empty nodes", graph(repeated(size, vec![0x0a, 0]))),
        ("nodes", graph(fill(size, |i| node("Relu", &["x"], &format!("y{i:08}"))))),
        ("nodes without names", graph(repeated(size, field(1, &field(4, b"Relu"))))),
        ("unknown operators", graph(fill(size, |i| node(&format!("Q{i:08}"), &["x"], "y")))),
        (
            "constants",
            graph(fill(size, |i| field(5, &tensor(&format!("w{i:08}"), &field(9, &[0; 4]))))),
        ),
        ("inputs", graph(fill(size, |i| field(11, &value(&format!("x{i:08}")))))),
        ("results", graph(fill(size, |i| field(12, &value(&format!("x{i:08}")))))),
        ("hints", graph(fill(size, |i| field(13, &value(&format!("x{i:08}")))))),
        ("attributes", attribute(repeated(size, vec![0x18, 1]))),
        ("operator sets", joined([repeated(size, field(8, &integer(2, 17))), graph(vec![])])),
        ("entries", joined([head(), fill(size, entry), large(7, end())])),
        (
            "extents",
            model(joined([
                large(
                    11,
                    joined([
                        once(field(1, b"x")),
                        large(2, large(1, large(2, repeated(size, vec![0x0a, 0])))),
                    ]),
                ),
                end(),
            ])),
        ),
    ]
}

/// Lists of few bytes an element that become lists of more.
fn lists(size: usize) -> Vec<(&'static str, Parts)> {
    let operands = joined([repeated(size, vec![0x0a, 0]), once(field(4, b"Concat"))]);
    vec![
        ("operands", model(joined([large(1, operands), end()]))),
        ("integers", attribute(repeated(size, vec![0x40, 0]))),
        ("packed integers", attribute(large(8, repeated(size, vec![0])))),
        ("strings", attribute(repeated(size, vec![0x4a, 0]))),
        ("axes", constant(repeated(size, vec![0x08, 1]))),
        ("packed axes", constant(large(1, repeated(size, vec![1])))),
        ("int64 elements", constant(large(7, repeated(size, vec![0])))),
        ("int32 elements one by one", constant(repeated(size, vec![0x28, 0]))),
        ("float elements", constant(large(4, repeated(size, vec![0; 4])))),
        ("texts", constant(joined([once(integer(2, 8)), repeated(size, vec![0x32, 0])]))),
        (
            "places outside",
            constant(joined([once(integer(14, 1)), repeated(size, field(13, &field(1, b"k")))])),
        ),
    ]
}

/// Structures that are nearly as many as a file may have, and elements of a constant for the rest:
/// what is wrong is found last.
fn within(size: usize) -> Vec<(&'static str, Parts)> {
    let rest = || {
        let weight = [integer(2, 2), field(8, b"rest"), integer(1, size as u64 / 64 * 64)].concat();
        large(5, joined([once(weight), large(9, repeated(size, vec![7; 64]))]))
    };
    let graph = |parts: Parts| model(joined([input(), parts, rest(), end()]));
    let chain = |i: usize| node("Relu", &[&format!("y{i:08}")], &format!("y{:08}", i + 1));
    let first = || once(node("Tanh", &["x"], "y00000000"));
    let most = 60_000;
    let wide = vec!["x"; most];
    vec![
        ("a long chain", graph(joined([first(), each(most, chain)]))),
        (
            "a chain the wrong way round",
            graph(joined([each(most, move |i| chain(most - 1 - i)), first()])),
        ),
        ("a wide sum", graph(each(4, move |i| node("Sum", &wide, &format!("y{i:08}"))))),
        ("nodes that fail", graph(each(most, |i| node("Conv", &["x"], &format!("y{i:08}"))))),
        (
            "nodes after one that fails",
            graph(joined([
                once(node("Conv", &["x"], "a")),
                each(most, |i| field(13, &value(&format!("y{i:08}")))),
                each(most, |i| node("Relu", &["a"], &format!("y{i:08}"))),
            ])),
        ),
        (
            "unknown operators that fit",
            graph(each(most, |i| node(&format!("Q{i:08}"), &["x"], &format!("y{i:08}")))),
        ),
        (
            "constants that fit",
            graph(each(most, |i| field(5, &tensor(&format!("w{i:08}"), &field(9, &[0; 4]))))),
        ),
        ("inputs that fit", graph(each(most, |i| field(11, &value(&format!("x{i:08}")))))),
        ("windows", graph(each(most, |i| node("HannWindow", &["rest"], &format!("y{i:08}"))))),
        ("a list that grows", graph(lists_of_lists(most))),
        ("a loop with a list", rounds(150_000, true)),
    ]
}

/// A sequence to which each node adds an element.
fn lists_of_lists(count: usize) -> Parts {
    let first = node("SequenceEmpty", &[], "l00000000");
    let next =
        |i: usize| node("SequenceInsert", &[&format!("l{i:08}"), "x"], &format!("l{:08}", i + 1));
    joined([once(first), each(count, next)])
}

/// All kinds, each of about so many bytes.
pub fn kinds(size: usize) -> Vec<(&'static str, Parts)> {
    let huge = constant(joined([
        once([integer(1, 1 << 40), integer(1, 1 << 40)].concat()),
        large(9, repeated(size, vec![0; 64])),
    ]));
    let kept = |text: Parts| model(joined([input(), text, end()]));
    let few = 40_000;
    let mut all = vec![
        ("huge extents", huge),
        ("unknown fields", kept(repeated(size, vec![0xc0, 0x0c, 0]))),
        ("a text", kept(large(10, repeated(size, b"x".repeat(64))))),
        ("long names", kept(fill(size, |i| node("Relu", &["x"], &format!("y{i:04000}"))))),
        (
            "few long operators",
            kept(each(few, move |i| {
                let wide = size / few - 40;
                node(&format!("Q{i:0wide$}"), &["x"], "y")
            })),
        ),
        ("functions in functions", functions(6, 12, size)),
        ("functions that are called often", functions(1, 200_000, size / 4)),
        ("a large loop", rounds(size, false)),
        ("graphs in graphs", nested(7, size)),
        ("graphs too deep", nested(12, size)),
        ("types in types", sequences(4000)),
        ("nothing but zeros", joined([head(), repeated(size, vec![0])])),
        (
            "cut",
            joined([
                head(),
                once(varint(7 << 3 | 2)),
                once(varint(1 << 40)),
                repeated(size, vec![0x0a, 2, 0x22, 0]),
            ]),
        ),
    ];
    all.extend(structures(size));
    all.extend(lists(size));
    all.extend(within(size));
    all
}
