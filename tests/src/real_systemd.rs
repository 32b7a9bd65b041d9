//! A real systemd: a user instance of our own, in namespaces and cgroups of its own. It would else
//! move every process that it sees into its cgroups. It needs root, and a machine that lets it have
//! those.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::proc::{Process, wait_until};

const SYSTEMD: &str = "/lib/systemd/systemd";
/// Whoever sets this variable owns the machine.
const ASKED: &str = "ORCD_TEST_REAL_SYSTEMD";
/// Longest time until it answers.
const UP_WITHIN: Duration = Duration::from_secs(10);

/// Runs as process 1 of a new pid namespace. It moves itself into new cgroups while it still sees
/// where they are, and makes them the root of all that systemd sees.
const OUTER: &str = r#"
for hierarchy in systemd unified; do
    mkdir -p "/sys/fs/cgroup/$hierarchy/$NAME"
    echo $$ > "/sys/fs/cgroup/$hierarchy/$NAME/cgroup.procs"
done
exec unshare --cgroup sh -euc "$INNER"
"#;
/// systemd makes process 1 the system's instance, so it is not that.
const INNER: &str = r#"
umount -R /sys/fs/cgroup
mount -t tmpfs tmpfs /sys/fs/cgroup
mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
mount -t tmpfs tmpfs /run/systemd
mkdir /run/systemd/system
"$SYSTEMD" --user --unit=basic.target --log-target=console &
wait
"#;

/// The instance; everything that it started ends with it.
#[derive(Debug)]
pub struct RealSystemd {
    manager: Child,
    folder: TempDir,
    name: String,
}

impl RealSystemd {
    /// Starts it.
    ///
    /// # Errors
    /// Why it can't run here.
    pub fn start() -> Result<Self, String> {
        if std::env::var_os(ASKED).is_none() {
            return Err(format!(
                "it makes cgroups on this machine, so it has to be asked for with {ASKED}=1"
            ));
        }
        if !nix::unistd::Uid::effective().is_root() {
            return Err("namespaces and cgroups of its own need root".into());
        }
        if Path::new("/run/systemd/system").exists() {
            return Err("this machine runs systemd, its cgroups are not touched".into());
        }
        for needed in ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", SYSTEMD] {
            if !Path::new(needed).exists() {
                return Err(format!("{needed} is not here"));
            }
        }
        std::fs::create_dir_all("/run/systemd").map_err(|e| e.to_string())?;
        let folder = tempfile::Builder::new().prefix("orcd-").tempdir();
        let folder = folder.map_err(|e| e.to_string())?;
        let name = format!("orcd-tests-{}", std::process::id());
        let log = std::fs::File::create(folder.path().join("log")).map_err(|e| e.to_string())?;
        let manager = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "sh", "-euc", OUTER])
            .envs([
                ("NAME", name.as_str()),
                ("INNER", INNER),
                ("SYSTEMD", SYSTEMD),
            ])
            .env("XDG_RUNTIME_DIR", folder.path())
            .env("XDG_CONFIG_HOME", folder.path())
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| e.to_string())?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(|e| format!("unshare: {e}"))?;
        let mut systemd = Self {
            manager,
            folder,
            name,
        };
        let mut is_up = false;
        wait_until(UP_WITHIN, || {
            is_up = systemd.systemctl(&["list-units"]).status.success();
            is_up || systemd.manager.try_wait().is_ok_and(|end| end.is_some())
        });
        match is_up {
            true => Ok(systemd),
            false => Err(format!("systemd does not come up here: {}", systemd.log())),
        }
    }

    /// Where unit files go; `systemctl daemon-reload` reads them.
    pub fn units(&self) -> PathBuf {
        let units = self.folder.path().join("systemd/user");
        std::fs::create_dir_all(&units).unwrap();
        units
    }

    /// `$XDG_RUNTIME_DIR`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What systemd and its services wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// `systemctl --user`, from inside: systemd takes no orders from a process that it can't see.
    pub fn systemctl(&self, args: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        let inside = self.inside().first().map_or(0, |process| process.pid);
        command.args(["--target", &inside.to_string(), "--mount", "--pid"]);
        command.args(["systemctl", "--user"]).args(args);
        command.env("XDG_RUNTIME_DIR", self.folder.path());
        command.output().unwrap()
    }

    /// Process 1 of the namespace.
    fn inside(&self) -> Vec<Process> {
        Process::find(self.manager.id())
            .map(Process::children)
            .unwrap_or_default()
    }

    /// `systemctl --user` with arguments that must succeed.
    #[track_caller]
    pub fn ask(&self, args: &[&str]) -> String {
        let output = self.systemctl(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}\n{}", self.log());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A property of a unit.
    #[track_caller]
    pub fn show(&self, unit: &str, property: &str) -> String {
        self.ask(&["show", "--value", "--property", property, unit])
    }
}

impl Drop for RealSystemd {
    fn drop(&mut self) {
        // `unshare` kills process 1 of the namespace when it is killed, and that one everything.
        let inside = self.inside();
        let _ = self.manager.kill();
        let _ = self.manager.wait();
        for process in inside {
            process.is_gone_within(UP_WITHIN);
        }
        for hierarchy in ["systemd", "unified"] {
            remove_cgroups(&Path::new("/sys/fs/cgroup").join(hierarchy).join(&self.name));
        }
    }
}

/// Removes a cgroup and those below; the files in it are not for removing.
fn remove_cgroups(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroups(&entry.path());
        }
    }
    // A process that is just ending may still be in it.
    wait_until(Duration::from_secs(2), || {
        std::fs::remove_dir(folder).is_ok() || !folder.exists()
    });
}
