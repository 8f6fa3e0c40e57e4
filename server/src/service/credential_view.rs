//! Credentials and their versions as people see them.

use keyturn_proto::v1;
use keyturn_vault::{
    event::Maker, id::CredentialId, reference::Version, rotation::Job, world::Stage,
};

use super::convert;
use crate::{
    owner::core::{Core, Held},
    rows,
};

/// A credential for display.
pub fn view(core: &Core, id: CredentialId, held: &Held) -> v1::CredentialView {
    let definition = &held.holding.definition;
    let live: Vec<_> = held
        .row
        .versions
        .iter()
        .filter(|(_, state)| state.life.stage.live())
        .collect();
    let current = live
        .iter()
        .find(|(_, state)| state.life.stage == Stage::Current);
    let mut problems = Vec::new();
    if held.row.probe.as_ref().is_some_and(|probe| probe.diverged) {
        problems.push("diverged".to_owned());
    }
    if core.is_stale(held) {
        problems.push("stale-proof".to_owned());
    }
    if live.iter().any(|(_, state)| !state.life.proven) {
        problems.push("unproven".to_owned());
    }
    if live.iter().any(|(_, state)| state.inconsistent) {
        problems.push("inconsistent".to_owned());
    }
    let wanted = core.workshop.copies_wanted(&core.known.charter, definition);
    if live
        .iter()
        .any(|(_, state)| core.workshop.copies_of(state.entry) < wanted)
    {
        problems.push("few-copies".to_owned());
    }
    match held.slot.job {
        Job::Stuck(_) => problems.push("needs-operator".to_owned()),
        Job::BackingOff { .. } | Job::Revoking { .. } => {
            problems.push("rotation-failed".to_owned());
        }
        Job::Idle
        | Job::Sealing { .. }
        | Job::Listing { .. }
        | Job::Creating { .. }
        | Job::Deleting
        | Job::Copying { .. }
        | Job::Applying { .. }
        | Job::Testing { .. }
        | Job::Promoted { .. } => {}
    }
    v1::CredentialView {
        id: id.to_string(),
        path: definition.path.to_string(),
        kind: definition.kind.to_string(),
        group: definition.group.to_string(),
        fallback_group: definition
            .fallback
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        policy: definition.policy.to_string(),
        connector: definition
            .connector
            .as_ref()
            .map(|connector| connector.name.to_string())
            .unwrap_or_default(),
        canary: definition.canary,
        definition_sha256: held.row.definition.0.to_vec(),
        current: current
            .map(|(version, _)| version.number())
            .unwrap_or_default(),
        live_versions: u32::try_from(live.len()).unwrap_or(u32::MAX),
        known_to_human: held.row.known_to_human() || !held.row.out.is_empty(),
        checked_out: held
            .row
            .out
            .keys()
            .next()
            .map(ToString::to_string)
            .unwrap_or_default(),
        checkout_ends_ms: core.checkout_ends(held),
        rotation_due_ms: core.rotation_due(id, held),
        problems,
        entropy_bits: core.workshop.entropy_bits(definition).unwrap_or_default(),
    }
}

/// A version for display.
pub fn version_view(
    core: &Core,
    held: &Held,
    version: Version,
    state: &rows::VersionState,
) -> v1::VersionView {
    let manifest = held
        .holding
        .versions
        .get(&version)
        .map(|sealed| &sealed.manifest);
    let people = |ids: Vec<keyturn_vault::id::PersonId>| {
        ids.into_iter()
            .filter_map(|id| core.reference(id))
            .map(|person| convert::person(&person))
            .collect()
    };
    let mut holders: Vec<_> = manifest
        .into_iter()
        .flat_map(|manifest| &manifest.groups)
        .flat_map(|group| &group.holders)
        .map(|holder| holder.person)
        .collect();
    holders.dedup();
    let sealed_by = match state.maker {
        Maker::Deposit(person) => core
            .reference(person)
            .map(|person| person.name.to_string())
            .unwrap_or_default(),
        Maker::Rotation => "rotation".to_owned(),
        Maker::Reshare(ceremony) => format!("reshare {ceremony}"),
    };
    v1::VersionView {
        version: version.number(),
        state: convert::stage(state.life.stage).into(),
        manifest_sha256: state.manifest.0.to_vec(),
        sealed_ms: state.sealed.ms(),
        sealed_by,
        proven_ms: held
            .row
            .proven
            .filter(|_| state.life.stage == Stage::Current)
            .map_or(0, keyturn_vault::time::Time::ms),
        copies: u32::try_from(core.workshop.copies_of(state.entry)).unwrap_or(u32::MAX),
        holders: people(holders),
        confirmed: people(state.confirmed.iter().copied().collect()),
        unreadable: Vec::new(),
        inconsistent: state.inconsistent,
    }
}

/// Whether a pattern (`*` within a step, `**` across steps) fits a path.
pub fn matches(pattern: &str, path: &str) -> bool {
    fn step(pattern: &[u8], path: &[u8]) -> bool {
        match pattern {
            [] => path.is_empty(),
            [b'*', b'*', rest @ ..] => {
                (0..=path.len()).any(|at| path.get(at..).is_some_and(|path| step(rest, path)))
            }
            [b'*', rest @ ..] => {
                let end = path
                    .iter()
                    .position(|byte| *byte == b'/')
                    .unwrap_or(path.len());
                (0..=end).any(|at| path.get(at..).is_some_and(|path| step(rest, path)))
            }
            [byte, rest @ ..] => path
                .split_first()
                .is_some_and(|(first, path)| first == byte && step(rest, path)),
        }
    }
    // Many stars would take long: a pattern has few, a path is short.
    pattern.len() <= 200
        && pattern.matches('*').count() <= 6
        && step(pattern.as_bytes(), path.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_paths() {
        for (pattern, path, want) in [
            ("aws/**", "aws/123/root", true),
            ("aws/*", "aws/123/root", false),
            ("aws/*/root", "aws/123/root", true),
            ("**/root", "aws/123/root", true),
            ("db/x", "db/x", true),
            ("db/x", "db/xy", false),
            ("*", "db", true),
            ("*", "db/x", false),
            ("*******", "db", false),
        ] {
            assert_eq!(matches(pattern, path), want, "{pattern} {path}");
        }
    }
}
