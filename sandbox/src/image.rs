//! The filter as OCI images: the Wasm module in the one form that both Istio and Envoy Gateway accept
//! (<https://github.com/solo-io/wasm/blob/master/spec/spec-compat.md>), a single layer with a `plugin.wasm`; and both modules
//! for pods, which mount the image as a volume or copy from it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What an image says about its origin.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The version, which is its tag too.
    pub version: &'a str,
    /// The URL of the repository, in a release.
    pub source: Option<&'a str>,
    /// The commit that it was built from, in a release.
    pub revision: Option<&'a str>,
}

/// Writes the image layout of the Wasm module into a folder, over an earlier one, and returns the image's digest. The same
/// module from the same origin gives the same digest: the image contains no time and no machine name.
pub fn write(module: &Path, origin: &Origin<'_>, folder: &Path) -> Result<String> {
    let layout = Layout::new(folder)?;
    let files = [("plugin.wasm", 0o644, module)];
    let manifest = layout.manifest(&files, ("wasip1", "wasm"), json!({}), &origin.annotations(WASM))?;
    layout.finish(manifest, origin.version)
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
pub fn write_modules(wasm: &Path, processors: &[Processor], origin: &Origin<'_>, folder: &Path) -> Result<String> {
    let layout = Layout::new(folder)?;
    let annotations = origin.annotations(MODULES);
    let manifests = processors.iter().map(|Processor { name, library, copy }| {
        let files = [
            ("stigg_segment.wasm", 0o644, wasm),
            ("libstigg_segment.so", 0o644, library.as_path()),
            ("copy", 0o755, copy.as_path()),
        ];
        let config = json!({ "Entrypoint": ["/copy"] });
        let mut manifest = layout.manifest(&files, ("linux", name), config, &annotations)?;
        manifest["platform"] = json!({ "os": "linux", "architecture": name });
        Ok(manifest)
    });
    let manifests = manifests.collect::<Result<Vec<_>>>()?;
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": annotations });
    let index = layout.blob(INDEX, index.to_string().as_bytes())?;
    layout.finish(index, origin.version)
}

/// A title and a description.
type About = (&'static str, &'static str);
const WASM: About = (NAME, "A proxy-wasm filter for Envoy that turns Stigg's webhooks into Segment track calls");
const CHART: About = (NAME, "Envoy with the filter that turns Stigg's webhooks into Segment track calls");
const MODULES: About =
    ("stigg-segment-filter-modules", "The filter for pods: the Wasm module, and the dynamic module of Envoy");

impl Origin<'_> {
    /// The usual annotations (<https://github.com/opencontainers/image-spec/blob/main/annotations.md>), without a date.
    fn annotations(&self, (title, description): About) -> Value {
        let always = [("title", title), ("description", description), ("version", self.version), ("licenses", LICENCE)];
        let given = [("source", self.source), ("revision", self.revision)];
        let given = given.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let annotations = always.into_iter().chain(given);
        annotations.map(|(key, value)| (format!("org.opencontainers.image.{key}"), Value::from(value))).collect()
    }
}

/// Writes the layout of a Helm chart in the form that Helm pulls from a registry
/// (<https://helm.sh/docs/topics/registries/#helm-chart-manifest>): its `Chart.yaml`, and its package.
pub fn write_chart(chart: &Value, package: &[u8], origin: &Origin<'_>, folder: &Path) -> Result<String> {
    let layout = Layout::new(folder)?;
    let config = layout.blob("application/vnd.cncf.helm.config.v1+json", chart.to_string().as_bytes())?;
    let layer = layout.blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", package)?;
    let manifest = layout.image(&config, &layer, &origin.annotations(CHART))?;
    layout.finish(manifest, origin.version)
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
        annotations: &Value,
    ) -> Result<Value> {
        let read =
            |file: &Path| fs::read(file).with_context(|| format!("cannot read {}: build it first", file.display()));
        let files = files.iter().map(|(name, mode, file)| Ok(((*name).to_owned(), *mode, read(file)?)));
        let tar = archive(&files.collect::<Result<Vec<_>>>()?)?;
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar+gzip", &compressed(&tar)?)?;
        let config = json!({
            "architecture": system.1,
            "os": system.0,
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&tar))] },
        });
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
        self.image(&config, &layer, annotations)
    }

    /// Writes the manifest of an image, and describes it.
    fn image(&self, config: &Value, layer: &Value, annotations: &Value) -> Result<Value> {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [layer],
            "annotations": annotations,
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

const NAME: &str = "stigg-segment-filter";
const LICENCE: &str = "Apache-2.0";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A tar archive of files, each with its name and mode, without times and owners.
pub fn archive(files: &[(String, u32, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, mode, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len().try_into()?);
        header.set_mode(*mode);
        tar.append_data(&mut header, name, content.as_slice())?;
    }
    Ok(tar.into_inner()?)
}

/// The same in gzip, without a time.
pub fn compressed(tar: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    std::io::Write::write_all(&mut gzip, tar)?;
    Ok(gzip.finish()?)
}

/// The SHA-256 of a content, in hexadecimal digits.
pub fn sha256(content: &[u8]) -> String {
    format!("{:x}", Sha256::digest(content))
}
