//! Each manifest that names an image, with the image pinned by its digest: whoever fetches the image takes it.

use anyhow::{Context, Result};
use sandbox::envoy::Config;
use tests::manifests::{Manifests, every, text};
use tests::registry::Registry;
use tests::tools::run;

use crate::data::istio;
use crate::gateway::{digest, dist};
use crate::kubernetes::Kubernetes;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Istio translates the URL, and its agent fetches the module.
#[test]
fn istio_takes_the_image_by_tag_and_by_digest() -> Result<()> {
    let (registry, digest) = (Registry::start()?, digest("stigg-segment-filter")?);
    registry.push(&dist("images/stigg-segment-filter"), &format!("stigg-segment-filter:{VERSION}"))?;
    let module = std::fs::read(Config::shipped()?.module_file()?)?;
    for variants in [&[][..], &["extension"]] {
        for name in [format!("stigg-segment-filter:{VERSION}"), format!("stigg-segment-filter@{digest}")] {
            let manifest = text("istio.yaml", variants)?;
            let pinned = manifest.replace(&format!("stigg-segment-filter:{VERSION}"), &name);
            let made = istio(&pinned.replace("registry.example.com", registry.address()))?;
            let urls = every(&made, "uri");
            let url = urls.iter().filter_map(|url| url.as_str()).find(|url| url.ends_with(&name)).context(name)?;
            let cache = tempfile::tempdir()?;
            let folder = cache.path().to_str().context("a path in UTF-8")?;
            let fetched = run("istio-translate", ["--fetch", url, folder])?;
            assert!(std::fs::read(fetched.trim())? == module, "{url}");
        }
    }
    let url = format!("oci://{}/stigg-segment-filter@sha256:{}", registry.address(), "0".repeat(64));
    let cache = tempfile::tempdir()?;
    assert!(run("istio-translate", ["--fetch", &url, cache.path().to_str().context("UTF-8")?]).is_err());
    Ok(())
}

/// The image for pods, as a volume of Envoy Gateway's pods and in the chart. No kubelet pulls it here; skopeo does.
#[tokio::test]
async fn kubernetes_takes_the_image_of_the_modules_by_digest() -> Result<()> {
    let (registry, digest) = (Registry::start()?, digest("stigg-segment-filter-modules")?);
    let layout = format!("oci:{}", dist("images/stigg-segment-filter-modules").display());
    let there = format!("docker://{}/stigg-segment-filter-modules", registry.address());
    run("skopeo", ["copy", "--all", "--dest-tls-verify=false", &layout, &format!("{there}:{VERSION}")])?;
    run("skopeo", ["inspect", "--tls-verify=false", &format!("{there}@{digest}")])?;

    let name = format!("registry.example.com/stigg-segment-filter-modules@{digest}");
    let manifest = text("envoy-gateway.yaml", &["native"])?;
    let pinned = manifest
        .replace(&format!("stigg-segment-filter-modules:{VERSION}"), &format!("stigg-segment-filter-modules@{digest}"));
    let mut manifests = Manifests::parse(&pinned)?.0;
    for values in [&[][..], &["image.volume=true"]] {
        let pin = format!("image.digest={digest}");
        let repository = "image.repository=registry.example.com/stigg-segment-filter-modules";
        manifests.extend(Manifests::chart(&[values, &[&pin, repository]].concat())?.0);
    }
    let cluster = Kubernetes::start().await?;
    cluster.define("envoy-gateway/charts/gateway-helm/charts/crds/crds")?;
    cluster.kubectl(["create", "namespace", "stigg-segment"])?;
    let named: Vec<_> = manifests.iter().filter(|manifest| manifest.to_string().contains(&name)).collect();
    assert_eq!(named.len(), 3);
    named.into_iter().try_for_each(|manifest| cluster.apply(manifest))
}
