//! Turns Stigg's webhooks into Segment track calls, inside Envoy or any other proxy-wasm host.
//!
//! | file | concern |
//! | --- | --- |
//! | [`json`] | reading JSON without building anything |
//! | [`path`] | paths into an event |
//! | [`pattern`] | patterns for an event's type |
//! | [`places`] | where Stigg's events have the customer's id |
//! | [`event`] | the members of an event that the configuration needs |
//! | [`event_name`] | how an event is called in Segment |
//! | [`rfc3339`] | what a timestamp looks like |
//! | [`redact`] | leaving members out of an event |
//! | [`envelope`] | who, when, and which id: the rest of a call |
//! | [`mapping`] | from an event to a call |
//! | [`secret`] | values that are never shown |
//! | [`verify`] | who is let in |
//! | [`authorization`] | the write key, as Segment wants it |
//! | [`reply`] | what Stigg is answered |
//! | [`metrics`] | what is counted |
//! | [`config`] | the plugin's configuration |
//! | [`headers`] | which headers reach Segment |
//! | [`filter`] | the rules for one request, step by step |
//! | [`host`] | what the filter asks of its host |
//! | [`stream`] | one request on a host |
//! | [`identity`] | what the filter calls itself |
//! | [`header_map`] | the form in which proxy-wasm hands over headers |
//! | `shell` | the proxy-wasm shell, in WebAssembly only |
//! | `abi` | its calls to the host, in WebAssembly only |
//!
//! Up to [`filter`], everything is plain Rust over bytes that knows of no proxy:
//!
//! ```
//! use std::sync::Arc;
//! use stigg_segment::config::Config;
//! use stigg_segment::filter::{Filter, Step};
//!
//! let variable = |_: &str| Ok("0123456789abcdef0123456789abcdef".to_owned());
//! let config = Config::parse(br#"{ "webhook_secret": "unverified" }"#, variable)?;
//! let mut filter = Filter::new(Arc::new(config));
//!
//! let headers: [(&[u8], &[u8]); 2] = [(b":method", b"POST"), (b":path", b"/webhooks/stigg")];
//! let step = filter.headers(headers.into_iter(), false, |_| None);
//! assert!(matches!(step, Step::SendHeaders(_)));
//!
//! let event = br#"{"type":"customer.payment_failed","messageId":"m-1","customer":{"id":"acme"}}"#;
//! let Step::Forward(_, call) = filter.complete(event, || None) else { panic!("no call") };
//! assert!(call.head.starts_with(br#"{"event":"customer_payment_failed","userId":"acme","messageId":"stigg-3eb1bd43-m-1","#));
//! # Ok::<(), stigg_segment::config::Error>(())
//! ```

#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

pub mod authorization;
pub mod config;
pub mod envelope;
pub mod event;
pub mod event_name;
pub mod filter;
pub mod header_map;
pub mod headers;
pub mod host;
pub mod identity;
pub mod json;
pub mod mapping;
pub mod metrics;
pub mod path;
pub mod pattern;
pub mod places;
pub mod redact;
pub mod reply;
pub mod rfc3339;
pub mod secret;
pub mod stream;
pub mod verify;

#[cfg(target_arch = "wasm32")]
mod abi;
#[cfg(target_arch = "wasm32")]
mod shell;
