//! `sandbox dist`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use sandbox::envoy::Config;
use sandbox::image::{self, Origin, Processor, sha256};
use sandbox::workspace_root;
use serde_json::Value;

/// What a release is built from.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The version.
    version: String,
    /// The registry that the images will be in, with the folder there.
    #[arg(long)]
    registry: String,
    /// The URL of the repository.
    #[arg(long)]
    source: Option<String>,
    /// The commit.
    #[arg(long)]
    revision: Option<String>,
}

impl Options {
    /// A text of the repository as a release has it: it names the release's registry, and the repository's pages.
    fn released(&self, text: &str) -> String {
        let text = text.replace(EXAMPLE, &self.registry);
        let Some(source) = &self.source else { return text };
        text.replace("runbook: docs/", &format!("runbook: {source}/blob/v{}/docs/", self.version))
    }
}

/// The processors for which `make portable` builds the dynamic module, and what OCI calls them.
const PROCESSORS: [(&str, &str); 2] = [("x86_64", "amd64"), ("aarch64", "arm64")];

/// What make has built for each of them.
pub fn processors() -> [Processor; 2] {
    let target = workspace_root().join("target");
    PROCESSORS.map(|(processor, name)| Processor {
        name,
        library: target.join("portable").join(processor).join("libstigg_segment.so"),
        copy: target.join("copy").join(processor).join("copy"),
    })
}

/// The registry that the files of the repository name.
const EXAMPLE: &str = "registry.example.com";

/// The packages whose SBOM `make dist` has put into target/sbom, and what each describes.
const SBOMS: [(&str, &str); 2] =
    [("stigg-segment-filter", "stigg_segment.wasm"), ("stigg-segment-native", "libstigg_segment.so")];

/// Writes everything that a release consists of to target/dist, from what `make dist` has built. The same commit gives the
/// same bytes.
pub fn dist(options: &Options) -> Result<()> {
    let target = workspace_root().join("target");
    let dist = target.join("dist");
    if dist.exists() {
        fs::remove_dir_all(&dist)?;
    }
    fs::create_dir(&dist)?;
    let put = |name: &str, content: &[u8]| fs::write(dist.join(name), content).with_context(|| name.to_owned());

    let module = Config::shipped()?.module_file()?;
    put("stigg_segment.wasm", &read(&module)?)?;
    let processors = processors();
    for ((name, _), processor) in PROCESSORS.iter().zip(&processors) {
        put(&format!("libstigg_segment-{name}.so"), &read(&processor.library)?)?;
    }

    // They name the files beside them, and the images in the registry.
    let text = |file: &str| -> Result<String> {
        let text = String::from_utf8(read(&workspace_root().join(file))?)?;
        let text = text.replace("target/wasm32-wasip1/release/stigg_segment.wasm", "stigg_segment.wasm");
        Ok(options.released(&text.replace("target/native/libstigg_segment.so", "./libstigg_segment-x86_64.so")))
    };
    put("configuration.schema.json", text("configuration.schema.json")?.as_bytes())?;
    for file in ["alerts.yaml", "dashboard.json", "existing-envoy.yaml", "istio.yaml", "ratelimit.yaml"] {
        put(file, text(&format!("deploy/{file}"))?.as_bytes())?;
    }
    let gateway = text("deploy/envoy-gateway.yaml")?;
    put("envoy-gateway.yaml", gateway.as_bytes())?;
    put("envoy-gateway-native.yaml", variant(&gateway, "#native ", Some("#wasm$")).as_bytes())?;
    let yaml = text("envoy.yaml")?;
    put("envoy.yaml", yaml.as_bytes())?;
    for command in yaml.lines().filter_map(|line| line.strip_prefix("#   sed ")) {
        let between = |before: &str, after| Some(command.split_once(before)?.1.split_once(after)?.0);
        let name = between("s/#", " //").with_context(|| format!("envoy.yaml: {command}"))?;
        put(&format!("envoy-{name}.yaml"), variant(&yaml, &format!("#{name} "), between("'/", "/d'")).as_bytes())?;
    }
    let script = dist.join("run-envoy");
    fs::copy(workspace_root().join("deploy/run-envoy"), &script)?; // with its mode

    for (package, what) in SBOMS {
        let sbom = String::from_utf8(read(&target.join("sbom").join(package))?)?;
        put(&format!("{what}.cdx.json"), timeless(&sbom)?.as_bytes())?;
    }

    let (source, revision) = (options.source.as_deref(), options.revision.as_deref());
    let origin = Origin { version: &options.version, source, revision };
    let (chart, package) = chart(options)?;
    put(&format!("{}-{}.tgz", CHART, options.version), &package)?;

    let folder = |name: &str| dist.join("images").join(name);
    let [wasm, modules, charts] =
        ["stigg-segment-filter", "stigg-segment-filter-modules", "charts/stigg-segment-filter"];
    let images = [
        (wasm, image::write(&module, &origin, &folder(wasm))?),
        (modules, image::write_modules(&module, &processors, &origin, &folder(modules))?),
        (charts, image::write_chart(&chart, &package, &origin, &folder(charts))?),
    ];
    let lines = images
        .map(|(name, digest)| line(digest.trim_start_matches("sha256:"), &[options.registry.as_str(), name].join("/")));
    put("IMAGES", lines.concat().as_bytes())?;

    let mut sums = Vec::new();
    for entry in fs::read_dir(&dist)? {
        let file = entry?.path();
        if file.is_file() {
            sums.push((name(&file)?.to_owned(), sha256(&read(&file)?)));
        }
    }
    sums.sort();
    let sums: String = sums.iter().map(|(name, sum)| line(sum, name)).collect();
    put("SHA256SUMS", sums.as_bytes())
}

/// A line as sha256sum writes it.
fn line(sum: &str, name: &str) -> String {
    format!("{sum}  {name}\n")
}

fn name(file: &Path) -> Result<&str> {
    file.file_name().and_then(|name| name.to_str()).with_context(|| format!("{} has no name", file.display()))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The name of the Helm chart.
const CHART: &str = "stigg-segment-filter";

/// The chart's `Chart.yaml`, and its package. `helm package` would write the time of each file into it.
fn chart(options: &Options) -> Result<(Value, Vec<u8>)> {
    let chart = workspace_root().join("deploy/chart");
    let mut described = String::from_utf8(read(&chart.join("Chart.yaml"))?)?;
    if let Some(source) = &options.source {
        described += &format!("home: {source}\nsources: [ {source} ]\n");
    }
    let mut files = vec![(format!("{CHART}/Chart.yaml"), 0o644, described.clone().into_bytes())];
    let mut folders = vec![chart.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("Chart.yaml") {
                let name = path.strip_prefix(&chart)?.to_str().context("an odd name")?;
                let content = options.released(&String::from_utf8(read(&path)?)?);
                files.push((format!("{CHART}/{name}"), 0o644, content.into_bytes()));
            }
        }
    }
    files.sort();
    Ok((serde_yaml_ng::from_str(&described)?, image::compressed(&image::archive(&files)?)?))
}

/// A variant of a file, made as its first lines, which stay as they are, say for sed: without this marker, and without the
/// lines that have, or end with, another.
fn variant(yaml: &str, marker: &str, without: Option<&str>) -> String {
    let leaves = |line: &str| match without.map(|text| (text, text.strip_suffix('$'))) {
        Some((_, Some(end))) => line.ends_with(end),
        Some((text, None)) => line.contains(text),
        None => false,
    };
    let head = yaml.lines().take_while(|line| line.starts_with('#'));
    let rest = yaml.lines().skip_while(|line| line.starts_with('#')).filter(|line| !leaves(line));
    head.map(str::to_owned).chain(rest.map(|line| line.replacen(marker, "", 1))).map(|line| line + "\n").collect()
}

/// An SBOM without what differs from one build to the next: serial number, date and this folder's path.
fn timeless(sbom: &str) -> Result<String> {
    // It encodes the folder as URLs do.
    let folder = sbom.split("#stigg-segment-filter@").next().and_then(|before| before.rsplit_once("path+file://"));
    let (_, folder) = folder.context("the SBOM names no folder")?;
    let sbom = sbom.replace(&format!("file://{folder}"), "file://.");
    let mut sbom: Value = serde_json::from_str(&sbom)?;
    let bom = sbom.as_object_mut().context("the SBOM is no object")?;
    bom.remove("serialNumber");
    if let Some(metadata) = bom.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("timestamp");
    }
    Ok(format!("{sbom:#}\n"))
}
