//! JSON for people. Order and numbers stay as they are: what is shown is what was sent.

use std::collections::HashMap;

use stigg_segment::json::Reader;

/// Lines do not get wider than this where it can be helped.
const WIDTH: usize = 100;

/// Deeper values are not taken apart: nobody could read them, and the stack is limited.
const DEEPEST: usize = 100;

/// Breaks a JSON text into indented lines, but only what does not fit on one. A text that is not JSON, or is nested too
/// deep, stays as it is.
pub fn pretty(json: &str) -> String {
    let Some(value) = Node::read(json) else { return json.to_owned() };
    let mut out = String::new();
    value.write(0, &mut out);
    out
}

/// A value, taken apart.
struct Node<'a> {
    /// The key as it is written, without its quotes; none in an array.
    key: Option<&'a str>,
    /// The text of a scalar, or the brackets of an array or object.
    text: &'a str,
    members: Vec<Node<'a>>,
    /// The width on one line, without the key.
    width: usize,
}

impl<'a> Node<'a> {
    fn read(json: &'a str) -> Option<Self> {
        let mut reader = Reader::new(json.as_bytes());
        let value = Self::next(json, &mut reader, None, 0)?;
        reader.end().ok()?;
        Some(value)
    }

    fn next(json: &'a str, reader: &mut Reader<'a>, key: Option<&'a str>, depth: usize) -> Option<Self> {
        let start = reader.at_value();
        let is_object = reader.enter_object();
        if !is_object && !reader.enter_array() {
            reader.value().ok()?;
            let text = &json[start..reader.position()];
            return Some(Self { key, text, members: Vec::new(), width: text.len() });
        }
        if depth == DEEPEST {
            return None;
        }
        let mut members = Vec::new();
        loop {
            let first = members.is_empty();
            let key = if is_object {
                let Some(key) = reader.member(first).ok()? else { break };
                Some(std::str::from_utf8(key.raw()).ok()?)
            } else if reader.element(first).ok()? {
                None
            } else {
                break;
            };
            members.push(Self::next(json, reader, key, depth + 1)?);
        }
        let width = |member: &Self| member.width + member.key.map_or(0, |key| key.len() + 3);
        let width = members.iter().map(width).sum::<usize>() + members.len().saturating_sub(1) + 2;
        Some(Self { key, text: if is_object { "{}" } else { "[]" }, members, width })
    }

    /// Writes it without white space.
    fn write_compact(&self, out: &mut String) {
        if self.members.is_empty() {
            return out.push_str(self.text);
        }
        out.push_str(&self.text[..1]);
        for (number, member) in self.members.iter().enumerate() {
            if number > 0 {
                out.push(',');
            }
            member.write_key(":", out);
            member.write_compact(out);
        }
        out.push_str(&self.text[1..]);
    }

    /// Writes it after what is already on the line.
    fn write(&self, indent: usize, out: &mut String) {
        let column = out.len() - out.rfind('\n').map_or(0, |newline| newline + 1);
        if self.members.is_empty() || column + self.width <= WIDTH {
            return self.write_compact(out);
        }
        out.push_str(&self.text[..1]);
        for (number, member) in self.members.iter().enumerate() {
            if number > 0 {
                out.push(',');
            }
            new_line(indent + 2, out);
            member.write_key(": ", out);
            member.write(indent + 2, out);
        }
        new_line(indent, out);
        out.push_str(&self.text[1..]);
    }

    fn write_key(&self, colon: &str, out: &mut String) {
        if let Some(key) = self.key {
            out.extend(["\"", key, "\"", colon]);
        }
    }

    /// Adds its lines to those before.
    fn write_lines(&self, path: PathId, depth: usize, paths: &mut Paths<'a>, lines: &mut Vec<Line>) {
        let mut text = String::new();
        self.write_key(": ", &mut text);
        if self.members.is_empty() {
            text.push_str(self.text);
            return lines.push(Line { path, depth, text });
        }
        text.push_str(&self.text[..1]);
        lines.push(Line { path, depth, text });
        for (number, member) in self.members.iter().enumerate() {
            if number > 0
                && let Some(before) = lines.last_mut()
            {
                before.text.push(',');
            }
            let step = member.key.map_or(Step::Element(number), Step::Member);
            member.write_lines(paths.enter(path, step), depth + 1, paths, lines);
        }
        lines.push(Line { path, depth, text: self.text[1..].to_owned() });
    }
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

/// The lines of a JSON text that is the value at `path`; none if it is not JSON, or nested too deep.
pub fn lines<'a>(json: &'a str, path: PathId, paths: &mut Paths<'a>) -> Option<Vec<Line>> {
    let mut lines = Vec::new();
    Node::read(json)?.write_lines(path, 0, paths, &mut lines);
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

    /// Whether a path leads to the value at another path, or into it.
    pub fn starts_with(&self, path: PathId, start: PathId) -> bool {
        path == start || self.split_last(path).is_some_and(|(parent, _)| self.starts_with(parent, start))
    }

    /// The keys and numbers that lead from a value to one inside it, joined with dots.
    pub fn name(&self, path: PathId, start: PathId) -> String {
        let mut steps = Vec::new();
        let mut path = path;
        while path != start
            && let Some((parent, step)) = self.split_last(path)
        {
            steps.push(match step {
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
    fn a_text_that_is_not_json_or_is_too_deep_stays_as_it_is() {
        let deep = format!("{} 1 {}", "[".repeat(100_000), "]".repeat(100_000));
        for json in ["{\"a\": ", "{} {}", &deep] {
            assert_eq!(pretty(json), json);
            assert_eq!(super::lines(json, ROOT, &mut Paths::default()), None);
        }
    }
}
