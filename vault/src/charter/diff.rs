//! What a charter changes, in lines that people read before they agree.
//!
//! # Invariants
//! 1. Two charters that differ in anything but index, previous, joins and the order of lists differ
//!    in at least one line: fields are taken from the encoding, so that none is forgotten.
//! 2. Persons are told apart by id; a name that moves to another id is two lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::charter::{Charter, Group, Person};
use crate::id::{GroupName, PersonId};
use crate::time::Span;

/// One line of difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What differs, as people call it: `group ops`, `token 01HW… yubikey 12345678 of bob 01HX…`.
    pub thing: String,
    /// How.
    pub how: How,
}

/// How something differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// It is new; its fields as `name value`.
    Added(Vec<String>),
    /// It is gone.
    Removed,
    /// A field of it has another value.
    Changed {
        /// The field.
        field: String,
        /// Its old value.
        from: String,
        /// Its new value.
        to: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thing = &self.thing;
        match &self.how {
            How::Added(fields) if fields.is_empty() => write!(f, "+ {thing}"),
            How::Added(fields) => write!(f, "+ {thing}: {}", fields.join(", ")),
            How::Removed => write!(f, "- {thing}"),
            How::Changed { field, from, to } => write!(f, "~ {thing}: {field} from {from} to {to}"),
        }
    }
}

/// What `new` changes of `old`: the vault itself, persons with their keys, groups with their
/// members, policies, scenarios, nodes, witnesses.
pub fn diff(old: &Charter, new: &Charter) -> Vec<Difference> {
    let (old, new) = (things(old), things(new));
    let gone = old
        .iter()
        .filter(|(key, _)| !new.contains_key(*key))
        .map(|(key, thing)| {
            (
                key,
                Difference {
                    thing: thing.title.clone(),
                    how: How::Removed,
                },
            )
        });
    let other = new.iter().flat_map(|(key, thing)| {
        let lines = match old.get(key) {
            Some(before) => thing.changed_from(before),
            None => vec![Difference {
                thing: thing.title.clone(),
                how: How::Added(thing.lines()),
            }],
        };
        lines.into_iter().map(move |line| (key, line))
    });
    let mut lines: Vec<_> = gone.chain(other).collect();
    lines.sort_by_key(|(key, _)| *key);
    lines.into_iter().map(|(_, line)| line).collect()
}

/// The groups of `old` whose members, members' tokens, quorum or rules `new` touches: own members of
/// each must agree.
pub fn touched_groups(old: &Charter, new: &Charter) -> BTreeSet<GroupName> {
    let tokens = |charter: &Charter, id: PersonId| {
        let mut tokens = charter
            .person(id)
            .map(|person| person.tokens.clone())
            .unwrap_or_default();
        tokens.sort_by_key(|token| token.id);
        tokens
    };
    let touched = |group: &&Group| {
        new.group(&group.name) != Some(group)
            || group
                .members
                .iter()
                .any(|id| tokens(old, *id) != tokens(new, *id))
    };
    old.groups
        .iter()
        .filter(touched)
        .map(|group| group.name.clone())
        .collect()
}

/// Where a thing stands in the list: its section, then what tells it apart within.
type Key = (u8, String);

/// Something with fields.
struct Thing {
    title: String,
    fields: BTreeMap<String, String>,
}

impl Thing {
    /// A thing with all fields of its encoding but those that are things of their own.
    fn new(title: String, value: &impl Serialize, apart: &[&str]) -> Self {
        let mut fields = BTreeMap::new();
        // Documents are made of types that always have an encoding.
        if let Ok(Value::Object(object)) = serde_json::to_value(value) {
            for (name, value) in object {
                if !apart.contains(&name.as_str()) {
                    fields.insert(name.clone(), shown(&name, &value));
                }
            }
        }
        Self { title, fields }
    }

    fn bare(title: String) -> Self {
        Self {
            title,
            fields: BTreeMap::new(),
        }
    }

    fn lines(&self) -> Vec<String> {
        self.fields
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect()
    }

    fn changed_from(&self, before: &Self) -> Vec<Difference> {
        let changed = self.fields.iter().filter_map(|(field, to)| {
            let from = before.fields.get(field)?;
            (from != to).then(|| Difference {
                thing: before.title.clone(),
                how: How::Changed {
                    field: field.clone(),
                    from: from.clone(),
                    to: to.clone(),
                },
            })
        });
        changed.collect()
    }
}

/// A value as people read it.
fn shown(field: &str, value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(value) => if *value { "yes" } else { "no" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_u64() {
            Some(secs) if field.ends_with("_secs") => Span::from_secs(secs).to_string(),
            Some(_) | None => number.to_string(),
        },
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| shown(field, item)).collect();
            items.join(" ")
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{name} {}", shown(name, value)))
                .collect();
            format!("({})", fields.join(" "))
        }
    }
}

fn things(charter: &Charter) -> BTreeMap<Key, Thing> {
    let mut things = BTreeMap::new();
    let apart = [
        "index",
        "previous",
        "joins",
        "persons",
        "groups",
        "policies",
        "scenarios",
        "nodes",
        "witnesses",
    ];
    let vault = Thing::new(format!("vault {}", charter.origin), charter, &apart);
    things.insert((0, String::new()), vault);
    for person in &charter.persons {
        person_things(&mut things, person);
    }
    for group in &charter.groups {
        group_things(&mut things, charter, group);
    }
    for policy in &charter.policies {
        let thing = Thing::new(format!("policy {}", policy.name), policy, &["name"]);
        things.insert((3, policy.name.to_string()), thing);
    }
    for scenario in &charter.scenarios {
        let thing = Thing::new(format!("scenario {}", scenario.name), scenario, &["name"]);
        things.insert((4, scenario.name.to_string()), thing);
    }
    for node in &charter.nodes {
        let thing = Thing::new(format!("node {} {}", node.name, node.id), node, &["id"]);
        things.insert((5, node.id.to_string()), thing);
    }
    for witness in &charter.witnesses {
        let thing = Thing::bare(format!("witness {witness}"));
        things.insert((6, witness.to_string()), thing);
    }
    things
}

fn person_things(things: &mut BTreeMap<Key, Thing>, person: &Person) {
    let who = person.reference();
    let thing = Thing::new(
        format!("person {who}"),
        person,
        &["id", "tokens", "devices"],
    );
    things.insert((1, person.id.to_string()), thing);
    for token in &person.tokens {
        let title = format!("token {} of {who}", token.reference());
        let thing = Thing::new(title, token, &["id"]);
        things.insert((1, format!("{} token {}", person.id, token.id)), thing);
    }
    for device in &person.devices {
        let title = format!("device {} {} of {who}", device.name, device.id);
        let thing = Thing::new(title, device, &["id"]);
        things.insert((1, format!("{} device {}", person.id, device.id)), thing);
    }
}

fn group_things(things: &mut BTreeMap<Key, Thing>, charter: &Charter, group: &Group) {
    let name = &group.name;
    let thing = Thing::new(format!("group {name}"), group, &["name", "members"]);
    things.insert((2, name.to_string()), thing);
    for member in &group.members {
        let called = charter.person(*member).map_or_else(
            || member.to_string(),
            |person| person.reference().to_string(),
        );
        let thing = Thing::bare(format!("member {called} of group {name}"));
        things.insert((2, format!("{name} member {member}")), thing);
    }
}
