//! `sandbox check`: whether the filter does with events what its configuration is meant to do, by the filter's own code.

mod cases;
mod compare;
mod junit;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use sandbox::say;

use self::cases::{Case, Expected};
use self::compare::differences;
use super::calls::{shown, track};
use super::rules::{Outcome, Rules};
use super::unmatched::Selectors;

/// What is checked.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A YAML or JSON file with a list of events and what is expected of each; docs/configuration.md shows one
    cases: PathBuf,
    /// The filter's configuration, a JSON file; the variables that it names need not be set
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Also write the result to this file, in the format of JUnit, which CI systems show
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// A case, and how the filter differs from it.
#[derive(Debug)]
struct Checked {
    name: String,
    differences: Vec<String>,
}

/// Prints a line for each case, and the differences below it.
///
/// # Errors
/// A case fails, or cannot be tried.
pub fn check(options: &Options) -> Result<()> {
    let rules = Rules::read(options.config.as_deref())?;
    let cases = cases::read(&options.cases, &rules)?;
    rules.say_warnings()?;
    let mut selectors = Selectors::of(rules.text());
    let mut all = Vec::new();
    for case in &cases {
        selectors.see(&case.path, &case.event);
        let checked = Checked { name: case.name.clone(), differences: tried(case, &rules)? };
        say!("{}  {}", if checked.holds() { "ok  " } else { "FAIL" }, checked.name);
        for difference in &checked.differences {
            say!("      {difference}");
        }
        all.push(checked);
    }
    if let Some(file) = &options.junit {
        let suite = options.cases.display().to_string();
        fs::write(file, junit::report(&suite, &all)).with_context(|| format!("cannot write {}", file.display()))?;
    }
    selectors.say_unmatched()?;
    let failed = all.iter().filter(|checked| !checked.holds()).count();
    ensure!(failed == 0, "{failed} of {} cases failed", all.len());
    say!("all {} cases hold", all.len());
    Ok(())
}

impl Checked {
    fn holds(&self) -> bool {
        self.differences.is_empty()
    }
}

/// How the outcome differs from the case.
fn tried(case: &Case, rules: &Rules) -> Result<Vec<String>> {
    let outcome = rules.outcome(&case.path, &case.event)?;
    Ok(match (&case.expected, outcome) {
        (Expected::Call(expected), Outcome::Sent { body, .. }) => match serde_json::from_str(&body) {
            Ok(body) => differences(expected, &body),
            Err(error) => vec![format!("this command cannot read the call: {error}")],
        },
        (Expected::Answer(expected), Outcome::Answered(reply)) => {
            let answer = format!("{} {}", reply.status(), reply.code());
            match answer == *expected {
                true => Vec::new(),
                false => vec![format!("expected the answer {expected}, got {answer}: {}", reply.message())],
            }
        }
        (Expected::Call(_), Outcome::Answered(reply)) => {
            vec![format!("expected a call, got the answer {} {}: {}", reply.status(), reply.code(), reply.message())]
        }
        (Expected::Answer(expected), Outcome::Sent { body, .. }) => {
            let [name, user] = ["event", "userId"].map(|field| shown(track(body.as_bytes()), field));
            vec![format!("expected the answer {expected}, got a call: {name} of {user}")]
        }
    })
}
