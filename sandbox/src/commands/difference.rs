//! A Stigg event beside the call that the filter made of it.

use std::collections::HashSet;

use serde::Serialize;

use super::pretty::{self, Line, Paths, ROOT, Step};

/// Both sides, row by row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The rows.
    pub rows: Vec<Row>,
    /// What became of the event in the call.
    pub properties: Properties,
}

/// A line of each side, or of one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Where it comes from or went.
    pub mark: Mark,
    /// The event's line.
    pub event: Option<Shown>,
    /// The call's line.
    pub call: Option<Shown>,
    /// Why the filter wrote it, where that is worth a word.
    pub origin: Option<String>,
}

/// A line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// How deep it is.
    pub depth: usize,
    /// What it says.
    pub text: String,
}

/// Where a line comes from or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// It is the event's own, on both sides where there are two.
    Both,
    /// The filter wrote it.
    Added,
    /// It is in the event only.
    LeftOut,
}

/// What became of the event in the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Properties {
    /// It is there byte for byte.
    Unchanged,
    /// These members are not: the keys that lead to each, joined with dots. Without any, only white space around it left.
    Without(Vec<String>),
    /// There is no such call.
    Missing,
}

impl Difference {
    /// Compares them; none if one of them is not JSON. The event may be under a key of `properties`.
    pub fn between(event: &str, call: &str, under: Option<&str>) -> Option<Self> {
        let mut paths = Paths::default();
        let call_lines = pretty::lines(call, ROOT, &mut paths)?;
        let properties = Step::Member("properties");
        let mut places = [vec![properties], vec![Step::Member("batch"), Step::Element(0), properties]];
        places.iter_mut().for_each(|place| place.extend(under.map(Step::Member)));
        let place = places.iter().find_map(|place| paths.find(ROOT, place));
        let event_lines = pretty::lines(event, place.unwrap_or(ROOT), &mut paths)?;
        let Some(place) = place else {
            let rows = call_lines.iter().map(Row::added).collect();
            return Some(Self { rows, properties: Properties::Missing });
        };

        // The event's first line and its last one.
        let is_place = |line: &Line| line.path == place;
        let start = call_lines.iter().position(is_place).unwrap_or(call_lines.len());
        let end = call_lines.iter().rposition(is_place).map_or(start, |last| last + 1);
        let mut rows: Vec<_> = call_lines[..start].iter().map(Row::added).collect();
        let mut without_partner = Vec::new();
        // What stays keeps its order.
        let mut stayed = call_lines[start..end].iter().peekable();
        for line in &event_lines {
            let call = stayed.next_if(|call| call.path == line.path);
            let mark = if call.is_some() { Mark::Both } else { Mark::LeftOut };
            without_partner.extend(call.is_none().then_some(line.path));
            rows.push(Row { mark, event: Some(line.into()), call: call.map(Into::into), origin: None });
        }
        rows.extend(stayed.chain(&call_lines[end..]).map(Row::added));

        let properties = if call.contains(event) {
            Properties::Unchanged
        } else {
            let stayed: HashSet<_> = call_lines[start..end].iter().map(|line| line.path).collect();
            let left_out = event_lines.iter().map(|line| line.path).filter(|path| {
                !stayed.contains(path) && paths.split_last(*path).is_some_and(|(parent, _)| stayed.contains(&parent))
            });
            let mut left_out: Vec<_> = left_out.collect();
            if left_out.is_empty() {
                // Of a key that occurs twice, one may stay.
                left_out = without_partner;
            }
            left_out.dedup();
            Properties::Without(left_out.into_iter().map(|path| paths.name(path, place)).collect())
        };
        Some(Self { rows, properties })
    }

    /// Says of a field of the track call why it is there.
    pub fn explain(&mut self, field: &str, origin: String) {
        let start = format!("\"{field}\": ");
        let starts = |row: &&mut Row| row.call.as_ref().is_some_and(|shown| shown.text.starts_with(&start));
        // Only what comes before the event: in it, a member of that name is another.
        if let Some(row) = self.rows.iter_mut().take_while(|row| row.mark == Mark::Added).find(starts) {
            row.origin = Some(origin);
        }
    }
}

/// An event without a call. A text that is not JSON keeps its lines.
pub fn event_alone(event: &str) -> Vec<Row> {
    let lines = pretty::lines(event, ROOT, &mut Paths::default())
        .unwrap_or_else(|| event.lines().map(|line| Line { path: ROOT, depth: 0, text: line.to_owned() }).collect());
    lines.iter().map(|line| Row { mark: Mark::Both, event: Some(line.into()), call: None, origin: None }).collect()
}

impl Row {
    fn added(line: &Line) -> Self {
        Self { mark: Mark::Added, event: None, call: Some(line.into()), origin: None }
    }
}

impl From<&Line> for Shown {
    fn from(line: &Line) -> Self {
        Self { depth: line.depth, text: line.text.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"type":"a", "customer":{"id":"x","email":"e","tags":[1,2]}}"#;

    /// The texts of the rows with this mark, each side's.
    fn of(rows: &[Row], mark: Mark) -> [Vec<&str>; 2] {
        let sides: [fn(&Row) -> Option<&Shown>; 2] = [|row| row.event.as_ref(), |row| row.call.as_ref()];
        let marked = || rows.iter().filter(|row| row.mark == mark);
        sides.map(|side| marked().filter_map(side).map(|shown| shown.text.as_str()).collect())
    }

    #[test]
    fn what_the_filter_wrote_stands_out_of_the_event() {
        let call = format!(r#"{{"event":"a","properties":{EVENT}}}"#);
        let difference = Difference::between(EVENT, &call, None).unwrap();
        assert_eq!(difference.properties, Properties::Unchanged);
        assert_eq!(of(&difference.rows, Mark::Added), [vec![], vec!["{", r#""event": "a","#, "}"]]);
        assert_eq!(of(&difference.rows, Mark::LeftOut), [const { Vec::<&str>::new() }; 2]);
        let [event, properties] = of(&difference.rows, Mark::Both);
        assert_eq!((event[0], properties[0]), ("{", r#""properties": {"#));
        assert_eq!(event[1..], properties[1..]);
    }

    #[test]
    fn a_field_is_explained_where_the_filter_wrote_it() {
        let mut difference =
            Difference::between(EVENT, &format!(r#"{{"event":"a","properties":{EVENT}}}"#), None).unwrap();
        difference.explain("event", "the type".to_owned());
        difference.explain("type", "never".to_owned());
        let origins: Vec<_> = difference.rows.iter().map(|row| row.origin.as_deref()).collect();
        assert_eq!(origins[..3], [None, Some("the type"), None]);
        assert!(origins[3..].iter().all(Option::is_none));
    }

    #[test]
    fn what_was_left_out_is_named_once_for_all_below_it() {
        for call in [
            r#"{"properties":{"type":"a", "customer":{"id":"x"}}}"#,
            r#"{"batch":[{"properties":{"type":"a", "customer":{"id":"x"}}},{"traits":{"email":"e"}}]}"#,
        ] {
            let difference = Difference::between(EVENT, call, None).unwrap();
            let without = ["customer.email", "customer.tags"].map(str::to_owned);
            assert_eq!(difference.properties, Properties::Without(without.into()));
            let left_out = vec![r#""email": "e","#, r#""tags": ["#, "1,", "2", "]"];
            assert_eq!(of(&difference.rows, Mark::LeftOut), [left_out, vec![]]);
        }
    }

    #[test]
    fn white_space_around_the_event_is_not_a_member_and_a_key_may_occur_twice() {
        let without = |event: &str, call: &str| match Difference::between(event, call, None).unwrap().properties {
            Properties::Without(paths) => paths,
            other => panic!("{other:?}"),
        };
        assert_eq!(without("{\"a\":1}\n", r#"{"properties":{"a":1}}"#), [""; 0]);
        assert_eq!(without(r#"{"a":1,"a":{"b":1}}"#, r#"{"properties":{"a":{"b":1}}}"#), ["a"]);
    }

    #[test]
    fn a_call_without_the_event_and_what_is_no_json() {
        assert_eq!(Difference::between(EVENT, "{}", None).unwrap().properties, Properties::Missing);
        assert_eq!(Difference::between(EVENT, "no", None), None);
        assert_eq!(of(&event_alone("a\nb"), Mark::Both), [vec!["a", "b"], vec![]]);
    }
}
