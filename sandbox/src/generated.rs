//! The generated parts of README.md and the pages: each is between two marks.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Puts `text` between two marks; their name is that of the command which writes the part.
pub fn write_between(file: &Path, name: &str, text: &str) -> Result<()> {
    let old = fs::read_to_string(file)?;
    let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->\n"));
    let (before, rest) = old.split_once(&start).with_context(|| format!("no {start} in {}", file.display()))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("no {end} in {}", file.display()))?;
    Ok(fs::write(file, [before, &start, text, &end, after].concat())?)
}
