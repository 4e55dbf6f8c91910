//! The dynamic module that `make portable` builds: it loads on old and new distributions, on both processors.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, elf};
use sandbox::envoy::workspace_root;

/// The oldest glibc that the library may need: that of Debian 11 and Ubuntu 20.04, and of Envoy's own builds.
const OLDEST: (u32, u32) = (2, 31);

/// The versions of glibc that a library needs.
fn glibc_versions(library: &[u8]) -> Result<BTreeSet<(u32, u32)>> {
    let header = FileHeader64::<Endianness>::parse(library)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, library)?;
    let mut needed = BTreeSet::new();
    for section in sections.iter().filter(|section| section.sh_type(endian) == elf::SHT_GNU_VERNEED) {
        let (mut entries, strings) = section.gnu_verneed(endian, library)?.context("no needs")?;
        let strings = sections.strings(endian, library, strings)?;
        while let Some((_, mut versions)) = entries.next()? {
            while let Some(version) = versions.next()? {
                let name = std::str::from_utf8(version.name(endian, strings)?)?;
                let Some(numbers) = name.strip_prefix("GLIBC_") else { continue };
                let mut numbers = numbers.split('.').map(str::parse);
                needed.insert((numbers.next().context("no major")??, numbers.next().context("no minor")??));
            }
        }
    }
    Ok(needed)
}

#[test]
fn the_library_needs_no_newer_glibc_than_envoy_does() -> Result<()> {
    for (processor, machine) in [("x86_64", elf::EM_X86_64), ("aarch64", elf::EM_AARCH64)] {
        let file = workspace_root().join("target/portable").join(processor).join("libstigg_segment.so");
        let library = std::fs::read(&file).with_context(|| format!("{}: run `make portable`", file.display()))?;
        let header = FileHeader64::<Endianness>::parse(&*library)?;
        assert_eq!(header.e_machine(header.endian()?), machine, "{processor}");
        let versions = glibc_versions(&library)?;
        assert!(!versions.is_empty() && versions.iter().all(|version| *version <= OLDEST), "{processor}: {versions:?}");
    }
    Ok(())
}
