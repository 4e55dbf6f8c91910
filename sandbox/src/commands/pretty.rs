//! JSON for people, without a change to its order or its numbers: what is shown is what was sent.

use serde::de::IgnoredAny;

/// Lines do not get wider than this where it can be helped.
const WIDTH: usize = 100;

/// What is nested deeper is not taken apart: nobody could read it, and the stack has an end.
const DEEPEST: usize = 100;

/// Breaks a JSON text into indented lines, but only what does not fit on one. What is no JSON, or nested too deep, comes
/// back as it is.
pub fn pretty(json: &str) -> String {
    if !is_legible(json) {
        return json.to_owned();
    }
    let mut out = String::new();
    write(&compact(json), 0, &mut out);
    out
}

/// One line of a JSON text of which every member has a line of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// The keys, as they are written, and positions that lead to the value that starts or ends here.
    pub path: Vec<String>,
    /// What the line says, without its indentation.
    pub text: String,
}

/// The lines of a JSON text; none where it is no JSON, or nested too deep.
pub fn lines(json: &str) -> Option<Vec<Line>> {
    if !is_legible(json) {
        return None;
    }
    let mut lines = Vec::new();
    write_lines("", &compact(json), "", &mut Vec::new(), &mut lines);
    Some(lines)
}

fn write_lines(key: &str, value: &str, comma: &str, path: &mut Vec<String>, out: &mut Vec<Line>) {
    let mut line = |parts: &[&str], path: &[String]| out.push(Line { path: path.to_vec(), text: parts.concat() });
    let colon = if key.is_empty() { "" } else { ": " };
    if !value.starts_with(['{', '[']) || value.len() == 2 {
        return line(&[key, colon, value, comma], path);
    }
    let last = value.len() - 1;
    line(&[key, colon, &value[..1]], path);
    let mut members = members(&value[1..last]).enumerate().peekable();
    while let Some((number, member)) = members.next() {
        let comma = if members.peek().is_some() { "," } else { "" };
        let (key, member) = if value.starts_with('{') { split(member) } else { ("", member) };
        path.push(if key.is_empty() { number.to_string() } else { key.to_owned() });
        write_lines(key, member, comma, path, out);
        path.pop();
    }
    out.push(Line { path: path.clone(), text: [&value[last..], comma].concat() });
}

/// The object with another value for a member, or with one more; none where it is no object.
pub fn with_member(json: &str, key: &str, value: &str) -> Option<String> {
    serde_json::from_str::<IgnoredAny>(json).ok()?;
    let compact = compact(json);
    let inside = compact.strip_prefix('{')?.strip_suffix('}')?;
    let (key, mut replaced) = (format!("\"{key}\""), false);
    let mut all: Vec<_> = members(inside).filter(|member| !member.is_empty()).map(str::to_owned).collect();
    for member in all.iter_mut().filter(|member| split(member).0 == key) {
        *member = format!("{key}:{value}");
        replaced = true;
    }
    if !replaced {
        all.push(format!("{key}:{value}"));
    }
    Some(format!("{{{}}}", all.join(",")))
}

/// A member's key and value.
fn split(member: &str) -> (&str, &str) {
    match outside_strings(member).find(|(_, char)| *char == ':') {
        Some((colon, _)) => (&member[..colon], &member[colon + 1..]),
        None => ("", member),
    }
}

fn is_legible(json: &str) -> bool {
    let (mut depth, mut deepest) = (0_usize, 0);
    for (_, char) in outside_strings(json) {
        match char {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest <= DEEPEST && serde_json::from_str::<IgnoredAny>(json).is_ok()
}

/// Writes a value without white space behind what is already on the line.
fn write(value: &str, indent: usize, out: &mut String) {
    let column = out.len() - out.rfind('\n').map_or(0, |newline| newline + 1);
    if !value.starts_with(['{', '[']) || column + value.len() <= WIDTH {
        out.push_str(value);
        return;
    }
    let (inner_indent, last) = (indent + 2, value.len() - 1);
    out.push_str(&value[..1]);
    for (number, member) in members(&value[1..last]).enumerate() {
        if number > 0 {
            out.push(',');
        }
        new_line(inner_indent, out);
        if value.starts_with('{') {
            let (key, member) = split(member);
            out.push_str(key);
            out.push_str(": ");
            write(member, inner_indent, out);
        } else {
            write(member, inner_indent, out);
        }
    }
    new_line(indent, out);
    out.push_str(&value[last..]);
}

fn new_line(indent: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Splits the inside of an object or a list at its own commas.
fn members(inside: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let mut commas: Vec<_> = outside_strings(inside)
        .filter_map(|(position, char)| {
            match char {
                '{' | '[' => depth += 1,
                '}' | ']' => depth -= 1,
                _ => {}
            }
            (char == ',' && depth == 0).then_some(position)
        })
        .collect();
    commas.push(inside.len());
    let mut start = 0;
    commas.into_iter().map(move |comma| &inside[std::mem::replace(&mut start, comma + 1)..comma])
}

fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut start = 0;
    for (space, _) in outside_strings(json).filter(|(_, char)| char.is_ascii_whitespace()) {
        out.push_str(&json[start..space]);
        start = space + 1;
    }
    out + &json[start..]
}

/// The characters that are not part of a string, with their positions.
fn outside_strings(json: &str) -> impl Iterator<Item = (usize, char)> {
    let (mut in_string, mut escaped) = (false, false);
    json.char_indices().filter(move |(_, char)| {
        if !in_string {
            in_string = *char == '"';
            return !in_string;
        }
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_string = false,
            _ => {}
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_on_one_line() {
        assert_eq!(pretty(r#" { "b" : [ 1.50 , "x y\" ,:" ] , "a" : {} } "#), r#"{"b":[1.50,"x y\" ,:"],"a":{}}"#);
    }

    #[test]
    fn what_does_not_fit_is_broken_in_order() {
        let long = "ä".repeat(60);
        let json = format!(r#"{{"z":1,"properties":{{"long":"{long}","list":[1,{{"a":[]}}]}},"a":"[,:"}}"#);
        let expected = format!(
            "{{\n  \"z\": 1,\n  \"properties\": {{\n    \"long\": \"{long}\",\n    \"list\": [1,{{\"a\":[]}}]\n  }},\n  \"a\": \"[,:\"\n}}"
        );
        assert_eq!(pretty(&json), expected);
    }

    #[test]
    fn every_member_has_a_line_and_a_path() {
        let lines = lines(r#" { "a" : [ 1.50 , {"b:,":"x y"} ] , "c" : {} } "#).unwrap();
        let shown: Vec<_> = lines.iter().map(|line| (line.path.join("/"), line.text.as_str())).collect();
        let expected = [
            ("", "{"),
            ("\"a\"", "\"a\": ["),
            ("\"a\"/0", "1.50,"),
            ("\"a\"/1", "{"),
            ("\"a\"/1/\"b:,\"", "\"b:,\": \"x y\""),
            ("\"a\"/1", "}"),
            ("\"a\"", "],"),
            ("\"c\"", "\"c\": {}"),
            ("", "}"),
        ];
        assert_eq!(shown, expected.map(|(path, text)| (path.to_owned(), text)));
        assert_eq!(super::lines("{"), None);
    }

    #[test]
    fn a_member_gets_another_value_where_it_stands() {
        assert_eq!(with_member(r#"{"a":1, "b":{"a":2}}"#, "a", "3").unwrap(), r#"{"a":3,"b":{"a":2}}"#);
        assert_eq!(with_member("{ }", "a", "3").unwrap(), r#"{"a":3}"#);
        assert_eq!(with_member("[]", "a", "3"), None);
    }

    #[test]
    fn what_is_no_json_or_too_deep_comes_back() {
        let deep = format!("{} 1 {}", "[".repeat(100_000), "]".repeat(100_000));
        for json in ["{\"a\": ", &deep] {
            assert_eq!(pretty(json), json);
            assert_eq!(super::lines(json), None);
        }
    }
}
