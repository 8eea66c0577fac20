//! Who may use whom: the rows of the design, read from `cargo metadata`.

use serde_json::Value;

use crate::Finding;

/// Packages by the folder they lie in, lowest row first.
const ROWS: &[(usize, &[&str])] = &[
    (0, &["crates/tensor"]),
    (1, &["crates/ir", "crates/kernels"]),
    (2, &["crates/formats", "crates/passes", "crates/data", "crates/runtime"]),
    (3, &["crates/measure", "crates/train"]),
    (4, &["crates/compress"]),
    (5, &["crates/navigate"]),
    (6, &["crates/lepton"]),
    (7, &["apps", "bindings"]),
    (8, &["web"]),
];

/// Folders of packages that may use everything and that nothing uses.
const OUTSIDE: &[&str] = &["tests", "xtask", "benches", "examples", "fuzz"];

/// Same-row arrows that are allowed: the engine starts from what the passes lowered.
const SAME_ROW: &[(&str, &str)] = &[("crates/runtime", "crates/passes")];

/// Downward arrows that are not allowed: only the runtime joins graphs and kernels.
const FORBIDDEN: &[(&str, &str)] = &[
    ("crates/formats", "crates/kernels"),
    ("crates/passes", "crates/kernels"),
    ("crates/data", "crates/kernels"),
];

/// A package of the workspace and the workspace packages it uses.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its folder, relative to the repository.
    pub folder: String,
    /// Line of its manifest and folder of each package it uses, in any kind of dependency.
    pub uses: Vec<(usize, String)>,
}

/// The packages in the answer of `cargo metadata --no-deps`; `manifest` reads a manifest's text.
///
/// # Panics
/// Where the answer is not what cargo documents.
pub fn packages(metadata: &Value, manifest: impl Fn(&str) -> String) -> Vec<Package> {
    let text = |value: &Value| value.as_str().expect("cargo gives text").to_owned();
    let root = text(&metadata["workspace_root"]);
    let below = |path: &str| {
        let inside = path.strip_prefix(&root).unwrap_or(path);
        inside.trim_start_matches(['/', '\\']).replace('\\', "/")
    };
    let list = |value: &Value| value.as_array().expect("cargo gives a list").clone();
    let package = |package: &Value| {
        let path = text(&package["manifest_path"]);
        let lines = manifest(&path);
        let line_of = |name: &str| {
            let names = |line: &&str| line.trim_start().strip_prefix(name).is_some_and(ends_name);
            lines.lines().position(|line| names(&line)).map_or(1, |at| at + 1)
        };
        let dependencies = list(&package["dependencies"]);
        let uses = dependencies.iter().filter_map(|dependency| {
            let folder = below(dependency["path"].as_str()?);
            Some((line_of(&text(&dependency["name"])), folder))
        });
        let folder = below(&path).trim_end_matches("/Cargo.toml").to_owned();
        Package { folder, uses: uses.collect() }
    };
    list(&metadata["packages"]).iter().map(package).collect()
}

fn ends_name(rest: &str) -> bool {
    rest.starts_with(['.', ' ', '='])
}

fn is_within(folder: &str, of: &str) -> bool {
    folder == of || folder.strip_prefix(of).is_some_and(|rest| rest.starts_with('/'))
}

fn row(folder: &str) -> Option<usize> {
    let outside = OUTSIDE.iter().any(|outside| is_within(folder, outside));
    let highest = ROWS.last().map_or(0, |(row, _)| row + 1);
    let found = ROWS.iter().find(|(_, folders)| folders.iter().any(|f| is_within(folder, f)));
    found.map(|(row, _)| *row).or(outside.then_some(highest))
}

/// Every arrow that points up or sideways, and every package without a row.
pub fn check(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let manifest = format!("{}/Cargo.toml", package.folder);
        let Some(own) = row(&package.folder) else {
            let message = "this package has no row; give it one in tests/house/src/layers.rs and \
                           in ARCHITECTURE.md";
            findings.push(Finding::new(&manifest, 1, message));
            continue;
        };
        for (line, used) in &package.uses {
            let Some(other) = row(used) else { continue };
            let arrow = (package.folder.as_str(), used.as_str());
            let allowed = other < own && !FORBIDDEN.contains(&arrow) || SAME_ROW.contains(&arrow);
            if !allowed {
                let message = format!(
                    "{} (row {own}) must not use {used} (row {other}); a crate uses only rows \
                     below its own: move the shared part down or the user up",
                    package.folder
                );
                findings.push(Finding::new(&manifest, *line, message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn arrow(from: &str, to: &str) -> usize {
        check(&[Package { folder: from.into(), uses: vec![(1, to.into())] }]).len()
    }

    #[test]
    fn arrows_point_down() {
        for (from, to) in [
            ("crates/ir", "crates/tensor"),
            ("crates/runtime", "crates/passes"),
            ("crates/runtime", "crates/kernels"),
            ("crates/measure", "crates/data"),
            ("apps/cli", "crates/lepton"),
            ("tests/house", "apps/cli"),
            ("xtask", "crates/lepton"),
        ] {
            assert_eq!(arrow(from, to), 0, "{from} → {to}");
        }
        for (from, to) in [
            ("crates/tensor", "crates/ir"),
            ("crates/ir", "crates/kernels"),
            ("crates/kernels", "crates/ir"),
            ("crates/passes", "crates/runtime"),
            ("crates/passes", "crates/kernels"),
            ("crates/formats", "crates/data"),
            ("crates/train", "crates/measure"),
            ("crates/compress", "crates/navigate"),
            ("bindings/c", "apps/cli"),
            ("crates/lepton", "tests/house"),
            ("crates/utils", "crates/tensor"),
        ] {
            assert_eq!(arrow(from, to), 1, "{from} → {to}");
        }
    }

    #[test]
    fn metadata_is_read_with_the_line_of_the_manifest() {
        let metadata = json!({
            "workspace_root": "/r",
            "packages": [{
                "manifest_path": "/r/crates/ir/Cargo.toml",
                "dependencies": [
                    { "name": "serde", "kind": null },
                    { "name": "lepton", "path": "/r/crates/lepton", "kind": "dev" },
                ],
            }],
        });
        let manifest =
            "[dependencies]\nserde = \"1\"\nlepton-tensor = 1\n\nlepton.workspace = true";
        let found = check(&packages(&metadata, |_| manifest.to_owned()));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].file.as_str(), found[0].line), ("crates/ir/Cargo.toml", 5));
        assert!(found[0].message.contains("(row 1) must not use crates/lepton (row 6)"));
    }
}
