//! A token and its owner: what is touched when, and what goes wrong when.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::{
    Firmware, TestPki,
    apdu::{Chain, Incoming},
    applet::{Applet, Session},
};

/// How often a waiting token looks whether it was pulled out.
const TICK: Duration = Duration::from_millis(2);
/// How long a real token waits for a touch.
const TOUCH_TIMEOUT: Duration = Duration::from_secs(15);

/// What the owner does when the token blinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Touches after this long; too late if the token has given up by then.
    After(Duration),
    /// Does not touch.
    Never,
    /// Pulls the token out after this long.
    PullOut(Duration),
}

/// When a token is pulled out in the middle of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// Before the command takes effect.
    Before,
    /// After it took effect, but before the answer.
    After,
}

/// What a token did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// APDUs that came in.
    pub apdus: u64,
    /// PINs that were compared.
    pub pin_checks: u64,
    /// Touches that were waited for.
    pub touches: u64,
    /// Uses of private keys that gave a result.
    pub key_uses: u64,
}

/// A token. Clones are the same token.
#[derive(Clone)]
pub struct Card(Arc<Mutex<Inner>>);

/// What somebody who looks at the token sees: that it blinked, and whether it was touched then.
pub type Watcher = Arc<dyn Fn(u32, bool) + Send + Sync>;

struct Inner {
    watcher: Option<Watcher>,
    applet: Applet,
    chain: Chain,
    script: VecDeque<Touch>,
    touch: Touch,
    touch_timeout: Duration,
    /// It blinks, and somebody may touch it by hand.
    is_blinking: bool,
    is_touched: bool,
    pull: Option<(u64, Pull)>,
}

impl Card {
    /// A new token, as it leaves the factory; touched at once unless told otherwise.
    pub fn new(serial: u32, firmware: Firmware, pki: &TestPki) -> Result<Self, rcgen::Error> {
        Ok(Self(Arc::new(Mutex::new(Inner {
            watcher: None,
            applet: Applet::new(serial, firmware, pki)?,
            chain: Chain::default(),
            script: VecDeque::new(),
            touch: Touch::After(Duration::from_millis(20)),
            touch_timeout: TOUCH_TIMEOUT,
            is_blinking: false,
            is_touched: false,
            pull: None,
        }))))
    }

    /// The serial number.
    pub fn serial(&self) -> u32 {
        self.lock().applet.serial
    }

    /// What happens whenever the token blinks, from now on.
    pub fn touch(&self, touch: Touch) {
        self.lock().touch = touch;
    }

    /// What happens the next times the token blinks, before the rule applies again.
    pub fn touch_next(&self, touches: impl IntoIterator<Item = Touch>) {
        self.lock().script.extend(touches);
    }

    /// Touches the token now, if it blinks.
    pub fn touch_now(&self) {
        let mut inner = self.lock();
        inner.is_touched = inner.is_blinking;
    }

    /// As if the last touch were long ago.
    pub fn forget_touch(&self) {
        self.lock().applet.last_touch = None;
    }

    /// Whether the token waits for a touch.
    pub fn is_blinking(&self) -> bool {
        self.lock().is_blinking
    }

    /// Tells this whenever the token has blinked.
    pub fn watch(&self, watcher: Watcher) {
        self.lock().watcher = Some(watcher);
    }

    /// How long the token waits for a touch.
    pub fn touch_timeout(&self, timeout: Duration) {
        self.lock().touch_timeout = timeout;
    }

    /// Pulls the token out at the APDU after `apdus` more of them.
    pub fn pull_out_after(&self, apdus: u64, pull: Pull) {
        let mut inner = self.lock();
        let at = inner
            .applet
            .counts
            .apdus
            .saturating_add(apdus)
            .saturating_add(1);
        inner.pull = Some((at, pull));
    }

    /// The next use of a private key is answered with this status word.
    pub fn fail_next(&self, status: u16) {
        self.lock().applet.failure = Some(status);
    }

    /// What the token did.
    pub fn counts(&self) -> Counts {
        self.lock().applet.counts
    }

    /// Tries left for PIN and PUK.
    pub fn tries(&self) -> (u8, u8) {
        let inner = self.lock();
        (inner.applet.pin.tries(), inner.applet.puk.tries())
    }

    /// Whether PIN, PUK and management key are still the factory's.
    pub fn is_factory(&self) -> (bool, bool, bool) {
        let applet = &self.lock().applet;
        (
            applet.pin.is_factory(),
            applet.puk.is_factory(),
            applet.management.is_factory(),
        )
    }

    /// Another program has made a key in this slot; false if that is no slot.
    pub fn occupy(&self, slot: u8) -> bool {
        let p256 = [0xac, 3, 0x80, 1, 0x11];
        self.lock().applet.slots.generate(slot, &p256).is_ok()
    }

    /// A data object.
    pub fn object(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.lock().applet.objects.get(id).cloned()
    }

    /// Somebody who had the token in hands has written a data object.
    pub fn set_object(&self, id: &[u8], value: &[u8]) {
        let objects = &mut self.lock().applet.objects;
        objects.insert(id.to_vec(), value.to_vec());
    }

    /// Another program has chosen a management key, and keeps it for itself.
    pub fn choose_management_key(&self, key: [u8; 24]) {
        self.lock().applet.management.choose(key);
    }

    /// An identity of age-plugin-yubikey, in a retired slot: a key with these PIN and touch policies (Yubico's numbers)
    /// and its certificate. An imported one was made elsewhere. False if that is no retired slot.
    pub fn identity(&self, slot: u8, policy: [u8; 2], is_imported: bool) -> bool {
        (0x82..=0x95).contains(&slot) && self.lock().applet.identity(slot, policy, is_imported)
    }

    /// The uncompressed point of the key in a slot.
    pub fn public_key(&self, slot: u8) -> Option<Vec<u8>> {
        self.lock()
            .applet
            .slots
            .key(slot)
            .map(crate::slots::SlotKey::point)
    }

    /// ATR of a YubiKey 5 over USB: T=1, historical bytes "YubiKey".
    pub(crate) fn atr() -> &'static [u8] {
        &[
            0x3b, 0xfd, 0x13, 0x00, 0x00, 0x81, 0x31, 0xfe, 0x15, 0x80, 0x73, 0xc0, 0x21, 0xc0,
            0x57, 0x59, 0x75, 0x62, 0x69, 0x4b, 0x65, 0x79, 0x40,
        ]
    }

    /// Power went off or on.
    pub(crate) fn reset_session(&self) {
        let mut inner = self.lock();
        inner.applet.session = Session::default();
        inner.chain = Chain::default();
    }

    /// Answers one APDU; `None` if the token is pulled out meanwhile.
    pub(crate) fn transmit(&self, apdu: &[u8], is_removed: impl Fn() -> bool) -> Option<Vec<u8>> {
        let mut inner = self.lock();
        let counts = &mut inner.applet.counts;
        counts.apdus = counts.apdus.saturating_add(1);
        let now = counts.apdus;
        let pull = inner
            .pull
            .take_if(|(at, _)| *at == now)
            .map(|(_, pull)| pull);
        if pull == Some(Pull::Before) {
            return None;
        }
        let incoming = inner.chain.receive(apdu);
        let reply = match incoming {
            Ok(Incoming::More) => inner.chain.more(),
            Ok(Incoming::Part) => inner.chain.respond(Ok(vec![])),
            Err(status) => inner.chain.respond(Err(status)),
            Ok(Incoming::Command(command)) => {
                let mut touched = false;
                if inner.applet.awaits_touch(&command) {
                    let touch = inner.script.pop_front().unwrap_or(inner.touch);
                    let timeout = inner.touch_timeout;
                    (inner.is_blinking, inner.is_touched) = (true, false);
                    // The owner can still act while the token blinks.
                    drop(inner);
                    let blinked = blink(touch, timeout, is_removed, || self.lock().is_touched);
                    inner = self.lock();
                    inner.is_blinking = false;
                    if let Some(watcher) = &inner.watcher {
                        watcher(inner.applet.serial, blinked == Some(true));
                    }
                    touched = blinked?;
                }
                let reply = inner.applet.run(&command, touched);
                inner.chain.respond(reply)
            }
        };
        (pull != Some(Pull::After)).then_some(reply)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the owner: touched or not, or `None` if the token was pulled out.
fn blink(
    touch: Touch,
    timeout: Duration,
    is_removed: impl Fn() -> bool,
    is_touched: impl Fn() -> bool,
) -> Option<bool> {
    let (wait, outcome) = match touch {
        Touch::After(wait) if wait < timeout => (wait, Some(true)),
        Touch::PullOut(wait) if wait < timeout => (wait, None),
        Touch::After(_) | Touch::PullOut(_) | Touch::Never => (timeout, Some(false)),
    };
    let mut waited = Duration::ZERO;
    while waited < wait {
        if is_removed() {
            return None;
        }
        if is_touched() {
            return Some(true);
        }
        thread::sleep(TICK);
        waited = waited.saturating_add(TICK);
    }
    outcome
}
