//! The interface keeps its promises: documented, reflected, paged.

use std::{fs, path::PathBuf};

fn sources() -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("keyturn/v1");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the interface is beside this crate")
        .map(|entry| {
            let path = entry.expect("a readable folder").path();
            let text = fs::read_to_string(&path).expect("a readable file");
            (path.display().to_string(), text)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_rpc_service_and_enum_value_is_told() {
    let mut rpcs = 0;
    for (file, text) in sources() {
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2) {
            if pair[1].starts_with("rpc ") || pair[1].starts_with("service ") {
                rpcs += 1;
                assert!(
                    pair[0].starts_with("//"),
                    "{file}: no comment above `{}`",
                    pair[1]
                );
            }
        }
    }
    assert!(rpcs >= 40, "only {rpcs} RPCs and services were found");
}

#[test]
fn every_list_that_can_grow_is_paged() {
    for (file, text) in sources() {
        for message in text.split("\nmessage ").skip(1) {
            if message.contains("string next_page") {
                let name = message.split(' ').next().unwrap_or_default();
                let request = format!("message {} ", name.replace("Reply", "Request"));
                let asked = text.split(&request).nth(1).unwrap_or_default();
                let body = asked.split("\n}").next().unwrap_or_default();
                assert!(
                    body.contains("PageRequest page"),
                    "{file}: `{name}` has pages nobody can ask for"
                );
            }
        }
    }
}

#[test]
fn reflection_knows_every_service() {
    let set = String::from_utf8_lossy(keyturn_proto::FILE_DESCRIPTOR_SET);
    for service in [
        "Ceremony",
        "Credential",
        "Charter",
        "Rotation",
        "Audit",
        "Status",
    ] {
        assert!(
            set.contains(service),
            "{service} is missing in the descriptor set"
        );
    }
    for (file, _) in sources() {
        let name = file.rsplit('/').next().unwrap_or_default();
        assert!(set.contains(name), "{name} is not compiled");
    }
}
