//! What a secret leaves in the daemon's memory after its ceremony: nothing.
//!
//! The whole memory of the running daemon is searched in every spelling. That the search finds what is
//! there is proved first, with a marker in all spellings and with a share while its ceremony is open.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails where it stands"
)]

use keyturn_proto::v1::{self, CeremonyState};
use keyturn_seal::{Binding, Secret, Sharing};
use keyturn_tests::{
    memory::{Pattern, spellings, unbech32},
    raw::{Founded, Line, random},
    story::{Asked, Ballot, release},
};
use keyturn_vault::{jcs::Document as _, manifest::Manifest, text::CredentialLine, time::Span};

struct Scene {
    vault: Founded,
    secret: [u8; 32],
    named: CredentialLine,
}

impl Scene {
    async fn asked(&self, change: impl FnOnce(&mut Asked)) -> (Line, Asked) {
        let (alice, line) = (
            self.vault.who("alice").unwrap(),
            self.vault.line("alice").await.unwrap(),
        );
        let asked = Asked::new(&self.vault.facts, &line, alice, vec![self.named.clone()]);
        let mut asked = asked.await.unwrap();
        change(&mut asked);
        line.ceremonies()
            .open(asked.open(alice).unwrap())
            .await
            .unwrap();
        (line, asked)
    }

    async fn ballot(&self, name: &str, asked: &Asked) -> (Line, Ballot) {
        let (who, line) = (
            self.vault.who(name).unwrap(),
            self.vault.line(name).await.unwrap(),
        );
        let id = asked.id();
        let ballot = Ballot::new(&self.vault.facts, &line, who, &id).await;
        (line, ballot.unwrap())
    }

    /// What is found of these patterns, by name.
    fn found(&mut self, patterns: &[Pattern]) -> Vec<String> {
        self.vault.world.memory().unwrap().search(patterns).unwrap()
    }

    /// Secret, shares and identity in every spelling.
    async fn patterns(&self, asked: &Asked) -> Vec<Pattern> {
        let mut patterns = spellings("secret", &self.secret);
        let mut valid = Vec::new();
        let sharing = self.sharing(asked).await;
        for name in ["bob", "carol", "dan"] {
            let (_, mut ballot) = self.ballot(name, asked).await;
            let share = ballot.submission.shares.remove(0);
            // Exposed to be searched for.
            patterns.extend(spellings(&format!("share of {name}"), share.share.expose()));
            valid.push(sharing.verify(share.x, share.share).unwrap());
        }
        let combined = sharing
            .combine(&valid.iter().take(2).collect::<Vec<_>>())
            .unwrap();
        let text = combined.identity.to_text();
        let text = std::str::from_utf8(text.expose()).unwrap();
        let key = text.trim().strip_prefix("AGE-SECRET-KEY-1").unwrap();
        patterns.extend(spellings("identity", &unbech32(&key[..52])[..32]));
        patterns.push(Pattern {
            name: "identity, as age writes it".to_owned(),
            bytes: key.as_bytes().to_vec(),
        });
        patterns
    }

    async fn sharing(&self, asked: &Asked) -> Sharing {
        let line = self.vault.line("bob").await.unwrap();
        let show = v1::ShowRequest {
            id: asked.id(),
            page: None,
        };
        let shown = line.ceremonies().show(show).await.unwrap().into_inner();
        let manifest = shown.versions[0].manifest.as_ref().unwrap();
        let manifest = Manifest::from_bytes(&manifest.document).unwrap();
        let group = &manifest.groups[0];
        let commitments = group
            .holders
            .iter()
            .map(|holder| holder.commitment.0)
            .collect();
        let binding = Binding::new(
            manifest.origin.as_str(),
            &manifest.credential.to_string(),
            1,
        );
        Sharing::new(binding.unwrap(), group.group.as_str(), group.k, commitments).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_stays_in_the_daemons_memory() {
    let vault = Founded::new("").await.unwrap();
    let secret = random().unwrap();
    let (_, named) = vault.seal("aws/1/root", &secret).await.unwrap();
    let mut scene = Scene {
        vault,
        secret,
        named,
    };

    // The search finds a marker in every spelling in which it is there.
    let marker: [u8; 16] = random().unwrap();
    let marker = hex::encode(marker).into_bytes();
    let planted = spellings("marker", &marker);
    let ticket: Vec<_> = planted
        .iter()
        .map(|pattern| String::from_utf8(pattern.bytes.clone()).unwrap())
        .collect();
    let ticket = ticket.join(" ");
    let (_, _) = scene
        .asked(|asked| asked.request.ticket = Some(ticket.parse().unwrap()))
        .await;
    let mut names: Vec<_> = planted.iter().map(|pattern| pattern.name.clone()).collect();
    names.sort();
    assert_eq!(
        scene.found(&planted),
        names,
        "the search misses what is there"
    );

    // An expiry. While the ceremony is open its first share must be there; then it must not.
    let (line, asked) = scene
        .asked(|asked| asked.request.valid_for = Span::from_secs(20))
        .await;
    let patterns = scene.patterns(&asked).await;
    assert_eq!(
        scene.found(&patterns),
        Vec::<String>::new(),
        "before anything was submitted"
    );
    let (bobs, ballot) = scene.ballot("bob", &asked).await;
    bobs.ceremonies()
        .approve(ballot.call().unwrap())
        .await
        .unwrap();
    assert_eq!(
        scene.found(&patterns),
        ["share of bob, raw"],
        "while the ceremony is open"
    );
    let view = release(&line, &asked.id())
        .await
        .unwrap()
        .expect_err("a release");
    assert_eq!(view.state(), CeremonyState::Expired);
    assert_eq!(
        scene.found(&patterns),
        Vec::<String>::new(),
        "after the expiry"
    );

    // Refusals: a wrong share, a custodian's, and the requester's own.
    let (line, asked) = scene.asked(|_| ()).await;
    let (bobs, ballot) = scene.ballot("bob", &asked).await;
    bobs.ceremonies()
        .approve(ballot.call().unwrap())
        .await
        .unwrap();
    let (carols, mut wrong) = scene.ballot("carol", &asked).await;
    let other = Secret::random().unwrap();
    let mut refused = spellings("wrong share", other.expose());
    wrong.submission.shares[0].share = other;
    carols
        .ceremonies()
        .approve(wrong.call().unwrap())
        .await
        .unwrap_err();
    assert_eq!(
        scene.found(&refused),
        Vec::<String>::new(),
        "after a refusal"
    );
    let withdraw = v1::WithdrawRequest { id: asked.id() };
    line.ceremonies().withdraw(withdraw).await.unwrap();
    refused.extend(scene.patterns(&scene.asked(|_| ()).await.1).await);
    assert_eq!(
        scene.found(&refused),
        Vec::<String>::new(),
        "after a withdrawal"
    );

    // A release.
    let (line, asked) = scene.asked(|_| ()).await;
    for name in ["bob", "carol"] {
        let (custodian, ballot) = scene.ballot(name, &asked).await;
        custodian
            .ceremonies()
            .approve(ballot.call().unwrap())
            .await
            .unwrap();
    }
    let released = release(&line, &asked.id()).await.unwrap().unwrap();
    let secrets = asked.receive(&scene.vault.facts, &released).unwrap();
    assert_eq!(secrets[0], secret);
    assert_eq!(
        scene.found(&patterns),
        Vec::<String>::new(),
        "after the release"
    );
}
