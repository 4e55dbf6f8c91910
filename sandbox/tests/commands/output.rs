//! Every command ends in good order when nobody reads what it prints.

use std::os::fd::OwnedFd;
use std::process::Stdio;

use anyhow::Result;

use crate::child::{Run, sandbox, turn};

/// A pipe that nobody reads.
fn closed() -> Result<OwnedFd> {
    let (_, writer) = std::io::pipe()?;
    Ok(writer.into())
}

#[test]
fn every_command_ends_quietly_when_its_output_is_closed() -> Result<()> {
    let run = Run::start()?;
    let _turn = turn();
    let missing = run.tmp.path().join("missing").display().to_string();
    let commands: [(&[&str], bool); 7] = [
        (&["--help"], true),
        (&["envoy"], true),
        (&["explain", "subscription.created"], true),
        (&["send", "plan.created"], true),
        (&["send", "plan.created", "--count", "2"], true),
        (&["run"], true),
        (&["explain", &missing], false),
    ];
    for (command, succeeds) in commands {
        let mut sandbox = sandbox(command[0]);
        sandbox.args(&command[1..]).stdin(Stdio::null());
        if ["send", "run"].contains(&command[0]) {
            let file = if command[0] == "send" { run.running_file.clone() } else { run.tmp.path().join("other.json") };
            sandbox.arg("--running-file").arg(file);
        }
        let output = sandbox.stdout(closed()?).stderr(Stdio::piped()).spawn()?.wait_with_output()?;
        let error = String::from_utf8(output.stderr)?;
        assert_eq!((output.status.success(), error.is_empty()), (succeeds, succeeds), "{command:?}: {error}");

        let status = sandbox.stdout(closed()?).stderr(closed()?).status()?;
        assert_eq!(status.code(), Some(i32::from(!succeeds)), "{command:?}");
    }
    Ok(())
}
