//! Files on disk: those of this repository, and those that cannot be read.

use std::fs;

use super::*;

fn repository(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The errors without the directory, which differs.
fn load(path: &Path) -> String {
    let error = Config::load(path).expect_err("this is no configuration");
    error.to_string().replace(&format!("{}/", path.parent().unwrap().display()), "")
}

#[test]
fn local_yaml_parses() {
    let config = Config::load(&repository("config/local.yaml")).unwrap();
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:7000");
    let ports: Vec<u16> =
        config.upstreams[0].members.listed().iter().map(|endpoint| endpoint.address.port()).collect();
    assert_eq!(ports, [7101, 7102, 7103]);
    assert_eq!(config.drain.delay, Duration::ZERO);
}

#[test]
fn full_yaml_parses() {
    let config = Config::load(&repository("config/full.yaml")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.listeners[1].tls.as_ref().unwrap().certificates.len(), 2);
}

/// Whole files among the examples are right ones.
#[test]
fn examples_in_the_documentation_parse() {
    let docs = fs::read_dir(repository("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut whole = 0;
    for file in
        docs.filter(|path| path.extension().is_some_and(|ext| ext == "md")).chain([repository("README.md")])
    {
        let text = fs::read_to_string(&file).unwrap();
        for (i, (at, _)) in text.match_indices("```yaml\n").enumerate() {
            let example =
                text[at..].lines().skip(1).take_while(|line| *line != "```").collect::<Vec<_>>().join("\n");
            let has = |list: &str| example.lines().any(|line| line.starts_with(list));
            if ["listeners:", "routes:", "upstreams:"].into_iter().all(has) {
                let name = format!("example {} of {}", i + 1, file.display());
                whole += 1;
                Config::parse(&example, &name).unwrap_or_else(|errors| panic!("{errors}"));
            }
        }
    }
    assert!(whole >= 8, "{whole} whole files found");
}

#[test]
fn full_yaml_names_every_field() {
    let text = fs::read_to_string(repository("config/full.yaml")).unwrap();
    let mut missing = Vec::new();
    let schema = schema();
    let definitions = schema["$defs"].as_object().unwrap().values();
    for definition in definitions.chain([&schema]) {
        let Some(properties) = definition["properties"].as_object() else {
            continue;
        };
        for name in properties.keys() {
            if !text.contains(&format!("{name}:")) {
                missing.push(name.clone());
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn what_cannot_be_read_says_why() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(
        Config::load(directory.path()).unwrap_err().iter().next().unwrap().message(),
        "this is a directory; write the path of a file in it"
    );
    assert_eq!(
        load(&directory.path().join("nowhere.yaml")),
        "nowhere.yaml: there is no such file; write the path of one"
    );
    let file = directory.path().join("t.yaml");
    fs::write(&file, b"log: {}\n\xff\xfe").unwrap();
    assert_eq!(load(&file), "t.yaml:2: not UTF-8 text; save the file in that encoding");
    fs::write(&file, vec![b'#'; MAX_FILE_BYTES + 1]).unwrap();
    assert_eq!(load(&file), format!("t.yaml: {TOO_LONG}"));
    let no_file = "this is no regular file; write the path of one";
    assert_eq!(load(Path::new("/dev/zero")), format!("zero: {no_file}"));
    let fifo = directory.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert_eq!(load(&fifo), format!("fifo: {no_file}"), "and opening it waits for nobody");
    fs::write(&file, BASE).unwrap();
    assert!(Config::load(&file).is_ok());
}

#[test]
fn an_empty_file_says_what_is_missing() {
    let missing = |kind| format!("t.yaml: {kind}: missing; write at least one, in a list under {kind}:");
    for text in ["", "\n\n", "# nothing\n", "---\n", "{}"] {
        assert_eq!(lines(text), ["listeners", "routes", "upstreams"].map(missing), "{text:?}");
    }
}

/// The defaults that the schema tells are those that the parser takes.
#[test]
fn the_schema_tells_the_defaults() {
    let schema = schema();
    let definitions = &schema["$defs"];
    let mut text = String::new();
    for block in ["workers", "admin", "drain", "limits", "log", "accessLog", "metrics", "tracing"] {
        let name = schema["properties"][block]["$ref"].as_str().unwrap();
        let name = name.trim_start_matches("#/$defs/");
        text += &format!("{block}: {}\n", defaults(definitions, name));
    }
    let text = text
        + &BASE
            .replace(
                "5432\"\n",
                &format!(
                    "5432\"\n    timeout: {{tcp: {}}}\n    tcpKeepalive: {}\n",
                    defaults(definitions, "TcpTimeout"),
                    defaults(definitions, "TcpKeepalive")
                ),
            )
            .replace(
                "    loadB",
                &format!(
                    "    timeout: {{tcp: {}}}\n    retry: {}\n    loadB",
                    defaults(definitions, "UpstreamTcp"),
                    defaults(definitions, "Retry")
                ),
            );
    assert_eq!(parse(&text).unwrap(), parse(BASE).unwrap(), "{text}");
}

/// The defaults of a definition's supported fields, as YAML (of which JSON is a part).
fn defaults(definitions: &serde_json::Value, name: &str) -> serde_json::Value {
    let properties = definitions[name]["properties"].as_object().unwrap();
    let written = properties.iter().filter_map(|(field, schema)| {
        let supported = schema["$comment"].is_null();
        let default = schema.get("default").filter(|_| supported)?;
        Some((field.clone(), default.clone()))
    });
    written.collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn the_schema_bounds_every_fraction_and_the_statuses() {
    let schema = schema();
    let definitions = schema["$defs"].as_object().unwrap();
    let mut fractions = 0;
    for (name, definition) in definitions {
        for (field, schema) in definition["properties"].as_object().into_iter().flatten() {
            if schema["type"] == "number" {
                fractions += 1;
                let bounds = [&schema["minimum"], &schema["maximum"]];
                assert!(bounds.iter().all(|bound| bound.is_number()), "{name}.{field}: {schema}");
            }
        }
    }
    assert!(fractions >= 5, "{fractions}");
    let closes = &definitions["UpstreamDrain"]["properties"]["closePerSecond"];
    let statuses = &definitions["HttpProbe"]["properties"]["expectedStatuses"];
    assert_eq!((&closes["maximum"], &statuses["minItems"]), (&100_000.into(), &1.into()));
}

#[test]
fn every_field_of_the_schema_is_described() {
    let schema = schema();
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        let Some(properties) = definition["properties"].as_object() else {
            continue;
        };
        assert_eq!(definition["additionalProperties"], false, "{name}");
        for (field, schema) in properties {
            assert!(schema["description"].is_string(), "{name}.{field}");
        }
    }
}

#[test]
fn a_listener_is_no_endpoint_of_its_own() {
    let text = |listener: &str, endpoint: &str| {
        format!(
            "listeners: [{{name: a, address: \"{listener}\"}}]\n\
             routes: [{{name: a, listener: a, backendRefs: [{{upstream: a}}]}}]\n\
             upstreams: [{{name: a, endpoints: [{{address: \"{endpoint}\"}}]}}]\n"
        )
    };
    for (listener, endpoint) in
        [("127.0.0.1:80", "127.0.0.1:80"), ("[::]:80", "127.0.0.1:80"), ("0.0.0.0:80", "127.0.0.9:80")]
    {
        assert_eq!(
            lines(&text(listener, endpoint)),
            [format!(
                "t.yaml:3: upstreams[0].endpoints[0].address: {endpoint} is listener \"a\" itself, whose connections would \
                 go round in circles; write the address of a server (upstream \"a\")"
            )]
        );
    }
    for (listener, endpoint) in
        [("127.0.0.1:80", "127.0.0.1:81"), ("0.0.0.0:80", "[::1]:80"), ("[::]:80", "10.0.0.1:80")]
    {
        assert_eq!(lines(&text(listener, endpoint)), [""; 0], "{listener} {endpoint}");
    }
}
