//! The events in tests/fixtures: one of each type, as Stigg sends it.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::workspace_root;

fn folder() -> PathBuf {
    workspace_root().join("tests/fixtures")
}

/// Their types, sorted.
pub fn names() -> Result<Vec<String>> {
    let folder = folder();
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".json"));
        names.extend(name.filter(|name| !name.ends_with(".track")).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// The event of this type, or in this file, or on standard input if it is `-`.
///
/// # Errors
/// There is neither such a type nor such a file; the error lists the types.
pub fn event(name: &str) -> Result<Vec<u8>> {
    if name == "-" {
        let mut event = Vec::new();
        std::io::stdin().read_to_end(&mut event)?;
        return Ok(event);
    }
    let names = names()?;
    let file = match names.iter().any(|known| known == name) {
        true => folder().join(format!("{name}.json")),
        false => PathBuf::from(name),
    };
    match fs::read(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("there is no event and no file `{name}`; the events are:\n  {}", names.join("\n  "))
        }
        read => read.with_context(|| format!("cannot read {}", file.display())),
    }
}
