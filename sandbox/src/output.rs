//! Standard output and standard error that may be closed, as in `sandbox explain | head`: the program then ends quietly.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Result;

/// The error that nobody reads the standard output any more.
#[derive(Debug)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the standard output is closed")
    }
}

impl std::error::Error for Closed {}

/// Prints a line to standard output, as `println!` does, or returns an error from the function around it.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {
        $crate::output::line(::std::format_args!($($text)*))?
    };
}

/// Prints a line.
///
/// # Errors
/// [`Closed`] if nobody reads it.
pub fn line(text: fmt::Arguments<'_>) -> Result<()> {
    let mut output = io::stdout().lock();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Closed.into()),
        written => Ok(written?),
    }
}

/// Prints a line to standard error, if anybody reads it.
pub fn note(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The exit code. An error is reported, except that nobody reads the output.
pub fn exit_code(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Closed>() => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("Error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
