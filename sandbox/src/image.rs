//! The filter's module as an OCI image, in the one form that both Istio and Envoy Gateway accept
//! (<https://github.com/solo-io/wasm/blob/master/spec/spec-compat.md>): a single layer with a `plugin.wasm`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Writes the image layout of a module into a folder, over an earlier one, and returns the image's digest. The same
/// module gives the same digest: the image contains no time and no machine name.
pub fn write(module: &Path, version: &str, folder: &Path) -> Result<String> {
    let module =
        fs::read(module).with_context(|| format!("cannot read {}: run `make build` first", module.display()))?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let blob = |media_type: &str, content: &[u8]| -> Result<Value> {
        let digest = sha256(content);
        fs::write(blobs.join(&digest), content)?;
        Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len() }))
    };

    let tar = archive(&module)?;
    let layer = blob("application/vnd.oci.image.layer.v1.tar+gzip", &compressed(&tar)?)?;
    let config = json!({
        "architecture": "wasm",
        "os": "wasip1",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&tar))] },
    });
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [layer],
        "annotations": {
            "org.opencontainers.image.title": "stigg-segment-filter",
            "org.opencontainers.image.version": version,
        },
    });
    let mut manifest = blob(MANIFEST, manifest.to_string().as_bytes())?;
    let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": version });
    fs::write(folder.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string())?;
    fs::write(folder.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
    Ok(digest)
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn archive(module: &[u8]) -> Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_size(module.len().try_into()?);
    header.set_mode(0o644);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, "plugin.wasm", module)?;
    Ok(tar.into_inner()?)
}

fn compressed(tar: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    std::io::Write::write_all(&mut gzip, tar)?;
    Ok(gzip.finish()?)
}

fn sha256(content: &[u8]) -> String {
    format!("{:x}", Sha256::digest(content))
}
