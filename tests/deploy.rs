//! The ways to run it in deploy/: each manifest is what its API takes, and does on a real Envoy what it is there for.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking"
)]

mod edge;
#[path = "deploy/manifests.rs"]
mod manifests;
#[path = "deploy/schemas.rs"]
mod schemas;

use anyhow::Result;
use manifests::*;
use sandbox::envoy::SKIPPED;
use schemas::{Published, definitions, misspelt};
use serde_json::Value;

/// All manifests for a cluster.
fn for_clusters() -> Result<Vec<Value>> {
    let kubernetes = Manifests::kubernetes()?.map_or_else(Vec::new, |manifests| manifests.0);
    Ok([kubernetes, Manifests::read("istio.yaml")?.0, Manifests::read("envoy-gateway.yaml")?.0].concat())
}

#[test]
fn every_manifest_is_what_its_schema_says() -> Result<()> {
    let mut published = Published::read()?;
    let mut checked = vec![(Manifests::read("compose.yaml")?.the_only()?, published.compose)];
    let definitions = definitions();
    for manifest in for_clusters()? {
        match published.schema(&manifest, definitions.as_deref()) {
            Ok(schema) => checked.push((manifest, schema)),
            Err(none) => println!("{SKIPPED}{none}"),
        }
    }
    for (manifest, schema) in checked {
        assert_eq!(published.wrong(&manifest, schema), None, "{manifest}");
        for misspelt in misspelt(&manifest) {
            assert!(published.wrong(&misspelt, schema).is_some(), "nobody minds: {misspelt}");
        }
    }
    Ok(())
}
