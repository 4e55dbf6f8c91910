//! The files of a volume, as the kubelet writes them.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes or replaces them: each is a link into a folder that a link names, which a change replaces.
pub fn project(at: &Path, files: &BTreeMap<String, String>) -> Result<()> {
    let earlier = std::fs::read_link(at.join("..data")).ok();
    let folder = tempfile::Builder::new().prefix("..").tempdir_in(at)?.keep();
    for (name, content) in files {
        std::fs::write(folder.join(name), content)?;
        if earlier.is_none() {
            symlink(Path::new("..data").join(name), at.join(name))?;
        }
    }
    symlink(folder.file_name().context("a name")?, at.join("..data_tmp"))?;
    std::fs::rename(at.join("..data_tmp"), at.join("..data"))?;
    earlier.map_or(Ok(()), |earlier| Ok(std::fs::remove_dir_all(at.join(earlier))?))
}
