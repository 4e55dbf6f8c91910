//! Synthetic events of a given size.

use serde_json::{Value, json};

/// An `entitlements.updated` of exactly `size` bytes, as Stigg sends it: as many entitlements as fit, then a note that fills
/// the rest. It is about a customer, unless `customer` is `None`.
pub fn event(size: usize, customer: Option<&str>) -> String {
    let mut entitlements = Vec::new();
    loop {
        let next = with_padding([entitlements.as_slice(), &[entitlement(entitlements.len())]].concat(), customer, 0);
        if next.len() > size {
            let short = with_padding(entitlements.clone(), customer, 0).len();
            return with_padding(entitlements, customer, size.saturating_sub(short));
        }
        entitlements.push(entitlement(entitlements.len()));
    }
}

fn with_padding(entitlements: Vec<Value>, customer: Option<&str>, padding: usize) -> String {
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
    use super::event;

    #[test]
    fn an_event_has_the_size_asked_for() {
        for size in [1024, 2048, 16 * 1024, 31 * 1024] {
            assert_eq!(event(size, Some("acme")).len(), size);
            assert_eq!(event(size, None).len(), size);
        }
    }
}
