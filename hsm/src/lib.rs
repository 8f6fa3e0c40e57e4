//! Tokens behind one trait, and verification of their signatures and attestations.
