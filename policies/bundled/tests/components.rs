//! What the embedded components are: who they are, what they import and export, and what they do not carry.

use std::collections::BTreeSet;

use partita_policies::{DEFAULT, all, by_name};
use wit_component::DecodedWasm;
use wit_parser::WorldItem;

/// The functions that a component imports, and what it exports, by the names of the package.
fn world(component: &[u8]) -> (Vec<String>, BTreeSet<String>) {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component).expect("it decodes") else { panic!("no component") };
    let world = &resolve.worlds[world];
    let functions = world.imports.iter().flat_map(|(key, item)| {
        let name = resolve.name_world_key(key);
        match item {
            WorldItem::Interface { id, .. } => {
                resolve.interfaces[*id].functions.keys().map(|function| format!("{name}#{function}")).collect()
            }
            WorldItem::Function(_) | WorldItem::Type { .. } => vec![name],
        }
    });
    (functions.collect(), world.exports.keys().map(|key| resolve.name_world_key(key)).collect())
}

#[test]
fn names_are_unique_and_those_of_the_native_twins() {
    let names: BTreeSet<&str> = all().iter().map(|policy| policy.name).collect();
    assert_eq!(names.len(), all().len());
    for policy in all() {
        assert_eq!((policy.native)().describe().name, policy.name);
        assert!(!policy.summary.contains('\n') && policy.summary.len() < 100, "{}: {}", policy.name, policy.summary);
    }
    assert!(by_name(DEFAULT).is_some() && by_name("no-such-policy").is_none());
}

#[test]
fn every_settings_schema_is_empty_or_json() {
    for policy in all() {
        let schema = (policy.native)().describe().settings_schema;
        assert!(schema.is_empty() || serde_json::from_str::<serde_json::Value>(schema).is_ok_and(|schema| schema.is_object()), "{schema}");
    }
}

#[test]
fn components_import_the_log_and_nothing_else() {
    for policy in all() {
        let (imports, exports) = world(policy.component);
        assert_eq!(imports, ["partita:policy/host@0.1.0#log"], "{}", policy.name);
        let expected = ["partita:policy/lifecycle@0.1.0", "partita:policy/partitioning@0.1.0"];
        assert_eq!(exports, expected.map(str::to_owned).into(), "{}", policy.name);
    }
}

#[test]
fn the_other_macro_makes_a_component_of_the_world_quota() {
    let (imports, exports) = world(include_bytes!(concat!(env!("OUT_DIR"), "/lend.wasm")));
    assert_eq!(imports, ["partita:policy/host@0.1.0#log"]);
    assert_eq!(exports, ["partita:policy/borrowing@0.1.0", "partita:policy/lifecycle@0.1.0"].map(str::to_owned).into());
}

#[test]
fn components_name_their_functions_and_carry_no_debug_info_and_no_path_of_the_machine() {
    let home = std::env::home_dir().map(|home| home.display().to_string());
    for policy in all() {
        let holds = |text: &str| policy.component.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(holds("partita_sdk") && !holds(".debug_info"), "{}", policy.name);
        assert!(!holds(env!("CARGO_MANIFEST_DIR")) && home.as_deref().is_none_or(|home| !holds(home)), "{}", policy.name);
    }
}
