//! The README and the pages in docs/, with their fenced blocks.

use anyhow::{Context, Result};
use sandbox::envoy::workspace_root;

/// A file of the repository.
pub fn read(file: &str) -> Result<String> {
    std::fs::read_to_string(workspace_root().join(file)).with_context(|| file.to_owned())
}

/// A file of the repository in YAML.
pub fn yaml(file: &str) -> Result<serde_json::Value> {
    serde_yaml_ng::from_str(&read(file)?).with_context(|| file.to_owned())
}

/// A registry with a path, such as a user has, in the commands that set it.
pub fn with_a_path(commands: &str) -> String {
    commands.replace("REGISTRY=registry.example.com", "REGISTRY=registry.example.com:5000/acme")
}

/// All pages.
pub fn pages() -> Result<Vec<String>> {
    let mut pages = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned).to_vec();
    for entry in std::fs::read_dir(workspace_root().join("docs"))? {
        let name = entry?.file_name().into_string().ok().context("an odd file name")?;
        if name.ends_with(".md") {
            pages.push(format!("docs/{name}"));
        }
    }
    Ok(pages)
}

/// A fenced block of a page.
#[derive(Debug)]
pub struct Block {
    /// Where it begins, for error messages.
    pub place: String,
    /// The text after the opening fence, such as `json configuration`.
    pub kind: String,
    /// Its content.
    pub text: String,
    /// The comment on the line before, such as `needs: a cluster`.
    pub comment: String,
    /// The section of the page: its last heading with two `#`.
    pub section: String,
}

/// The fenced blocks of a page.
pub fn blocks(page: &str) -> Result<Vec<Block>> {
    let text = read(page)?;
    let mut lines = text.lines().enumerate();
    let mut blocks = Vec::new();
    let (mut before, mut section) = ("", "");
    while let Some((number, line)) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            let text = inside.collect::<Vec<_>>().join("\n");
            let comment = before.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")).unwrap_or_default();
            let place = format!("{page}:{}", number + 1);
            let (kind, comment, section) = (kind.to_owned(), comment.to_owned(), section.to_owned());
            blocks.push(Block { place, kind, text, comment, section });
        }
        section = line.strip_prefix("## ").unwrap_or(section);
        before = line;
    }
    Ok(blocks)
}
