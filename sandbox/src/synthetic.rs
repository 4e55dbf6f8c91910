//! Synthetic events of a given size.

/// An `entitlements.updated` of exactly `size` bytes, as Stigg sends it: as many entitlements as fit, then a note that fills
/// the rest. It is about a customer, unless `customer` is `None`.
///
/// The members are in Stigg's order, which decides how far a pattern has to look for them.
pub fn event(size: usize, customer: Option<&str>) -> String {
    let mut entitlements: Vec<String> = Vec::new();
    loop {
        let next = with_padding(&[entitlements.as_slice(), &[entitlement(entitlements.len())]].concat(), customer, 0);
        if next.len() > size {
            let short = with_padding(&entitlements, customer, 0).len();
            return with_padding(&entitlements, customer, size.saturating_sub(short));
        }
        entitlements.push(entitlement(entitlements.len()));
    }
}

fn with_padding(entitlements: &[String], customer: Option<&str>, padding: usize) -> String {
    let customer = customer.map_or_else(String::new, |id| {
        format!(r#""customer":{{"id":"{id}","name":"Acme GmbH","email":"billing@acme.example.com"}},"#)
    });
    format!(
        r#"{{"messageId":"9d4b0f71-c8e3-4a65-92d0-e7b6c3f15a28","traceId":"8cacb493-28e7-4a28-9ee0-0682109d9838","timestamp":"2026-03-18T11:42:09.015Z","type":"entitlements.updated","trigger":"subscription_updated",{customer}"resource":null,"entitlements":[{}],"environmentId":"production","note":"{}"}}"#,
        entitlements.join(","),
        "x".repeat(padding),
    )
}

fn entitlement(n: usize) -> String {
    let used = 48_211 + n;
    format!(
        r#"{{"feature":{{"entityId":"efa3728c-c0f0-4d27-93a5-26de3f1d2{n:03x}","id":"feature-{n}","name":"API calls","description":"Calls of the public API","featureType":"NUMBER","meterType":"INCREMENTAL","unit":"call","units":"calls","status":"ACTIVE","enumConfiguration":null}},"usageLimit":100000,"hasUnlimitedUsage":false,"hasSoftLimit":true,"currentUsage":{used},"usagePeriodAnchor":"2026-03-01T00:00:00.000Z","usagePeriodStart":null,"usagePeriodEnd":null,"resetPeriod":"MONTH","resetPeriodConfiguration":{{"accordingTo":"SubscriptionStart"}},"enumValues":null}}"#
    )
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

    #[test]
    fn its_members_are_in_the_order_of_the_fixture() {
        let fixture = crate::fixtures::event("entitlements.updated").unwrap();
        let fixture = std::str::from_utf8(&fixture).unwrap();
        let event = event(2048, Some("acme"));
        serde_json::from_str::<serde_json::Value>(&event).unwrap();
        let mut places: Vec<_> = ["messageId", "timestamp", "type", "customer", "entitlements", "environmentId"]
            .map(|member| format!("\"{member}\":"))
            .map(|member| (fixture.find(&member).unwrap(), event.find(&member).unwrap()))
            .into();
        places.sort();
        assert!(places.is_sorted_by_key(|(_, place)| place), "{places:?}: {event}");
    }
}
