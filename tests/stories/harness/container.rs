//! One container: started, asked, signalled and removed.

use super::{Answer, Network, Volume, await_that, binary_mount, docker, image, labels, unique};
use nix::unistd::Pid;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

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

    /// In a network of the story's, where the others find it under `alias`.
    pub fn network(self, network: &Network, alias: &str) -> Self {
        let options = ["--network", &network.name, "--network-alias", alias];
        options.into_iter().fold(self, Recipe::option)
    }

    /// Another volume in the place of one.
    pub fn other_volume(mut self, of: &str, with: &str) -> Self {
        for (volume, _) in &mut self.volumes {
            if volume == of {
                with.clone_into(volume);
            }
        }
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
        arguments.extend(labels());
        arguments.extend(["--name", name, "--hostname", &self.hostname].map(str::to_owned));
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

    /// Waits until its log holds `text`. One that has ended says no more.
    pub fn await_log(&self, text: &str) -> &Self {
        self.await_that(&format!("its log says {text:?}"), || {
            let ended = self.exit_status(); // Asked first: its last words count.
            if self.log().contains(text) {
                return Some(());
            }
            if let Some(status) = ended {
                panic!("{} ended with {status} and never said {text:?}", self.name);
            }
            None
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

    /// `docker pause`: alive, silent, and its connections stay open.
    pub fn pause(&self) -> &Self {
        // The kernel cannot always freeze what forks just then, and docker gives up at once.
        self.await_that("docker freezes it", || {
            (docker(["pause", &self.name]).status == 0).then_some(())
        });
        self
    }

    /// `docker unpause`.
    pub fn unpause(&self) -> &Self {
        docker(["unpause", &self.name]).ok();
        self
    }

    /// Its first process, as this machine numbers it. Killing it is `docker kill`, less the tenth
    /// of a second that docker takes to get there.
    pub fn host_pid(&self) -> Pid {
        let pid = docker(["inspect", "-f", "{{.State.Pid}}", &self.name]).ok();
        assert_ne!(pid, "0", "{} does not run", self.name); // 0 is all of us, to kill(2).
        Pid::from_raw(pid.parse().expect("a number"))
    }

    /// What came in over the network since it was started.
    pub fn bytes_received(&self) -> u64 {
        self.traffic(0)
    }

    /// What went out.
    pub fn bytes_sent(&self) -> u64 {
        self.traffic(8)
    }

    /// A column of proc_net_dev(5), of all that leads out.
    fn traffic(&self, column: usize) -> u64 {
        let table = self.exec(["cat", "/proc/net/dev"]).ok();
        let rows = table.lines().filter_map(|line| line.split_once(':'));
        let outer = rows.filter(|(interface, _)| interface.trim() != "lo");
        let bytes = outer.filter_map(|(_, row)| row.split_whitespace().nth(column));
        bytes.map(|bytes| bytes.parse::<u64>().expect("a number")).sum()
    }

    /// `GET path` on its HTTP port, from outside: code and body. `None` if nobody answers.
    pub fn http(&self, path: &str) -> Option<(u16, String)> {
        get(&self.ip(), path)
    }

    /// The same as a browser asks.
    pub fn http_for_browser(&self, path: &str) -> Option<(u16, String)> {
        request(&self.ip(), "GET", path, "Accept: text/html,*/*;q=0.8\r\n")
    }

    /// The same with another method than GET, from someone who shows `token`.
    pub fn http_as(&self, token: &str, method: &str, path: &str) -> Option<(u16, String)> {
        request(&self.ip(), method, path, &format!("Authorization: Bearer {token}\r\n"))
    }

    /// What `pgherd status --json` prints in it.
    pub fn status_json(&self) -> serde_json::Value {
        let json = self.exec(["pgherd", "status", "--json"]).ok();
        serde_json::from_str(&json).expect("JSON")
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
            let said = docker(["logs", "--tail", "6000", &self.name]).text();
            // A prober is refused ten times a second, and etcd says each message that it cannot send.
            let noise = ["INSERT INTO ", "read-only transaction", "dropped internal Raft message"];
            let lines: Vec<_> = said
                .lines()
                .filter(|line| !noise.iter().any(|noise| line.contains(noise)))
                .collect();
            let tail = lines.len().saturating_sub(600);
            let _ = writeln!(log, "{}", lines[tail..].join("\n"));
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

/// One request, and everything up to the end. `None` if nobody answers.
pub fn get(ip: &str, path: &str) -> Option<(u16, String)> {
    request(ip, "GET", path, "")
}

fn request(ip: &str, method: &str, path: &str, headers: &str) -> Option<(u16, String)> {
    let address = SocketAddr::new(ip.parse().ok()?, 8008);
    let limit = Duration::from_secs(4);
    let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    let head = format!("{method} {path} HTTP/1.0\r\nHost: node\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
