//! How long a container takes to answer, and what came in meanwhile.

use crate::common::container::{Container, Question};
use std::fs;
use std::time::SystemTime;
use tokio::runtime::Runtime;

impl Container {
    /// From the start of its first process to the first answer over TCP, in ms.
    pub(crate) fn start_to(&self, runtime: &Runtime, question: Question<'_>) -> f64 {
        self.start();
        self.await_answer(runtime, question);
        let answered = seconds_of_the_day();
        let started = parse_seconds_of_the_day(&self.inspect("{{.State.StartedAt}}"));
        (answered - started).rem_euclid(86_400.0) * 1e3
    }

    /// What came in over its network since it was started.
    pub(crate) fn bytes_received(&self) -> f64 {
        received(self.pid())
    }
}

/// Bytes that came into the process' network namespace, but for what it sent itself.
fn received(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    // Two lines of heads; then a name, a colon, and bytes received first.
    let devices = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    let others = devices.filter(|(name, _)| name.trim() != "lo");
    others.filter_map(|(_, rest)| rest.split_whitespace().next()?.parse::<f64>().ok()).sum()
}

fn seconds_of_the_day() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    now.as_secs_f64() % 86_400.0
}

/// Of docker's `2026-11-20T20:02:38.887860123Z`.
fn parse_seconds_of_the_day(time: &str) -> f64 {
    let clock = time.split('T').nth(1).unwrap_or_default().trim_end_matches('Z');
    clock.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap_or(f64::NAN))
}
