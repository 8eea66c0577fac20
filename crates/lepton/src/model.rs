//! A model: a verified graph and where it came from.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lepton_formats::{Artefact, ExternalData, Format, artefact, onnx, safetensors, sniff, tflite};
use lepton_ir::Graph;
use lepton_runtime::{Lowering, PREPARED_KEY, Session, SessionOptions};
use lepton_tensor::Storage;

use crate::error::Error;
use crate::foreign;
use crate::mapped::{self, file_bytes};

/// A verified graph read from a file.
pub struct Model {
    graph: Arc<Graph>,
    path: PathBuf,
    format: Format,
    bytes: Bytes,
    file_bytes: usize,
    artefact: Option<Artefact>,
}

/// Tensors that a model keeps in files beside its own.
struct Beside<'a> {
    folder: &'a Path,
    /// Bytes handed out so far.
    loaded: Cell<usize>,
}

impl ExternalData for Beside<'_> {
    fn load(&self, location: &str, offset: u64, length: Option<u64>) -> Result<Bytes, String> {
        let path = self.folder.join(location);
        // A link could lead out of the folder although the path does not.
        let folder = self.folder.canonicalize().map_err(|e| e.to_string())?;
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
        self.loaded.set(self.loaded.get() + end - start);
        Ok(bytes.slice(start..end))
    }
}

/// No files: the model came from memory.
struct Nowhere;

impl ExternalData for Nowhere {
    fn load(&self, location: &str, _: u64, _: Option<u64>) -> Result<Bytes, String> {
        Err(format!("`{location}` lies beside the model's file; open the model by its path"))
    }
}

impl Model {
    /// Reads a `.onnx`, `.tflite` or `.lepton` file; the format is told by its first bytes.
    pub fn open(path: impl AsRef<Path>) -> Result<Model, Error> {
        let path = path.as_ref().to_path_buf();
        let bytes = file_bytes(&path)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).to_path_buf();
        let beside = Beside { folder: &folder, loaded: Cell::new(0) };
        let mut model = Model::read(path, bytes, &beside)?;
        model.file_bytes += beside.loaded.get();
        Ok(model)
    }

    /// [`Model::open`], with the weights of a safetensors file in place of the model's own where
    /// one is given (how names are matched: [`safetensors::replace`]).
    pub fn open_with(
        path: impl AsRef<Path>,
        weights: Option<impl AsRef<Path>>,
    ) -> Result<Model, Error> {
        let model = Model::open(path)?;
        match weights {
            Some(weights) => model.with_weights(weights),
            None => Ok(model),
        }
    }

    /// The model with the weights of a safetensors file in place of its own. What an artefact holds
    /// beside its graph (packed weights, stored outputs) is left behind.
    ///
    /// # Errors
    /// A file that cannot be read, or names and extents that do not fit, all of them at once.
    pub fn with_weights(mut self, path: impl AsRef<Path>) -> Result<Model, Error> {
        let path = path.as_ref();
        let failed = |error| Error::Format { path: path.to_path_buf(), error };
        let bytes = file_bytes(path)?;
        self.file_bytes += bytes.len();
        let weights = safetensors::read(bytes).map_err(failed)?;
        self.artefact = None;
        safetensors::replace(Arc::make_mut(&mut self.graph), &weights).map_err(failed)?;
        Ok(self)
    }

    /// The bytes of a safetensors file with the model's weights.
    ///
    /// # Errors
    /// Elements that safetensors does not have.
    pub fn weights(&self) -> Result<Vec<u8>, Error> {
        let failed = |error| Error::Format { path: self.path.clone(), error };
        safetensors::write(&self.graph).map_err(failed)
    }

    /// Reads a model from memory; `name` stands for the file in messages and reports. Tensors in
    /// files beside the model cannot be found from here: [`Model::open`] finds them.
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: impl Into<Bytes>) -> Result<Model, Error> {
        Model::read(name.into(), bytes.into(), &Nowhere)
    }

    fn read(path: PathBuf, bytes: Bytes, beside: &dyn ExternalData) -> Result<Model, Error> {
        let failed = |error| Error::Format { path: path.clone(), error };
        let unknown = || {
            let what = foreign::told(&path, &bytes);
            Error::UnknownFormat { path: path.clone(), what }
        };
        let format = sniff(&bytes).ok_or_else(unknown)?;
        let (graph, artefact) = match format {
            Format::Onnx => (onnx::read(bytes.clone(), beside).map_err(failed)?.into(), None),
            Format::Tflite => (tflite::read(bytes.clone()).map_err(failed)?.into(), None),
            Format::Lepton => {
                let artefact = artefact::read(Arc::new(bytes.clone())).map_err(failed)?;
                (artefact.graph.clone(), Some(artefact))
            }
        };
        let file_bytes = bytes.len();
        Ok(Model { graph, path, format, bytes, file_bytes, artefact })
    }

    /// A session of the model: at once if the file was prepared by this version.
    ///
    /// # Errors
    /// A graph that cannot be lowered.
    pub fn session(&self, options: SessionOptions) -> Result<Session, Error> {
        let prepared = self.artefact.as_ref().and_then(|artefact| artefact.prepared.as_ref());
        let usable = prepared
            .filter(|prepared| prepared.key == PREPARED_KEY && options.lowering == Lowering::Full);
        let Some(prepared) = usable else { return Ok(Session::new(&self.graph, options)?) };
        let parts = prepared.packs.iter().flat_map(|pack| &pack.parts);
        mapped::expect(&self.bytes, parts.map(Storage::bytes));
        Ok(Session::prepared(self.graph.clone(), &prepared.packs, options)?)
    }

    /// Checks what opening a prepared artefact leaves out: that its weights are those that were
    /// written. Other files have been checked.
    pub fn check_bytes(&self) -> Result<(), Error> {
        if self.format != Format::Lepton {
            return Ok(());
        }
        let failed = |error| Error::Format { path: self.path.clone(), error };
        artefact::check_hashes(&self.bytes).map_err(failed)
    }

    /// Where an artefact made of it comes from, as JSON.
    pub(crate) fn provenance(&self) -> serde_json::Value {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        serde_json::json!({
            "source": { "name": name, "blake3": self.content_hash() },
            "lepton": env!("CARGO_PKG_VERSION"),
        })
    }

    /// The bytes of its file, without those of the tensors beside it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The extension of its format: `onnx`, `tflite` or `lepton`.
    pub fn format(&self) -> &'static str {
        self.format.extension()
    }

    /// 64 hexadecimal digits (BLAKE3) that stand for the file and the tensors beside it.
    pub fn content_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.bytes);
        if self.file_bytes != self.bytes.len() {
            for id in self.graph.constants() {
                hasher.update(self.graph.constant(id).map_or(&[], |tensor| tensor.bytes()));
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Bytes of its file and of the tensors beside it.
    pub fn file_bytes(&self) -> usize {
        self.file_bytes
    }

    /// The artefact, if the file is one.
    pub fn artefact(&self) -> Option<&Artefact> {
        self.artefact.as_ref()
    }
}
