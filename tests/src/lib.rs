//! Black-box tests: the crates' directions, real processes, stock clients.
//!
//! Here is what starts and ends the real binary. The tests are in `tests/` (Rust) and in `interop/`
//! (JavaScript, with packages from npm).

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a server may take to listen, to end, or to do what a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The binary under test: `TRIBUTARY_BIN`, or the workspace's own, built now if it is stale.
///
/// # Panics
/// When it does not build.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("TRIBUTARY_BIN") {
        Some(path) => path.into(),
        None => build(),
    })
}

/// `cargo test` builds the binaries of the packages it tests, and this package has none.
///
/// Built like the tests, all of the workspace at once: alone, the server would want what it shares with
/// them with fewer features, and half of all dependencies would be built once more. So would `ring` and
/// what is above it, if it were told of the package whose test this is.
fn build() -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    let output = cargo
        .args(["test", "--workspace", "--no-run", "--quiet", "--message-format=json"])
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "the server does not build");
    let messages = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
    let path = messages.map_while(Result::ok).find_map(|message| {
        let target = &message["target"];
        let is_server = target["name"] == "tributary" && target["kind"][0] == "bin";
        let is_test = message["profile"]["test"] == true;
        let path = message["executable"].as_str()?;
        (is_server && !is_test).then(|| path.into())
    });
    path.expect("cargo names the binary")
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is around the package")
}

/// Runs the binary to its end with these arguments and, beside PATH, only these variables.
///
/// # Panics
/// When the binary cannot be started.
pub fn run(args: &[&str], variables: &[(&str, &str)]) -> Output {
    command().args(args).envs(variables.iter().copied()).output().expect("the binary starts")
}

/// The binary with nothing set in its environment that could configure it.
fn command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TRIBUTARY_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A running server. It is killed when dropped.
pub struct Server {
    child: Child,
    url: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts a server on the store in `data`, at a free port, and waits until it listens.
    ///
    /// # Panics
    /// When it does not listen within [`PATIENCE`]; the message holds what it said.
    pub fn start(data: &Path, args: &[&str]) -> Self {
        Self::start_with(data, args, &[])
    }

    /// The same, with variables in its environment.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub fn start_with(data: &Path, args: &[&str], variables: &[(&str, &Path)]) -> Self {
        Self::start_at("127.0.0.1:0", data, args, variables)
    }

    /// The same, at this address, which is how a server comes back to where it was.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub fn start_at(listen: &str, data: &Path, args: &[&str], variables: &[(&str, &Path)]) -> Self {
        let mut child = command()
            .args(["serve", "--listen", listen, "--data"])
            .arg(data)
            .args(args)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().expect("nobody panics with it").push(line);
            }
        });
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (found, url) = mpsc::channel();
        // Reads to the end, so that the server never waits for a full pipe.
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(at) = line.find("ws://") {
                    let url = line[at..].split_whitespace().next().unwrap_or_default();
                    let _ = found.send(url.to_owned());
                }
            }
        });
        let mut server = Self { child, url: String::new(), log };
        match url.recv_timeout(PATIENCE) {
            Ok(url) => server.url = url,
            Err(_) => panic!("the server does not listen: {}", server.log()),
        }
        server
    }

    /// Where clients connect, as the server printed it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("ws://").trim_end_matches('/')
    }

    /// What the server has said on its standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("nobody panics with it").join("\n")
    }

    /// The most memory that the process has had since [`Server::forget_peak`], in bytes.
    ///
    /// # Panics
    /// When the system does not say.
    pub fn peak_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("the process is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("Linux says it");
        kib.trim().parse::<u64>().expect("a number") << 10
    }

    /// From now on the peak counts anew, from what the process has at the moment.
    ///
    /// # Panics
    /// When the system does not let us.
    pub fn forget_peak(&self) {
        // proc_pid_clear_refs(5): this value, and no other, is about the peak.
        let path = format!("/proc/{}/clear_refs", self.child.id());
        fs::write(path, "5").expect("the process is ours");
    }

    /// Ends the process as `kill -9` does.
    ///
    /// # Panics
    /// When the process cannot be killed or waited for.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// Sends SIGTERM.
    ///
    /// # Panics
    /// When the signal cannot be sent.
    pub fn terminate(&self) {
        // The standard library can only kill, and a crate for one signal would need unsafe code.
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
        assert!(status.success());
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// When it does not end within [`PATIENCE`].
    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(Instant::now() < end, "the server does not end: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
