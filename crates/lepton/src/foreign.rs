//! What a file is that is no model, and what makes one of it.

use std::path::Path;

/// Beginnings of files, what they are and what to do.
const KINDS: &[(&[u8], &str)] = &[
    (b"\x89HDF\r\n\x1a\n", KERAS),
    (b"\x93NUMPY", "an array of NumPy, not a model"),
    (b"\x89PNG", "an image, not a model"),
    (b"\xff\xd8\xff", "an image, not a model"),
    (b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (b"version https://git-lfs", "a pointer of Git LFS: fetch the file with `git lfs pull`"),
];

/// Names in ZIP archives, what those are and what to do.
const ARCHIVES: &[(&[u8], &str)] = &[
    (b"config.json", KERAS),
    (b"data.pkl", PYTORCH),
    (b".npy", "arrays of NumPy, not a model: `lepton run MODEL --input` takes them"),
];

const KERAS: &str = "a file of Keras: read it with the Python package lepton_ai, or export it with \
                     `model.export(\"model.onnx\", format=\"onnx\")`";
const PYTORCH: &str = "a PyTorch checkpoint, which has no graph: export the module with \
                       `torch.onnx.export`";
const TENSORFLOW: &str = "a graph of TensorFlow: convert its SavedModel with \
                          `tf.lite.TFLiteConverter` or `python -m tf2onnx.convert`";
const WEIGHTS: &str = "weights without a graph: `--weights` puts them into a model";

/// Bytes at either end of an archive that are looked through for names.
const LOOKED_THROUGH: usize = 1 << 16;

/// What is wrong with a file whose bytes begin no model, and how to mend it.
pub(crate) fn told(path: &Path, bytes: &[u8]) -> String {
    let known = "known formats: .onnx, .tflite, .lepton";
    if bytes.is_empty() {
        return "the file is empty; fetch or export it again".to_string();
    }
    match kind(path, bytes) {
        Some(kind) => format!("{kind} ({known})"),
        None => format!("not a model file; {known}"),
    }
}

fn kind(path: &Path, bytes: &[u8]) -> Option<&'static str> {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    if let Some((_, told)) = KINDS.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Some(told);
    }
    if bytes.starts_with(b"PK\x03\x04") {
        let end = bytes.len().min(LOOKED_THROUGH);
        let ends = [&bytes[..end], &bytes[bytes.len() - end..]];
        let holds = |name: &[u8]| {
            ends.iter().any(|part| part.windows(name.len()).any(|found| found == name))
        };
        let found = ARCHIVES.iter().find(|(name, _)| holds(name));
        return Some(found.map_or("a ZIP archive: unpack it first", |(_, told)| told));
    }
    // The header of safetensors: its length in eight bytes, then JSON.
    if bytes.get(8) == Some(&b'{') && bytes.get(4..8) == Some(&[0; 4]) {
        return Some(WEIGHTS);
    }
    let pickled = bytes.first() == Some(&0x80) && bytes.get(1).is_some_and(|v| (2..=5).contains(v));
    match extension.to_str() {
        _ if pickled => Some(PYTORCH),
        Some("pt" | "pth") => Some(PYTORCH),
        Some("pb") => Some(TENSORFLOW),
        _ => None,
    }
}

/// What is wrong with a directory that is given as a model.
pub(crate) fn directory(path: &Path) -> String {
    let saved = path.join("saved_model.pb").exists();
    let kind = if saved { TENSORFLOW } else { "give the model's file in it" };
    format!("a directory, not a file: {kind}")
}

/// What the system says of a file that is not there, and the name it may have been meant to have.
pub(crate) fn missing(path: &Path, error: std::io::Error) -> std::io::Error {
    if error.kind() != std::io::ErrorKind::NotFound {
        return error;
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let wanted = path.file_name().unwrap_or_default().to_string_lossy();
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()))
        .map(Iterator::collect)
        .unwrap_or_default();
    names.sort();
    let near = |name: &String| strsim::damerau_levenshtein(name, &wanted);
    let nearest = names.into_iter().min_by_key(near).filter(|name| near(name) <= 3);
    let hint = match nearest {
        Some(name) => format!("; did you mean `{}`?", folder.join(name).display()),
        None if !folder.is_dir() => format!("; there is no folder `{}`", folder.display()),
        None => String::new(),
    };
    std::io::Error::new(error.kind(), format!("No such file{hint}"))
}
