//! A vault with people who wait for the starting shot.

use std::{collections::BTreeMap, path::PathBuf, process::Command, time::Duration};

use futures_util::future::try_join_all;
use keyturn_proto::v1::{self, watch_reply::What};
use keyturn_tests::{
    Outcome, World,
    harness::write_private,
    raw::{Facts, Founded, Line, Member, now, random},
    story::{Asked, Ballot, SealedVersion, definition},
};
use keyturn_vault::{
    definition::{Connector, Definition},
    digest::Salt,
    id::CeremonyId,
    jcs::Document as _,
    text::{CredentialLine, Text as _},
};
use tonic::Streaming;

use crate::{
    daemon::Daemon,
    figures::{Times, instant, time},
};

/// Connections at most; each has a requester of its own.
pub(crate) const LANES: usize = 8;
/// What was appended while the daemon stood still is published within this time.
const PUBLISHED_WITHIN: Duration = Duration::from_mins(3);
/// Ceremonies that one requester has open at a time, as the daemon allows.
pub(crate) const DEPTH: usize = 16;

const REQUESTERS: [&str; LANES] = ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7"];
const OTHERS: [(&str, &[&str]); 4] = [
    ("olga", &["operator"]),
    ("bob", &["custodian"]),
    ("carol", &["custodian"]),
    ("dan", &["custodian"]),
];

/// A vault, and connections to it that stay open.
pub(crate) struct Place {
    /// The vault.
    pub vault: Founded,
    operator: Line,
    first: Line,
    lanes: Vec<Lane>,
    pattern: Option<Asked>,
    sealed: usize,
}

/// Where the credentials that are rotated are.
pub(crate) const ROTATED: &str = "aws/";

/// A requester's connection and that of the custodian who approves second.
#[derive(Clone)]
struct Lane {
    requester: Line,
    second: Line,
}

/// A ceremony that lacks one approval, which is signed and encrypted already.
pub(crate) struct Ready {
    lane: Lane,
    call: v1::ApproveRequest,
    pushed: Streaming<v1::WatchReply>,
}

impl Place {
    /// Founds a vault with a daemon of its own.
    pub(crate) async fn new() -> Outcome<Self> {
        let mut world = World::new()?;
        let mut people = BTreeMap::new();
        std::fs::create_dir_all(world.folder().join("people"))?;
        let requester: &[&str] = &["requester"];
        let roles: Vec<(&'static str, &[&str])> = REQUESTERS
            .iter()
            .map(|name| (*name, requester))
            .chain(OTHERS)
            .collect();
        for (name, _) in &roles {
            let member = Member::new(name)?;
            let path = world.folder().join("people").join(format!("{name}.enroll"));
            write_private(&path, &member.enrolment()?)?;
            people.insert(*name, member);
        }
        world.init(&roles, "")?;
        world.start()?;
        let (facts, _) = Facts::read(&world.welcome("olga"))?;
        for (name, member) in &people {
            let (_, welcome) = Facts::read(&world.welcome(name))?;
            member.join(&facts, &welcome).await?;
        }
        let vault = Founded {
            world,
            facts,
            people,
        };
        Self::connect(vault).await
    }

    async fn connect(vault: Founded) -> Outcome<Self> {
        let mut lanes = Vec::new();
        for name in REQUESTERS {
            lanes.push(Lane {
                requester: vault.line(name).await?,
                second: vault.line("carol").await?,
            });
        }
        Ok(Self {
            operator: vault.line("olga").await?,
            first: vault.line("bob").await?,
            lanes,
            pattern: None,
            sealed: 0,
            vault,
        })
    }

    /// How long the operator waits for `status`: the first time, and the times after that.
    pub(crate) async fn status(&self, times: usize) -> Outcome<(Times, Times)> {
        let (mut first, mut later) = (Times::default(), Times::default());
        for at in 0..=times {
            let begun = instant();
            self.operator.status().await?;
            let of = if at == 0 { &mut first } else { &mut later };
            of.push(begun.elapsed());
        }
        Ok((first, later))
    }

    /// Stops the daemon; gives what is left.
    pub(crate) fn halt(mut self) -> Outcome<World> {
        self.vault.world.stop()?;
        Ok(self.vault.world)
    }

    /// Runs something while the daemon is stopped, and connects anew.
    pub(crate) async fn stopped<T>(
        mut self,
        work: impl AsyncFnOnce(PathBuf) -> Outcome<T>,
    ) -> Outcome<(Self, T)> {
        self.vault.world.stop()?;
        let value = work(self.vault.world.vault()).await?;
        self.vault.world.start()?;
        let sealed = self.sealed;
        let mut place = Self::connect(self.vault).await?;
        place.sealed = sealed;
        Ok((place, value))
    }

    /// Has another daemon serve the vault, which this starts.
    pub(crate) async fn served(mut self, command: Command) -> Outcome<(Self, Daemon)> {
        self.vault.world.stop()?;
        let daemon = Daemon::start(command, &self.vault.world)?;
        let sealed = self.sealed;
        let mut place = Self::connect(self.vault).await?;
        place.sealed = sealed;
        Ok((place, daemon))
    }

    /// The operator's connection.
    pub(crate) fn operator(&self) -> &Line {
        &self.operator
    }

    /// Waits until the published log has so many entries.
    pub(crate) async fn published(&self, entries: u64) -> Outcome<()> {
        let begun = instant();
        while self.operator.head(&self.vault.facts.vkey).await?.size < entries {
            if begun.elapsed() > PUBLISHED_WITHIN {
                return Err(format!("{entries} entries are not published").into());
            }
        }
        Ok(())
    }

    /// Adds a credential that nobody has opened yet.
    async fn credential(&self, number: usize) -> Outcome<CredentialLine> {
        let definition = definition(&self.vault.facts, &format!("bench/{number}"))?;
        self.deposit(definition).await
    }

    /// Adds a credential that a connector rotates.
    async fn rotated(&self, number: usize, connector: &str) -> Outcome<()> {
        let mut definition = definition(&self.vault.facts, &format!("{ROTATED}{number}"))?;
        definition.connector = Some(Connector {
            name: connector.parse()?,
            settings: BTreeMap::new(),
        });
        self.deposit(definition).await.map(drop)
    }

    async fn deposit(&self, definition: Definition) -> Outcome<CredentialLine> {
        let (facts, olga) = (&self.vault.facts, self.vault.who("olga")?);
        let document = olga.sign_document(definition.to_bytes()?)?;
        let add = v1::AddRequest {
            definition: Some(document),
        };
        let mut credentials = self.operator.credentials();
        credentials.add(add).await?;
        let sealed = SealedVersion::new(facts, &definition, 1, b"correct horse battery st")?;
        credentials.deposit(sealed.deposit(olga)?).await?;
        sealed.line(&definition)
    }

    /// Adds many credentials.
    pub(crate) async fn credentials(&mut self, many: usize) -> Outcome<()> {
        let (from, until) = (self.sealed, self.sealed + many);
        self.sealed = until;
        let place = &*self;
        for chunk in (from..until).collect::<Vec<_>>().chunks(64) {
            try_join_all(chunk.iter().map(|number| place.credential(*number))).await?;
        }
        Ok(())
    }

    /// Adds many that a connector rotates.
    pub(crate) async fn rotated_by(&self, connector: &str, many: usize) -> Outcome<()> {
        let begun = instant();
        for chunk in (0..many).collect::<Vec<_>>().chunks(64) {
            try_join_all(chunk.iter().map(|number| self.rotated(*number, connector))).await?;
        }
        eprintln!("{many} deposited in {}", time(begun.elapsed()));
        Ok(())
    }

    /// A ceremony in this lane that lacks one approval.
    async fn ready(&self, lane: usize, number: usize) -> Outcome<Ready> {
        let facts = &self.vault.facts;
        let named = self.credential(number).await?;
        let alice = self
            .vault
            .who(REQUESTERS.get(lane).ok_or("no such lane")?)?;
        let lane = self.lanes.get(lane).ok_or("no such lane")?.clone();
        let pattern = self.pattern.as_ref().ok_or("no pattern")?;
        let asked = Asked {
            request: keyturn_vault::text::Request {
                ceremony: CeremonyId::from_parts(now(), random()?),
                requested_by: alice.person.clone(),
                salt: Salt(random()?),
                opened: now().stamp(),
                credentials: vec![named],
                details: pattern.details.digest(),
                ..pattern.request.clone()
            },
            details: pattern.details.clone(),
            key: keyturn_seal::ShareIdentity::generate()?,
        };
        let id = asked.id();
        lane.requester.ceremonies().open(asked.open(alice)?).await?;
        let watch = v1::WatchRequest {
            id: id.clone(),
            after_revision: 0,
            with_release: true,
        };
        let mut pushed = lane.requester.ceremonies().watch(watch).await?.into_inner();
        let bob = Ballot::new(facts, &self.first, self.vault.who("bob")?, &id).await?;
        self.first.ceremonies().approve(bob.call()?).await?;
        let carol = Ballot::new(facts, &lane.second, self.vault.who("carol")?, &id).await?;
        let call = carol.call()?;
        // What was pushed so far is not what is waited for.
        loop {
            let What::Ceremony(view) = next(&mut pushed).await? else {
                continue;
            };
            if view.voices.len() == 1 {
                return Ok(Ready { lane, call, pushed });
            }
        }
    }

    /// Prepares `DEPTH` ceremonies in each of `lanes` lanes.
    pub(crate) async fn prepare(&mut self, lanes: usize) -> Outcome<Vec<Vec<Ready>>> {
        if self.pattern.is_none() {
            let named = self.credential(self.sealed).await?;
            self.sealed += 1;
            let lane = self.lanes.first().ok_or("no lane")?;
            let alice = self.vault.who("r0")?;
            let asked = Asked::new(&self.vault.facts, &lane.requester, alice, vec![named]).await?;
            self.pattern = Some(asked);
        }
        let from = self.sealed;
        self.sealed += lanes * DEPTH;
        let place = &*self;
        let mut ready = Vec::new();
        let made = (0..lanes * DEPTH).map(|i| place.ready(i / DEPTH, from + i));
        let mut made = try_join_all(made).await?;
        for _ in 0..lanes {
            let rest = made.split_off(DEPTH.min(made.len()));
            ready.push(std::mem::replace(&mut made, rest));
        }
        Ok(ready)
    }
}

/// What an unseal gave, and how long it took.
pub(crate) struct Unsealed {
    /// From the second approval to the secret.
    pub took: Duration,
    /// The release.
    pub release: v1::Release,
}

impl Ready {
    /// Sends the second approval and waits for the secret.
    pub(crate) async fn go(self) -> Result<Unsealed, String> {
        let Self {
            lane,
            call,
            mut pushed,
        } = self;
        let mut ceremonies = lane.second.ceremonies();
        let begun = instant();
        let approve = ceremonies.approve(call);
        let secret = async {
            loop {
                if let What::Release(release) = next(&mut pushed).await? {
                    return Result::<_, String>::Ok((begun.elapsed(), release));
                }
            }
        };
        let (approved, secret) = tokio::join!(approve, secret);
        approved.map_err(|error| error.to_string())?;
        let (took, release) = secret?;
        Ok(Unsealed { took, release })
    }
}

async fn next(pushed: &mut Streaming<v1::WatchReply>) -> Result<What, String> {
    let reply = pushed.message().await.map_err(|error| error.to_string())?;
    let what = reply.and_then(|reply| reply.what);
    what.ok_or_else(|| "the stream has ended".to_owned())
}

/// Runs lanes beside each other, each one after the other; gives all times and how long everything took.
pub(crate) async fn race<R, F>(lanes: Vec<Vec<R>>, go: fn(R) -> F) -> Outcome<(Times, Duration)>
where
    R: Send + 'static,
    F: Future<Output = Result<Duration, String>> + Send + 'static,
{
    let begun = instant();
    let mut running = Vec::new();
    for lane in lanes {
        running.push(tokio::spawn(async move {
            let mut times = Times::default();
            for ready in lane {
                times.push(go(ready).await?);
            }
            Result::<_, String>::Ok(times)
        }));
    }
    let mut times = Times::default();
    for lane in running {
        times.extend(&lane.await??);
    }
    Ok((times, begun.elapsed()))
}
