//! What the port answers, as an OpenAPI document: `pgherd openapi`. A table, because that is what people
//! read, too; a test asks the port for each row of it.

use super::probes::PATHS;
use serde_json::{Map, Value, json};

/// A question that somebody else than a node may ask.
pub(super) struct Question {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    about: &'static str,
    /// Name and meaning; `!` before a name: it has to be there.
    query: &'static [(&'static str, &'static str)],
    /// The control token is to be shown.
    pub(super) token: bool,
    /// What can come of it, beside a refusal of the token.
    codes: &'static [u16],
    kind: &'static str,
    /// Only where the node keeps backups.
    pub(super) backups: bool,
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
const LAG: (&str, &str) =
    ("lag", "a standby counts if it is no further behind: bytes, or kB, MB, GB");

const fn open(path: &'static str, about: &'static str, kind: &'static str) -> Question {
    let (query, codes) = (&[], &[200]);
    Question { method: "get", path, about, query, token: false, codes, kind, backups: false }
}

const fn wish(method: &'static str, path: &'static str, about: &'static str) -> Question {
    let codes = &[202, 400, 409, 503];
    Question { method, path, about, query: &[], token: true, codes, kind: TEXT, backups: false }
}

const fn archived(path: &'static str, about: &'static str, kind: &'static str) -> Question {
    let (method, query, codes) = ("get", &[], &[200, 404, 409, 503]);
    Question { method, path, about, query, token: true, codes, kind, backups: true }
}

const OF: (&str, &str) = ("of", "another of barman's directories than the one in use");

/// Beside the probes.
pub(super) const QUESTIONS: &[Question] = &[
    Question {
        query: &[LAG],
        codes: &[200, 400, 503],
        ..open("/", "the page for browsers; for others as /primary", JSON)
    },
    open("/patroni", "the node, in Patroni's words", JSON),
    open("/cluster", "the members, in Patroni's words", JSON),
    open("/history", "where the cluster's histories part, in Patroni's words", JSON),
    open("/metrics", "for Prometheus", TEXT),
    open("/status", "the cluster as the node sees it", JSON),
    Question {
        query: &[("limit", "so many of the last ones")],
        codes: &[200, 400],
        ..open("/events", "what happened to the node", JSON)
    },
    Question {
        query: &[("now", "nothing older than the question"), ("nonce", "what the proof is about")],
        codes: &[200, 503],
        ..open("/member", "what nodes ask each other", JSON)
    },
    Question {
        query: &[
            ("to", "the standby's name; without one the node chooses"),
            ("at", "then: seconds since 1970"),
            ("dry_run", "say what would happen, or why not"),
        ],
        ..wish("post", "/switchover", "hand the lead over")
    },
    wish("delete", "/switchover", "no handover at the time that was said before"),
    Question {
        query: &[("to", "the standby's name"), ("dry_run", "say what would happen, or why not")],
        ..wish("post", "/relay/switchover", "the same, asked of whoever leads")
    },
    Question {
        query: &[("allow_data_loss", "what others have and this node has not may be lost")],
        ..wish("post", "/failover", "this node is to lead, because nobody does")
    },
    wish("post", "/restart", "Postgres stops and starts"),
    wish("post", "/reload", "Postgres reads its configuration"),
    Question {
        query: &[
            ("from", "a backup's id or name, or latest"),
            ("dry_run", "say what would happen, or why not"),
        ],
        ..wish(
            "post",
            "/restore",
            "the cluster goes back to a backup; further words as pgherd restore's",
        )
    },
    wish("post", "/reinitialize", "a standby's data is cloned again"),
    Question {
        query: &[("on", "true or false")],
        ..wish("put", "/pause", "no change of roles by itself, or again")
    },
    Question {
        query: &[
            ("node", "its name; without one this one"),
            ("on", "true or false"),
            ("force", "also the last one that could lead"),
        ],
        ..wish("put", "/maintenance", "the node is not chosen, or is again")
    },
    Question {
        query: &[("!node", "its name")],
        ..wish("delete", "/member", "a member that is gone for good is taken out")
    },
    Question {
        query: &[("name", "what to call it")],
        backups: true,
        ..wish("post", "/backup", "take a base backup")
    },
    archived("/backup", "what has become of it", JSON),
    Question {
        query: &[("id", "its id; the newest without one")],
        backups: true,
        ..wish("post", "/backup/verify", "restore a backup on trial")
    },
    archived("/backup/verify", "what has become of that", JSON),
    Question {
        query: &[("cluster", "another cluster's name")],
        ..archived("/archive/backups", "the base backups", JSON)
    },
    Question {
        query: &[OF],
        ..archived("/archive/backup/{id}", "a base backup; latest is an id", "application/x-tar")
    },
    Question {
        query: &[OF, ("partial", "also one that is being received")],
        ..archived("/archive/wal/{name}", "a WAL file", "application/octet-stream")
    },
];

/// OpenAPI 3.0.
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for (path, _) in PATHS {
        let probe = Question {
            query: &[LAG],
            codes: &[200, 400, 503],
            ..open(path, "whether it is so, in Patroni's words: 200 or 503", JSON)
        };
        paths.insert((*path).to_owned(), json!({"get": operation(&probe), "options": bare(path)}));
    }
    for question in QUESTIONS {
        let path = paths.entry(question.path).or_insert_with(|| json!({}));
        path[question.method] = operation(question);
    }
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "pgherd",
            "description": "What a node answers on PGHERD_HTTP_PORT",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "paths": paths,
        "components": {"securitySchemes": {"control_token": {
            "type": "http",
            "scheme": "bearer",
            "description": "PGHERD_CONTROL_TOKEN",
        }}},
    })
}

/// To `OPTIONS`, which is what HAProxy asks: the code alone.
fn bare(path: &str) -> Value {
    json!({
        "summary": format!("as GET {path}, without words"),
        "parameters": [parameter(&LAG)],
        "responses": {
            "200": {"description": reason(200)},
            "400": {"description": reason(400)},
            "503": {"description": reason(503)},
        },
    })
}

fn operation(question: &Question) -> Value {
    let Question { path, about, query, token, codes, kind, backups, .. } = question;
    let refusals: &[u16] = if *token { &[401, 403] } else { &[] };
    let mut responses = Map::new();
    for code in codes.iter().chain(refusals) {
        // A refusal is words, but for a probe's, which has the node's state in it.
        let kind = if *token && *code >= 400 { TEXT } else { kind };
        let content = match code {
            400 => json!({TEXT: {}}),
            _ => json!({kind: {}}),
        };
        let response = json!({"description": reason(*code), "content": content});
        responses.insert(code.to_string(), response);
    }
    let mut parameters: Vec<Value> = query.iter().map(parameter).collect();
    for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
        let schema = json!({"type": "string", "minLength": 1});
        parameters.push(json!({"name": name, "in": "path", "required": true, "schema": schema}));
    }
    let mut operation = json!({"summary": about, "parameters": parameters, "responses": responses});
    if *backups {
        operation["description"] = "Where the node keeps backups".into();
    }
    if *token {
        operation["security"] = json!([{"control_token": []}]);
    }
    operation
}

fn parameter((name, meaning): &(&str, &str)) -> Value {
    let (name, required) = match name.strip_prefix('!') {
        Some(name) => (name, true),
        None => (*name, false),
    };
    json!({
        "name": name,
        "in": "query",
        "required": required,
        "description": meaning,
        "schema": {"type": "string"},
    })
}

fn reason(code: u16) -> &'static str {
    match code {
        200 => "it is so, or here it is",
        202 => "it is begun, or done",
        400 => "the question makes no sense",
        401 => "the control token is missing or wrong",
        403 => "not from there, or not without a certificate",
        404 => "there is no such thing",
        409 => "not now: why, and what would make it possible",
        503 => "it is not so, or not just now",
        _ => unreachable!("no row of the table has it"),
    }
}
