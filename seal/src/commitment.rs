//! The digest by which anybody tells a share from what is not that share.
//!
//! ```text
//! SHA-256( f("keyturn share commitment v1") f(origin) f(credential) f(version) f(group) f(x) f(share) )
//! f(field) = length of the field as 4 bytes, big-endian; then the field
//! ```
//! `version` has 8 bytes, big-endian; `x` has 1; `share` its 32. A share has 256 bits that nobody can guess, so its
//! commitment can be public.

use sha2::{Digest as _, Sha256};

use crate::{Binding, shamir::Share};

const LABEL: &str = "keyturn share commitment v1";

/// The commitment to `share` of `group`'s custodian `share.x()`.
pub fn commitment(binding: &Binding, group: &str, share: &Share) -> [u8; 32] {
    let mut hash = Sha256::new();
    for field in [
        LABEL.as_bytes(),
        binding.origin().as_bytes(),
        binding.credential().as_bytes(),
        &binding.version().to_be_bytes(),
        group.as_bytes(),
        &[share.x()],
        // The digest cannot be undone; see above.
        share.secret().expose(),
    ] {
        // Names are bounded at 500 bytes; saturating could only make two over-long fields share a length.
        hash.update(u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}
