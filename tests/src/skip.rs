//! What a test leaves out on this machine, and why: said where nobody can miss it, and counted.

use std::fs::File;
use std::io::{Write, stderr};
use std::thread;

/// Names the file to which each skip is added as a line: the test, a colon, and why.
pub const SKIPS_FILE: &str = "SKIPS_FILE";

/// Says that this test leaves something out.
pub fn skip(why: &str) {
    let line = format!("{}: {why}\n", thread::current().name().unwrap_or("a test"));
    // A test that passes shows nothing of what it prints, but of what it writes to the standard error.
    stderr().write_all(format!("skipped {line}").as_bytes()).expect("the standard error takes it");
    if let Some(file) = std::env::var_os(SKIPS_FILE) {
        let file = File::options().append(true).create(true).open(file);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("SKIPS_FILE can be written to");
    }
}
