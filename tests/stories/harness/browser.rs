//! A real Chromium without a screen, told what to do through a pipe (its DevTools protocol: JSON, each
//! message ended by a zero byte).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Debian's name for it, and Google's.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// What a page does takes milliseconds; on a busy machine, more.
const DONE_WITHIN: Duration = Duration::from_secs(60);

/// One window with one page.
pub struct Browser {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    calls: u64,
    profile: PathBuf,
    /// What the page complained about.
    pub complaints: Vec<String>,
}

impl Browser {
    /// None, said clearly, where there is none.
    #[expect(clippy::disallowed_methods, reason = "a story drives a browser")]
    pub fn start() -> Option<Self> {
        let there = |program: &&&str| {
            let mut asked = Command::new(program);
            let asked = asked.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
            asked.status().is_ok_and(|status| status.success())
        };
        let Some(program) = PROGRAMS.iter().find(there) else {
            // Past what the test harness keeps to itself of a test that passes.
            let skipped = "skipped: no Chromium can be run, so nobody has seen the page: apt-get install chromium";
            let _ = writeln!(std::io::stdout(), "{skipped}");
            return None;
        };
        let profile = std::env::temp_dir().join(super::unique("browser"));
        // It reads at descriptor 3 and writes at 4; a shell can give it our pipes under these numbers.
        let script = r#"exec "$0" "$@" 3<&0 4>&1 >/dev/null 2>&1 </dev/null"#;
        let mut process = Command::new("bash")
            .args(["-c", script, program, "--headless=new", "--remote-debugging-pipe"])
            .args(["--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash starts");
        let to = process.stdin.take().expect("a pipe");
        let from = BufReader::new(process.stdout.take().expect("a pipe"));
        let complaints = Vec::new();
        let mut browser =
            Browser { process, to, from, session: None, calls: 0, profile, complaints };
        let page = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let asked = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", asked);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({}));
        }
        Some(browser)
    }

    /// Opens `url`, and waits until `ready`, an expression, is true on it.
    pub fn open(&mut self, url: &str, ready: &str) {
        self.call("Page.navigate", json!({"url": url}));
        self.await_true(ready);
    }

    /// What the expression says; of a promise, what comes of it.
    pub fn eval(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let said = self.call("Runtime.evaluate", asked);
        assert!(said["exceptionDetails"].is_null(), "{expression}: {said:#}");
        said["result"]["value"].clone()
    }

    /// Waits until the expression is true.
    pub fn await_true(&mut self, expression: &str) {
        let began = Instant::now();
        while self.eval(expression) != Value::Bool(true) {
            if began.elapsed() > DONE_WITHIN {
                let text = self.eval("document.body.innerText");
                panic!("waited in vain for {expression}, on:\n{}", text.as_str().unwrap_or(""));
            }
            std::thread::park_timeout(Duration::from_millis(100)); // Spares the machine.
        }
    }

    /// As wide as that, and as the reader likes it.
    pub fn resize(&mut self, width: u32, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
        let size =
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// The tab key.
    pub fn tab(&mut self) {
        for kind in ["rawKeyDown", "keyUp"] {
            let key =
                json!({"type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9});
            self.call("Input.dispatchKeyEvent", key);
        }
    }

    /// All of the page, as a picture in `file`.
    pub fn screenshot(&mut self, file: &Path) {
        let asked = json!({"format": "png", "captureBeyondViewport": true});
        let shot = self.call("Page.captureScreenshot", asked);
        let data = shot["data"].as_str().expect("a picture");
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("it can be made");
        let picture = BASE64_STANDARD.decode(data).expect("base64");
        std::fs::write(file, picture).expect("it can be written");
        println!("{}", file.display());
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut asked = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            asked["sessionId"] = session.as_str().into();
        }
        self.to.write_all(asked.to_string().as_bytes()).expect("it listens");
        self.to.write_all(b"\0").expect("it listens");
        loop {
            let mut message = Vec::new();
            self.from.read_until(0, &mut message).expect("it answers");
            assert!(message.pop() == Some(0), "Chromium has ended");
            let said: Value = serde_json::from_slice(&message).expect("JSON");
            if said["id"] == self.calls {
                assert!(said["error"].is_null(), "{method}: {said:#}");
                return said["result"].clone();
            }
            let what = said["method"].as_str().unwrap_or_default();
            if ["Runtime.exceptionThrown", "Log.entryAdded"].contains(&what) {
                self.complaints.push(said["params"].to_string());
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
