//! The result in the format of JUnit's reports, which CI systems read.

use super::Checked;

/// The report of all cases in a file.
pub fn report(suite: &str, checked: &[Checked]) -> String {
    let failed = checked.iter().filter(|checked| !checked.holds()).count();
    let suite = escaped(suite);
    let counts = format!(r#"tests="{}" failures="{failed}" errors="0" skipped="0" time="0""#, checked.len());
    let mut report = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {counts}>\n");
    report += &format!("  <testsuite name=\"{suite}\" {counts}>\n");
    for Checked { name, differences } in checked {
        report += &format!(r#"    <testcase classname="{suite}" name="{}" time="0""#, escaped(name));
        report += &match differences.first() {
            None => "/>\n".to_owned(),
            Some(first) => format!(
                ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>\n",
                escaped(first),
                escaped(&differences.join("\n"))
            ),
        };
    }
    report + "  </testsuite>\n</testsuites>\n"
}

/// The text as it is written in XML, which has no control characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(letter),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            letter if letter.is_control() => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}
