//! The list is complete: every public function that takes an instruction set has a row, or is one
//! of the exceptions with its reason.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::{FnArg, ImplItem, Item, Signature, TraitItem, Type, Visibility};

/// What takes an instruction set and is no kernel to compare.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("peak::measure", "measures times, which are different on every set"),
    ("real::Real::round", "hands on to quantize::f32_to_bf16 or copies; bf16 products run it"),
    ("sparse::SparseLines::of_f32", "says whether skipping pays, and packs nothing else"),
    ("sparse::SparseLines::of_s8", "says whether skipping pays, and packs nothing else"),
    ("sparse::SparseLines::pays_s8", "says whether skipping pays, which sets differ in"),
];

/// Names of functions, by module.
#[derive(Default)]
struct Found {
    names: BTreeSet<String>,
}

impl Found {
    /// What a file's public items are called; `module` is empty for the crate itself.
    fn items(&mut self, module: &str, items: &[Item]) {
        for item in items {
            match item {
                Item::Fn(function) if is_public(&function.vis) => {
                    self.signature(module, &function.sig);
                }
                Item::Impl(own) if own.trait_.is_none() => {
                    let Some(of) = public_type(items, &own.self_ty) else { continue };
                    for member in &own.items {
                        if let ImplItem::Fn(function) = member
                            && is_public(&function.vis)
                        {
                            self.signature(&format!("{module}::{of}"), &function.sig);
                        }
                    }
                }
                Item::Trait(of) if is_public(&of.vis) => {
                    for member in &of.items {
                        if let TraitItem::Fn(function) = member {
                            self.signature(&format!("{module}::{}", of.ident), &function.sig);
                        }
                    }
                }
                Item::Macro(call) if call.mac.path.is_ident("vectorised") => {
                    self.vectorised(module, call.mac.tokens.clone());
                }
                _ => {}
            }
        }
    }

    fn signature(&mut self, module: &str, signature: &Signature) {
        let takes_set = |argument: &FnArg| match argument {
            FnArg::Typed(argument) => is_set(&argument.ty),
            FnArg::Receiver(_) => false,
        };
        if signature.inputs.iter().any(takes_set) {
            self.names.insert(format!("{module}::{}", signature.ident));
        }
    }

    /// `pub fn name` in the tokens of `vectorised!`, all of which take a set.
    fn vectorised(&mut self, module: &str, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let word =
            |token: &TokenTree, text: &str| matches!(token, TokenTree::Ident(word) if word == text);
        for three in tokens.windows(3) {
            if let [public, function, TokenTree::Ident(name)] = three
                && word(public, "pub")
                && word(function, "fn")
            {
                self.names.insert(format!("{module}::{name}"));
            }
        }
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// The name of a type, if it is one of the public ones among `items`.
fn public_type<'a>(items: &[Item], kind: &'a Type) -> Option<&'a Ident> {
    let Type::Path(path) = kind else { return None };
    let name = &path.path.segments.last()?.ident;
    let is = |item: &Item| match item {
        Item::Struct(own) => is_public(&own.vis) && own.ident == *name,
        Item::Enum(own) => is_public(&own.vis) && own.ident == *name,
        _ => false,
    };
    items.iter().any(is).then_some(name)
}

/// True for `Isa`.
fn is_set(kind: &Type) -> bool {
    let Type::Path(path) = kind else { return false };
    path.path.segments.last().is_some_and(|last| last.ident == "Isa")
}

fn parse(path: &Path) -> Vec<Item> {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())).items
}

/// The public functions of the crate that take an instruction set.
fn entry_points() -> BTreeSet<String> {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Found::default();
    for item in parse(&source.join("lib.rs")) {
        let Item::Mod(module) = item else { continue };
        if !is_public(&module.vis) {
            continue;
        }
        let name = module.ident.to_string();
        let alone = source.join(format!("{name}.rs"));
        let file = if alone.is_file() { alone } else { source.join(&name).join("mod.rs") };
        let items = parse(&file);
        let inner = |item: &&Item| matches!(item, Item::Mod(inner) if is_public(&inner.vis));
        assert!(!items.iter().any(|item| inner(&item)), "{name}: look into its public modules");
        found.items(&name, &items);
    }
    found.names
}

#[test]
fn every_entry_point_has_a_row() {
    let points = entry_points();
    assert!(points.len() > 50, "the crate has more than {} entry points", points.len());
    let listed: BTreeSet<String> = crate::FAMILIES
        .iter()
        .flat_map(|rows| rows.iter())
        .map(|row| row.name.to_owned())
        .collect();
    let excepted: BTreeSet<String> =
        EXCEPTIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let known: BTreeSet<String> = listed.union(&excepted).cloned().collect();
    let missing: Vec<&String> = points.difference(&known).collect();
    assert!(missing.is_empty(), "kernels without a row in tests/kernels: {missing:?}");
    let gone: Vec<&String> = known.difference(&points).collect();
    assert!(gone.is_empty(), "rows and exceptions of what takes no instruction set: {gone:?}");
    assert!(listed.is_disjoint(&excepted), "a row needs no exception");
}

#[test]
fn what_is_public_is_found() {
    let text = "
        pub fn plain(isa: Isa, x: &[f32]) {}
        fn hidden(isa: Isa) {}
        pub(crate) fn inner(isa: Isa) {}
        pub fn without(x: f32) {}
        vectorised! { /// Doc.
            pub fn fast[T: Byte](isa, x: &[T]) = any; fn own(isa) = any; }
        pub struct Thing;
        impl Thing { pub fn method(&self, isa: crate::Isa) {} }
        struct Inner;
        impl Inner { pub fn method(&self, isa: Isa) {} }
        pub trait Kind { fn of(isa: Isa); }
    ";
    let mut found = Found::default();
    found.items("m", &syn::parse_file(text).expect("Rust").items);
    let names: Vec<&str> = found.names.iter().map(String::as_str).collect();
    assert_eq!(names, ["m::Kind::of", "m::Thing::method", "m::fast", "m::plain"]);
}
