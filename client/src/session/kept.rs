//! What a home keeps of the chain: charters and accepted restores, in the order in which they took force.

use keyturn_audit::note::{SignedCheckpoint, Vkey};
use keyturn_proto::v1;
use keyturn_vault::{charter::Chain, digest::Digest, reference::Head, restore::RestoreDocument};

use super::Session;
use crate::{
    connect::{Address, MAX_ENDPOINTS},
    home::{Home, HomeError, Vault},
    refusal::Refusal,
    verify::{self, VerifyError, log, restore::Record, wire},
};

impl Session {
    /// From now on signed texts name this head.
    pub fn says(&mut self, head: Head) {
        self.said = Some(head);
    }

    /// The newest head that this computer has verified, under whatever key of the log.
    pub fn kept_head(&self) -> Result<Option<Head>, Refusal> {
        let kept = self.home.checkpoint()?;
        let kept = kept.map(|note| self.open_kept(&note)).transpose()?;
        Ok(kept.as_ref().map(log::head))
    }

    /// The restores that were accepted, oldest first.
    pub fn restores(&self) -> &[RestoreDocument] {
        &self.restores
    }

    /// The keys that the log ever had, newest first.
    pub fn vkeys(&self) -> impl Iterator<Item = Vkey> {
        let keys = self.chain.all().map(|charter| &charter.log_key);
        keys.filter_map(|key| log::vkey(key).ok())
    }

    /// A restore may have replaced the key that signed what is kept.
    fn open_kept(&self, note: &str) -> Result<SignedCheckpoint, Refusal> {
        let newest = log::checkpoint(note, &self.vkey()?);
        let opened = self
            .vkeys()
            .find_map(|key| log::checkpoint(note, &key).ok());
        Ok(opened.map_or(newest, Ok)?)
    }

    /// Checks that `new` continues a head that is vouched for.
    pub(super) async fn leads(&self, old: Head, new: &SignedCheckpoint) -> Result<(), Refusal> {
        let proof = if old.size < new.size() {
            let request = v1::ConsistencyRequest {
                from_size: old.size,
                from_root: old.root.0.to_vec(),
                to_size: new.size(),
            };
            wire::hashes(&self.log().consistency(request).await?.into_inner().hashes)?
        } else {
            Vec::new()
        };
        Ok(log::leads(old, new, &proof)?)
    }

    /// Verifies the accepted restores under the newest charter that are not in the chain yet.
    pub(super) fn follow_restores(&mut self, records: &[v1::RestoreRecord]) -> Result<(), Refusal> {
        while let Some(record) = records.get(self.restores.len()) {
            let record = Record::read(record.clone())?;
            if record.document()?.charter != self.charter()?.0 {
                break;
            }
            let document = verify::restore::accept(&mut self.chain, &record)?;
            self.restores.push(document);
            self.fresh.push(record);
        }
        if records.len() < self.restores.len() {
            return Err(VerifyError::Missing("a restore that this computer has accepted").into());
        }
        Ok(())
    }

    /// Keeps what was verified, once the log is known to go on from it.
    pub(super) fn keep_restores(&mut self) -> Result<(), Refusal> {
        let fresh = std::mem::take(&mut self.fresh);
        let Some((_, charter)) = self.chain.newest().filter(|_| !fresh.is_empty()) else {
            return Ok(());
        };
        self.vault.server_pins = charter.nodes.iter().map(|node| node.key.pin()).collect();
        self.vault.vkey = charter.log_key.clone();
        let first = self.restores.len().saturating_sub(fresh.len());
        for (n, record) in (first..).zip(&fresh) {
            self.home.write_json(&restore_name(n), record)?;
        }
        self.profile.vault = Some(self.vault.clone());
        Ok(self.home.keep_profile(&self.profile)?)
    }
}

/// What an operator tells of a restored server on another way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told<'a> {
    /// The pin of its key.
    pub pin: Option<Digest>,
    /// Where it is.
    pub address: Option<&'a Address>,
}

impl Told<'_> {
    /// Has its address tried first.
    pub(super) fn comes_first(self, vault: &mut Vault) {
        if let Some(address) = self.address.map(ToString::to_string) {
            vault.endpoints.retain(|known| *known != address);
            vault.endpoints.insert(0, address);
            vault.endpoints.truncate(MAX_ENDPOINTS);
        }
    }
}

/// The charters of a home, as they were verified before.
pub fn kept_chain(home: &Home, vault: &Vault) -> Result<Chain, Refusal> {
    kept(home, vault).map(|(chain, _)| chain)
}

/// The same, and the restores in it.
pub(super) fn kept(home: &Home, vault: &Vault) -> Result<(Chain, Vec<RestoreDocument>), Refusal> {
    let mut charters = home.charters()?.into_iter();
    let first = charters.next().ok_or(HomeError::NoVault)?;
    let mut chain = verify::charter::begin(&first, vault.genesis)?;
    let mut restores = Vec::new();
    kept_restores(home, &mut chain, &mut restores)?;
    for charter in charters {
        verify::charter::push(&mut chain, &charter)?;
        kept_restores(home, &mut chain, &mut restores)?;
    }
    Ok((chain, restores))
}

/// Adds the kept restores under the newest charter.
fn kept_restores(
    home: &Home,
    chain: &mut Chain,
    restores: &mut Vec<RestoreDocument>,
) -> Result<(), Refusal> {
    while let Some(record) = home.read_json::<Record>(&restore_name(restores.len()))? {
        let under = chain.newest().map(|(reference, _)| reference);
        if Some(record.document()?.charter) != under {
            break;
        }
        restores.push(verify::restore::accept(chain, &record)?);
    }
    Ok(())
}

fn restore_name(n: usize) -> String {
    format!("restore/{}", n.saturating_add(1))
}

pub(super) fn in_restore_mode() -> Refusal {
    Refusal::new(
        "restore-mode",
        "the vault was restored, and waits until a quorum accepts it",
        "sign nothing but `keyturn accept-restore`, after comparing its fingerprint with its operator",
    )
}
