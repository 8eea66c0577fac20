//! How long files and functions may be, and how a file begins.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::{Finding, RustFile};

/// Most lines of a file.
pub const FILE_LINES: usize = 600;
/// Most lines of a function, from its signature to its closing brace. What a macro makes of a
/// table is not parsed, so tables are free.
pub const FUNCTION_LINES: usize = 70;

/// Files longer than [`FILE_LINES`].
pub fn long_files(files: &[RustFile]) -> Vec<Finding> {
    let lines = |file: &RustFile| file.text.lines().count();
    let long = files.iter().filter(|file| lines(file) > FILE_LINES);
    long.map(|file| {
        let message = format!(
            "{} lines, at most {FILE_LINES}; split the file by idea, each part with its tests",
            lines(file)
        );
        Finding::new(&file.path, FILE_LINES + 1, message)
    })
    .collect()
}

/// Functions longer than [`FUNCTION_LINES`].
pub fn long_functions(files: &[RustFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        Functions { path: &file.path, findings: &mut findings }.visit_file(&file.items);
    }
    findings
}

/// Files that do not begin with a `//!` line.
pub fn unintroduced_files(files: &[RustFile]) -> Vec<Finding> {
    let without = files.iter().filter(|file| !file.text.starts_with("//!"));
    let message = "the first line must be a `//!` saying what lives in the file";
    without.map(|file| Finding::new(&file.path, 1, message)).collect()
}

struct Functions<'a> {
    path: &'a str,
    findings: &'a mut Vec<Finding>,
}

impl Functions<'_> {
    fn measure(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let start = signature.span().start().line;
        let lines = body.span().end().line + 1 - start;
        if lines > FUNCTION_LINES {
            let message = format!(
                "function `{}` has {lines} lines, at most {FUNCTION_LINES}; give its steps names",
                signature.ident
            );
            self.findings.push(Finding::new(self.path, start, message));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.measure(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> [RustFile; 1] {
        [RustFile::parse("a.rs", text)]
    }

    fn body(lines: usize) -> String {
        format!("fn f() {{\n{}}}", "    g();\n".repeat(lines - 2))
    }

    #[test]
    fn lengths_are_counted_exactly() {
        assert!(long_functions(&parse(&body(FUNCTION_LINES))).is_empty());
        let long = body(FUNCTION_LINES + 1);
        for around in [
            long.clone(),
            format!("impl S {{\n{long}\n}}"),
            format!("trait T {{\n{long}\n}}"),
            format!("mod m {{\n{long}\n}}"),
            format!("fn outer() {{\n{long}\n}}"),
        ] {
            let found = long_functions(&parse(&around));
            assert!(found.iter().any(|f| f.message.contains("`f` has 71 lines, at most 70")));
        }
        assert!(long_functions(&parse(&format!("table! {{\n{long}\n}}"))).is_empty());
        assert!(long_files(&parse(&"//\n".repeat(FILE_LINES))).is_empty());
        let found = long_files(&parse(&"//\n".repeat(FILE_LINES + 1)));
        assert!(found[0].to_string().starts_with("a.rs:601: 601 lines, at most 600"));
    }

    #[test]
    fn files_introduce_themselves() {
        assert!(unintroduced_files(&parse("//! What.\n")).is_empty());
        assert_eq!(unintroduced_files(&parse("\n//! What.\n")).len(), 1);
        assert_eq!(unintroduced_files(&parse("/// What.\nfn f() {}")).len(), 1);
    }
}
