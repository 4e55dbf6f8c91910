//! JSON for people. Order and numbers stay as they are: what is shown is what was sent.

use std::collections::HashMap;

use stigg_segment::json::Reader;

/// Lines do not get wider than this where it can be helped.
const WIDTH: usize = 100;

/// Deeper values stay on one line: nobody could read them, and the indentation alone would fill the screen.
const DEEPEST: usize = 100;

/// Breaks a JSON text into indented lines, but only what does not fit on one. A text that is not JSON stays as it is.
pub fn pretty(json: &str) -> String {
    let Some(tokens) = read(json) else { return json.to_owned() };
    let mut out = String::new();
    // The values around this place that are broken into lines.
    let mut depth = 0;
    // Where a value ends that is written on one line.
    let mut compact_until = 0;
    let mut first = true;
    for (number, token) in tokens.iter().enumerate() {
        let is_compact = number < compact_until;
        if !matches!(token.kind, Kind::End) && !first {
            out.push(',');
        }
        if !is_compact {
            depth -= usize::from(matches!(token.kind, Kind::End));
            if number > 0 {
                new_line(2 * depth, &mut out);
            }
        }
        token.write_key(if is_compact { ":" } else { ": " }, &mut out);
        out.push_str(token.text);
        first = matches!(token.kind, Kind::Start { .. });
        if let Kind::Start { end, width } = token.kind
            && !is_compact
        {
            let column = out.len() - out.rfind('\n').map_or(0, |newline| newline + 1);
            if depth == DEEPEST || column - 1 + width <= WIDTH {
                compact_until = end + 1;
            } else {
                depth += 1;
            }
        }
    }
    out
}

/// A scalar, or the start or end of an array or object. A list of them takes no recursion to walk over, however deep the
/// text is nested.
struct Token<'a> {
    /// The key as it is written, without its quotes; none in an array and at an end.
    key: Option<&'a str>,
    /// The text of a scalar or of an empty value, or a bracket.
    text: &'a str,
    kind: Kind,
}

enum Kind {
    Scalar,
    Start {
        /// The number of the token that ends the value.
        end: usize,
        /// The width of the value on one line, without the key.
        width: usize,
    },
    End,
}

impl Token<'_> {
    fn write_key(&self, colon: &str, out: &mut String) {
        if let Some(key) = self.key {
            out.extend(["\"", key, "\"", colon]);
        }
    }
}

/// Takes a text apart; none if it is not JSON.
fn read(json: &str) -> Option<Vec<Token<'_>>> {
    let mut reader = Reader::new(json.as_bytes());
    let mut tokens: Vec<Token<'_>> = Vec::new();
    // The number of the token that starts each value around this place, and the width of what is in it so far.
    let mut around: Vec<(usize, usize)> = Vec::new();
    let mut first = true;
    loop {
        let mut key = None;
        if let Some((start, width)) = around.last_mut() {
            let is_object = tokens.get(*start)?.text == "{";
            let has_next = if is_object {
                key = reader.member(first).ok()?.map(|key| std::str::from_utf8(key.raw())).transpose().ok()?;
                key.is_some()
            } else {
                reader.element(first).ok()?
            };
            *width += usize::from(has_next && !first) + key.map_or(0, |key| key.len() + 3);
            if !has_next {
                let (start, width) = around.pop()?;
                let end = tokens.len();
                let started = tokens.get_mut(start)?;
                if end == start + 1 {
                    (started.text, started.kind) = (if is_object { "{}" } else { "[]" }, Kind::Scalar);
                } else {
                    started.kind = Kind::Start { end, width };
                    tokens.push(Token { key: None, text: if is_object { "}" } else { "]" }, kind: Kind::End });
                }
                if let Some((_, outer)) = around.last_mut() {
                    *outer += width;
                }
                first = false;
                if around.is_empty() {
                    break;
                }
                continue;
            }
        }
        let start = reader.at_value();
        first = reader.enter_object() || reader.enter_array();
        if first {
            around.push((tokens.len(), 2));
        } else {
            reader.value().ok()?;
        }
        let text = &json[start..reader.position()];
        tokens.push(Token { key, text, kind: Kind::Scalar });
        if !first {
            let Some((_, width)) = around.last_mut() else { break };
            *width += text.len();
        }
    }
    reader.end().ok()?;
    Some(tokens)
}

fn new_line(indent: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
}

/// One line of a JSON text in which each member has its own line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Leads to the value that starts or ends here.
    pub path: PathId,
    /// How deep the line is in its text.
    pub depth: usize,
    /// The line without its indentation.
    pub text: String,
}

/// The lines of a JSON text that is the value at `path`; none if it is not JSON.
pub fn lines<'a>(json: &'a str, path: PathId, paths: &mut Paths<'a>) -> Option<Vec<Line>> {
    let mut lines: Vec<Line> = Vec::new();
    // The path of each value around this place, and the number of its next member.
    let mut around: Vec<(PathId, usize)> = Vec::new();
    for token in read(json)? {
        let path = if let Kind::End = token.kind {
            around.pop()?.0
        } else if let Some((parent, number)) = around.last_mut() {
            if *number > 0 {
                lines.last_mut()?.text.push(',');
            }
            *number += 1;
            paths.enter(*parent, token.key.map_or(Step::Element(*number - 1), Step::Member))
        } else {
            path
        };
        let mut text = String::new();
        token.write_key(": ", &mut text);
        text.push_str(token.text);
        lines.push(Line { path, depth: around.len(), text });
        if let Kind::Start { .. } = token.kind {
            around.push((path, 0));
        }
    }
    Some(lines)
}

/// A path in [`Paths`].
pub type PathId = usize;

/// The path of a whole text.
pub const ROOT: PathId = 0;

/// One step of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step<'a> {
    /// To the member with this key, as it is written.
    Member(&'a str),
    /// To the element with this number.
    Element(usize),
}

/// Paths into JSON texts. Each is one step from a shorter path, so that no key is held twice. The same path has the same
/// number in all texts.
#[derive(Debug, Default)]
pub struct Paths<'a> {
    numbers: HashMap<(PathId, Step<'a>), PathId>,
    last_steps: Vec<(PathId, Step<'a>)>,
}

impl<'a> Paths<'a> {
    /// The path that is one step longer.
    pub fn enter(&mut self, path: PathId, step: Step<'a>) -> PathId {
        *self.numbers.entry((path, step)).or_insert_with(|| {
            self.last_steps.push((path, step));
            self.last_steps.len()
        })
    }

    /// The path that these steps lead to, if one of the texts has a value there.
    pub fn find(&self, path: PathId, steps: &[Step<'a>]) -> Option<PathId> {
        steps.iter().try_fold(path, |path, step| self.numbers.get(&(path, *step)).copied())
    }

    /// The keys and numbers that lead from a value to one inside it, joined with dots. Long keys are cut.
    pub fn name(&self, path: PathId, start: PathId) -> String {
        let mut steps = Vec::new();
        let mut path = path;
        while path != start
            && let Some((parent, step)) = self.split_last(path)
        {
            steps.push(match step {
                Step::Member(key) if key.len() > WIDTH => format!("{}…", key.chars().take(WIDTH).collect::<String>()),
                Step::Member(key) => key.to_owned(),
                Step::Element(number) => number.to_string(),
            });
            path = parent;
        }
        steps.reverse();
        steps.join(".")
    }

    /// The path without its last step, and that step; none for the root.
    pub fn split_last(&self, path: PathId) -> Option<(PathId, Step<'a>)> {
        self.last_steps.get(path.checked_sub(1)?).copied()
    }
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
    fn a_line_is_as_wide_as_it_may_be() {
        for (length, lines) in [(WIDTH, 1), (WIDTH + 1, 4)] {
            let json = format!(r#"{{"a":"{}","b":1}}"#, "x".repeat(length - r#"{"a":"","b":1}"#.len()));
            assert_eq!(pretty(&json).lines().count(), lines, "{json}");
        }
    }

    #[test]
    fn every_member_has_a_line_and_a_path() {
        let mut paths = Paths::default();
        let lines = lines(r#" { "a" : [ 1.50 , {"b:,":"x y"} ] , "c" : {} } "#, ROOT, &mut paths).unwrap();
        let path = |steps: &[Step<'static>]| paths.find(ROOT, steps).unwrap();
        let (a, b, c) = (Step::Member("a"), Step::Member("b:,"), Step::Member("c"));
        let expected = [
            (ROOT, 0, "{"),
            (path(&[a]), 1, "\"a\": ["),
            (path(&[a, Step::Element(0)]), 2, "1.50,"),
            (path(&[a, Step::Element(1)]), 2, "{"),
            (path(&[a, Step::Element(1), b]), 3, "\"b:,\": \"x y\""),
            (path(&[a, Step::Element(1)]), 2, "}"),
            (path(&[a]), 1, "],"),
            (path(&[c]), 1, "\"c\": {}"),
            (ROOT, 0, "}"),
        ];
        assert_eq!(lines, expected.map(|(path, depth, text)| Line { path, depth, text: text.to_owned() }));
        assert_eq!(paths.split_last(path(&[a, Step::Element(1)])), Some((path(&[a]), Step::Element(1))));
        assert_eq!(paths.split_last(ROOT), None);
    }

    /// Each of the 100,000 lines is below a key of 100,000 bytes: with a copy of the path they would take 10 GB.
    #[test]
    fn lines_share_the_keys_above_them() {
        let json = format!(r#"{{"{}":[{}0]}}"#, "k".repeat(100_000), "0,".repeat(99_999));
        let lines = lines(&json, ROOT, &mut Paths::default()).unwrap();
        assert_eq!(lines.len(), 100_004);
        assert!(lines.iter().map(|line| line.text.len()).sum::<usize>() < 2 * json.len());
    }

    #[test]
    fn a_text_that_is_not_json_stays_as_it_is() {
        for json in ["{\"a\": ", "{} {}", "[1,]", "{\"a\"}", ""] {
            assert_eq!(pretty(json), json);
            assert_eq!(super::lines(json, ROOT, &mut Paths::default()), None);
        }
    }

    #[test]
    fn any_depth_is_read_and_a_great_one_stays_on_one_line() {
        const DEPTH: usize = 100_000;
        let deep = format!("{}1{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
        let shown = pretty(&deep);
        assert_eq!(shown.lines().count(), 2 * DEEPEST + 1);
        assert_eq!(shown.split_whitespace().collect::<String>(), deep);
        assert_eq!(super::lines(&deep, ROOT, &mut Paths::default()).unwrap().len(), 2 * DEPTH + 1);
    }
}
