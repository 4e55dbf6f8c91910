//! CONTRIBUTING.md: the files and tests that its recipes name exist.

use anyhow::Result;
use sandbox::envoy::workspace_root;

#[test]
fn the_recipes_name_files_and_tests_that_exist() -> Result<()> {
    let page = std::fs::read_to_string(workspace_root().join("CONTRIBUTING.md"))?;
    let (_, recipes) = page.split_once("## Recipes").unwrap();
    let mut wrong = Vec::new();
    let (mut files, mut tests) = (0, 0);
    for recipe in recipes.split("\n### ").skip(1) {
        let title = recipe.lines().next().unwrap();
        let mut source = String::new();
        for code in recipe.split('`').skip(1).step_by(2).filter(|code| !code.contains([' ', '<'])) {
            let path = workspace_root().join(code);
            if code.contains('/') || code.ends_with(".md") || code.ends_with(".yaml") || code.ends_with(".json") {
                if path.exists() {
                    files += 1
                } else {
                    wrong.push(format!("{title}: there is no {code}"))
                }
                source = std::fs::read_to_string(path).unwrap_or_default();
            } else if code.matches('_').count() > 2 && code.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                tests += 1;
                if !source.contains(&format!("fn {code}()")) {
                    wrong.push(format!("{title}: the file named before has no test {code}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(files > 40 && tests > 20, "{files} files and {tests} tests are named");
    Ok(())
}
