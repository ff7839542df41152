//! `sheave schema`: a JSON Schema that holds together and knows what the configuration knows.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

fn schema() -> Value {
    let (code, stdout, stderr) = said(&sheave(&["schema"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn it_knows_every_key_of_the_full_example() {
    let schema = schema();
    assert!(
        schema["$schema"].as_str().unwrap().starts_with("https://json-schema.org/draft/2020-12"),
        "{schema}"
    );
    let known: BTreeSet<&str> =
        schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    let full: Value = serde_yaml::from_str(&std::fs::read_to_string("config/full.yaml").unwrap()).unwrap();
    let written: BTreeSet<&str> = full.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(known, written);
    let mut unknown = Vec::new();
    keys_are_known(&schema, &schema, &full, "", &mut unknown);
    assert!(unknown.is_empty(), "not in the schema: {unknown:?}");
}

/// Walks the example along the schema.
fn keys_are_known(root: &Value, schema: &Value, value: &Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                let path = format!("{path}.{key}");
                let found = alternatives(root, schema).into_iter().find_map(|one| one["properties"].get(key));
                match found {
                    Some(schema) => keys_are_known(root, schema, field, &path, unknown),
                    None => unknown.push(path),
                }
            }
        }
        Value::Array(items) => {
            for schema in alternatives(root, schema) {
                if let Some(schema) = schema.get("items") {
                    items.iter().for_each(|item| keys_are_known(root, schema, item, path, unknown));
                }
            }
        }
        _ => {}
    }
}

/// The schema itself, or what it refers to.
fn alternatives<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let referred = schema["$ref"].as_str().map(|reference| resolve(root, reference));
    let combined = ["anyOf", "oneOf", "allOf"].iter().filter_map(|key| schema[*key].as_array()).flatten();
    let mut all: Vec<&Value> = vec![schema];
    for one in referred.into_iter().chain(combined) {
        all.extend(alternatives(root, one));
    }
    all
}

fn resolve<'a>(root: &'a Value, reference: &str) -> &'a Value {
    let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} is elsewhere"));
    root.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

#[test]
fn it_is_a_valid_schema() {
    let schema = schema();
    let mut schemas = 0;
    holds_together(&schema, &schema, &mut schemas);
    assert!(schemas > 100, "{schemas}");
}

fn holds_together(root: &Value, schema: &Value, schemas: &mut usize) {
    let Some(fields) = schema.as_object() else {
        assert!(schema.is_boolean(), "neither an object nor a boolean: {schema}");
        return;
    };
    *schemas += 1;
    if let Some(reference) = fields.get("$ref") {
        resolve(root, reference.as_str().unwrap());
    }
    let types =
        fields.get("type").map(|types| types.as_array().cloned().unwrap_or_else(|| vec![types.clone()]));
    for one in types.into_iter().flatten() {
        assert!(TYPES.contains(&one.as_str().unwrap()), "{schema}");
    }
    if let Some(pattern) = fields.get("pattern") {
        assert!(pattern.is_string(), "{schema}");
    }
    for required in fields.get("required").and_then(Value::as_array).into_iter().flatten() {
        assert!(fields["properties"].get(required.as_str().unwrap()).is_some(), "{required}: {schema}");
    }
    for key in ["properties", "$defs"] {
        let inner = fields.get(key).and_then(Value::as_object);
        inner.into_iter().flatten().for_each(|(_, inner)| holds_together(root, inner, schemas));
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        let inner = fields.get(key).and_then(Value::as_array);
        inner.into_iter().flatten().for_each(|inner| holds_together(root, inner, schemas));
    }
    for key in ["items", "additionalProperties", "not"] {
        fields.get(key).into_iter().for_each(|inner| holds_together(root, inner, schemas));
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sheave"));
    let mut child = command.arg("schema").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let (code, _, stderr) = said(&child.wait_with_output().unwrap());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}
