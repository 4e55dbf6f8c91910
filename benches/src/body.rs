//! The bodies of events, of a given size.

use serde_json::{Value, json};

/// An `entitlements.updated` as Stigg sends it, of `size` bytes as nearly as whole entitlements allow, and then to the
/// byte by the length of a name. It is about a customer, unless `customer` is none.
pub fn of_size(size: usize, customer: Option<&str>) -> String {
    let mut entitlements = Vec::new();
    loop {
        let next = event_with([entitlements.as_slice(), &[entitlement(entitlements.len())]].concat(), customer, 0);
        if next.len() > size {
            let short = event_with(entitlements.clone(), customer, 0).len();
            return event_with(entitlements, customer, size.saturating_sub(short));
        }
        entitlements.push(entitlement(entitlements.len()));
    }
}

fn event_with(entitlements: Vec<Value>, customer: Option<&str>, padding: usize) -> String {
    let mut event = json!({
        "messageId": "9d4b0f71-c8e3-4a65-92d0-e7b6c3f15a28",
        "traceId": "8cacb493-28e7-4a28-9ee0-0682109d9838",
        "timestamp": "2026-03-18T11:42:09.015Z",
        "type": "entitlements.updated",
        "trigger": "subscription_updated",
        "resource": null,
        "entitlements": entitlements,
        "environmentId": "production",
        "note": "x".repeat(padding),
    });
    if let Some(id) = customer {
        event["customer"] = json!({ "id": id, "name": "Acme GmbH", "email": "billing@acme.example.com" });
    }
    event.to_string()
}

fn entitlement(n: usize) -> Value {
    json!({
        "feature": {
            "entityId": format!("efa3728c-c0f0-4d27-93a5-26de3f1d2{n:03x}"), "id": format!("feature-{n}"),
            "name": "API calls", "description": "Calls of the public API", "featureType": "NUMBER",
            "meterType": "INCREMENTAL", "unit": "call", "units": "calls", "status": "ACTIVE", "enumConfiguration": null,
        },
        "usageLimit": 100_000, "hasUnlimitedUsage": false, "hasSoftLimit": true, "currentUsage": 48_211 + n,
        "usagePeriodAnchor": "2026-03-01T00:00:00.000Z", "usagePeriodStart": null, "usagePeriodEnd": null,
        "resetPeriod": "MONTH", "resetPeriodConfiguration": { "accordingTo": "SubscriptionStart" }, "enumValues": null,
    })
}

#[cfg(test)]
mod tests {
    use super::of_size;

    #[test]
    fn an_event_has_the_size_asked_for() {
        for size in [1024, 2048, 16 * 1024, 31 * 1024] {
            assert_eq!(of_size(size, Some("acme")).len(), size);
            assert_eq!(of_size(size, None).len(), size);
        }
    }
}
