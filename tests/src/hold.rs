//! A vault that is held after its story, for whoever wants to try it, and what ends it: Enter, Ctrl-C, a terminal that is
//! closed, `kill`. Then what was started is ended, and its folders are removed, on the way out.

use std::{
    io::stdin,
    process::Command,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use crate::{
    Outcome, Program, World,
    harness::write_private,
    raw::PEOPLE,
    stage::{chapter, tell},
    tokens::{PIN, Shown},
};

/// Whether somebody wants an end.
pub struct Interrupt {
    came: Receiver<()>,
    tell: Sender<()>,
}

impl Interrupt {
    /// From now on these signals end nothing by themselves.
    pub fn listen() -> Outcome<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (tell, came) = channel();
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::hangup(),
            SignalKind::terminate(),
        ];
        for kind in kinds {
            let entered = runtime.enter();
            let mut signal = signal(kind)?;
            drop(entered);
            let tell = tell.clone();
            runtime.spawn(async move {
                while signal.recv().await.is_some() && tell.send(()).is_ok() {}
            });
        }
        thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        Ok(Self { came, tell })
    }

    /// Fails when somebody has wanted an end.
    pub fn check(&self) -> Outcome<()> {
        match self.came.try_recv() {
            Ok(()) => Err("it was interrupted".into()),
            Err(_) => Ok(()),
        }
    }

    /// Waits for Enter, for the end of the input, or until somebody wants an end.
    pub fn wait(&self) {
        let tell = self.tell.clone();
        thread::spawn(move || {
            let _ = stdin().read_line(&mut String::new());
            let _ = tell.send(());
        });
        let _ = self.came.recv();
    }
}

/// Says how to talk to the vault that opens `path`, and holds it until somebody wants an end.
pub fn hold(
    world: &World,
    path: &str,
    tokens: Option<Shown>,
    interrupt: &Interrupt,
) -> Outcome<()> {
    chapter("The vault keeps running")?;
    let (folder, keyturn) = (world.folder(), Program::path("keyturn")?);
    tell(&format!("cd {}", folder.display()))?;
    let command = |name: &str, what: &str| {
        let keyturn = keyturn.display();
        tell(&format!(
            "{keyturn} --home people/{name} --passphrase-file passphrase {what}"
        ))
    };
    for (name, _) in PEOPLE {
        command(name, "status")?;
    }
    let unseal = format!("unseal {path} --reason 'trying it'");
    let Some(tokens) = tokens else {
        tell(
            "\nTo open it once more: Alice asks in one terminal, Bob and Carol approve in two others.",
        )?;
        command("alice", &unseal)?;
        command("bob", "approve")?;
        command("carol", "approve")?;
        tell("\nEnter, Ctrl-C or the end of the input stops it.")?;
        interrupt.wait();
        return Ok(());
    };
    for (name, _) in PEOPLE {
        let believed = world.home(name).join("attestation-roots.pem");
        write_private(&believed, tokens.roots.as_bytes())?;
    }
    tell(&format!(
        "\nTo open it once more: Alice asks, Bob and Carol approve, Alice fetches it. Bob's PIN is {PIN}, and Dan's too."
    ))?;
    command("alice", &format!("{unseal} --no-wait"))?;
    command("bob", "approve --no-wait")?;
    command("carol", "approve")?;
    command("alice", "unseal --resume CEREMONY")?;
    let socket = folder.join("yubikeys.sock");
    tokens.hand_over(&socket)?;
    tell(&format!(
        "\nHere is a shell at the desk with the YubiKeys, where alone the vault is reached; they are touched whenever they\n\
         blink, and `exit` ends it. From any shell, to pull one out, put it back or touch it by hand:\n{} {} --help",
        Program::path("virtual-yubikey")?.display(),
        socket.display()
    ))?;
    Command::new("/bin/sh").current_dir(folder).status()?;
    Ok(())
}
