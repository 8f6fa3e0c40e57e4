//! The call to touch the token, with a countdown where the terminal can redraw a line.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use keyturn_hsm::Purpose;

use super::{Style, Ui};

const SECOND: Duration = Duration::from_secs(1);

/// A token that waits for a touch; dropping it ends the countdown.
#[derive(Debug)]
pub struct Countdown {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Countdown {
    /// Calls for the touch, and counts down beside whatever waits for it.
    pub fn start(ui: Ui, serial: u32, purpose: Purpose, seconds: u8) -> Self {
        let call = ui.paint_err(Style::Bold, format_args!("touch your YubiKey {serial} now"));
        let what = match purpose {
            Purpose::Open => "to open your shares",
            Purpose::Sign => "to sign",
        };
        if !ui.live() {
            ui.note(format_args!("{call} {what} (it waits {seconds} s)"));
            return Self {
                stop: None,
                thread: None,
            };
        }
        let (stop, stopped) = channel();
        let thread = thread::spawn(move || count(ui, &format!("{call} {what}"), seconds, &stopped));
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

/// Draws the line once a second, and takes it away at the end.
fn count(ui: Ui, call: &str, seconds: u8, stopped: &Receiver<()>) {
    for left in (0..=seconds).rev() {
        ui.progress(format_args!("{call} ({left} s)"));
        if stopped.recv_timeout(SECOND) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    ui.progress("");
}

impl Drop for Countdown {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It draws and sleeps; it has nothing to tell.
            let _ = thread.join();
        }
    }
}
