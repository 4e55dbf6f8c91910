//! The OCI image of the filter: it is reproducible, a registry accepts it, and the module from the registry runs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use sandbox::envoy::{Config, Options, validate, workspace_root};
use sandbox::image::{self, Origin};
use serde_json::{Value, json};
use tests::layout::{blob, manifest, unpack};
use tests::registry::Registry;
use tests::tools::run;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Where an image comes from.
pub const ORIGIN: Origin<'_> =
    Origin { version: VERSION, source: Some("https://example.com/it"), revision: Some("0a1b2c") };

/// The module in an image, found as Istio and Envoy Gateway find it: the `plugin.wasm` of the last layer, which must have the
/// media type that both accept.
fn module(layout: &Path) -> Result<Vec<u8>> {
    let manifest = manifest(layout)?;
    let layer = manifest["layers"].as_array().and_then(|layers| layers.last()).context("no layer")?;
    assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    let layer = blob(layout, layer)?;
    for entry in tar::Archive::new(GzDecoder::new(layer.as_slice())).entries()? {
        let mut entry = entry?;
        if entry.path()?.file_name().is_some_and(|name| name == "plugin.wasm") {
            let mut module = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut module)?;
            return Ok(module);
        }
    }
    anyhow::bail!("no plugin.wasm")
}

#[test]
fn the_same_module_gives_the_same_image() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let built = Config::shipped()?.module_file()?;
    let digest = image::write(&built, &ORIGIN, &folder.path().join("a"))?;
    assert_eq!(image::write(&built, &ORIGIN, &folder.path().join("b"))?, digest);
    // Over the earlier one.
    let other = folder.path().join("other.wasm");
    std::fs::write(&other, "other")?;
    assert_ne!(image::write(&other, &ORIGIN, &folder.path().join("a"))?, digest);
    assert_eq!(module(&folder.path().join("a"))?, b"other");
    Ok(())
}

#[test]
fn an_image_says_what_it_is_and_where_it_comes_from() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let layout = folder.path().join("layout");
    let file = folder.path().join("file");
    std::fs::write(&file, "a module")?;
    let annotations = |origin: Origin<'_>| -> Result<Value> {
        let processor = image::Processor { name: "amd64", library: file.clone(), copy: file.clone() };
        image::write_modules(&file, &[processor], &origin, &layout)?;
        let index = manifest(&layout)?;
        let image: Value = serde_json::from_slice(&blob(&layout, &index["manifests"][0])?)?;
        assert_eq!(index["annotations"], image["annotations"]);
        Ok(index["annotations"].clone())
    };
    let mut expected = json!({
        "org.opencontainers.image.title": "stigg-segment-filter-modules",
        "org.opencontainers.image.description": "The filter for pods: the Wasm module, and the dynamic module of Envoy",
        "org.opencontainers.image.version": VERSION,
        "org.opencontainers.image.licenses": "Apache-2.0",
    });
    assert_eq!(annotations(Origin { source: None, revision: None, ..ORIGIN })?, expected);
    expected["org.opencontainers.image.source"] = "https://example.com/it".into();
    expected["org.opencontainers.image.revision"] = "0a1b2c".into();
    assert_eq!(annotations(ORIGIN)?, expected);
    Ok(())
}

#[test]
fn the_image_of_the_modules_has_them_for_each_processor() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let layout = folder.path().join("layout");
    let file = |name: &str| folder.path().join(name);
    for name in ["wasm", "amd64.so", "arm64.so", "amd64", "arm64"] {
        std::fs::write(file(name), format!("{name}'s"))?;
    }
    let processors = ["amd64", "arm64"].map(|name| image::Processor {
        name,
        library: file(&format!("{name}.so")),
        copy: file(name),
    });
    image::write_modules(&file("wasm"), &processors, &ORIGIN, &layout)?;
    // skopeo chooses a processor as a cluster's nodes do.
    for processor in ["amd64", "arm64"] {
        let chosen = folder.path().join(format!("chosen-{processor}"));
        let from = format!("oci:{}:{VERSION}", layout.display());
        run("skopeo", ["--override-arch", processor, "copy", &from, &format!("oci:{}", chosen.display())])?;
        let unpacked = folder.path().join(format!("unpacked-{processor}"));
        unpack(&chosen, &unpacked)?;
        for (name, content) in
            [("stigg_segment.wasm", "wasm"), ("libstigg_segment.so", &format!("{processor}.so")), ("copy", processor)]
        {
            assert_eq!(std::fs::read_to_string(unpacked.join(name))?, format!("{content}'s"), "{processor}");
        }
        // The user of a pod may read them all, and run the program.
        let mode =
            |name: &str| Ok::<_, anyhow::Error>(std::fs::metadata(unpacked.join(name))?.permissions().mode() & 0o777);
        assert_eq!((mode("copy")?, mode("stigg_segment.wasm")?, mode("libstigg_segment.so")?), (0o755, 0o644, 0o644));
        let config: Value = serde_json::from_slice(&blob(&chosen, &manifest(&chosen)?["config"])?)?;
        assert_eq!((&config["architecture"], &config["config"]["Entrypoint"]), (&json!(processor), &json!(["/copy"])));
    }
    Ok(())
}

#[tokio::test]
async fn the_image_from_a_registry_holds_the_module_and_it_runs() -> Result<()> {
    let registry = Registry::start()?;
    let folder = tempfile::tempdir()?;
    let (sent, received) = (folder.path().join("sent"), folder.path().join("received"));
    let config = Config::shipped()?;
    let digest = image::write(&config.module_file()?, &ORIGIN, &sent)?;

    // As the page on deployment says.
    let page = std::fs::read_to_string(workspace_root().join("docs/deployment.md"))?;
    let command = page
        .lines()
        .find_map(|line| line.trim().strip_prefix("skopeo copy ").filter(|rest| rest.starts_with("oci")))
        .context("no skopeo copy")?;
    let [from, to] = command.split(' ').collect::<Vec<_>>()[..] else { panic!("{command}") };
    let from = from.replace("target/image", &sent.to_string_lossy());
    let there = to.replace("registry.example.com", registry.address());
    run("skopeo", ["copy", "--dest-tls-verify=false", &from, &there])?;
    assert!(there.ends_with(&format!("/stigg-segment-filter:{VERSION}")), "{there}");
    assert_eq!(run("skopeo", ["inspect", "--tls-verify=false", "--format={{.Digest}}", &there])?.trim(), digest);
    run("skopeo", ["copy", "--src-tls-verify=false", &there, &format!("oci:{}", received.display())])?;

    let module = module(&received)?;
    assert!(module == std::fs::read(config.module_file()?)?, "not the module that was sent");
    let file = folder.path().join("plugin.wasm");
    std::fs::write(&file, module)?;
    let environment = Options::default().env("SEGMENT_WRITE_KEY", &"k".repeat(32)).env("STIGG_WEBHOOK_SECRET", "s");
    let opinion = validate(config.module(&file)?, environment).await?;
    assert!(opinion.accepted, "{}", opinion.log);
    Ok(())
}
