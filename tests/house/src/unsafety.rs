//! Where `unsafe` may stand, and that each use says why it is sound.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::{Finding, RustFile};

/// Folders and files that may say `unsafe`.
const ALLOWED: &[&str] = &[
    "crates/kernels/",
    "crates/tensor/src/storage.rs",
    "crates/runtime/",
    "crates/lepton/src/mapped.rs",
    "bindings/c/",
    "bindings/python/src/arrays.rs",
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Use {
    /// A block, an `impl`, an `extern` block: needs a SAFETY comment.
    Claim,
    /// A function or a trait: needs a "Safety" section or a SAFETY comment.
    Contract,
    /// A function type, an attribute, or the method of a trait, which states the contract:
    /// nothing is claimed by naming it.
    Mention,
}

/// Every `unsafe` outside the few places that may have it, or without its reason.
pub fn check(files: &[RustFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        let mut uses = Vec::new();
        collect(file.tokens.clone(), false, &mut uses);
        let lines: Vec<&str> = file.text.lines().collect();
        let allowed = ALLOWED.iter().any(|allowed| file.path.starts_with(allowed));
        for (line, kind) in uses {
            if !allowed {
                let message = "`unsafe` may stand only in kernels, tensor storage, the runtime, \
                               the façade's mapped files, the C ABI and Python's arrays; use a \
                               safe way or move it";
                findings.push(Finding::new(&file.path, line, message));
            } else if kind != Use::Mention && !has_reason(&lines, line, kind) {
                let message = match kind {
                    Use::Contract => "this needs a `# Safety` section saying what callers owe",
                    _ => "this needs a `// SAFETY:` comment naming what makes it sound",
                };
                findings.push(Finding::new(&file.path, line, message));
            }
        }
    }
    findings
}

/// Gathers each `unsafe`; `inherits` where a trait's contract covers the functions.
fn collect(tokens: TokenStream, inherits: bool, uses: &mut Vec<(usize, Use)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut of_trait = None;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => {
                let inherits = inherits || of_trait == Some(at);
                collect(group.stream(), inherits, uses);
            }
            TokenTree::Ident(ident) if *ident == "unsafe" => {
                let kind = match kind(&tokens[at + 1..]) {
                    Use::Contract if inherits => Use::Mention,
                    kind => kind,
                };
                uses.push((ident.span().start().line, kind));
            }
            token if is(token, "impl") => of_trait = of_trait.or(trait_body(&tokens, at)),
            // What a macro will stand in shows only where it is used.
            token if is(token, "macro_rules") => of_trait = body(&tokens, at),
            _ => {}
        }
        if of_trait == Some(at) {
            of_trait = None;
        }
    }
}

fn is(token: &TokenTree, name: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if *ident == name)
}

/// Where the first group in braces after `start` is.
fn body(tokens: &[TokenTree], start: usize) -> Option<usize> {
    let braces = |token: &TokenTree| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
    tokens[start..].iter().position(braces).map(|at| start + at)
}

/// The body of the `impl` at `start`, where it is of a trait.
fn trait_body(tokens: &[TokenTree], start: usize) -> Option<usize> {
    let body = body(tokens, start)?;
    let head = &tokens[start..body];
    let higher_ranked = |at: usize| matches!(head.get(at + 1), Some(TokenTree::Punct(punct)) if punct.as_char() == '<');
    let of_trait = (0..head.len()).any(|at| is(&head[at], "for") && !higher_ranked(at));
    of_trait.then_some(body)
}

/// What the tokens after `unsafe` make of it.
fn kind(after: &[TokenTree]) -> Use {
    match after {
        [TokenTree::Group(group), ..] if group.delimiter() == Delimiter::Parenthesis => {
            Use::Mention
        }
        [token, ..] if is(token, "trait") => Use::Contract,
        [token, rest @ ..] if is(token, "extern") => {
            let abi = matches!(rest.first(), Some(TokenTree::Literal(_)));
            match &rest[usize::from(abi)..] {
                [token, rest @ ..] if is(token, "fn") => function(rest),
                _ => Use::Claim,
            }
        }
        [token, rest @ ..] if is(token, "fn") => function(rest),
        _ => Use::Claim,
    }
}

/// A declaration has a name, a type has not.
fn function(after: &[TokenTree]) -> Use {
    match after.first() {
        Some(TokenTree::Group(_)) => Use::Mention,
        _ => Use::Contract,
    }
}

/// Looks at the line itself and upwards, over the comments and attributes before the statement.
fn has_reason(lines: &[&str], line: usize, kind: Use) -> bool {
    let says = |text: &str| {
        text.contains("// SAFETY:") || (kind == Use::Contract && text.contains("# Safety"))
    };
    if says(lines[line - 1]) {
        return true;
    }
    for text in lines[..line - 1].iter().rev().map(|text| text.trim()) {
        let comment = text.starts_with("//") || text.starts_with("#[") || text.ends_with(")]");
        if comment && says(text) {
            return true;
        }
        let boundary = text.is_empty() || text.ends_with([';', '{', '}']);
        if !comment && boundary {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&[RustFile::parse(path, text)]).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn only_a_few_places_may() {
        let text = "// SAFETY: it is.\nunsafe impl Send for A {}";
        for path in ["crates/kernels/src/a.rs", "bindings/c/src/lib.rs"] {
            assert!(lines(path, text).is_empty());
        }
        for path in ["crates/ir/src/a.rs", "crates/tensor/src/tensor.rs", "crates/lepton/src/a.rs"]
        {
            assert_eq!(lines(path, text), [2]);
        }
        assert_eq!(lines("a.rs", "table! { f => unsafe { g() } }"), [1]);
        assert!(
            lines("a.rs", "#![forbid(unsafe_code)] // unsafe\nconst A: &str = \"unsafe\";")
                .is_empty()
        );
    }

    #[test]
    fn claims_and_contracts_need_their_reason() {
        let at = |text: &str| lines("crates/kernels/src/a.rs", text);
        assert_eq!(at("fn f() {\n    unsafe { g() }\n}"), [2]);
        assert!(
            at("fn f() {\n    // SAFETY: yes.\n    let a =\n        unsafe { g() };\n}").is_empty()
        );
        assert_eq!(
            at("fn f() {\n    // SAFETY: of another.\n    h();\n    unsafe { g() }\n}"),
            [4]
        );
        assert_eq!(at("/// Does.\npub unsafe fn f() {}"), [2]);
        assert!(
            at("/// Does.\n///\n/// # Safety\n/// Owe.\n#[inline]\npub unsafe fn f() {}")
                .is_empty()
        );
        assert_eq!(
            at("// SAFETY: yes.\nunsafe impl Send for A {}\nunsafe impl Sync for A {}"),
            [3]
        );
        assert!(at("type F = unsafe extern \"C\" fn(u8);\nstruct A(unsafe fn());").is_empty());
        assert!(at("#[unsafe(no_mangle)]\npub extern \"C\" fn f() {}").is_empty());
        assert_eq!(at("unsafe extern \"C\" { fn f(); }"), [1]);
        assert_eq!(at("unsafe trait T {}"), [1]);
    }

    #[test]
    fn a_trait_states_the_contract_of_its_methods() {
        let at = |text: &str| lines("crates/kernels/src/a.rs", text);
        assert!(
            at("impl<A: B> T for S {\n    unsafe fn f() {}\n    table! { unsafe fn g() {} }\n}")
                .is_empty()
        );
        assert_eq!(
            at("impl T for S {\n    unsafe fn f() {\n        unsafe { g() }\n    }\n}"),
            [3]
        );
        assert_eq!(at("impl S {\n    unsafe fn f() {}\n}\nimpl T for S {}"), [2]);
        assert_eq!(at("trait T {\n    unsafe fn f();\n}"), [2]);
        assert_eq!(at("fn f() -> impl T {}\nunsafe fn g() {}"), [2]);
        assert_eq!(at("macro_rules! m { () => {\n unsafe fn f() {\n unsafe { g() } } } }"), [3]);
    }
}
