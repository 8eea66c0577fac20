//! Real data: pixels equal to Pillow's, label counts, memory of the cache.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::folder::Folder;
use lepton_data::{DataOptions, DataSet, OneOrMany, Split, StoredLayout, read_npz};

/// The folder of real models and data, or `None` (said on the output) where there is none.
fn assets() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
    let folder = std::env::var_os("LEPTON_ASSETS").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no assets");
    None
}

#[test]
fn cifar10_jpeg_pixels_are_those_of_pillow() {
    let Some(assets) = assets() else { return };
    let folder = assets.join("image/cifar10");
    let stored = read_npz(&folder.join("test_first1000.npz")).unwrap();
    let find = |name: &str| &stored.iter().find(|(found, _)| found == name).unwrap().1;
    let options = DataOptions { limit: Some(1000), ..Default::default() };
    let set = DataSet::open(&folder.join("test_10k_jpeg.tar.gz"), &options).unwrap();
    let subset = set.split(Split::All).unwrap();
    let batch = subset.batches(1000).next().unwrap().unwrap();
    assert_eq!(&batch.inputs[0].1, find("images"));
    assert_eq!(batch.labels.unwrap().to_i64_vec(), find("labels").to_i64_vec());
}

#[test]
fn the_cifar10_description_is_ready_to_use() {
    let Some(assets) = assets() else { return };
    // The shipped description expects the data beside the repository; it may be elsewhere.
    let shipped = include_str!("cifar10.toml");
    let text = shipped.replace("../../../../../shared/assets", assets.to_str().unwrap());
    assert_ne!(text, shipped);
    let folder = Folder::new();
    let set = DataSet::open(&folder.file("cifar10.toml", text), &DataOptions::default()).unwrap();
    let test = set.split(Split::Test).unwrap();
    assert_eq!((test.len(), test.classes().unwrap().len()), (10_000, 10));
    assert_eq!(test.inputs()[0].shape, [3, 32, 32]);
    for pass in ["first", "second"] {
        let started = Instant::now();
        let mut counts = [0; 10];
        for batch in test.batches(256) {
            let labels = batch.unwrap().labels.unwrap().to_i64_vec();
            labels.iter().for_each(|&label| counts[label as usize] += 1);
        }
        assert_eq!(counts, [1000; 10]);
        println!("{pass} pass over 10 000 images: {:?}", started.elapsed());
    }
    let train = set.split(Split::Train).unwrap();
    assert_eq!(train.len(), 2000);
}

#[test]
fn mnist_and_csv_have_their_published_counts() {
    let Some(assets) = assets() else { return };
    let options = DataOptions { layout: Some(StoredLayout::Nchw), ..Default::default() };
    let path = assets.join("image/mnist/t10k-images-idx3-ubyte.gz");
    let mnist = DataSet::open(&path, &options).unwrap().split(Split::All).unwrap();
    assert_eq!((mnist.len(), mnist.inputs()[0].shape.as_slice()), (10_000, &[1, 28, 28][..]));
    let first = mnist.batches(5).next().unwrap().unwrap();
    assert_eq!(first.labels.unwrap().to_i64_vec(), [7, 2, 1, 0, 4]);
    let options = DataOptions { drop: Some(vec!["ID".into()]), ..Default::default() };
    let path = assets.join("finance/uci_credit_default/UCI_Credit_Card.csv.gz");
    let credit = DataSet::open(&path, &options).unwrap().split(Split::All).unwrap();
    assert_eq!((credit.len(), credit.inputs()[0].shape.as_slice()), (30_000, &[23][..]));
    let labels = credit.batches(1000).flat_map(|batch| batch.unwrap().labels.unwrap().to_i64_vec());
    assert_eq!(labels.sum::<i64>(), 6636);
}

#[test]
fn arrays_of_one_archive_can_be_train_and_test() {
    let Some(assets) = assets() else { return };
    let path = assets.join("medical/pneumoniamnist/pneumoniamnist.npz");
    let options = |part: &str| DataOptions {
        array: Some(OneOrMany::One(format!("{part}_images"))),
        labels: Some(format!("{part}_labels")),
        layout: Some(StoredLayout::Nchw),
        ..Default::default()
    };
    for (part, rows) in [("train", 2428), ("test", 468)] {
        let set = DataSet::open(&path, &options(part)).unwrap().split(Split::All).unwrap();
        assert_eq!(set.len(), rows);
        let batch = set.batches(rows).next().unwrap().unwrap();
        assert_eq!(batch.inputs[0].1.shape(), [rows, 1, 28, 28]);
        assert_eq!(batch.labels.unwrap().shape(), [rows]);
    }
}

#[test]
fn larger_images_are_resized_and_cropped() {
    let Some(assets) = assets() else { return };
    let options = DataOptions {
        label_pattern: Some("^0*([0-9]+)_".into()),
        resize: Some(OneOrMany::One(146)),
        crop: Some(OneOrMany::One(128)),
        limit: Some(20),
        ..Default::default()
    };
    let path = assets.join("image/imagenet_tflite/imagenet_250_160px.tar.gz");
    let subset = DataSet::open(&path, &options).unwrap().split(Split::All).unwrap();
    let batch = subset.batches(20).next().unwrap().unwrap();
    assert_eq!(batch.inputs[0].1.shape(), [20, 128, 128, 3]);
    assert_eq!(batch.labels.unwrap().to_i64_vec()[..3], [0, 4, 8]);
}
