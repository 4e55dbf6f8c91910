//! The gateway notices a module's mistakes: a host that never complains would prove nothing.

use anyhow::Result;
use second_host::cases::{Outcome, Request};
use second_host::gateway::{Kind, Program};

const KIND: Kind = Kind { holds_headers: true, has_extras: true, goes_on: false };
const BODY: &str = r#"{"a":1}"#;

/// A module with this code in its callbacks; the others succeed and continue.
fn module(callbacks: &[(&str, &str)]) -> Result<Program> {
    let in_callback = |name: &str, otherwise: &str| {
        callbacks.iter().find(|(callback, _)| *callback == name).map_or(otherwise, |(_, code)| *code).to_owned()
    };
    let text = format!(
        r#"(module
            (import "env" "proxy_get_header_map_pairs" (func $get_map (param i32 i32 i32) (result i32)))
            (import "env" "proxy_set_header_map_pairs" (func $set_map (param i32 i32 i32) (result i32)))
            (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_send_local_response"
                (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
            (import "env" "proxy_get_property" (func $get_property (param i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_set_property" (func $set_property (param i32 i32 i32 i32) (result i32)))
            {imports}
            (memory (export "memory") 2)
            (data (i32.const 100) "name")
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 65536)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "_initialize") {initialize})
            (func (export "proxy_on_configure") (param i32 i32) (result i32) {configure})
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {headers})
            (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) {body})
            (func (export "proxy_on_request_trailers") (param i32 i32) (result i32) {trailers})
            (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) {answer})
            (func (export "proxy_on_log") (param i32) {log}))"#,
        imports = in_callback("import", ""),
        initialize = in_callback("initialize", ""),
        configure = in_callback("configure", "i32.const 1"),
        headers = in_callback("headers", CONTINUE),
        body = in_callback("body", CONTINUE),
        trailers = in_callback("trailers", CONTINUE),
        answer = in_callback("answer", CONTINUE),
        log = in_callback("log", ""),
    );
    Program::new(&wat::parse_str(text)?)
}

const CONTINUE: &str = "(i32.const 0)";
const PAUSE: &str = "(i32.const 1)";

/// Reads the request's headers.
const GET_HEADERS: &str = "(drop (call $get_map (i32.const 0) (i32.const 8) (i32.const 12)))";
/// Reads the answer's headers.
const GET_ANSWER: &str = "(drop (call $get_map (i32.const 2) (i32.const 8) (i32.const 12)))";
/// Removes the request's headers.
const SET_HEADERS: &str = "(drop (call $set_map (i32.const 0) (i32.const 100) (i32.const 0)))";
/// Reads the request's body.
const GET_BODY: &str =
    "(drop (call $get_buffer (i32.const 0) (i32.const 0) (i32.const 99) (i32.const 8) (i32.const 12)))";
/// Appends to the request's body.
const APPEND: &str =
    "(drop (call $set_buffer (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 100) (i32.const 1)))";
/// Answers 403.
const REPLY: &str = "(drop (call $reply (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) \
     (i32.const 0) (i32.const 0) (i32.const -1)))";
/// Defines a counter, whose number is 1.
const DEFINE: &str = "(drop (call $define (i32.const 0) (i32.const 100) (i32.const 4) (i32.const 8)))";
const GET_PROPERTY: &str = "(drop (call $get_property (i32.const 100) (i32.const 4) (i32.const 8) (i32.const 12)))";
const SET_PROPERTY: &str = "(drop (call $set_property (i32.const 100) (i32.const 4) (i32.const 100) (i32.const 4)))";

fn increment(id: u32, by: i64) -> String {
    format!("(drop (call $increment (i32.const {id}) (i64.const {by})))")
}

fn serve(kind: Kind, callbacks: &[(&str, &str)], request: &Request) -> Result<Outcome> {
    module(callbacks)?.start(kind, "{}", &[])?.serve(request, 200)
}

fn with_trailers() -> Request {
    Request { trailers: vec![("x-checksum", "1")], ..Request::post(BODY) }
}

#[test]
fn permitted_calls_are_served() -> Result<()> {
    let early = [GET_HEADERS, PAUSE].concat();
    let late = [GET_HEADERS, GET_BODY, PAUSE].concat();
    let last = [GET_HEADERS, GET_BODY, CONTINUE].concat();
    let answer = [GET_ANSWER, CONTINUE].concat();
    let log = [GET_HEADERS, GET_ANSWER].concat();
    let configure = [DEFINE, DEFINE, "(i32.const 1)"].concat();
    let count = [&increment(1, 2), SET_PROPERTY, GET_PROPERTY, CONTINUE].concat();
    for callbacks in [
        vec![],
        vec![("headers", &*early), ("body", &late), ("trailers", &last), ("answer", &answer), ("log", &log)],
        vec![("configure", &configure), ("headers", &count)],
    ] {
        let mut gateway = module(&callbacks)?.start(KIND, "{}", &[])?;
        let outcome = gateway.serve(&with_trailers(), 200)?;
        let call = outcome.call.unwrap();
        assert_eq!((outcome.status, call.body.as_slice(), call.trailers), (200, BODY.as_bytes(), 1));
        assert_eq!(gateway.metric("name").unwrap_or(2), 2);
    }
    let outcome = serve(KIND, &[("body", &[REPLY, PAUSE].concat())], &with_trailers())?;
    assert!((outcome.status, outcome.call.is_none()) == (403, true));
    Ok(())
}

#[test]
fn calls_in_the_wrong_phase_are_complained_about() {
    let rejected = |callbacks: &[(&str, &str)], complaint: &str| {
        let error = serve(KIND, callbacks, &with_trailers()).unwrap_err();
        assert_eq!(format!("{error:#}"), complaint);
    };
    let then = |code: &str, action: &str| [code, action].concat();
    // Headers that were forwarded, or have not come.
    rejected(
        &[("body", &then(GET_HEADERS, CONTINUE))],
        "proxy_on_request_body: proxy_get_header_map_pairs was answered BadArgument",
    );
    rejected(
        &[("trailers", &then(SET_HEADERS, CONTINUE))],
        "proxy_on_request_trailers: proxy_set_header_map_pairs was answered BadArgument",
    );
    rejected(
        &[("headers", &then(GET_ANSWER, CONTINUE))],
        "proxy_on_request_headers: proxy_get_header_map_pairs was answered BadArgument",
    );
    rejected(&[("log", SET_HEADERS)], "proxy_on_log: proxy_set_header_map_pairs was answered BadArgument");
    // A body that was forwarded, or has not come.
    rejected(
        &[("headers", &then(GET_BODY, CONTINUE))],
        "proxy_on_request_headers: proxy_get_buffer_bytes was answered NotFound",
    );
    rejected(
        &[("trailers", &then(APPEND, CONTINUE))],
        "proxy_on_request_trailers: proxy_set_buffer_bytes was answered NotFound",
    );
    // A second answer.
    let twice = [REPLY, REPLY, PAUSE].concat();
    rejected(&[("headers", &twice)], "proxy_on_request_headers: proxy_send_local_response was answered BadArgument");
    rejected(
        &[("answer", &then(REPLY, CONTINUE))],
        "proxy_on_response_headers: proxy_send_local_response was answered BadArgument",
    );
    // Metrics outside the configuration callback, unknown metrics, and invalid changes.
    rejected(&[("initialize", DEFINE)], "at the start: proxy_define_metric was answered NotFound");
    rejected(
        &[("headers", &then(DEFINE, CONTINUE))],
        "proxy_on_request_headers: proxy_define_metric was answered BadArgument",
    );
    rejected(
        &[("headers", &then(&increment(1, 1), CONTINUE))],
        "proxy_on_request_headers: proxy_increment_metric was answered NotFound",
    );
    let define = then(DEFINE, "(i32.const 1)");
    rejected(
        &[("configure", &define), ("headers", &then(&increment(1, 0), CONTINUE))],
        "proxy_on_request_headers: proxy_increment_metric was answered BadArgument",
    );
    // Memory that does not exist.
    let elsewhere = GET_HEADERS.replace("(i32.const 8)", "(i32.const 131070)");
    rejected(
        &[("headers", &then(&elsewhere, CONTINUE))],
        "proxy_on_request_headers: proxy_get_header_map_pairs was answered InvalidMemoryAccess",
    );
    // Functions that do not exist.
    let unknown = r#"(import "env" "proxy_get_weather" (func (result i32)))"#;
    let error = module(&[("import", unknown)]).unwrap().start(KIND, "{}", &[]).err().unwrap();
    assert!(format!("{error:#}").contains("proxy_get_weather"), "{error:#}");
}

#[test]
fn a_request_that_upstream_would_not_understand_is_an_error() {
    for (callbacks, complaint) in [
        // The length was announced with the headers.
        (&[("body", [APPEND, CONTINUE].concat())], "content-length 7 for 8 bytes"),
        (&[("headers", [SET_HEADERS, CONTINUE].concat())], "not one :authority: []"),
        (&[("headers", [REPLY, CONTINUE].concat())], "it was answered, and is to be sent on nevertheless"),
        (&[("trailers", [REPLY, PAUSE].concat())], "half of it was sent on before it was answered"),
    ] {
        let callbacks: Vec<_> = callbacks.iter().map(|(callback, code)| (*callback, code.as_str())).collect();
        assert_eq!(serve(KIND, &callbacks, &with_trailers()).unwrap_err().to_string(), complaint);
    }
}

#[test]
fn a_module_that_never_continues_hangs() {
    let post = Request::post(BODY);
    for callback in ["headers", "body", "trailers"] {
        let error = serve(KIND, &[(callback, PAUSE)], &with_trailers()).map(|_| ());
        // The next part continues the request.
        assert_eq!(error.is_ok(), callback != "trailers", "{callback}: {error:?}");
    }
    let error = serve(KIND, &[("body", PAUSE)], &post).unwrap_err();
    assert_eq!(error.to_string(), "it hangs: nothing more will come");
    let error = serve(Kind { holds_headers: false, ..KIND }, &[("headers", PAUSE)], &post).unwrap_err();
    assert_eq!(error.to_string(), "it hangs: this host does not hold headers back");
}

#[test]
fn a_host_without_extras_rejects_them_and_does_not_complain() -> Result<()> {
    let kind = Kind { has_extras: false, ..KIND };
    let configure = [DEFINE, "(i32.const 1)"].concat();
    let headers = [SET_PROPERTY, GET_PROPERTY, CONTINUE].concat();
    let mut gateway = module(&[("configure", &configure), ("headers", &headers)])?.start(kind, "{}", &[])?;
    assert_eq!(gateway.serve(&with_trailers(), 200)?.status, 200);
    assert_eq!(gateway.metric("name"), None);
    Ok(())
}
