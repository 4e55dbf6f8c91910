//! The JSON Schema of the configuration agrees with the parser on the same cases.

use std::env::VarError;

use boon::{Compiler, Schemas};
use serde_json::{Value, json};
use stigg_segment::config::Config;
use tests::guard::names_all;

fn read(file: &str) -> Value {
    let path = sandbox::envoy::workspace_root().join(file);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn parse(configuration: &Value) -> Result<Config, String> {
    let env = |name: &str| match name {
        "SEGMENT_WRITE_KEY" | "STIGG_WEBHOOK_SECRET" => Ok("x".to_owned()),
        "EMPTY" => Ok(String::new()),
        _ => Err(VarError::NotPresent),
    };
    Config::parse(configuration.to_string().as_bytes(), env).map_err(|error| error.to_string())
}

#[test]
fn parser_and_schema_accept_and_reject_the_same() {
    let cases = read("tests/configurations.json");
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("schema.json", read("configuration.schema.json")).unwrap();
    let schema = compiler.compile("schema.json", &mut schemas).unwrap();
    let accepts = |configuration: &Value| schemas.validate(configuration, schema).map_err(|error| format!("{error:#}"));
    for configuration in cases["accepted"].as_array().unwrap() {
        assert!(parse(configuration).is_ok(), "{configuration}: {:?}", parse(configuration));
        assert!(accepts(configuration).is_ok(), "{configuration}: {:?}", accepts(configuration));
    }
    for (kind, by_schema) in [("rejected", true), ("rejected_for_the_environment", false)] {
        for case in cases[kind].as_array().unwrap() {
            let (line, configuration) = (case[0].as_str().unwrap(), &case[1]);
            let error = parse(configuration).expect_err(line);
            assert!(error.starts_with(line) && !error.contains('\n'), "{configuration} gave: {error}");
            assert_eq!(accepts(configuration).is_err(), by_schema, "{configuration}");
        }
    }
}

/// The fields of an object with their descriptions.
fn fields(schema: &Value) -> Vec<&String> {
    schema["properties"].as_object().unwrap().keys().collect()
}

#[test]
fn every_field_is_in_both() {
    let schema = read("configuration.schema.json");
    let known: Vec<_> = [fields(&schema), fields(&schema["$defs"]["environment"])].concat();
    // The parser lists its fields for a misspelt one.
    let rejected = parse(&json!({ "wirte_key": 1 })).unwrap_err();
    let listed = rejected.rsplit_once("expected one of ").unwrap().1.split(", ");
    names_all("configuration.schema.json", "field that the parser knows", &known, listed);
    for field in known {
        let field = schema["properties"].get(field).unwrap_or(&schema["$defs"]["environment"]["properties"][field]);
        assert!(
            field["description"].is_string(),
            "configuration.schema.json has a field without a description: {field}"
        );
    }
}

#[test]
fn the_defaults_in_the_schema_are_the_parsers() {
    let schema = read("configuration.schema.json");
    let fields = schema["$defs"]["environment"]["properties"].as_object().unwrap();
    // By default the write key makes the first, and the others are not there.
    let fields = fields.iter().filter(|(name, _)| !["source", "too_large", "group_id"].contains(&name.as_str()));
    let defaults = fields.map(|(name, field)| (name.clone(), field["default"].clone()));
    let defaults: Value = defaults.collect::<serde_json::Map<_, _>>().into();
    assert!(defaults.as_object().unwrap().values().all(|default| !default.is_null()), "{defaults}");
    assert_eq!(parse(&defaults).unwrap(), parse(&json!({})).unwrap());
    assert_eq!(
        schema["properties"]["hold_request_headers"]["default"],
        parse(&json!({})).unwrap().hold_request_headers
    );
}
