//! JSON for people, without a change to its order or its numbers: what is shown is what was sent.

use serde::de::IgnoredAny;

/// Lines do not get wider than this where it can be helped.
const WIDTH: usize = 100;

/// Breaks a JSON text into indented lines, but only what does not fit on one. What is no JSON comes back as it is.
pub fn pretty(json: &str) -> String {
    if serde_json::from_str::<IgnoredAny>(json).is_err() {
        return json.to_owned();
    }
    let mut out = String::new();
    write(&compact(json), 0, &mut out);
    out
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
        match outside_strings(member).find(|(_, char)| *char == ':') {
            Some((colon, _)) if value.starts_with('{') => {
                out.push_str(&member[..colon]);
                out.push_str(": ");
                write(&member[colon + 1..], inner_indent, out);
            }
            _ => write(member, inner_indent, out),
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
    fn what_is_no_json_comes_back() {
        assert_eq!(pretty("{\"a\": "), "{\"a\": ");
    }
}
