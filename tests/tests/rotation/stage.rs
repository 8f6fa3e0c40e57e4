//! A vault, a target and a daemon whose clock stands still.

use std::{io::Write as _, time::Duration};

use keyturn_proto::v1::{self, RotationState};
use keyturn_tests::{
    clocked::Clocked,
    listener::Listener,
    raw::{Founded, Line, now},
    story::{self, Asked, SealedVersion},
    target::Target,
};
use keyturn_vault::{
    definition::{self, Connector, Definition},
    jcs::Document as _,
    reference::Version,
    text::CredentialLine,
    time::Time,
};
use keyturnd::notice::{Kind, Notice};

pub(crate) const USER: &str = "root";
pub(crate) const FIRST: &[u8] = b"the first password";

/// A founded vault with a credential that is rotated at a target, and a daemon whose clock stands still.
pub(crate) struct Stage {
    pub(crate) vault: Founded,
    pub(crate) target: Target,
    pub(crate) daemon: Clocked,
    pub(crate) definition: Definition,
    pub(crate) line: Line,
    /// Whether the target dates what it does, and looks at codes, by the real time.
    pub(crate) dated: bool,
}

impl Stage {
    /// A password that somebody deposited.
    pub(crate) async fn new() -> Self {
        let stage = Self::empty(definition::Kind::Text, "accounts").await;
        stage.deposit(1, FIRST).await;
        stage
    }

    /// The same in a vault that is founded; nothing looks at the target but rotations.
    pub(crate) async fn deposited(vault: Founded) -> Self {
        let settings = ("accounts", &[("user", USER)][..]);
        let stage = Self::over(vault, definition::Kind::Text, settings, "").await;
        stage.deposit(1, FIRST).await;
        stage
    }

    /// A credential that nobody has deposited anything for.
    pub(crate) async fn empty(kind: definition::Kind, connector: &str) -> Self {
        let settings = [("user", USER), ("looks", "yes"), ("probe-every", "10m")];
        Self::configured(kind, connector, &settings, "").await
    }

    /// The same, over a connector of these settings, whose table may be added to the configuration.
    pub(crate) async fn configured(
        kind: definition::Kind,
        connector: &str,
        settings: &[(&str, &str)],
        table: &str,
    ) -> Self {
        let vault = Founded::new("").await.unwrap();
        Self::over(vault, kind, (connector, settings), table).await
    }

    /// The same, in a vault that is founded.
    pub(crate) async fn over(
        mut vault: Founded,
        kind: definition::Kind,
        (connector, settings): (&str, &[(&str, &str)]),
        table: &str,
    ) -> Self {
        let target = Target::start(&vault.world).unwrap();
        target.set(USER, FIRST).unwrap();
        vault.world.stop().unwrap();
        let config = vault.world.vault().join("keyturnd.toml");
        let config = std::fs::File::options().append(true).open(config);
        config.unwrap().write_all(table.as_bytes()).unwrap();
        let daemon = Clocked::start(&vault.world, now()).unwrap();
        let (olga, line) = (
            vault.who("olga").unwrap(),
            vault.line("olga").await.unwrap(),
        );
        let mut definition = story::definition(&vault.facts, "accounts/root").unwrap();
        definition.kind = kind;
        let pair = |(name, value): &(&str, &str)| (name.parse().unwrap(), value.parse().unwrap());
        definition.connector = Some(Connector {
            name: connector.parse().unwrap(),
            settings: settings.iter().map(pair).collect(),
        });
        let document = olga.sign_document(definition.to_bytes().unwrap()).unwrap();
        let add = v1::AddRequest {
            definition: Some(document),
        };
        line.credentials().add(add).await.unwrap();
        Self {
            vault,
            target,
            daemon,
            definition,
            line,
            dated: false,
        }
    }

    /// The connector makes the first secret.
    pub(crate) async fn adopt(&self) {
        self.rotate_now().await;
        self.idle().await;
    }

    pub(crate) async fn rotate_now(&self) {
        let now = v1::RotateNowRequest {
            credentials: vec![self.definition.path.to_string()],
            ..Default::default()
        };
        self.line.rotations().now(now).await.unwrap();
    }

    /// An operator says of every key that the vault does not know that it was made here.
    pub(crate) async fn own_up(&self, view: &v1::RotationView) {
        assert_eq!(view.problem_code, "foreign-key", "{view:?}");
        for key in &view.foreign {
            let lost = v1::ClaimRequest {
                credential: self.definition.credential.to_string(),
                key: key.clone(),
                lost: true,
                ..Default::default()
            };
            self.line.rotations().claim(lost).await.unwrap();
        }
        self.retry().await;
    }

    /// An operator has it tried again.
    pub(crate) async fn retry(&self) {
        let retry = v1::RetryRequest {
            credential: self.definition.credential.to_string(),
        };
        self.line.rotations().retry(retry).await.unwrap();
    }

    /// Olga deposits a version.
    pub(crate) async fn deposit(&self, number: u64, secret: &[u8]) {
        let olga = self.vault.who("olga").unwrap();
        let sealed =
            SealedVersion::new(&self.vault.facts, &self.definition, number, secret).unwrap();
        let deposit = sealed.deposit(olga).unwrap();
        self.line.credentials().deposit(deposit).await.unwrap();
    }

    /// Lets time go by. Where the target has dates, the daemon's wall clock goes with the real one.
    pub(crate) fn advance(&self, span: Duration) -> Time {
        let wall = self.daemon.advance(span).unwrap();
        if self.dated {
            self.daemon.jump(now()).unwrap()
        } else {
            wall
        }
    }

    /// The daemon stops and starts again; so much time has passed meanwhile.
    pub(crate) async fn restart(mut self, away: Duration) -> Self {
        let stopped = self.advance(Duration::ZERO);
        self.daemon.stop().unwrap();
        let wall = stopped.ms() + u64::try_from(away.as_millis()).unwrap();
        self.daemon = Clocked::start(&self.vault.world, Time::from_ms(wall)).unwrap();
        self.line = self.vault.line("olga").await.unwrap();
        self
    }

    /// The daemon is killed and started again, at once but for what happens in between.
    pub(crate) async fn killed(mut self, between: impl FnOnce()) -> Self {
        self.daemon.kill().unwrap();
        between();
        self.daemon = Clocked::start(&self.vault.world, now()).unwrap();
        self.line = self.vault.line("olga").await.unwrap();
        self
    }

    /// Every live version, as a request names it.
    pub(crate) async fn named(&self) -> Vec<CredentialLine> {
        let show = v1::ShowCredentialRequest {
            credential: Some(v1::CredentialName {
                by: Some(v1::credential_name::By::Id(
                    self.definition.credential.to_string(),
                )),
            }),
            page: None,
            all_versions: false,
        };
        let shown = self
            .line
            .credentials()
            .show(show)
            .await
            .unwrap()
            .into_inner();
        let live = |version: &&v1::VersionView| {
            !matches!(
                version.state(),
                v1::VersionState::Retired | v1::VersionState::Destroyed
            )
        };
        let mut named: Vec<_> = shown
            .versions
            .iter()
            .filter(live)
            .map(|version| CredentialLine {
                path: self.definition.path.clone(),
                credential: self.definition.credential,
                version: Version::new(version.version).unwrap(),
                manifest: keyturn_vault::digest::Digest(
                    version.manifest_sha256.as_slice().try_into().unwrap(),
                ),
            })
            .collect();
        named.sort_by_key(|line| line.version);
        named
    }

    pub(crate) async fn ask(&self) -> (Asked, Line) {
        self.vault.ask(self.named().await).await.unwrap()
    }

    pub(crate) async fn approve(&self, who: &str, asked: &Asked) {
        self.vault.approve(who, asked).await.unwrap();
    }

    /// Two custodians open every live version; gives their secrets, oldest first.
    pub(crate) async fn open(&self) -> (Asked, Vec<Vec<u8>>) {
        self.vault.open(self.named().await).await.unwrap()
    }

    /// Alice returns what she opened.
    pub(crate) async fn check_in(&self, asked: &Asked, worked: Option<u64>) -> v1::CeremonyView {
        self.vault.check_in(asked, worked).await.unwrap()
    }

    pub(crate) async fn rotation(&self) -> v1::RotationView {
        let list = v1::ListRotationsRequest {
            all: true,
            ..Default::default()
        };
        let reply = self.line.rotations().list(list).await.unwrap();
        reply.into_inner().rotations.remove(0)
    }

    /// For how long a rotation waits for nothing but its time: till then a faster clock cuts nothing short.
    pub(crate) fn waits(&self, view: &v1::RotationView) -> Option<Duration> {
        let waits = matches!(view.state(), RotationState::BackingOff | RotationState::Due);
        let due = view.due_ms.max(view.next_try_ms);
        let left = due.saturating_sub(self.advance(Duration::ZERO).ms());
        (waits && left > 0).then(|| Duration::from_millis(left))
    }

    /// Lets seconds go by until people are told this so often; gives all that they were told.
    pub(crate) async fn told(&self, who: &Listener, kind: Kind, times: usize) -> Vec<Notice> {
        for _ in 0..1500 {
            if who.count(kind) >= times {
                return who.told();
            }
            // By this clock a notice that was not taken is sent again.
            self.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{kind:?} is not told {times} times: {:?}", who.told())
    }

    /// Lets time go by, a little at a time, until the rotation stands like this.
    pub(crate) async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&v1::RotationView) -> bool,
    ) -> v1::RotationView {
        let mut last = self.rotation().await;
        for _ in 0..1500 {
            if wanted(&last) {
                return last;
            }
            let next = Duration::from_millis(20);
            // What is due may be held, which is left to the test.
            let tried_again = |_: &_| last.state() == RotationState::BackingOff;
            self.advance(self.waits(&last).filter(tried_again).unwrap_or(next));
            tokio::time::sleep(next).await;
            last = self.rotation().await;
        }
        panic!("{what}: {last:?}")
    }

    pub(crate) async fn idle(&self) -> v1::RotationView {
        self.until("the rotation is done", |view| {
            view.state() == RotationState::Idle
        })
        .await
    }

    pub(crate) async fn current(&self) -> u64 {
        let list = v1::ListCredentialsRequest::default();
        let reply = self.line.credentials().list(list).await.unwrap();
        reply.into_inner().credentials[0].current
    }
}
