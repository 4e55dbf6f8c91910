//! `copy FILE... FOLDER`: the program in the image `stigg-segment-filter-modules`, which has no shell. An init container runs
//! it to copy the filter into the pod.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let mut files: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let folder = files.pop().filter(|_| !files.is_empty());
    let folder = folder.ok_or_else(|| io::Error::other("expected: copy FILE... FOLDER"))?;
    files.iter().try_for_each(|file| copy(file, &folder))
}

/// Copies by a rename, since an Envoy may have loaded an earlier copy.
fn copy(file: &Path, folder: &Path) -> io::Result<()> {
    let name = file.file_name().ok_or_else(|| io::Error::other("not a file's name"))?;
    let new = folder.join(".new");
    fs::copy(file, &new)?;
    fs::rename(new, folder.join(name))
}
