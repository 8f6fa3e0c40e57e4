//! Who has agreed, and whether that is enough: one judgement for daemon, client and auditor.
//!
//! A version can be opened when max(k of the charter in force, k of its manifest) different persons
//! approve who are in the asked group now *and* in the manifest, with different tokens and approval
//! keys, and when as many of their shares are there as the manifest needs. A request is answered
//! when that holds for every credential and, for each, for a version that is current or proven:
//! an unproven one alone opens nothing, but is delivered beside the others when it combines.
//!
//! # Invariants
//! 1. One person counts once in a group, whatever tokens they have; and once in each of their groups.
//! 2. Two approvals by one token or with one approval key count once, whoever they are said to be.
//! 3. A token or key that the charter in force does not have counts for nobody.
//! 4. `waive` lifts the waivable rules only; no input of any kind lowers k, and k is never below 2.
//! 5. A refusal or a retraction is never a vote.
//! 6. A later approval never turns a reached quorum into one that is not.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    charter::{Charter, Group, MIN_QUORUM, Policy, Waiver, demand},
    digest::Digest,
    id::{CredentialId, DeviceId, GroupName, PersonId, TokenId},
    refusal::Refusal,
    text::{Approval, Decision, ShareState, approval::AnswerError, request},
    time::Time,
    world::{VersionId, World},
};

/// What a request asks the quorum for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Who asks.
    pub requester: PersonId,
    /// The versions to open, each with the digest of its manifest.
    pub lines: BTreeMap<VersionId, Digest>,
    /// The group that is asked instead of the credential's first one.
    pub group: Option<GroupName>,
    /// The groups that must agree to what opens nothing.
    pub needs: BTreeSet<GroupName>,
    /// The rules that do not hold for this request.
    pub waive: BTreeSet<Waiver>,
}

/// One custodian's signed approval.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// The SHA-256 of its text.
    pub text: Digest,
    /// The SHA-256 of the request that it answers.
    pub request: Digest,
    /// The custodian.
    pub person: PersonId,
    /// The token that signed.
    pub token: TokenId,
    /// The SHA-256 of the key that signed.
    pub key: Digest,
    /// The device through which it came.
    pub device: Option<DeviceId>,
    /// Rules of policies that it breaks; see [`broken`].
    pub broken: BTreeSet<Waiver>,
    /// What the custodian says of each version.
    pub says: BTreeMap<VersionId, Says>,
}

/// What a custodian says of their share of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Says {
    /// Here it is.
    Share {
        /// Its x.
        x: u8,
        /// Its commitment.
        commitment: Digest,
    },
    /// The version is not sealed to this custodian.
    NotHeld,
    /// It is, and the envelope cannot be opened with this token.
    Unreadable,
}

impl Vote {
    /// The vote of a parsed approval that answers this request; none where it does not. Both come with the
    /// SHA-256 of their texts, which whoever parsed them has at hand.
    pub fn of(
        charter: &Charter,
        (request, asked): (&request::Request, Digest),
        (approval, text): (&Approval, Digest),
        device: Option<DeviceId>,
        broken: BTreeSet<Waiver>,
    ) -> Result<Self, Refusal> {
        match approval.answers(request, asked) {
            Ok(()) => {}
            Err(AnswerError::OtherRequest) => return Err(Refusal::WrongRequest),
            Err(_) => return Err(Refusal::WrongLines),
        }
        // A refusal and a retraction are said in the same words; neither is a vote.
        if !matches!(approval.decision, Decision::Approve(_)) {
            return Err(Refusal::NotApproved);
        }
        let (_, token) = charter
            .person_of_token(approval.token.id)
            .ok_or(Refusal::UnknownToken)?;
        let lines = request.credentials.iter().zip(approval.shares());
        let says = lines.map(|(line, share)| {
            let says = match share.state {
                ShareState::Held { x, commitment } => Says::Share { x, commitment },
                ShareState::NotHeld => Says::NotHeld,
                ShareState::Unreadable => Says::Unreadable,
            };
            (
                VersionId {
                    credential: line.credential,
                    version: line.version,
                },
                says,
            )
        });
        Ok(Self {
            text,
            request: approval.request,
            person: approval.custodian.id,
            token: approval.token.id,
            key: token.approval_key.pin(),
            device,
            broken,
            says: says.collect(),
        })
    }
}

/// A version that can be opened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// The version.
    pub version: VersionId,
    /// The group whose shares combine.
    pub group: GroupName,
    /// Whether it answers for its credential by itself: it is current or proven.
    pub counts: bool,
    /// How many persons must agree.
    pub k: u8,
    /// Who agrees and counts.
    pub persons: BTreeSet<PersonId>,
    /// Whose shares combine; all of them agree.
    pub shares: BTreeSet<PersonId>,
}

/// What a quorum still lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The group that is asked; none where a credential or a group is not known at all.
    pub group: Option<GroupName>,
    /// The credential, where one is to be opened.
    pub credential: Option<CredentialId>,
    /// How many persons (or, when these are enough, shares) count so far.
    pub have: usize,
    /// How many must; never reached while `what` is something else.
    pub need: usize,
    /// What is too few.
    pub what: Lack,
}

/// What is too few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Persons who approve.
    Persons,
    /// Persons of a team of the group.
    Teams,
    /// Shares of those who approve.
    Shares,
    /// There is nothing that could be opened.
    Versions,
}

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What can be opened.
    pub openings: Vec<Opening>,
    /// What a quorum still lacks; nothing when it is reached.
    pub missing: Vec<Missing>,
    /// Everybody who counts for something.
    pub persons: BTreeSet<PersonId>,
}

impl Verdict {
    /// Whether the quorum is reached.
    pub fn reached(&self) -> bool {
        self.missing.is_empty()
    }
}

/// Judges votes, in the order in which they came, by the charter in force; `has` says whose shares
/// of which versions are there.
pub fn judge(
    world: World<'_>,
    ask: &Ask,
    votes: &[Vote],
    has: impl Fn(PersonId, VersionId) -> bool,
) -> Verdict {
    let mut verdict = Verdict {
        openings: Vec::new(),
        missing: Vec::new(),
        persons: BTreeSet::new(),
    };
    for name in &ask.needs {
        let lacking = Missing {
            group: None,
            credential: None,
            have: 0,
            need: 0,
            what: Lack::Versions,
        };
        let Some(group) = world.charter.group(name) else {
            verdict.missing.push(lacking);
            continue;
        };
        let persons = counted(world.charter, group, None, ask, votes, |_| true);
        match enough(group, ask, &persons, group.k.max(MIN_QUORUM)) {
            Ok(()) => verdict.persons.extend(persons),
            Err((what, have, need)) => {
                verdict.missing.push(Missing {
                    group: Some(name.clone()),
                    have,
                    need,
                    what,
                    ..lacking
                });
            }
        }
    }
    let credentials: BTreeSet<_> = ask.lines.keys().map(|line| line.credential).collect();
    for credential in credentials {
        judge_credential(world, ask, credential, votes, &has, &mut verdict);
    }
    verdict
}

fn judge_credential(
    world: World<'_>,
    ask: &Ask,
    credential: CredentialId,
    votes: &[Vote],
    has: impl Fn(PersonId, VersionId) -> bool,
    verdict: &mut Verdict,
) {
    let mut missing = Missing {
        group: None,
        credential: Some(credential),
        have: 0,
        need: 0,
        what: Lack::Versions,
    };
    let mut reached = false;
    let holding = world.holdings.holding(credential);
    let group = holding.and_then(|holding| world.charter.group(holding.asked(ask.group.as_ref())?));
    let policy = holding.and_then(|holding| holding.policy(world.charter));
    for line in ask
        .lines
        .keys()
        .filter(|line| line.credential == credential)
    {
        let sealed = holding.and_then(|holding| holding.versions.get(&line.version));
        let Some((sealed, group)) = sealed.zip(group) else {
            continue;
        };
        let Some(roster) = sealed.manifest.group(&group.name) else {
            continue;
        };
        let k = group.k.max(roster.k).max(MIN_QUORUM);
        let persons = counted(world.charter, group, policy, ask, votes, |person| {
            roster.holder(person).is_some()
        });
        let shares: BTreeSet<_> = persons
            .iter()
            .copied()
            .filter(|person| has(*person, *line))
            .collect();
        let need = usize::from(roster.k.max(MIN_QUORUM));
        let agreed = enough(group, ask, &persons, k);
        let lack = agreed.and(if shares.len() < need {
            Err((Lack::Shares, shares.len(), need))
        } else {
            Ok(())
        });
        match lack {
            Ok(()) => {
                let counts = sealed.life.counts();
                reached |= counts;
                verdict.persons.extend(persons.iter().copied());
                verdict.openings.push(Opening {
                    version: *line,
                    group: group.name.clone(),
                    counts,
                    k,
                    persons,
                    shares,
                });
            }
            // The newest of the versions that count is the one whose progress is told.
            Err((what, have, need)) if sealed.life.counts() => {
                missing = Missing {
                    group: Some(group.name.clone()),
                    have,
                    need,
                    what,
                    ..missing
                };
            }
            Err(_) => {}
        }
    }
    if !reached {
        verdict.missing.push(missing);
    }
}

/// Whether these persons are k and, where the group has teams, one of each.
fn enough(
    group: &Group,
    ask: &Ask,
    persons: &BTreeSet<PersonId>,
    k: u8,
) -> Result<(), (Lack, usize, usize)> {
    if persons.len() < usize::from(k) {
        return Err((Lack::Persons, persons.len(), usize::from(k)));
    }
    let teams = &group.rules.one_from_each;
    let here = teams
        .iter()
        .filter(|team| !team.members.is_disjoint(persons))
        .count();
    if here < teams.len() && !ask.waive.contains(&Waiver::Teams) {
        return Err((Lack::Teams, here, teams.len()));
    }
    Ok(())
}

/// The persons whose votes count in a group (invariants 1 to 4), the earlier vote first (5).
fn counted(
    charter: &Charter,
    group: &Group,
    policy: Option<&Policy>,
    ask: &Ask,
    votes: &[Vote],
    eligible: impl Fn(PersonId) -> bool,
) -> BTreeSet<PersonId> {
    let devices_differ = policy.is_some_and(|policy| policy.different_devices)
        && !ask.waive.contains(&Waiver::Devices);
    let requester = charter.person(ask.requester);
    let asks =
        |device| requester.is_some_and(|person| person.devices.iter().any(|own| own.id == device));
    let (mut tokens, mut keys, mut devices) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut persons = BTreeSet::new();
    for vote in votes {
        let seated = group.members.contains(&vote.person)
            && signs(charter, vote.person, vote.token, vote.key)
            && eligible(vote.person);
        let barred = policy.is_some_and(|policy| bars(policy, ask, vote));
        let copied = persons.contains(&vote.person)
            || tokens.contains(&vote.token)
            || keys.contains(&vote.key);
        let shared = devices_differ
            && vote
                .device
                .is_some_and(|device| devices.contains(&device) || asks(device));
        if seated && !barred && !copied && !shared {
            persons.insert(vote.person);
            tokens.insert(vote.token);
            keys.insert(vote.key);
            devices.extend(vote.device);
        }
    }
    persons
}

/// Whether the charter in force has this token of this person with this key.
pub fn signs(charter: &Charter, person: PersonId, token: TokenId, key: Digest) -> bool {
    charter.person(person).is_some_and(|person| {
        person
            .tokens
            .iter()
            .any(|own| own.id == token && own.approval_key.pin() == key)
    })
}

/// Whether a rule of the policy forbids this vote by itself.
pub fn bars(policy: &Policy, ask: &Ask, vote: &Vote) -> bool {
    let own = vote.person == ask.requester
        && !policy.requester_may_approve
        && !ask.waive.contains(&Waiver::Requester);
    own || !vote.broken.is_subset(&ask.waive)
}

/// The waivable rules of this policy that an approval breaks, but for the networks, which only the
/// shell can see.
pub fn broken(charter: &Charter, policy: &Policy, token: TokenId, at: Time) -> BTreeSet<Waiver> {
    let token = charter.person_of_token(token).map(|(_, token)| token);
    let lacks = token.map(|token| policy.lacks(token)).unwrap_or_default();
    let mut broken: BTreeSet<Waiver> = lacks.into_iter().map(demand::Lack::waiver).collect();
    if !policy.open_at(at) {
        broken.insert(Waiver::Hours);
    }
    broken
}
