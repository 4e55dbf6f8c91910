//! The unit for systemd.

use anyhow::{Context, Result};
use sandbox::envoy::workspace_root;
use tests::tools::tool;

use crate::container;

const UNIT: &str = "deploy/stigg-envoy.service";

/// What systemd says about a unit.
fn verify(text: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("stigg-envoy.service");
    // It must find the program that the unit starts.
    let script = workspace_root().join("deploy/run-envoy");
    std::fs::write(&file, text.replace("/opt/stigg-segment/run-envoy", script.to_str().unwrap()))?;
    let output = tool("systemd-analyze")?.args(["verify", "--man=no"]).arg(&file).output();
    let output = output.context("there is no systemd-analyze: run `make tools`")?;
    Ok(String::from_utf8(output.stderr)?)
}

#[test]
fn the_unit_is_one_and_leaves_time_to_stop() -> Result<()> {
    let text = std::fs::read_to_string(workspace_root().join(UNIT))?;
    assert_eq!(verify(&text)?, "");
    for (right, wrong) in
        [("KillMode=mixed", "KillMode=mix"), ("run-envoy /", "run-no-envoy /"), ("Restart=", "Restat=")]
    {
        assert!(text.contains(right));
        assert_ne!(verify(&text.replace(right, wrong))?, "", "{wrong}");
    }
    // Another mode sends the signal to Envoy too, or kills it.
    let set = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    assert_eq!(set("KillMode"), Some("mixed"));
    let stop: u64 = set("TimeoutStopSec").context("no time to stop")?.parse()?;
    assert!(stop > container::stop_seconds()?, "killed while it drains");
    Ok(())
}
