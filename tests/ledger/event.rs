//! The events, each with the call that it must become.

use std::time::UNIX_EPOCH;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::edge::{PATH, WRITE_KEY};

use super::dice::Dice;

/// The day, in days since 1970.
fn today() -> u64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs() / 86_400
}

/// The environments of Stigg that deliver to the filter: the path and the write key of each.
pub const ENVIRONMENTS: [(&str, &str); 2] =
    [(PATH, WRITE_KEY), ("/webhooks/second", "secondkey0123456789abcdefghijklm")];

/// An event of one environment. The others have the same event: it differs from all others of its own environment.
pub struct Event {
    /// Its number, another one in each environment.
    pub number: usize,
    /// The webhook's body.
    pub body: String,
    /// What it is about.
    pub about: About,
}

/// What an event is about.
#[derive(Debug)]
pub enum About {
    /// A customer. Segment must get this call, with the body as its `properties`.
    Customer(Envelope),
    /// No customer.
    NoCustomer,
    /// Something that cannot be mapped; the filter rejects it.
    Unusable,
}

/// A track call without its `properties`.
#[derive(Debug)]
pub struct Envelope {
    /// The event's name in Segment.
    pub event: String,
    /// The customer's id.
    pub user_id: String,
    /// The id by which Segment removes duplicates: one of these.
    pub message_ids: Vec<String>,
    /// When it happened, if the event says so.
    pub timestamp: Value,
}

const TYPES: [&str; 6] = [
    "subscription.created",
    "subscription.billing_month.ends_soon",
    "promotionalEntitlement.granted",
    "entitlement.usage_exceeded",
    "customer.payment_failed",
    "измерение.reported",
];

/// Spellings of `customer.id`, each with the value.
const CUSTOMER_IDS: [(&str, &str); 5] = [
    (r#""customer-test-id""#, "customer-test-id"),
    (r#""K\u00fcnde \"A\" \\ \/""#, "Künde \"A\" \\ /"),
    (r#""😀""#, "😀"),
    ("90071992547409931", "90071992547409931"),
    ("-1.50E+3", "-1.50E+3"),
];

/// Members of events that are not about a customer.
const NO_CUSTOMERS: [&str; 8] = [
    r#""id":"plan-pro""#,
    r#""customerId":"acme""#,
    r#""customer":null"#,
    r#""customer":{}"#,
    r#""customer":{"id":null,"entityId":"e"}"#,
    r#""customer":{"id":""}"#,
    r#""customer":{"id":-0.0}"#,
    r#""customer":{"id":false}"#,
];

/// Customers that cannot be mapped.
const UNUSABLE_CUSTOMERS: [&str; 2] = [r#""customer":{"id":true}"#, r#""customer":{"id":{"id":"acme"}}"#];

/// Values of `timestamp`, each with whether it is a date-time.
const TIMESTAMPS: [(&str, bool); 4] =
    [("\"2026-02-28T23:59:59.50+01:00\"", true), ("null", false), ("\"yesterday\"", false), ("1772323199", false)];

/// Members that a careless rewrite would alter: numbers beyond a double, escapes, white space, order, texts that look like
/// the envelope.
const PROPERTIES: [&str; 10] = [
    r#""usageLimit":123456789012345678901234567890"#,
    r#""price":1.50"#,
    r#""ratio":-0.0e-7"#,
    r#""z":1,"a":{"z":[],"a":{}}"#,
    r#""name":"Zo\u00eb \ud83d\ude00 <&> \u0000 \/""#,
    r#""name":"Zoë 😀 \" ,\"properties\":{} }""#,
    r#""actor" : { "customer" : { "id" : "nested" }, "type" : "nested", "messageId" : "nested" }"#,
    "\"addons\":[ \t\r\n ]",
    r#""event":"e","userId":"u","properties":null,"context":{}"#,
    r#""entitlements":[true,false,null,[[[[]]]]]"#,
];

/// The longest `messageId` that fits into Segment's 100 characters after the filter's prefix.
const LONGEST_MESSAGE_ID: usize = 85;

/// The key of the number in a body, which identifies the event in every case.
const NUMBER: &str = r#""ledgerNumber":"#;

/// The number of the event that a track call carries to the source with this write key.
pub fn number(call: &[u8], write_key: Option<&str>) -> Option<usize> {
    let environment = ENVIRONMENTS.iter().position(|(_, own)| write_key == Some(own))?;
    let (_, shared) = std::str::from_utf8(call).ok()?.split_once(NUMBER)?;
    let shared: usize = shared.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some(shared * ENVIRONMENTS.len() + environment)
}

/// The number that the events of all environments share if they are the same event.
pub fn shared(number: usize) -> usize {
    number / ENVIRONMENTS.len()
}

impl Event {
    /// The event of this number.
    pub fn new(number: usize, seed: u64) -> Self {
        let mut dice = Dice::new([seed, shared(number) as u64]);
        // Some of each kind, even if there are few events.
        match shared(number) % 100 {
            50 => Event::unusable(number, &mut dice),
            0 => Event::about_customer(number, &mut dice),
            _ if dice.below(100) < 65 => Event::about_customer(number, &mut dice),
            _ => Event::about_no_customer(number, &mut dice),
        }
    }

    /// The environment that it is in.
    fn environment(number: usize) -> (&'static str, &'static str) {
        ENVIRONMENTS[number % ENVIRONMENTS.len()]
    }

    /// The path that it is delivered to.
    pub fn path(&self) -> &'static str {
        Event::environment(self.number).0
    }

    fn about_customer(number: usize, dice: &mut Dice) -> Self {
        let kind = *dice.pick(&TYPES);
        let (written_id, user_id) = *dice.pick(&CUSTOMER_IDS);
        let mut fields = vec![
            format!(r#""type":"{kind}""#),
            format!(r#""customer":{{"name":null,"id":{written_id},"email":"a@example.com"}}"#),
        ];

        let shared = shared(number);
        let id = format!("{shared}-3f0c");
        let (stiggs, id) = match dice.below(12) {
            0 => (None, None),
            1 => (Some("null".to_owned()), None),
            2 => (Some(format!("\"{id:x>0$}\"", LONGEST_MESSAGE_ID + 1)), None),
            3 => (Some(format!("\"{id:é>0$}\"", LONGEST_MESSAGE_ID)), Some(format!("{id:é>0$}", LONGEST_MESSAGE_ID))),
            4 => (Some(format!(r#""{shared}-\u0033f0c""#)), Some(id)),
            _ => (Some(format!("\"{id}\"")), Some(id)),
        };
        let mut has_neither = matches!(stiggs.as_deref(), None | Some("null"));
        fields.extend(stiggs.map(|id| format!(r#""messageId":{id}"#)));

        let mut timestamp = Value::Null;
        if dice.one_in(2) {
            let (written, valid) = *dice.pick(&TIMESTAMPS);
            fields.push(format!(r#""timestamp":{written}"#));
            has_neither &= written == "null";
            if valid {
                timestamp = json!(written.trim_matches('"'));
            }
        }

        let body = body(number, fields, dice);
        let write_key = Event::environment(number).1;
        let source = format!("{:x}", Sha256::digest(write_key));
        let message_id = |id: &str| format!("stigg-{}-{id}", &source[..8]);
        let derived = |after: String| message_id(&format!("sha256-{:x}", Sha256::digest(format!("{body}{after}"))));
        let message_ids = match id {
            Some(id) => vec![message_id(&id)],
            // It may arrive today or, if the test runs at midnight, tomorrow.
            None if has_neither => (0..2).map(|later| derived(format!("\n{}", today() + later))).collect(),
            None => vec![derived(String::new())],
        };
        let envelope = Envelope { event: kind.replace('.', "_"), user_id: user_id.to_owned(), message_ids, timestamp };
        Event { number, body, about: About::Customer(envelope) }
    }

    fn about_no_customer(number: usize, dice: &mut Dice) -> Self {
        let fields = vec![
            format!(r#""type":"{}""#, dice.pick(&TYPES)),
            format!(r#""messageId":"{}-3f0c""#, shared(number)),
            (*dice.pick(&NO_CUSTOMERS)).to_owned(),
        ];
        Event { number, body: body(number, fields, dice), about: About::NoCustomer }
    }

    fn unusable(number: usize, dice: &mut Dice) -> Self {
        let fields = match dice.below(3) {
            0 => vec![r#""type":7"#.to_owned(), r#""customer":{"id":"acme"}"#.to_owned()],
            1 => vec![
                r#""type":"a""#.to_owned(),
                r#""customer":{"id":"acme"}"#.to_owned(),
                format!(r#""tooLarge":"{}""#, "x".repeat(32 * 1024)),
            ],
            _ => vec![r#""type":"a""#.to_owned(), (*dice.pick(&UNUSABLE_CUSTOMERS)).to_owned()],
        };
        Event { number, body: body(number, fields, dice), about: About::Unusable }
    }
}

/// A body with these fields and some more, in any order.
fn body(number: usize, mut fields: Vec<String>, dice: &mut Dice) -> String {
    fields.push(format!("{NUMBER}{}", shared(number)));
    let first = dice.below(PROPERTIES.len());
    fields.extend(PROPERTIES.iter().skip(first).take(3).map(|field| (*field).to_owned()));
    let padding = match dice.below(50) {
        0 => dice.below(30_000),
        1..20 => dice.below(3_000),
        _ => 0,
    };
    if padding > 0 {
        fields.push(format!(r#""metadata":{{"note":"{}"}}"#, "é ".repeat(padding / 3)));
    }
    dice.shuffle(&mut fields);
    let between = *dice.pick(&[",", ", ", " ,\n  "]);
    format!("{{{}}}", fields.join(between))
}
