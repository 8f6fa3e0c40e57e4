//! An OpenLDAP server for tests: private, in a folder of its own, ended with what started it.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, getegid, geteuid, kill_process};

use crate::{
    certificates,
    harness::{Outcome, PATIENCE, STEP, free_address, write_private},
    program::{Reply, finish},
};

/// The page with the rights of the connector.
const PAGE: &str = include_str!("../../docs/connectors/ldap.md");
/// The password of the connector's own entry.
pub const OWN: &str = "the connector's own password";
/// Where the entries are whose passwords are rotated.
const OU: &str = "ou=breakglass,dc=example,dc=org";
/// The connector's own entry.
pub const CONNECTOR: &str = "cn=keyturn,ou=services,dc=example,dc=org";
const SLAPD: &str = "/usr/sbin/slapd";

/// A running server.
pub struct Directory {
    folder: tempfile::TempDir,
    plain: u16,
    tls: u16,
    child: Child,
}

/// The distinguished name of somebody whose password is rotated.
pub fn dn(user: &str) -> String {
    format!("uid={user},{OU}")
}

/// Where the first message that a client says ends, and whether it wants an answer: everything but its goodbye.
pub fn messages(read: &[u8], _first: bool) -> Option<(usize, bool)> {
    const GOODBYE: u8 = 0x42;
    let length = usize::from(*read.get(1)?);
    let (head, length) = if length < 0x80 {
        (2, length)
    } else {
        let head = length.checked_sub(0x80)?.checked_add(2)?;
        let bytes = read.get(2..head)?;
        let add = |sum: usize, byte: &u8| sum.checked_mul(256)?.checked_add((*byte).into());
        (head, bytes.iter().try_fold(0, add)?)
    };
    let end = head.checked_add(length)?;
    let message = read.get(head..end)?;
    // The number of the message comes before what it is.
    let skip = usize::from(*message.get(1)?).checked_add(2)?;
    Some((end, message.get(skip) != Some(&GOODBYE)))
}

/// Who administers the server: this process, by its socket.
fn us() -> String {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    format!("gidNumber={gid}+uidNumber={uid},cn=peercred,cn=external,cn=auth")
}

fn configuration(folder: &Path) -> String {
    let (us, folder) = (us(), folder.display());
    format!(
        r"dn: cn=config
objectClass: olcGlobal
cn: config
olcTLSCACertificateFile: {folder}/roots.pem
olcTLSCertificateFile: {folder}/server.crt
olcTLSCertificateKeyFile: {folder}/server.key
olcTLSVerifyClient: try
olcAuthzRegexp: cn=certified {CONNECTOR}

dn: cn=module{{0}},cn=config
objectClass: olcModuleList
cn: module{{0}}
olcModulePath: /usr/lib/ldap
olcModuleLoad: back_mdb
olcModuleLoad: ppolicy

dn: cn=schema,cn=config
objectClass: olcSchemaConfig
cn: schema

include: file:///etc/ldap/schema/core.ldif
include: file:///etc/ldap/schema/cosine.ldif
include: file:///etc/ldap/schema/inetorgperson.ldif

dn: olcDatabase={{0}}config,cn=config
objectClass: olcDatabaseConfig
olcDatabase: {{0}}config
olcRootDN: {us}

dn: olcDatabase={{1}}mdb,cn=config
objectClass: olcDatabaseConfig
objectClass: olcMdbConfig
olcDatabase: {{1}}mdb
olcSuffix: dc=example,dc=org
olcRootDN: {us}
olcDbDirectory: {folder}/data
olcDbMaxSize: 16777216
olcAccess: to attrs=userPassword by anonymous auth by * none
olcAccess: to * by self read by * none

dn: olcOverlay=ppolicy,olcDatabase={{1}}mdb,cn=config
objectClass: olcOverlayConfig
objectClass: olcPPolicyConfig
olcOverlay: ppolicy
olcPPolicyDefault: cn=default,dc=example,dc=org
"
    )
}

const ENTRIES: &str = "dn: dc=example,dc=org
objectClass: domain
dc: example

dn: ou=breakglass,dc=example,dc=org
objectClass: organizationalUnit
ou: breakglass

dn: ou=services,dc=example,dc=org
objectClass: organizationalUnit
ou: services

dn: cn=default,dc=example,dc=org
objectClass: device
objectClass: pwdPolicy
cn: default
pwdAttribute: userPassword
pwdCheckQuality: 2
pwdMinLength: 8
";

impl Directory {
    /// Starts one, with the access of the page, and an entry `breakglass` with this password.
    pub fn start(first: &str) -> Outcome<Self> {
        if !Path::new(SLAPD).exists() {
            return Err("slapd is not installed: `./dev test` installs it".into());
        }
        let folder = tempfile::Builder::new().prefix("keyturn-ldap-").tempdir()?;
        let place = folder.path();
        certificates::make(place)?;
        for name in ["data", "config"] {
            fs::create_dir(place.join(name))?;
        }
        write_private(&place.join("own"), OWN.as_bytes())?;
        let file = place.join("config.ldif");
        write_private(&file, configuration(place).as_bytes())?;
        let mut add = Command::new("/usr/sbin/slapadd");
        add.args(["-n", "0", "-F"]).arg(place.join("config"));
        run(add.arg("-l").arg(&file))?.ok()?;
        let (plain, tls) = (free_address()?.port(), free_address()?.port());
        let child = spawn(place, plain, tls)?;
        let directory = Self {
            folder,
            plain,
            tls,
            child,
        };
        directory.wait()?;
        directory.admin("ldapadd", ENTRIES)?;
        let own = format!(
            "dn: {CONNECTOR}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: keyturn\nuserPassword: {OWN}\n"
        );
        directory.admin("ldapadd", &own)?;
        directory.add("breakglass", first)?;
        // The first block is OpenLDAP's; another server's follows.
        let block = PAGE.split("```ldif\n").nth(1).unwrap_or_default();
        directory.admin("ldapmodify", block.split("```").next().unwrap_or_default())?;
        Ok(directory)
    }

    fn wait(&self) -> Outcome<()> {
        let steps = PATIENCE.as_millis().checked_div(STEP.as_millis());
        for _ in 0..steps.unwrap_or_default() {
            let mut who = self.client("ldapwhoami");
            if run(&mut who)?.code == 0 {
                return Ok(());
            }
            thread::sleep(STEP);
        }
        let log = fs::read_to_string(self.folder.path().join("log"))?;
        Err(format!("slapd does not start: {log}").into())
    }

    /// A program of OpenLDAP's own as the administrator.
    fn client(&self, program: &str) -> Command {
        let socket = self.folder.path().join("socket").display().to_string();
        let mut command = Command::new(program);
        let url = format!("ldapi://{}", socket.replace('/', "%2F"));
        command.args(["-Q", "-Y", "EXTERNAL", "-H", &url]);
        command
    }

    /// What an administrator does, by an LDIF (RFC 2849).
    pub fn admin(&self, program: &str, ldif: &str) -> Outcome<()> {
        let file = self.folder.path().join("change.ldif");
        write_private(&file, ldif.as_bytes())?;
        run(self.client(program).arg("-f").arg(file))?.ok()?;
        Ok(())
    }

    /// Adds somebody with this password.
    pub fn add(&self, user: &str, password: &str) -> Outcome<()> {
        let entry = format!(
            "dn: {}\nobjectClass: inetOrgPerson\nuid: {user}\ncn: {user}\nsn: {user}\n",
            dn(user)
        );
        self.admin("ldapadd", &entry)?;
        self.set(user, password)
    }

    /// An administrator sets somebody's password.
    pub fn set(&self, user: &str, password: &str) -> Outcome<()> {
        run(self.client("ldappasswd").args(["-s", password, &dn(user)]))?.ok()?;
        Ok(())
    }

    /// Whether this password is accepted, by OpenLDAP's own client over `StartTLS`.
    pub fn accepts(&self, user: &str, password: &[u8]) -> Outcome<bool> {
        const INVALID_CREDENTIALS: i32 = 49;
        let mut who = Command::new("ldapwhoami");
        who.env("LDAPTLS_CACERT", self.folder.path().join("roots.pem"))
            .args(["-x", "-ZZ", "-H"])
            // Of `localhost` it would want a certificate with the host's own name.
            .arg(format!("ldap://127.0.0.1:{}", self.plain))
            .args(["-D", &dn(user), "-w", std::str::from_utf8(password)?]);
        let reply = run(&mut who)?;
        match reply.code {
            0 => Ok(true),
            INVALID_CREDENTIALS => Ok(false),
            _ => Err(reply.stderr.into()),
        }
    }

    /// The folder with `roots.pem`, `own` (a password), `certified.crt` and `certified.key`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its port for LDAP in clear and `StartTLS`, and that for LDAPS.
    pub fn ports(&self) -> (u16, u16) {
        (self.plain, self.tls)
    }

    /// Stops it.
    pub fn stop(&mut self) -> Outcome<()> {
        self.signal(Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again.
    pub fn again(&mut self) -> Outcome<()> {
        self.child = spawn(self.folder.path(), self.plain, self.tls)?;
        self.wait()
    }

    /// Whether it takes connections and says nothing, from now on.
    pub fn silent(&self, silent: bool) -> Outcome<()> {
        self.signal(if silent { Signal::STOP } else { Signal::CONT })
    }

    fn signal(&self, signal: Signal) -> Outcome<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).ok_or("no process")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &Path, plain: u16, tls: u16) -> Outcome<Child> {
    let socket = folder
        .join("socket")
        .display()
        .to_string()
        .replace('/', "%2F");
    let log = fs::File::create(folder.join("log"))?;
    let child = Command::new(SLAPD)
        .arg("-F")
        .arg(folder.join("config"))
        .arg("-h")
        .arg(format!(
            "ldap://localhost:{plain} ldaps://localhost:{tls} ldapi://{socket}"
        ))
        // Any level keeps it in the foreground.
        .args(["-d", "0"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Ok(child)
}

fn run(command: &mut Command) -> Outcome<Reply> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    finish(command.spawn()?)
}
