//! Random documents: like events and configurations, with everything legal and odd in them, and damaged.

/// Makes documents; the same seed gives the same ones.
#[derive(Debug)]
pub struct Generator {
    random: fastrand::Rng,
}

/// Fragments that can be put anywhere in a document, separated by spaces. An empty fragment means a space.
const FRAGMENTS: &[u8] = b"\" \\ { } [ ] : ,  \t \n \r 0 1 - + . e E1 1e400 null true false {} [] \"\" \"type\": \
    \"customer\": \"id\": \\u0000 \\ud800 \\udc00 \\u002e \0 \x1f \x7f \xef\xbb\xbf \xe2\x80\xa8 \xff \xc0\x80 \
    \xed\xa0\x80 \xf5\x80\x80\x80 \x80 \xe2\x82";

/// Pieces of strings, separated by spaces. No piece is empty or contains a space.
const PIECES: &str = "acme a Z9 . _ .. type hunter2 é 株式会社 🦀 \u{a0} \u{2028} \u{7f} \u{f0000} / \\/ \\\" \\\\ \
    \\b\\f \\n \\r\\t \\u0000 \\u0020 \\u0041 \\u002e \\u00E9 \\uFFFF \\ud83e\\udd80 \\ud800 \\udFFF";

impl Generator {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Generator { random: fastrand::Rng::with_seed(seed) }
    }

    fn below(&mut self, end: usize) -> usize {
        self.random.usize(..end)
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A body that Stigg or a stranger might send.
    pub fn event(&mut self) -> Vec<u8> {
        let mut keys = vec!["type", "customer", "messageId", "timestamp"];
        if self.one_in(4) {
            keys.remove(self.below(4));
        }
        while self.one_in(2) {
            keys.push(self.pick(&[
                "type",
                "customer",
                "messageId",
                "timestamp",
                "id",
                "id",
                "customerId",
                "input",
                "Type",
                "customers",
                "x",
                "",
                "",
            ]));
        }
        let mut members = Vec::new();
        for key in keys {
            let value = match key {
                _ if self.one_in(10) => self.value(3),
                "type" => self.event_type(),
                "customer" => self.customer(),
                "messageId" => self.message_id(),
                "timestamp" => self.timestamp(),
                "id" | "customerId" => self.id(),
                "input" => {
                    let members = vec![("customerId", self.id())];
                    self.object(members)
                }
                _ => self.value(3),
            };
            members.insert(self.below(members.len() + 1), (key, value));
        }
        let event = self.object(members);
        self.around(event)
    }

    /// A configuration, right or wrong.
    pub fn configuration(&mut self) -> Vec<u8> {
        let mut settings = self.settings();
        if self.one_in(4) {
            let path = self.pick(&["/webhooks/stigg", "/", "no path", "/a//b", ""]);
            let environments = self.object(vec![(path, settings), ("/other", "{\"write_key\":\"gateway\"}".into())]);
            settings = self.object(vec![("environments", environments)]);
        }
        self.around(settings)
    }

    fn settings(&mut self) -> String {
        let mut members = Vec::new();
        while members.is_empty() || !self.one_in(3) {
            let key =
                self.pick(&["write_key", "webhook_secret", "write_key", "webhook_secret", "size", "choice", "choice"]);
            let (key, value) = match key {
                "size" => (
                    self.pick(&["max_body_bytes", "max_call_bytes"]),
                    self.pick(&["1", "32768", "524288", "0", "-1", "1e3"]).to_owned(),
                ),
                "choice" => self.choice(),
                secret => (secret, self.secret_source()),
            };
            let value = if self.one_in(20) { self.value(3) } else { value };
            members.push((key, value));
        }
        self.object(members)
    }

    fn choice(&mut self) -> (&'static str, String) {
        match self.below(12) {
            0 => ("hold_request_headers", self.pick(&["true", "false"]).to_owned()),
            1 => {
                let field = self.pick(&["user_id", "group_id", "timestamp"]);
                let mut place = vec![("path", self.paths(1)), ("events", self.list())];
                if self.one_in(2) {
                    let traits = vec![("name", self.paths(1)), ("", self.paths(1))];
                    place.push(("traits", self.object(traits)));
                }
                let place = self.object(place);
                (field, self.pick(&["\"all\"", "[{\"path\":\"customer.id\"},…]", "[…]"]).replace('…', &place))
            }
            8 => ("source", self.pick(&["\"main\"", "\"a b\"", "\"\""]).to_owned()),
            9 => {
                let remove = vec![("remove", self.list())];
                ("too_large", self.object(remove))
            }
            10 => {
                let under = vec![("under", self.string())];
                ("properties", self.object(under))
            }
            2 => {
                let renamed = vec![("customer.updated", self.string()), ("", self.string())];
                let style = self.pick(&["\"as_is\"", "\"title_case\"", "\"underscores\"", "\"odd\""]).to_owned();
                let choices = vec![("style", style), ("prefix", self.string()), ("rename", self.object(renamed))];
                ("event_name", self.object(choices))
            }
            3 => {
                let choices = vec![("allow", self.list()), ("deny", self.list())];
                ("events", self.object(choices))
            }
            4 => {
                let choices = vec![(self.pick(&["remove", "keep_only", "both"]), self.list())];
                ("properties", self.object(choices))
            }
            5 => (self.pick(&["context", "integrations"]), self.value(2)),
            6 => {
                ("also", self.pick(&["[\"identify\"]", "[\"group\",\"identify\"]", "[\"group\",\"group\"]"]).to_owned())
            }
            _ => {
                let value = self.value(1);
                ("", value)
            }
        }
    }

    fn list(&mut self) -> String {
        let texts: Vec<String> = (0..self.below(4)).map(|_| self.paths(2)).collect();
        format!("[{}]", texts.join(","))
    }

    /// A path, or a text that looks like one.
    fn paths(&mut self, odd: usize) -> String {
        if self.one_in(8 * odd) {
            self.string()
        } else {
            self.pick(&["\"customer.*\"", "\"a.b.id\"", "\"*\"", "\"a.0\"", "\"a.\\\"b.c\\\"\"", "\" a\""]).to_owned()
        }
    }

    fn secret_source(&mut self) -> String {
        let key = self.pick(&["env", "env", "value", "value", "value", "filter_state", "secret"]);
        let source = match self.below(3) {
            0 => self.secret(),
            1 => format!("[{},{}]", self.secret(), self.secret()),
            _ => self.value(1),
        };
        match self.below(8) {
            0 => self.pick(&["\"gateway\"", "\"unverified\"", "{\"hunter2\"}", "{}", "[]"]).to_owned(),
            1 => source,
            2 => {
                let more = self.secret();
                let key_too = self.pick(&["hunter3", "value", "env"]);
                self.object(vec![(key, source), (key_too, more)])
            }
            _ => self.object(vec![(key, source)]),
        }
    }

    fn secret(&mut self) -> String {
        match self.below(3) {
            0 => self.string(),
            1 => format!("\"{}\"", "hunter2".repeat(5).get(..self.below(36)).unwrap()),
            _ => self.pick(&["\"SEGMENT_WRITE_KEY\"", "\"UNSET\"", "\"EMPTY\"", "\"CONTROL\"", "\" \""]).to_owned(),
        }
    }

    /// Replaces a value of the document, or damages it.
    pub fn mutate(&mut self, document: &[u8]) -> Vec<u8> {
        let mut document = document.to_vec();
        let values: Vec<usize> = (1..document.len()).filter(|&at| document[at - 1] == b':').collect();
        if values.is_empty() || self.one_in(2) {
            self.damage(&mut document);
        } else {
            let start = self.pick(&values);
            let len = document[start..].iter().position(|b| b",}]".contains(b)).unwrap_or(0);
            let value = match self.below(6) {
                0 => self.customer(),
                1 => self.message_id(),
                2 => self.timestamp(),
                3 => self.secret_source(),
                _ => self.value(2),
            };
            document.splice(start..start + len, value.into_bytes());
        }
        document
    }

    fn damage(&mut self, document: &mut Vec<u8>) {
        let at = self.below(document.len() + 1);
        let end = at + self.below(4).min(document.len() - at);
        match self.below(6) {
            0 => document.truncate(at),
            1 => drop(document.drain(at..end)),
            2 => {
                let again = document[at..].to_vec();
                let at = self.below(document.len() + 1);
                document.splice(at..at, again);
            }
            3 => drop(document.splice(at..end, self.fragment())),
            _ => drop(document.splice(at..at, self.fragment())),
        }
    }

    fn fragment(&mut self) -> Vec<u8> {
        let fragments: Vec<&[u8]> = FRAGMENTS.split(|byte| *byte == b' ').collect();
        match self.pick(&fragments) {
            b"" => b" ".to_vec(),
            fragment => fragment.to_vec(),
        }
    }

    /// `document` with white space around it, damaged one time in four.
    fn around(&mut self, document: String) -> Vec<u8> {
        let mut document = [self.space(), &document, self.space()].concat().into_bytes();
        if self.one_in(4) {
            self.damage(&mut document);
        }
        document
    }

    fn space(&mut self) -> &'static str {
        self.pick(&["", "", "", "", "", "", " ", "\n", "\r\n\t", "  "])
    }

    fn object(&mut self, members: Vec<(&str, String)>) -> String {
        let members: Vec<String> = members
            .into_iter()
            .map(|(key, value)| {
                let key = if key.is_empty() { self.string() } else { self.spelled(key) };
                [self.space(), &key, self.space(), ":", self.space(), &value, self.space()].concat()
            })
            .collect();
        format!("{{{}}}", members.join(","))
    }

    /// `text` in quotes, in one of its spellings.
    fn spelled(&mut self, text: &str) -> String {
        let escapes = self.one_in(6);
        let spelled: String = text
            .chars()
            .map(|c| match self.below(6) {
                0 if escapes => format!("\\u{:04x}", u32::from(c)),
                1 if escapes => format!("\\u{:04X}", u32::from(c)),
                _ => c.to_string(),
            })
            .collect();
        format!("\"{spelled}\"")
    }

    fn event_type(&mut self) -> String {
        match self.below(4) {
            0 => self.string(),
            1 => self.spelled("subscription.billing_month.ends_soon"),
            _ => self.spelled("customer.updated"),
        }
    }

    fn customer(&mut self) -> String {
        let mut members = vec![];
        for _ in 0..self.pick(&[0, 1, 1, 1, 1, 1, 1, 2, 2, 3]) {
            members.push((self.pick(&["id", "id", "id", "id", "id", "Id", ""]), self.id()));
        }
        while self.one_in(2) {
            members.push((self.pick(&["name", "email", "metadata", "metadata", ""]), self.value(3)));
        }
        if self.one_in(2) {
            let metadata = vec![("userId", self.id()), ("a", self.value(1)), (self.pick(&["id", "name"]), self.id())];
            members.push(("metadata", self.object(metadata)));
        }
        if self.one_in(4) {
            members.push(("timestamp", self.timestamp()));
        }
        self.object(members)
    }

    /// The id of a customer or a group, or what is in its place.
    fn id(&mut self) -> String {
        match self.below(8) {
            0 | 1 => self.number(),
            2 => self.pick(&["0", "-0", "0.00", "-0.0E+9", "0e1", "\"\"", "false", "null", "true"]).to_owned(),
            3 => self.value(2),
            _ => self.string(),
        }
    }

    /// About as long as a message id may be.
    fn message_id(&mut self) -> String {
        let unit = self.pick(&["x", "é", "🦀", "\\u00e9", "\\ud83e\\udd80", "\\ud800", "\\n", "株\\\""]);
        match self.below(4) {
            0 => self.string(),
            1 => "\"3f0c-11\"".into(),
            _ => format!("\"{}\"", unit.repeat(self.pick(&[46, 47, 93, 94, 95, 188]))),
        }
    }

    fn timestamp(&mut self) -> String {
        let timestamp = [
            self.pick(&["2026", "2024", "2000", "1900", "0000", "9999", "+2026", "026"]),
            self.pick(&["-", "-", "-", "-", "-", "-", "\\u002d", "/"]),
            self.pick(&["01", "02", "02", "04", "06", "09", "11", "12", "00", "13", "1"]),
            "-",
            self.pick(&["01", "15", "28", "28", "28", "29", "30", "31", "00", "32"]),
            self.pick(&["T", "T", "T", "T", "T", "t", " ", "TT", ""]),
            self.pick(&["00", "12", "12", "12", "23", "24", "1"]),
            ":",
            self.pick(&["00", "30", "30", "59", "60"]),
            self.pick(&[":", ":", ":", ":", ":", ":", "", ","]),
            self.pick(&["00", "30", "30", "30", "59", "60", "61", "-1"]),
            self.pick(&["", "", "", ".5", ".000000000000000000001", ".", ",5", ".5.5"]),
            self.pick(&[
                "Z", "Z", "Z", "z", "+01:00", "-23:59", "+24:00", "-00:60", "+0100", "Z01:00", "", "Zulu", " Z",
            ]),
        ];
        format!("\"{}\"", timestamp.concat())
    }

    fn value(&mut self, depth: usize) -> String {
        match self.below(if depth == 0 { 6 } else { 10 }) {
            0 | 1 => self.number(),
            2 => self.pick(&["null", "true", "false", "[]", "{}", "\"\""]).to_owned(),
            3..6 => self.string(),
            6 if depth > 2 => self.nested(),
            6..8 => {
                let values: Vec<String> = (0..self.below(4)).map(|_| self.value(depth - 1)).collect();
                format!("[{}]", values.join([self.space(), ",", self.space()].concat().as_str()))
            }
            _ => {
                let mut members = Vec::new();
                for _ in 0..self.below(4) {
                    members.push((self.pick(&["", "id", "type", "a", "name"]), self.value(depth - 1)));
                }
                self.object(members)
            }
        }
    }

    /// Nested arrays and objects, about as deep as the sizes that implementations count in: words of 64, or up to 128.
    fn nested(&mut self) -> String {
        let (mut open, mut close) = (String::new(), Vec::new());
        let depth = self.pick(&[5, 62, 63, 64, 65, 100, 126, 127, 128, 129, 191, 192, 193, 400]);
        let kinds = self.pick(&[1, 2]);
        for _ in 0..depth {
            let (start, end) = self
                .pick(&[("[", "]"), ("{\"a\":", "}"), ("[1,", "]"), ("{\"b\":2,\"c\":", ",\"d\":[]}")][..2 * kinds]);
            open += start;
            close.push(end);
        }
        close.reverse();
        [&open, "0", &close.concat()].concat()
    }

    fn number(&mut self) -> String {
        [
            self.pick(&["", "", "-"]),
            self.pick(&["0", "0", "1", "7", "42", "1000000", "9007199254740993", "123456789012345678901234567890"]),
            self.pick(&["", "", "", "", ".0", ".5", ".000", ".10"]),
            self.pick(&["", "", "", "", "e0", "E+9", "e-9", "e400", "E-400", "e99999999999999999999"]),
        ]
        .concat()
    }

    fn string(&mut self) -> String {
        let pieces: Vec<&str> = PIECES.split(' ').collect();
        let string: String = (0..self.below(5)).map(|_| self.pick(&pieces)).collect();
        format!("\"{string}\"")
    }
}
