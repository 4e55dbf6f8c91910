//! Guards: what must name all of something says what it lacks.

use std::collections::BTreeSet;

/// Checks that `place` names all that there is, and nothing else. `there_is` says what the names are.
///
/// # Panics
/// With the remedy for each name.
pub fn names_all<N: AsRef<str>, A: AsRef<str>>(
    place: &str,
    there_is: &str,
    named: impl IntoIterator<Item = N>,
    all: impl IntoIterator<Item = A>,
) {
    let named: BTreeSet<String> = named.into_iter().map(|name| name.as_ref().to_owned()).collect();
    let all: BTreeSet<String> = all.into_iter().map(|name| name.as_ref().to_owned()).collect();
    assert!(!all.is_empty(), "there is no {there_is}");
    let missing = all.difference(&named).map(|name| format!("`{name}` is missing in {place}: add it"));
    let gone = named.difference(&all).map(|name| format!("`{name}` in {place} is no {there_is}: remove it"));
    let remedies: Vec<_> = missing.chain(gone).collect();
    assert!(remedies.is_empty(), "\n{}", remedies.join("\n"));
}
