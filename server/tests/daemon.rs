//! The program `keyturnd` itself: how it starts, what it tells, how it stops.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use keyturn_hsm::{device::DeviceKey, private};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A folder with a configuration, keys and data that are good.
fn home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    fs::create_dir(at("data")).unwrap();
    DeviceKey::create(&at("node.pem"), "node").unwrap();
    private::create(&at("log.key"), b"a key").unwrap();
    let text = format!(
        "data = \"{0}/data\"\n[listen]\ngrpc = [\"127.0.0.1:0\"]\nmetrics = \"127.0.0.1:0\"\n[keys]\n\
         node = \"{0}/node.pem\"\nlog = \"{0}/log.key\"\ngenesis = \"{0}/genesis\"\n[copies]\nmin = 0\n\
         [telemetry]\nformat = \"json\"\n",
        home.path().display()
    );
    private::create(&config(&home), text.as_bytes()).unwrap();
    home
}

fn config(home: &TempDir) -> PathBuf {
    home.path().join("keyturnd.toml")
}

fn keyturnd(home: &TempDir, command: &str) -> Command {
    let mut keyturnd = Command::new(env!("CARGO_BIN_EXE_keyturnd"));
    keyturnd
        .arg(command)
        .arg("--config")
        .arg(config(home))
        .env_clear();
    keyturnd
}

/// What a row does to a good folder.
type Spoil<'a> = &'a dyn Fn(&Path);

#[test]
fn check_config_tells_all_that_is_wrong() {
    let remove = |name: &'static str| move |home: &Path| fs::remove_file(home.join(name)).unwrap();
    let open = |home: &Path| {
        fs::set_permissions(home.join("node.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    };
    let misspell = |home: &Path| {
        let path = home.join("keyturnd.toml");
        let text = fs::read_to_string(&path)
            .unwrap()
            .replace("metrics", "metric");
        fs::remove_file(&path).unwrap();
        private::create(&path, text.as_bytes()).unwrap();
    };
    let rows: [(&str, Spoil<'_>, i32, &str); 6] = [
        ("good", &|_| (), 0, "warning: `copies.min` is 0"),
        (
            "no configuration",
            &remove("keyturnd.toml"),
            78,
            "hint: name the file with --config",
        ),
        (
            "misspelt",
            &misspell,
            78,
            "keyturnd.toml:4: unknown field `metric`",
        ),
        (
            "no node key",
            &remove("node.pem"),
            78,
            "(`keys.node`) cannot be used: cannot read",
        ),
        (
            "a node key for all",
            &open,
            78,
            "hint: if nobody else has read it: chmod 600",
        ),
        (
            "no data",
            &|home| fs::remove_dir(home.join("data")).unwrap(),
            78,
            "`data` is not a folder",
        ),
    ];
    for (name, spoil, exit, want) in rows {
        let home = home();
        spoil(home.path());
        let checked = keyturnd(&home, "check-config").output().unwrap();
        let told = String::from_utf8(checked.stderr).unwrap();
        assert_eq!(checked.status.code(), Some(exit), "{name}: {told}");
        assert!(told.contains(want), "{name}: {told}");
        assert_eq!(!checked.stdout.is_empty(), exit == 0, "{name}");
        if exit != 0 {
            let ran = keyturnd(&home, "run").output().unwrap();
            assert_eq!(
                ran.status.code(),
                Some(exit),
                "{name}: run refuses what check-config refuses"
            );
        }
    }
}

/// A running daemon that is killed when a test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_tells_the_service_manager_serves_and_stops() {
    let home = home();
    let socket = home.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let lines = fs::File::create(home.path().join("stderr")).unwrap();
    let mut daemon = Running(
        keyturnd(&home, "run")
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "400000")
            .stdout(Stdio::null())
            .stderr(lines)
            .spawn()
            .unwrap(),
    );
    let mut told = Vec::new();
    let mut wait_for = |want: &str| {
        while !told.iter().any(|line| line == want) {
            let mut buffer = [0; 256];
            let size = manager.recv(&mut buffer).unwrap();
            told.extend(
                String::from_utf8_lossy(buffer.get(..size).unwrap())
                    .lines()
                    .map(str::to_owned),
            );
        }
    };
    wait_for("READY=1");
    wait_for("WATCHDOG=1");

    let said = fs::read_to_string(home.path().join("stderr")).unwrap();
    let line = said
        .lines()
        .find(|line| line.contains("metrics and health"))
        .unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let address = line
        .get("address")
        .and_then(serde_json::Value::as_str)
        .unwrap();
    let mut page = TcpStream::connect(address).unwrap();
    page.write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
    let mut reply = String::new();
    page.read_to_string(&mut reply).unwrap();
    assert!(
        reply.starts_with("HTTP/1.1 503 "),
        "nothing is founded: {reply}"
    );

    let pid = Pid::from_child(&daemon.0);
    let core = fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero())).unwrap();
    let core = core
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(
        core.split_whitespace().nth(4),
        Some("0"),
        "no core dump: {core}"
    );

    kill_process(pid, Signal::TERM).unwrap();
    wait_for("STOPPING=1");
    assert!(daemon.0.wait().unwrap().success());
}
