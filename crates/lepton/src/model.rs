//! A model: a verified graph and where it came from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lepton_formats::{Artefact, ExternalData, Format, artefact, onnx, sniff};
use lepton_ir::Graph;

use crate::error::Error;
use crate::mapped::file_bytes;

/// A verified graph read from a file.
pub struct Model {
    graph: Graph,
    path: PathBuf,
    format: Format,
    file_bytes: usize,
    artefact: Option<Artefact>,
}

/// Tensors that a model keeps in files beside its own.
struct Beside<'a>(&'a Path);

impl ExternalData for Beside<'_> {
    fn load(&self, location: &str, offset: u64, length: Option<u64>) -> Result<Bytes, String> {
        let path = self.0.join(location);
        // A link could lead out of the folder although the path does not.
        let folder = self.0.canonicalize().map_err(|e| e.to_string())?;
        let real = path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?;
        if !real.starts_with(&folder) {
            return Err(format!("{} leads out of the model's folder", path.display()));
        }
        let bytes = file_bytes(&real).map_err(|e| e.to_string())?;
        let outside = || format!("{} has only {} bytes", path.display(), bytes.len());
        let start =
            usize::try_from(offset).ok().filter(|&s| s <= bytes.len()).ok_or_else(outside)?;
        let end = match length {
            None => bytes.len(),
            Some(length) => usize::try_from(length)
                .ok()
                .and_then(|l| start.checked_add(l))
                .filter(|&end| end <= bytes.len())
                .ok_or_else(outside)?,
        };
        Ok(bytes.slice(start..end))
    }
}

impl Model {
    /// Reads a `.onnx` or `.lepton` file; the format is told by its first bytes.
    pub fn open(path: impl AsRef<Path>) -> Result<Model, Error> {
        let path = path.as_ref().to_path_buf();
        let bytes = file_bytes(&path)?;
        let file_bytes = bytes.len();
        let failed = |error| Error::Format { path: path.clone(), error };
        let format = sniff(&bytes).ok_or_else(|| Error::UnknownFormat { path: path.clone() })?;
        let (graph, artefact) = match format {
            Format::Onnx => {
                let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
                let beside = Beside(folder.unwrap_or(Path::new(".")));
                (onnx::read(bytes, &beside).map_err(failed)?, None)
            }
            Format::Lepton => {
                let artefact = artefact::read(Arc::new(bytes)).map_err(failed)?;
                (artefact.graph.clone(), Some(artefact))
            }
        };
        Ok(Model { graph, path, format, file_bytes, artefact })
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The extension of its format: `onnx` or `lepton`.
    pub fn format(&self) -> &'static str {
        self.format.extension()
    }

    /// Bytes of its file.
    pub fn file_bytes(&self) -> usize {
        self.file_bytes
    }

    /// The artefact, if the file is one.
    pub fn artefact(&self) -> Option<&Artefact> {
        self.artefact.as_ref()
    }
}
