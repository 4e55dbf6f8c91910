//! The filter as OCI images: the Wasm module in the one form that both Istio and Envoy Gateway accept
//! (<https://github.com/solo-io/wasm/blob/master/spec/spec-compat.md>), a single layer with a `plugin.wasm`; and both modules
//! for pods, which mount the image as a volume or copy from it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Writes the image layout of the Wasm module into a folder, over an earlier one, and returns the image's digest. The same
/// module gives the same digest: the image contains no time and no machine name.
pub fn write(module: &Path, version: &str, folder: &Path) -> Result<String> {
    let layout = Layout::new(folder)?;
    let files = [("plugin.wasm", 0o644, module)];
    let manifest = layout.manifest(&files, ("wasip1", "wasm"), json!({}), TITLE, version)?;
    layout.finish(manifest, version)
}

/// What differs from processor to processor in the image of the modules.
#[derive(Debug)]
pub struct Processor {
    /// Its name in OCI: `amd64`, `arm64`.
    pub name: &'static str,
    /// The dynamic module.
    pub library: PathBuf,
    /// The static program that copies.
    pub copy: PathBuf,
}

/// Writes the image layout of both modules, one image for each processor, for clusters that mount an image as a volume or
/// copy from it in an init container.
pub fn write_modules(wasm: &Path, processors: &[Processor], version: &str, folder: &Path) -> Result<String> {
    let layout = Layout::new(folder)?;
    let manifests = processors.iter().map(|Processor { name, library, copy }| {
        let files = [
            ("stigg_segment.wasm", 0o644, wasm),
            ("libstigg_segment.so", 0o644, library.as_path()),
            ("copy", 0o755, copy.as_path()),
        ];
        let config = json!({ "Entrypoint": ["/copy"] });
        let title = format!("{TITLE}-modules");
        let mut manifest = layout.manifest(&files, ("linux", name), config, &title, version)?;
        manifest["platform"] = json!({ "os": "linux", "architecture": name });
        Ok(manifest)
    });
    let manifests = manifests.collect::<Result<Vec<_>>>()?;
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    let index = layout.blob(INDEX, index.to_string().as_bytes())?;
    layout.finish(index, version)
}

/// An image layout (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>) that is being written.
struct Layout<'a>(&'a Path);

impl<'a> Layout<'a> {
    fn new(folder: &'a Path) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder.join("blobs/sha256"))?;
        Ok(Layout(folder))
    }

    /// Writes a blob and describes it.
    fn blob(&self, media_type: &str, content: &[u8]) -> Result<Value> {
        let digest = sha256(content);
        fs::write(self.0.join("blobs/sha256").join(&digest), content)?;
        Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len() }))
    }

    /// Writes an image with files in one layer, each with its name and mode, and describes it.
    fn manifest(
        &self,
        files: &[(&str, u32, &Path)],
        system: (&str, &str),
        config: Value,
        title: &str,
        version: &str,
    ) -> Result<Value> {
        let tar = archive(files)?;
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar+gzip", &compressed(&tar)?)?;
        let config = json!({
            "architecture": system.1,
            "os": system.0,
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&tar))] },
        });
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [layer],
            "annotations": {
                "org.opencontainers.image.title": title,
                "org.opencontainers.image.version": version,
            },
        });
        self.blob(MANIFEST, manifest.to_string().as_bytes())
    }

    /// Writes the layout's index, with what it is about. Returns its digest.
    fn finish(self, mut described: Value, version: &str) -> Result<String> {
        let digest = described["digest"].as_str().unwrap_or_default().to_owned();
        described["annotations"] = json!({ "org.opencontainers.image.ref.name": version });
        fs::write(self.0.join("index.json"), json!({ "schemaVersion": 2, "manifests": [described] }).to_string())?;
        fs::write(self.0.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
        Ok(digest)
    }
}

/// What the images are called.
const TITLE: &str = "stigg-segment-filter";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn archive(files: &[(&str, u32, &Path)]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, mode, file) in files {
        let content = fs::read(file).with_context(|| format!("cannot read {}: build it first", file.display()))?;
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len().try_into()?);
        header.set_mode(*mode);
        tar.append_data(&mut header, name, content.as_slice())?;
    }
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
