//! What etcd says, for people: its lines are JSON objects.

use serde_json::{Map, Value};

/// `2026-11-21T09:00:38.028676Z WARN peer became inactive (peer-id: 8e3c028c66b473eb, error: …)`. Bytes
/// that are no such line come back as `None`: Go's own complaints are plain text.
pub(super) fn for_people(line: &[u8]) -> Option<Vec<u8>> {
    let mut said: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let mut take = |name: &str| match said.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let (ts, level, msg) = (take("ts")?, take("level")?, take("msg")?);
    take("caller"); // A line of its source.
    let details: Vec<_> =
        said.iter().map(|(name, value)| format!("{name}: {}", bare(value))).collect();
    let details =
        if details.is_empty() { details.join("") } else { format!(" ({})", details.join(", ")) };
    Some(format!("{ts} {} {msg}{details}", level.to_uppercase()).into_bytes())
}

fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_for_people_and_nothing_is_lost_that_is_none() {
        let said =
            |line: &str| for_people(line.as_bytes()).map(|line| String::from_utf8(line).unwrap());
        let lost = r#"{"level":"warn","ts":"2026-11-21T09:00:38.0Z","caller":"rafthttp/stream.go:421","msg":"lost it","peers":["a",1],"error":"unexpected EOF"}"#;
        let expected =
            r#"2026-11-21T09:00:38.0Z WARN lost it (error: unexpected EOF, peers: ["a",1])"#;
        assert_eq!(said(lost).as_deref(), Some(expected));
        let short = r#"{"level":"info","ts":"t","caller":"c","msg":"serves"}"#;
        assert_eq!(said(short).as_deref(), Some("t INFO serves"));
        for other in ["panic: x", "", "[]", r#"{"level":"info"}"#] {
            assert_eq!(said(other), None, "{other}");
        }
    }
}
