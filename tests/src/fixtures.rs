//! The events in `tests/fixtures`: one of each type that Stigg documents, with its call.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// An event and its call.
#[derive(Debug)]
pub struct Fixture {
    /// Its type.
    pub name: String,
    /// The webhook's body.
    pub event: String,
    /// Members of the call; null if the event is about no customer.
    pub track: Value,
}

/// The folder of the repository.
pub fn repository() -> Result<PathBuf> {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    folders.find(|folder| folder.join("tests/fixtures").is_dir()).map(Path::to_owned).context("not in the repository")
}

/// All fixtures, sorted by name.
pub fn fixtures() -> Result<Vec<Fixture>> {
    let folder = repository()?.join("tests/fixtures");
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(&folder)? {
        let file = entry?.file_name().into_string().ok().context("an odd file name")?;
        let name = file.strip_suffix(".json").with_context(|| format!("{file} is not a fixture"))?;
        names.insert(name.strip_suffix(".track").unwrap_or(name).to_owned());
    }
    let read = |file: String| std::fs::read_to_string(folder.join(&file)).context(file);
    let fixture = |name: String| {
        let event = read(format!("{name}.json"))?;
        let expectation = format!("{name}.track.json");
        ensure!(
            folder.join(&expectation).exists(),
            "write tests/fixtures/{expectation}: the call that the default mapping makes of the event, without context and \
             properties; null if it makes none"
        );
        let track = serde_json::from_str(&read(expectation)?)?;
        Ok(Fixture { event, track, name })
    };
    names.into_iter().map(fixture).collect()
}
