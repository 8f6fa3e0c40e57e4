//! The verifier of a password, as PostgreSQL stores it (RFC 5802, RFC 7677).

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac, pbkdf2,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use keyturn_seal::secret::SecretBytes;
use zeroize::Zeroizing;

/// The bytes of a salt; PostgreSQL's own have as many.
const SALT: usize = 16;
/// The bytes of a hash.
const HASH: usize = 32;

/// A verifier with a salt of its own; none where the system gives no random bytes.
pub(super) fn verifier(password: &SecretBytes, iterations: std::num::NonZeroU32) -> Option<String> {
    let mut salt = [0_u8; SALT];
    getrandom::fill(&mut salt).ok()?;
    Some(with_salt(password, iterations, &salt))
}

fn with_salt(password: &SecretBytes, iterations: std::num::NonZeroU32, salt: &[u8]) -> String {
    // `expose`: the verifier is computed here so that the password need not leave.
    let password = prepared(password.expose());
    let mut salted = Zeroizing::new([0_u8; HASH]);
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(algorithm, iterations, salt, &password, salted.as_mut());
    let key = hmac::Key::new(hmac::HMAC_SHA256, salted.as_ref());
    let client = hmac::sign(&key, b"Client Key");
    let stored = digest(&SHA256, client.as_ref());
    let server = hmac::sign(&key, b"Server Key");
    let text = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        text(salt),
        text(stored.as_ref()),
        text(server.as_ref())
    )
}

/// As `SASLprep` (RFC 4013) writes it; what that does not allow is used as it is, as PostgreSQL does.
fn prepared(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let text = std::str::from_utf8(password).ok();
    let prepared = text.and_then(|text| stringprep::saslprep(text).ok());
    Zeroizing::new(prepared.map_or_else(|| password.to_vec(), |text| text.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3: its keys give the signatures there.
    #[test]
    fn the_verifier_is_that_of_the_standard() {
        let salt = BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let password = SecretBytes::from_slice(b"pencil");
        let verifier = with_salt(&password, 4096.try_into().unwrap(), &salt);
        let rest = verifier.strip_prefix("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$");
        let (stored, server) = rest.unwrap().split_once(':').unwrap();
        let exchange = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let sign = |key: &str| {
            let key = BASE64_STANDARD.decode(key).unwrap();
            hmac::sign(
                &hmac::Key::new(hmac::HMAC_SHA256, &key),
                exchange.as_bytes(),
            )
        };
        assert_eq!(
            BASE64_STANDARD.encode(sign(server)),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
        let proof = BASE64_STANDARD
            .decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
            .unwrap();
        let signature = sign(stored);
        let client: Vec<u8> = proof
            .iter()
            .zip(signature.as_ref())
            .map(|(proof, signature)| proof ^ signature)
            .collect();
        let hashed = BASE64_STANDARD.encode(digest(&SHA256, &client));
        assert_eq!(hashed, stored);
    }

    #[test]
    fn passwords_are_prepared_where_they_can_be() {
        for (name, password, want) in [
            ("ASCII", "I5+x", "I5+x"),
            ("a soft hyphen", "I\u{ad}X", "IX"),
            ("another form", "\u{2168}", "IX"),
            ("not allowed", "a\u{7}b", "a\u{7}b"),
        ] {
            assert_eq!(*prepared(password.as_bytes()), want.as_bytes(), "{name}");
        }
        assert_eq!(*prepared(b"\xff"), b"\xff");
    }

    #[test]
    fn every_verifier_has_its_own_salt() {
        let make = || {
            verifier(
                &SecretBytes::from_slice(b"pencil"),
                4096.try_into().unwrap(),
            )
        };
        assert_ne!(make().unwrap(), make().unwrap());
    }
}
