//! The OCI image layouts that this project writes.

use std::path::Path;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use serde_json::Value;

/// A blob of an image layout.
pub fn blob(layout: &Path, descriptor: &Value) -> Result<Vec<u8>> {
    let digest = descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
    Ok(std::fs::read(layout.join("blobs/sha256").join(digest.context("no digest")?))?)
}

/// The manifest of the only image of a layout.
pub fn manifest(layout: &Path) -> Result<Value> {
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json"))?)?;
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(1));
    Ok(serde_json::from_slice(&blob(layout, &index["manifests"][0])?)?)
}

/// Writes the files of the layout's image, or of the first of its images, into a folder.
pub fn unpack(layout: &Path, folder: &Path) -> Result<()> {
    let mut manifest = manifest(layout)?;
    if let Some(first) = manifest["manifests"].get(0) {
        manifest = serde_json::from_slice(&blob(layout, first)?)?;
    }
    let layer = blob(layout, &manifest["layers"][0])?;
    Ok(tar::Archive::new(GzDecoder::new(layer.as_slice())).unpack(folder)?)
}
