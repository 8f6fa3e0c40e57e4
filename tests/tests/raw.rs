//! A ceremony call by call, without the command line.

use keyturn_tests::raw::Founded;

#[tokio::test(flavor = "multi_thread")]
async fn two_custodians_open_what_was_sealed() {
    let vault = Founded::new("").await.unwrap();
    let (_, named) = vault.seal("aws/1/root", b"hunter2").await.unwrap();
    let (_, secrets) = vault.open(vec![named]).await.unwrap();
    assert_eq!(secrets[0], b"hunter2");
}
