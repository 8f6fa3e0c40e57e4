//! A ceremony call by call, without the command line.

use keyturn_tests::{
    raw::Founded,
    story::{Asked, Ballot, release},
};

#[tokio::test(flavor = "multi_thread")]
async fn two_custodians_open_what_was_sealed() {
    let vault = Founded::new("").await.unwrap();
    let (_, named) = vault.seal("aws/1/root", b"hunter2").await.unwrap();
    let (alice, line) = (
        vault.who("alice").unwrap(),
        vault.line("alice").await.unwrap(),
    );
    let asked = Asked::new(&vault.facts, &line, alice, vec![named])
        .await
        .unwrap();
    line.ceremonies()
        .open(asked.open(alice).unwrap())
        .await
        .unwrap();
    for name in ["bob", "carol"] {
        let (who, line) = (vault.who(name).unwrap(), vault.line(name).await.unwrap());
        let ballot = Ballot::new(&vault.facts, &line, who, &asked.id())
            .await
            .unwrap();
        line.ceremonies()
            .approve(ballot.call().unwrap())
            .await
            .unwrap();
    }
    let release = release(&line, &asked.id()).await.unwrap().unwrap();
    let secrets = asked.receive(&vault.facts, &release).unwrap();
    assert_eq!(secrets[0], b"hunter2");
}
