//! Reports the parts that a test skips on this machine, and why, and counts them.

use std::fs::File;
use std::io::{Write, stderr};
use std::thread;

/// The variable with the name of a file. Each skip adds a line to it: the test, a colon, and the reason.
pub const SKIPS_FILE: &str = "SKIPS_FILE";

/// Reports that this test skips something.
pub fn skip(why: &str) {
    let line = format!("{}: {why}\n", thread::current().name().unwrap_or("a test"));
    // The output of a passing test is not shown, but what it writes directly to the standard error is.
    stderr().write_all(format!("skipped {line}").as_bytes()).expect("the standard error takes it");
    if let Some(file) = std::env::var_os(SKIPS_FILE) {
        let file = File::options().append(true).create(true).open(file);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("SKIPS_FILE can be written to");
    }
}
