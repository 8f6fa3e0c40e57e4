//! The management key: 3DES or AES, proven by challenge and response (NIST SP 800-73-4, part 2, A.1).

use cipher::{Block, BlockCipherEncrypt, KeyInit};

use crate::{
    apdu::{Reply, Status, status},
    tlv::{Fields, tlv},
};

/// The key that every new token has.
pub(crate) const FACTORY_KEY: [u8; 24] = [
    1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8,
];

/// What the management key is a key of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagementAlgorithm {
    /// 3DES, of new tokens before firmware 5.7.
    TripleDes,
    /// AES-128.
    Aes128,
    /// AES-192, of new tokens from firmware 5.7.
    Aes192,
    /// AES-256.
    Aes256,
}

impl ManagementAlgorithm {
    const ALL: [Self; 4] = [Self::TripleDes, Self::Aes128, Self::Aes192, Self::Aes256];

    /// The number in SP 800-78.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::TripleDes => 0x03,
            Self::Aes128 => 0x08,
            Self::Aes192 => 0x0a,
            Self::Aes256 => 0x0c,
        }
    }

    fn key_len(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::TripleDes | Self::Aes192 => 24,
            Self::Aes256 => 32,
        }
    }

    pub(crate) fn block_len(self) -> usize {
        if self == Self::TripleDes { 8 } else { 16 }
    }

    /// Encrypts one block; `None` for a block or key of another length.
    pub(crate) fn encrypt(self, key: &[u8], block: &[u8]) -> Option<Vec<u8>> {
        fn run<C: KeyInit + BlockCipherEncrypt>(key: &[u8], block: &[u8]) -> Option<Vec<u8>> {
            let mut block = Block::<C>::try_from(block).ok()?;
            C::new_from_slice(key).ok()?.encrypt_block(&mut block);
            Some(block.to_vec())
        }
        match self {
            Self::TripleDes => run::<des::TdesEde3>(key, block),
            Self::Aes128 => run::<aes::Aes128>(key, block),
            Self::Aes192 => run::<aes::Aes192>(key, block),
            Self::Aes256 => run::<aes::Aes256>(key, block),
        }
    }
}

/// The key and what it is a key of.
pub(crate) struct ManagementKey {
    algorithm: ManagementAlgorithm,
    key: Vec<u8>,
}

/// What a connection has proven of it so far.
#[derive(Default)]
pub(crate) struct Proof {
    witness: Option<Vec<u8>>,
    pub(crate) is_given: bool,
}

impl ManagementKey {
    pub(crate) fn factory(algorithm: ManagementAlgorithm) -> Self {
        Self {
            algorithm,
            key: FACTORY_KEY.to_vec(),
        }
    }

    pub(crate) fn algorithm(&self) -> ManagementAlgorithm {
        self.algorithm
    }

    pub(crate) fn is_factory(&self) -> bool {
        self.key == FACTORY_KEY
    }

    /// Another program has chosen a key of the same kind.
    pub(crate) fn choose(&mut self, key: [u8; 24]) {
        self.key = key.into_iter().take(self.algorithm.key_len()).collect();
    }

    /// Takes a new key as SET MANAGEMENT KEY sends it.
    pub(crate) fn set(&mut self, data: &[u8]) -> Result<(), Status> {
        let [number, 0x9b, len, key @ ..] = data else {
            return Err(status::BAD_DATA);
        };
        let algorithm = ManagementAlgorithm::ALL
            .into_iter()
            .find(|a| a.number() == *number);
        let algorithm = algorithm.ok_or(status::BAD_DATA)?;
        if key.len() != usize::from(*len) || key.len() != algorithm.key_len() {
            return Err(status::BAD_DATA);
        }
        *self = Self {
            algorithm,
            key: key.to_vec(),
        };
        Ok(())
    }

    /// Mutual authentication: the card's witness, then the host's challenge.
    pub(crate) fn authenticate(&self, number: u8, fields: &Fields<'_>, proof: &mut Proof) -> Reply {
        if number != self.algorithm.number() {
            return Err(status::BAD_DATA);
        }
        let encrypt = |block: &[u8]| {
            self.algorithm
                .encrypt(&self.key, block)
                .ok_or(status::BAD_DATA)
        };
        match (fields.value(0x80), fields.value(0x81)) {
            (Some([]), None) => {
                let mut witness = vec![0; self.algorithm.block_len()];
                getrandom::fill(&mut witness).map_err(|_| status::CONDITIONS)?;
                let reply = tlv(0x7c, &tlv(0x80, &encrypt(&witness)?));
                proof.witness = Some(witness);
                Ok(reply)
            }
            (Some(witness), Some(challenge)) => {
                if proof.witness.take().as_deref() != Some(witness) {
                    return Err(status::SECURITY);
                }
                let reply = tlv(0x7c, &tlv(0x82, &encrypt(challenge)?));
                proof.is_given = true;
                Ok(reply)
            }
            _ => Err(status::BAD_DATA),
        }
    }
}
