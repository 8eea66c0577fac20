//! Every kind of source made here, small: what it yields, and what it says when it is broken.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::folder::Folder;
use flate2::Compression;
use flate2::write::GzEncoder;
use lepton_data::{Batch, DataOptions, DataSet, OneOrMany, Split, Subset, read_npz, write_npz};
use lepton_tensor::{DType, Tensor};

fn all(path: &Path, options: &DataOptions) -> Result<Subset, String> {
    let open = || DataSet::open(path, options)?.split(Split::All);
    open().map_err(|error| error.to_string())
}

fn read(subset: &Subset, size: usize) -> Result<Vec<Batch>, String> {
    subset.batches(size).map(|batch| batch.map_err(|error| error.to_string())).collect()
}

fn error(path: &Path, options: &DataOptions) -> String {
    all(path, options).and_then(|subset| read(&subset, 2)).unwrap_err()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn idx(magic: u8, extents: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, magic, extents.len() as u8];
    extents.iter().for_each(|extent| bytes.extend(extent.to_be_bytes()));
    bytes.extend(data);
    bytes
}

/// A BMP of one flat colour.
fn bmp(height: u32, width: u32, [r, g, b]: [u8; 3]) -> Vec<u8> {
    let row = (width * 3).next_multiple_of(4);
    let mut bytes = b"BM".to_vec();
    bytes.extend((54 + row * height).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend([54u32, 40, width, height].map(u32::to_le_bytes).concat());
    bytes.extend([1, 0, 24, 0]);
    bytes.extend([0; 24]);
    for _ in 0..height {
        bytes.extend([b, g, r].repeat(width as usize));
        bytes.extend(vec![0; (row - width * 3) as usize]);
    }
    bytes
}

fn tar(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn npz_streams_named_arrays_with_labels() {
    let folder = Folder::new();
    let path = folder.path().join("a.npz");
    let x =
        Tensor::from_slice([5, 2], &[0f32, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]).unwrap();
    let ids = Tensor::from_slice([5, 1], &[10i64, 11, 12, 13, 14]).unwrap();
    let labels = Tensor::from_slice([5, 1], &[0u8, 1, 2, 1, 0]).unwrap();
    write_npz(&path, [("x", &x), ("ids", &ids), ("labels", &labels)]).unwrap();
    let subset = all(&path, &DataOptions::default()).unwrap();
    assert_eq!((subset.len(), subset.has_labels()), (5, true));
    let batches = read(&subset, 2).unwrap();
    let sizes: Vec<usize> = batches.iter().map(|batch| batch.inputs[0].1.shape()[0]).collect();
    assert_eq!(sizes, [2, 2, 1]);
    assert_eq!(batches[1].inputs[0].0, "x");
    assert_eq!(batches[1].inputs[0].1.as_slice::<f32>().unwrap(), [4.0, 5.0, 6.0, 7.0]);
    assert_eq!(batches[1].inputs[1].1, Tensor::from_slice([2, 1], &[12i64, 13]).unwrap());
    assert_eq!(batches[1].labels, Some(Tensor::vector(&[2i64, 1])));
    assert_eq!(read(&subset, 2).unwrap(), batches, "a second pass is the same");
    let arrays = read_npz(&path).unwrap();
    assert_eq!(arrays[0], ("x".to_owned(), x));
    assert_eq!(arrays.len(), 3);
}

#[test]
fn every_type_survives_npz() {
    let folder = Folder::new();
    let path = folder.path().join("t.npz");
    for &dtype in DType::ALL.iter().filter(|&&dtype| dtype != DType::Str) {
        let tensor = Tensor::from_f64_slice(dtype, [2, 1], &[0.0, 1.0]).unwrap();
        write_npz(&path, [("t", &tensor)]).unwrap();
        let back = read_npz(&path).unwrap().remove(0).1;
        let expected = match dtype {
            DType::BF16 => DType::F32,
            _ if !dtype.is_coded() => dtype,
            _ if dtype.is_float() => DType::F32,
            _ if dtype.is_signed_integer() => DType::I8,
            _ => DType::U8,
        };
        assert_eq!((back.dtype(), back.to_f64_vec()), (expected, tensor.to_f64_vec()));
    }
    let words = Tensor::from_strings([3], &["naïve", "", "b"]).unwrap();
    write_npz(&path, [("words", &words)]).unwrap();
    assert_eq!(read_npz(&path).unwrap()[0].1, words);
}

#[test]
fn arrays_are_chosen_and_named() {
    let folder = Folder::new();
    let path = folder.path().join("a.npz");
    let (x, y) = (Tensor::vector(&[1f32, 2.0]), Tensor::vector(&[1u8, 2, 3]));
    write_npz(&path, [("x", &x), ("y", &y)]).unwrap();
    assert!(error(&path, &DataOptions::default()).contains("`x` has 2 rows but `y` has 3"));
    let one = |name: &str| OneOrMany::One(name.to_owned());
    let options =
        DataOptions { array: Some(one("y")), input: Some(one("in")), ..Default::default() };
    let subset = all(&path, &options).unwrap();
    assert_eq!((subset.inputs()[0].name.as_str(), subset.len()), ("in", 3));
    let missing = DataOptions { array: Some(one("z")), ..Default::default() };
    assert!(error(&path, &missing).contains("no array `z`; there are: x, y"));
    let labels = DataOptions { labels: Some("q".into()), ..Default::default() };
    assert!(error(&path, &labels).contains("no array `q`"));
    assert_eq!(subset.for_inputs(&["image"]).unwrap().inputs()[0].name, "image");
    let wrong = subset.for_inputs(&["a", "b"]).unwrap_err().to_string();
    assert!(wrong.contains("feeds `in`, the model wants `a`, `b`"), "{wrong}");
    assert!(subset.require_labels().unwrap_err().to_string().contains("label_column"));
}

#[test]
fn broken_archives_of_arrays_are_errors() {
    let folder = Folder::new();
    let path = folder.path().join("a.npz");
    let x = Tensor::from_slice([40, 2], &[1f32; 80]).unwrap();
    let labels = Tensor::vector(&[0u8; 40]);
    write_npz(&path, [("x", &x), ("labels", &labels)]).unwrap();
    let bytes = fs::read(&path).unwrap();
    for cut in (0..bytes.len()).step_by(7) {
        let cut = folder.file("cut.npz", &bytes[..cut]);
        assert!(error(&cut, &DataOptions::default()).contains("cut.npz"));
    }
    for at in (0..bytes.len()).step_by(3) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        let damaged = folder.file("damaged.npz", &damaged);
        let _ = all(&damaged, &DataOptions::default()).and_then(|subset| read(&subset, 3));
        let _ = read_npz(&damaged);
    }
    let short = Tensor::vector(&[0u8; 39]);
    write_npz(&path, [("x", &x), ("labels", &short)]).unwrap();
    assert!(error(&path, &DataOptions::default()).contains("40 rows but 39 labels"));
}

#[test]
fn claims_larger_than_the_file_are_refused() {
    let folder = Folder::new();
    let mut bytes = b"\x93NUMPY\x01\x00\x46\x00".to_vec();
    let header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 8), } ";
    bytes.extend(header);
    let path = folder.file("huge.npy", &bytes);
    assert!(error(&path, &DataOptions::default()).contains("cut off"));
    assert!(read_npz(&path).unwrap_err().to_string().contains("takes"));
    let many = folder.file("i-idx3-ubyte", idx(8, &[4_000_000_000, 60_000, 1], &[]));
    assert!(error(&many, &DataOptions::default()).contains("cut off"));
}

#[test]
fn nan_is_named() {
    let folder = Folder::new();
    let path = folder.path().join("a.npz");
    let x = Tensor::from_slice([3, 2], &[0f32, 1.0, 2.0, 3.0, f32::NAN, 5.0]).unwrap();
    write_npz(&path, [("x", &x)]).unwrap();
    let message = error(&path, &DataOptions::default());
    assert!(message.ends_with("a.npz: row 2, `x` element 0: the value is NaN"), "{message}");
    let y = Tensor::vector(&[0f32, f32::NAN, 1.0]);
    write_npz(&path, [("x", &y), ("labels", &y)]).unwrap();
    assert!(error(&path, &DataOptions::default()).contains("row 1, labels: the label is NaN"));
}

#[test]
fn folders_sort_their_classes() {
    let folder = Folder::new();
    folder.file("zebra/0.bmp", bmp(2, 2, [1, 2, 3]));
    folder.file("ant/b.bmp", bmp(2, 2, [7, 8, 9]));
    folder.file("ant/a.bmp", bmp(2, 2, [4, 5, 6]));
    folder.file("ant/notes.txt", "not an image");
    let subset = all(folder.path(), &DataOptions::default()).unwrap();
    assert_eq!(subset.classes().unwrap(), ["ant", "zebra"]);
    let batch = read(&subset, 10).unwrap().remove(0);
    assert_eq!(batch.labels, Some(Tensor::vector(&[0i64, 0, 1])));
    assert_eq!(batch.inputs[0].1.shape(), [3, 2, 2, 3]);
    assert_eq!(batch.inputs[0].1.bytes()[..12], [4, 5, 6].repeat(4));
    folder.file("zebra/1.bmp", bmp(3, 2, [1, 2, 3]));
    let message = error(folder.path(), &DataOptions::default());
    assert!(message.contains("1.bmp: the image is [3, 2, 3]"), "{message}");
    let resize = DataOptions { resize: Some(OneOrMany::Many(vec![4, 4])), ..Default::default() };
    assert_eq!(all(folder.path(), &resize).unwrap().inputs()[0].shape, [4, 4, 3]);
    folder.file("zebra/2.bmp", &bmp(2, 2, [0; 3])[..60]);
    assert!(error(folder.path(), &resize).contains("2.bmp"));
    let empty = Folder::new();
    assert!(error(empty.path(), &DataOptions::default()).contains("no rows (no .jpg"));
}

#[test]
fn archives_take_labels_from_names() {
    let folder = Folder::new();
    let image = |value| bmp(1, 1, [value; 3]);
    let entries = [("0_3.bmp", image(9)), ("readme.txt", vec![1]), ("d/1_0.bmp", image(8))];
    let path = folder.file("a.tar.gz", gzip(&tar(&entries)));
    let subset = all(&path, &DataOptions::default()).unwrap();
    let batch = read(&subset, 4).unwrap().remove(0);
    assert_eq!(batch.labels, Some(Tensor::vector(&[3i64, 0])));
    assert_eq!(batch.inputs[0].1.bytes(), [9, 9, 9, 8, 8, 8]);
    let pattern =
        DataOptions { label_pattern: Some("^(?:d/)?([0-9]+)_".into()), ..Default::default() };
    let labels = read(&all(&path, &pattern).unwrap(), 4).unwrap().remove(0).labels;
    assert_eq!(labels, Some(Tensor::vector(&[0i64, 1])));
    let wrong = DataOptions { label_pattern: Some("(q)".into()), ..Default::default() };
    assert!(error(&path, &wrong).contains("0_3.bmp: the name has no label after"));
    let classes = folder.file("classes.txt", "zero\none\n");
    let few = DataOptions { classes: Some(classes), ..Default::default() };
    assert!(error(&path, &few).contains("0_3.bmp: label 3 is outside the 2 classes"));
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() - 8 {
        let cut = folder.file("cut.tar.gz", &whole[..cut]);
        let _ = all(&cut, &DataOptions::default()).and_then(|subset| read(&subset, 2));
    }
    let cut = folder.file("cut.tar", &tar(&entries)[..700]);
    assert!(error(&cut, &DataOptions::default()).contains("cut.tar"));
}

#[test]
fn idx_finds_its_labels() {
    let folder = Folder::new();
    let images = idx(8, &[3, 2, 2], &(0..12).collect::<Vec<u8>>());
    let path = folder.file("train-images-idx3-ubyte.gz", gzip(&images));
    assert!(!all(&path, &DataOptions::default()).unwrap().has_labels());
    folder.file("train-labels-idx1-ubyte.gz", gzip(&idx(8, &[3], &[7, 0, 9])));
    let subset = all(&path, &DataOptions::default()).unwrap();
    let batches = read(&subset, 2).unwrap();
    assert_eq!(batches[1].inputs[0].1.bytes(), [8, 9, 10, 11]);
    assert_eq!(batches[0].labels, Some(Tensor::vector(&[7i64, 0])));
    let float = folder.file("f.idx", idx(0x0d, &[1], &[0; 4]));
    assert!(error(&float, &DataOptions::default()).contains("only IDX files of bytes"));
    let cut = folder.file("c.idx", &images[..20]);
    assert!(error(&cut, &DataOptions::default()).contains("cut off"));
}

#[test]
fn csv_with_and_without_header() {
    let folder = Folder::new();
    let path = folder.file("a.csv", "id,a,b,Class\n1,0.5,2,cat\n2,1.5,-3e1,ant\n3,2,4,cat\n");
    let drop = DataOptions { drop: Some(vec!["id".into()]), ..Default::default() };
    let subset = all(&path, &drop).unwrap();
    assert_eq!(subset.classes().unwrap(), ["ant", "cat"]);
    let batch = read(&subset, 10).unwrap().remove(0);
    let expected = [0.5f32, 2.0, 1.5, -30.0, 2.0, 4.0];
    assert_eq!(batch.inputs[0].1, Tensor::from_slice([3, 2], &expected).unwrap());
    assert_eq!(batch.labels, Some(Tensor::vector(&[1i64, 0, 1])));
    let bare = folder.file("b.csv.gz", gzip(b"3,1.5,2\n0,1,1\n"));
    let first = DataOptions { label_column: Some("0".into()), ..Default::default() };
    let batch = read(&all(&bare, &first).unwrap(), 10).unwrap().remove(0);
    assert_eq!(batch.labels, Some(Tensor::vector(&[3i64, 0])));
    assert_eq!(batch.inputs[0].1.as_slice::<f32>().unwrap(), [1.5, 2.0, 1.0, 1.0]);
}

#[test]
fn broken_csv_names_line_and_column() {
    let folder = Folder::new();
    let message = |text: &str| error(&folder.file("a.csv", text), &DataOptions::default());
    let ragged = message("a,b\n1,2\n3\n");
    assert!(ragged.contains("line: 3") && ragged.contains("1 field"), "{ragged}");
    assert!(message("a,b\n1,2\n3,NaN\n").ends_with("row 3, column `b`: the value is NaN"));
    assert!(message("a,b\n1,\n").ends_with("row 2, column `b`: the value is missing"));
    assert!(message("a,b\n1,x\n").contains("row 2, column `b`: `x` is not a number"));
    assert!(message("a,label\n1,0\n2,\n").ends_with("row 3, column `label`: the label is missing"));
    assert!(message("a,y\n1,0.5\n2,nan\n").contains("row 3, column `y`: the label is NaN"));
    assert!(message("").contains("no rows (an empty file)"));
    assert!(message("a,b\n").contains("no rows"));
    let column = DataOptions { label_column: Some("c".into()), ..Default::default() };
    let missing = error(&folder.file("a.csv", "a,b\n1,2\n"), &column);
    assert!(missing.contains("`label_column`: no column `c`; there are: a, b"), "{missing}");
}

#[test]
fn unknown_kinds_and_missing_files_are_named() {
    let folder = Folder::new();
    let text = folder.file("a.xyz", "?");
    assert!(error(&text, &DataOptions::default()).contains("name it with `kind`"));
    let missing = error(&folder.path().join("no.npz"), &DataOptions::default());
    assert!(missing.contains("no.npz: No such file"), "{missing}");
}
