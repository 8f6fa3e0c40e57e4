//! Sealing: Shamir and age, envelopes, commitments, key files.
