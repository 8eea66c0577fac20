//! What may not be called what, and which words may not appear.

use syn::visit::{self, Visit};

use crate::{Finding, RustFile};

/// Names that say nothing about what lives there.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "core", "helpers", "helper", "misc"];

/// Crates and modules with a name that says nothing.
pub fn empty_names(files: &[RustFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        let stem = file.path.trim_end_matches(".rs");
        if let Some(name) = stem.split('/').find(|part| is_empty_name(part)) {
            findings.push(Finding::new(&file.path, 1, complaint(name)));
        }
        Modules { path: &file.path, findings: &mut findings }.visit_file(&file.items);
    }
    findings
}

fn is_empty_name(name: &str) -> bool {
    EMPTY_NAMES.contains(&name.trim_start_matches("lepton-").trim_start_matches("lepton_"))
}

fn complaint(name: &str) -> String {
    format!("nothing may be called `{name}`; name it after what lives there")
}

struct Modules<'a> {
    path: &'a str,
    findings: &'a mut Vec<Finding>,
}

impl<'ast> Visit<'ast> for Modules<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let name = module.ident.to_string();
        // A module in a file of its own is found by the file's name.
        if module.content.is_some() && is_empty_name(&name) {
            let line = module.ident.span().start().line;
            self.findings.push(Finding::new(self.path, line, complaint(&name)));
        }
        visit::visit_item_mod(self, module);
    }
}

/// Lines that name the folder of one particular machine.
pub fn machine_paths(path: &str, bytes: &[u8]) -> Vec<Finding> {
    // In two parts, so that this file does not name it either.
    let folder = ["/wo", "rk/"].concat();
    let mut findings = Vec::new();
    for (at, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let mut starts = line.windows(folder.len()).enumerate();
        let absolute = |start: usize| {
            let before = start.checked_sub(1).map(|before| line[before]);
            !before.is_some_and(|b| b.is_ascii_alphanumeric() || b"._-~".contains(&b))
        };
        let found =
            |(start, window): (usize, &[u8])| window == folder.as_bytes() && absolute(start);
        if starts.any(found) {
            let message = format!(
                "names `{folder}`, a folder of one machine; use a relative path or an environment \
                 variable"
            );
            findings.push(Finding::new(path, at + 1, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_must_say_something() {
        let found = |path: &str, text: &str| empty_names(&[RustFile::parse(path, text)]).len();
        assert_eq!(found("crates/lepton-core/src/lib.rs", ""), 1);
        assert_eq!(found("crates/ir/src/utils.rs", ""), 1);
        assert_eq!(found("crates/ir/tests/common/mod.rs", ""), 1);
        assert_eq!(found("crates/ir/src/a.rs", "mod b { mod misc {} }"), 1);
        assert_eq!(found("crates/ir/src/corelation.rs", "mod tests {}"), 0);
    }

    #[test]
    fn machines_are_not_named() {
        let lines = |text: String| {
            machine_paths("a", text.as_bytes()).iter().map(|f| f.line).collect::<Vec<_>>()
        };
        assert_eq!(lines(["a\nb = \"/wo", "rk/x\"\n/wo", "rk/"].concat()), [2, 3]);
        assert!(lines(["docs/wo", "rk/x ./wo", "rk/y"].concat()).is_empty());
        assert!(lines("/wo/rk/".to_owned()).is_empty());
    }
}
