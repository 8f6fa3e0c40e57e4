//! The crate from outside: what it promises, and what others can do with what it writes.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "tests: a panic is a failure, numbers are small, tables are long"
)]

mod envelope;
mod golden;
mod keyfile;
mod payload;
mod sealing;
mod stock_tools;
mod submission;

use keyturn_seal::{
    Binding, Holder, HolderToken, Roster, Sealed, SecretBytes, ShareIdentity, Sharing, ValidShare,
    seal,
};

const ORIGIN: &str = "vault.example.org/prod";
const CREDENTIAL: &str = "01HZXW3VJ0E0N7Q7D1Y8K2M4TA";

fn binding() -> Binding {
    Binding::new(ORIGIN, CREDENTIAL, 7).unwrap()
}

fn secret() -> SecretBytes {
    SecretBytes::from_slice(b"correct horse")
}

/// A sealed secret with every key there is.
struct Case {
    sealed: Sealed,
    keys: Vec<Vec<ShareIdentity>>,
}

impl Case {
    /// Seals to groups `group-0`, `group-1` of these k and n.
    fn new(binding: &Binding, groups: &[(u8, u8)]) -> Self {
        let keys: Vec<Vec<_>> = groups
            .iter()
            .map(|(_, n)| {
                (0..*n)
                    .map(|_| ShareIdentity::generate().unwrap())
                    .collect()
            })
            .collect();
        let rosters: Vec<_> = groups
            .iter()
            .zip(&keys)
            .enumerate()
            .map(|(place, ((k, _), keys))| {
                Roster::new(&format!("group-{place}"), *k, holders(keys)).unwrap()
            })
            .collect();
        Self {
            sealed: seal(&secret(), binding, &rosters).unwrap(),
            keys,
        }
    }

    fn sharing(&self, group: usize) -> Sharing {
        self.sealed.groups[group].sharing(&binding()).unwrap()
    }

    fn share(&self, group: usize, x: u8) -> ValidShare {
        let place = usize::from(x) - 1;
        let envelope = &self.sealed.groups[group].shares[place].envelope;
        self.sharing(group)
            .open_envelope(x, envelope, &self.keys[group][place])
            .unwrap()
    }
}

fn holders(keys: &[ShareIdentity]) -> Vec<Holder> {
    (1..)
        .zip(keys)
        .map(|(x, key)| Holder {
            person: format!("person-{x}"),
            tokens: vec![HolderToken {
                id: format!("token-{x}"),
                key: key.share_key(),
            }],
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}
