//! Containers for stories: started, asked, killed and removed through the docker command.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::print_stderr,
    reason = "a library of its own, in a test"
)]

use std::fmt::Write as _;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Long enough for a noisy machine; a story that runs into it has failed.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Which image: `pgherd:17` unless `PGHERD_IMAGE` names another.
#[expect(clippy::disallowed_methods, reason = "a test's own setting")]
pub fn image() -> String {
    std::env::var("PGHERD_IMAGE").unwrap_or_else(|_| "pgherd:17".to_owned())
}

/// A binary to mount over the image's, so that a change can be tried without building an image:
/// `cargo build && PGHERD_BINARY=$PWD/target/debug/pgherd cargo test --test stories -- --ignored`.
#[expect(clippy::disallowed_methods, reason = "a test's own setting")]
fn binary() -> Option<String> {
    std::env::var("PGHERD_BINARY").ok()
}

/// The options of `docker run` that put [`binary`] in its place.
pub fn binary_mount() -> Vec<String> {
    binary().map_or(Vec::new(), |binary| {
        vec!["-v".to_owned(), format!("{binary}:/usr/local/bin/pgherd:ro")]
    })
}

/// `make trials` runs the long stories too.
pub fn trials() -> bool {
    std::env::var_os("PGHERD_TRIALS").is_some_and(|value| !value.is_empty())
}

/// What a command in a container, or docker itself, answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    /// Its standard output without blanks at the end; panics with everything it said if it failed.
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "failed: {self:#?}");
        self.stdout.trim_end().to_owned()
    }

    /// Both streams, for those who look for something in either.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs `docker` with these arguments to its end.
pub fn docker<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Answer {
    let output = docker_command(args).output().expect("docker can be run");
    answer(output)
}

fn docker_command<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    #[expect(clippy::disallowed_methods, reason = "stories drive docker")]
    let mut command = Command::new("docker");
    command.args(args).stdin(Stdio::null());
    command
}

fn answer(output: Output) -> Answer {
    Answer {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A name that no other story, nor another run of them, has.
pub fn unique(what: &str) -> String {
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("pgherd-story-{}-{number}-{what}", std::process::id())
}

/// What a container is started with.
#[derive(Clone, Debug)]
pub struct Recipe {
    options: Vec<String>,
    command: Vec<String>,
    image: String,
    hostname: String,
    volumes: Vec<(String, String)>,
}

impl Recipe {
    /// A node as a user would start it, called `hostname`.
    pub fn node(hostname: &str) -> Self {
        Recipe {
            options: Vec::new(),
            command: Vec::new(),
            image: image(),
            hostname: hostname.to_owned(),
            volumes: Vec::new(),
        }
    }

    /// `-e NAME=VALUE`.
    pub fn env(self, name: &str, value: &str) -> Self {
        self.option("-e").option(&format!("{name}={value}"))
    }

    /// `-e NAME=VALUE`, several times.
    pub fn envs<'a>(self, vars: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        vars.into_iter().fold(self, |recipe, (name, value)| recipe.env(name, value))
    }

    /// Another program than pgherd as PID 1.
    pub fn entrypoint(self, program: &str) -> Self {
        self.option("--entrypoint").option(program)
    }

    /// Any option of `docker run`.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// A volume that lives as long as the first container started from this recipe, or from
    /// a clone of it, and can be shared between them.
    pub fn volume(mut self, volume: &Volume, at: &str) -> Self {
        self.volumes.push((volume.name.clone(), at.to_owned()));
        self
    }

    /// The container's command.
    pub fn command<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.command = words.into_iter().map(str::to_owned).collect();
        self
    }

    /// Another image than the one under test.
    pub fn image(mut self, image: &str) -> Self {
        self.image = image.to_owned();
        self
    }

    /// Starts it in the background.
    pub fn start(&self) -> Container {
        let name = unique(&self.hostname);
        docker(self.arguments(&["-d"], &name)).ok();
        Container { name }
    }

    /// Makes it and does not start it: files can be copied in first.
    pub fn create(&self) -> Container {
        let name = unique(&self.hostname);
        let mut arguments = self.arguments(&[], &name);
        arguments[0] = "create".to_owned();
        docker(arguments).ok();
        Container { name }
    }

    /// Runs it to its end and removes it. One that does not end fails its story.
    pub fn run(&self) -> Answer {
        let container = self.start();
        let status = container.await_end();
        Answer { status, ..docker(["logs", &container.name]) }
    }

    fn arguments(&self, mode: &[&str], name: &str) -> Vec<String> {
        let mut arguments = vec!["run".to_owned()];
        arguments.extend(mode.iter().map(|word| (*word).to_owned()));
        let fixed = ["--label", "pgherd.story=1", "--name", name, "--hostname", &self.hostname];
        arguments.extend(fixed.map(str::to_owned));
        for (volume, at) in &self.volumes {
            arguments.extend(["-v".to_owned(), format!("{volume}:{at}")]);
        }
        arguments.extend(binary_mount());
        arguments.extend(self.options.iter().cloned());
        arguments.push(self.image.clone());
        arguments.extend(self.command.iter().cloned());
        arguments
    }
}

/// A container, removed with its anonymous volumes when the story lets go of it. If the story
/// fails, its log is printed first.
#[derive(Debug)]
pub struct Container {
    pub name: String,
}

impl Container {
    /// Runs a command in it, as root.
    pub fn exec<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Answer {
        self.exec_as("root", words)
    }

    /// Runs a command in it, as `user`.
    pub fn exec_as<'a>(&self, user: &str, words: impl IntoIterator<Item = &'a str>) -> Answer {
        let exec = ["exec", "-u", user, &self.name].map(str::to_owned);
        docker(exec.into_iter().chain(words.into_iter().map(str::to_owned)))
    }

    /// Runs a script of bash in it, as root.
    pub fn shell(&self, script: &str) -> Answer {
        self.exec(["bash", "-c", script])
    }

    /// Runs psql in this container against `server`, over the network and with a password.
    pub fn psql(&self, server: &Server<'_>, query: &str) -> Answer {
        let Server { host, port, user, password, database } = *server;
        let password = format!("PGPASSWORD={password}");
        let exec = ["exec", "-e", &password, "-e", "PGCONNECT_TIMEOUT=5", &self.name];
        let psql = ["psql", "-XAtq", "-w", "-h", host, "-p", port, "-U", user, "-d", database];
        docker(exec.into_iter().chain(psql).chain(["-c", query]))
    }

    /// The processes in it, without the one that looks.
    pub fn processes(&self) -> Vec<Process> {
        let script = r#"
            for dir in /proc/[0-9]*; do
                pid=${dir#/proc/}
                [ "$pid" = $$ ] && continue
                { read -r status <"$dir/stat" && read -r name <"$dir/comm"; } 2>/dev/null || continue
                status=(${status##*) })
                command=$(tr '\0' ' ' <"$dir/cmdline") 2>/dev/null
                printf '%s\t%s\t%s\t%s\n' "$pid" "${status[1]}" "$name" "$command"
            done"#;
        let listed = self.shell(script).ok();
        let process = |line: &str| {
            let mut fields = line.splitn(4, '\t').map(str::to_owned);
            let mut field = || fields.next().unwrap_or_default();
            let (pid, parent) = (field(), field());
            Process { pid, parent, name: field(), command: field() }
        };
        listed.lines().map(process).collect()
    }

    /// The pid of the one process in it that `is` recognises.
    pub fn pid_of(&self, what: &str, is: impl Fn(&Process) -> bool) -> String {
        let all = self.processes();
        let found: Vec<_> = all.iter().filter(|process| is(process)).collect();
        assert_eq!(found.len(), 1, "one {what} in {all:#?}");
        found[0].pid.clone()
    }

    /// Sends a signal to one of its processes.
    pub fn kill(&self, signal: &str, pid: &str) -> Answer {
        self.shell(&format!("kill -{signal} {pid}"))
    }

    /// Asks its server, over the socket, as its superuser `postgres`. One value a line.
    pub fn sql(&self, query: &str) -> Answer {
        self.exec_as("postgres", ["psql", "-XAtq", "-U", "postgres", "-d", "postgres", "-c", query])
    }

    /// Everything it printed so far, on either stream, in order within each.
    pub fn log(&self) -> String {
        docker(["logs", &self.name]).text()
    }

    /// Waits until it serves, or fails with its log.
    pub fn await_ready(&self) -> &Self {
        self.await_that("it serves", || {
            if let Some(status) = self.exit_status() {
                panic!("the container ended with {status} instead of serving");
            }
            (self.exec(["pgherd", "health", "--ready"]).status == 0).then_some(())
        });
        self
    }

    /// Waits until its log holds `text`.
    pub fn await_log(&self, text: &str) -> &Self {
        self.await_that(&format!("its log says {text:?}"), || {
            self.log().contains(text).then_some(())
        });
        self
    }

    /// Waits for its end and returns its exit status.
    pub fn await_end(&self) -> i32 {
        self.await_that("it ends", || self.exit_status())
    }

    /// Its exit status, if it has ended.
    pub fn exit_status(&self) -> Option<i32> {
        let format = "{{.State.Running}} {{.State.ExitCode}}";
        let state = docker(["inspect", "-f", format, &self.name]).ok();
        let (running, status) = state.split_once(' ').expect("two words");
        (running == "false").then(|| status.parse().expect("a number"))
    }

    /// Waits until `condition` has an answer.
    pub fn await_that<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        await_that(&format!("{}: {what}", self.name), condition)
    }

    /// `docker kill -s SIGNAL`.
    pub fn signal(&self, signal: &str) -> &Self {
        docker(["kill", "-s", signal, &self.name]).ok();
        self
    }

    /// `docker stop`, with the patience of the stack files. Returns the exit status.
    pub fn stop(&self) -> i32 {
        docker(["stop", "-t", "60", &self.name]).ok();
        self.exit_status().expect("docker stop waits for the end")
    }

    /// `docker start`, after a stop or a kill.
    pub fn start_again(&self) -> &Self {
        docker(["start", &self.name]).ok();
        self
    }

    /// Its address in docker's network.
    pub fn ip(&self) -> String {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        docker(["inspect", "-f", format, &self.name]).ok()
    }

    /// Copies a file in, with this mode.
    pub fn put(&self, path: &str, text: &str, mode: u32) -> &Self {
        use std::os::unix::fs::PermissionsExt;
        let here = std::env::temp_dir().join(unique("file"));
        std::fs::write(&here, text).expect("the temporary directory can be written");
        std::fs::set_permissions(&here, std::fs::Permissions::from_mode(mode)).expect("ours");
        docker(["cp", &here.to_string_lossy(), &format!("{}:{path}", self.name)]).ok();
        std::fs::remove_file(&here).expect("ours");
        self
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut log = format!("--- log of {}\n", self.name);
            let _ = write!(log, "{}", docker(["logs", "--tail", "200", &self.name]).text());
            eprintln!("{log}---");
        }
        docker(["rm", "-f", "-v", &self.name]);
    }
}

/// How psql reaches a server.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    pub host: &'a str,
    pub port: &'a str,
    pub user: &'a str,
    pub password: &'a str,
    pub database: &'a str,
}

/// A process in a container.
#[derive(Clone, Debug)]
pub struct Process {
    pub pid: String,
    pub parent: String,
    pub name: String,
    pub command: String,
}

/// The server itself, among the processes of a container.
pub fn is_postmaster(process: &Process) -> bool {
    process.name == "postgres" && process.command.contains("/bin/postgres ")
}

/// A second container, which does nothing: what consumers elsewhere see.
pub fn client() -> Container {
    Recipe::node("client").entrypoint("sleep").command(["infinity"]).start()
}

/// A named volume, removed at the end of the story.
#[derive(Debug)]
pub struct Volume {
    pub name: String,
}

impl Volume {
    /// A fresh one. Declare it before the containers that use it: it is removed after them.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// The same with options of `docker volume create`.
    pub fn with(options: &[&str]) -> Self {
        let name = unique("volume");
        let create = ["volume", "create", "--label", "pgherd.story=1"].into_iter();
        docker(create.chain(options.iter().copied()).chain([name.as_str()])).ok();
        Volume { name }
    }

    /// Runs a script of bash as root in a container that has it at /v, and returns what it says.
    pub fn shell(&self, script: &str) -> String {
        let recipe = Recipe::node("volume").volume(self, "/v").entrypoint("bash");
        recipe.command(["-c", script]).run().ok()
    }

    /// Everything in it: kind, mode, owner, size and name, a line each. Without pgherd's lock,
    /// which every start makes before it looks around.
    pub fn listing(&self) -> String {
        self.listing_after("true")
    }

    /// The same once `script` has run in it.
    pub fn listing_after(&self, script: &str) -> String {
        // A directory's size and anybody's clock say nothing.
        self.shell(&format!(
            "set -e; cd /v; {script}; cd /v; \
             find . -mindepth 1 ! -path ./pgherd ! -path ./pgherd/lock \
             \\( -type d -printf '%y %m %U:%G - %p\\n' -o -printf '%y %m %U:%G %s %p\\n' \\) | sort"
        ))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        docker(["volume", "rm", "-f", &self.name]);
    }
}

/// Waits until `condition` has an answer; panics when [`PATIENCE`] is at its end.
pub fn await_that<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    await_within(PATIENCE, what, condition)
}

/// The same with another limit.
pub fn await_within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(began.elapsed() < limit, "waited {} s in vain: {what}", limit.as_secs());
        // Each question is a docker command of some 30 ms already; this only spares the machine.
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
