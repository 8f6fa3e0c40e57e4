//! What is stored of a ceremony, and what can be read from it alone.

use super::{
    Ask, BTreeSet, CeremonyId, CharterRef, Check, CredentialId, Deserialize, Digest, GroupName,
    Millis, Now, Opening, PersonId, Refusal, Said, Says, Serialize, Span, TokenId, ValidShare,
    VersionId, Vote, World, bars, signs,
};

/// The stored part of a ceremony.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its id.
    pub id: CeremonyId,
    /// The SHA-256 of the request.
    pub request: Digest,
    /// What it is for.
    pub purpose: Purpose,
    /// Whom and what it asks for.
    pub ask: Ask,
    /// What a change is based on; when that is no longer in force, the change is stale.
    pub base: Option<Base>,
    /// How long it is valid: from its opening, or from the end of a waiting time.
    pub valid_for: Span,
    /// How long a quorum waits.
    pub waiting: Span,
    /// How long what is opened is checked out.
    pub check_out: Span,
    /// Where it stands.
    pub state: State,
    /// What custodians said, as far as it stands.
    pub said: Said,
    /// Whether rotations are held for it.
    pub holds: bool,
}

/// What a ceremony is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Deliver secrets to the requester.
    Unseal,
    /// The same with canaries, for practice.
    Drill,
    /// Seal the same secrets to the charter in force.
    Reshare,
    /// Put a charter or a definition into force.
    Change,
    /// Let a check-out end later.
    Extend,
    /// Go on from a restored store.
    AcceptRestore,
    /// Delete a details text.
    Erase,
}

impl Purpose {
    /// Whether it combines shares.
    pub fn opens(self) -> bool {
        matches!(self, Self::Unseal | Self::Drill | Self::Reshare)
    }

    /// Whether somebody gets to see a secret.
    pub fn delivers(self) -> bool {
        matches!(self, Self::Unseal | Self::Drill)
    }
}

/// What a change is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// The charter in force when it was proposed.
    Charter(CharterRef),
    /// The definition of a credential when it was proposed.
    Definition(CredentialId, Digest),
}

/// Where a ceremony stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum State {
    /// Approvals are awaited.
    Open {
        /// When it expires, in lived time.
        until: Millis,
    },
    /// A quorum has approved; a waiting time runs.
    Waiting {
        /// When it is over, in running time.
        over: Millis,
    },
    /// A quorum has approved; shares are awaited.
    Approved {
        /// When it expires, in lived time.
        until: Millis,
    },
    /// In the log; being combined, or (after a restart) shares are awaited again.
    Authorized {
        /// When it is interrupted, in lived time.
        until: Millis,
        /// What is opened, by whom.
        openings: Vec<Opening>,
    },
    /// Decided, for ever.
    Ended(End),
}

/// How a ceremony ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum End {
    /// Delivered, or sealed anew.
    Released {
        /// Whether the requester can still fetch it.
        kept: bool,
    },
    /// Known that nothing left.
    Failed,
    /// Possibly released.
    Interrupted,
    /// What opens nothing took force.
    Applied,
    /// Its time ended without a quorum.
    Expired,
    /// Given up.
    Withdrawn,
    /// What it names, or is based on, is gone.
    Superseded,
}

impl State {
    /// Whether nothing more is decided.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

impl Row {
    /// The credentials that it names.
    pub fn credentials(&self) -> BTreeSet<CredentialId> {
        self.ask.lines.keys().map(|line| line.credential).collect()
    }

    /// When it ends by itself, in lived time; none while a waiting time runs or when it is decided.
    pub fn until(&self) -> Option<Millis> {
        match self.state {
            State::Open { until } | State::Approved { until } | State::Authorized { until, .. } => {
                Some(until)
            }
            State::Waiting { .. } | State::Ended(_) => None,
        }
    }

    /// Who asked for it, and whose approval stands.
    pub fn took_part(&self) -> BTreeSet<PersonId> {
        let voters = self.said.votes.iter().map(|vote| vote.person);
        voters.chain([self.ask.requester]).collect()
    }

    pub(super) fn overdue(&self, now: Now) -> bool {
        self.until().is_some_and(|until| now.lived >= until)
    }

    pub(super) fn promised(&self, person: PersonId, version: VersionId) -> bool {
        let says = self
            .said
            .vote(person)
            .and_then(|vote| vote.says.get(&version));
        matches!(says, Some(Says::Share { .. }))
    }

    /// That a share is the one which its custodian's approval names.
    pub(super) fn commitment<S>(&self, person: PersonId, share: &ValidShare<S>) -> Option<Check> {
        let Some(Says::Share { x, commitment }) = self.said.vote(person)?.says.get(&share.version)
        else {
            return None;
        };
        Some(Check::Commitment {
            version: share.version,
            group: share.group.clone(),
            person,
            x: *x,
            commitment: *commitment,
        })
    }

    /// The groups of which a custodian must be one.
    fn asked<'a>(&'a self, world: World<'a>) -> impl Iterator<Item = &'a GroupName> {
        let named = self.ask.group.as_ref();
        let opened = self
            .ask
            .lines
            .keys()
            .filter_map(move |line| world.holdings.holding(line.credential)?.asked(named));
        self.ask.needs.iter().chain(opened)
    }

    /// Whether this person, with this token, may say something here.
    pub(super) fn speaks(
        &self,
        world: World<'_>,
        person: PersonId,
        token: TokenId,
        key: Digest,
    ) -> Result<(), Refusal> {
        let member = |name| {
            world
                .charter
                .group(name)
                .is_some_and(|group| group.members.contains(&person))
        };
        if !self.asked(world).any(member) {
            return Err(Refusal::NotCustodian);
        }
        if signs(world.charter, person, token, key) {
            Ok(())
        } else {
            Err(Refusal::UnknownToken)
        }
    }

    /// Whether the lines of an approval are those of the request, and its shares those of the manifests.
    pub(super) fn fits(&self, world: World<'_>, vote: &Vote) -> Result<(), Refusal> {
        if !vote.says.keys().eq(self.ask.lines.keys()) {
            return Err(Refusal::WrongLines);
        }
        let (mut holds, mut counts) = (false, !self.purpose.opens());
        for (line, says) in &vote.says {
            let holding = world
                .holdings
                .holding(line.credential)
                .ok_or(Refusal::UnknownCredential)?;
            let group = holding
                .asked(self.ask.group.as_ref())
                .ok_or(Refusal::NoSuchGroup)?;
            let sealed = holding
                .versions
                .get(&line.version)
                .ok_or(Refusal::UnknownVersion)?;
            let held = sealed
                .manifest
                .group(group)
                .and_then(|group| group.holder(vote.person));
            match (says, held) {
                (Says::Share { x, commitment }, Some(held))
                    if *x == held.x && *commitment == held.commitment => {}
                (Says::Unreadable, Some(_)) | (Says::NotHeld, None) => {}
                (Says::Share { .. }, _) => return Err(Refusal::WrongShare),
                (Says::Unreadable, None) | (Says::NotHeld, Some(_)) => {
                    return Err(Refusal::WrongLines);
                }
            }
            holds |= held.is_some();
            counts |= !holding
                .policy(world.charter)
                .is_some_and(|policy| bars(policy, &self.ask, vote));
        }
        match (holds || !self.purpose.opens(), counts) {
            (true, true) => Ok(()),
            (false, _) => Err(Refusal::NotHolder),
            (true, false) => Err(Refusal::RuleBroken),
        }
    }
}
