//! Whatever is asked, in whatever words: there is an answer, nobody panics, and no secret is in it.

use super::super::openapi::{QUESTIONS, document};
use super::super::probes::PATHS;
use super::super::{Archived, Door, Wishes, serve};
use crate::control::{Asked, Event};
use crate::layout::Layout;
use crate::settings::Settings;
use crate::system::account::Account;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

const TOKEN: &str = "hush-control-token";

/// Of a question's first line, and after it.
const END: &str = "HTTP/1.1\r\nHost: node1\r\nConnection: close\r\n";

/// A node that keeps backups and grants nothing.
async fn stand() -> SocketAddr {
    let directory = std::env::temp_dir().join(format!("pgherd-fuzz-{}", std::process::id()));
    let variables = [
        ("PGHERD_CONTROL_TOKEN", TOKEN.to_owned()),
        ("POSTGRES_PASSWORD", "hush postgres".to_owned()),
        ("REPMGR_PASSWORD", "hush repmgr".to_owned()),
        ("BARMAN_BACKUP_DIR", directory.display().to_string()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    let no_files = |_: &std::path::Path| unreachable!("no variable names a file");
    let settings: Settings = crate::settings::read(variables, no_files).unwrap();
    let (published, snapshots) = watch::channel(super::rich());
    let (sender, mut events) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Event::Asked(Asked { reply, .. }) = event {
                let _ = reply.send(Err("not now".to_owned()));
            } else {
                assert!(matches!(event, Event::LookNow | Event::LeadAlone), "{event:?}");
                published.send_modify(|seen| seen.looked = Some(Instant::now()));
            }
        }
    });
    let account = Account::current();
    let layout = Layout::new(&settings, 17, "/nowhere".into(), false);
    let archived = Archived::of(&settings, &account);
    let archived = archived.map(|one| one.with_jobs(&settings, &layout, &account));
    let wishes = Wishes::new(&settings, None, sender);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(Door { listener, tls: None }, snapshots, archived, wishes, None));
    address
}

/// All that comes back, up to a page that is kept up to date.
async fn answer(address: SocketAddr, question: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(question).await; // It may have been cut off already.
    let mut said = vec![0; 256 << 10];
    let mut length = 0;
    while let Ok(Ok(count)) =
        timeout(Duration::from_secs(5), stream.read(&mut said[length..])).await
        && count > 0
    {
        length += count;
        let head = String::from_utf8_lossy(&said[..length]).to_lowercase();
        if head.contains("text/event-stream") {
            break;
        }
    }
    String::from_utf8_lossy(&said[..length]).into_owned()
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn code(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()
}

fn a_path() -> impl Strategy<Value = String> {
    let known: Vec<&str> =
        PATHS.iter().map(|(path, _)| *path).chain(QUESTIONS.iter().map(|one| one.path)).collect();
    let others = ["/lease/agree", "/lease/look", "/dashboard/live", "/dashboard.js", "*", "//"];
    let known = known.into_iter().chain(others).map(str::to_owned).collect::<Vec<_>>();
    let value = "[!-~]{0,40}|(%[0-9A-Fa-f]{2}){0,12}|\\.\\./\\.\\./etc/passwd|(%2e%2e%2f){1,4}";
    let named =
        (prop::sample::select(known), value).prop_map(|(path, value)| match path.split_once('{') {
            Some((before, _)) => format!("{before}{}", value.replace(['?', '#', ' '], "_")),
            None => path,
        });
    prop_oneof![4 => named, 1 => "/[!-~]{0,60}"]
}

fn a_query() -> impl Strategy<Value = String> {
    let names =
        "to|at|on|node|now|nonce|limit|lag|of|partial|name|cluster|dry_run|epoch|[a-z]{1,8}";
    let values = "[0-9]{0,25}|-?[0-9]{1,3}(kB|MB|GB|TB)|true|false|[!-~&&[^ #]]{0,30}|(%[0-9a-fA-F]{0,2}){0,9}";
    prop::collection::vec((names, values), 0..4).prop_map(|pairs| {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
    })
}

fn a_question() -> impl Strategy<Value = String> {
    let method = "GET|HEAD|OPTIONS|POST|PUT|DELETE|PATCH|TRACE|[A-Z]{1,12}";
    let shown = prop_oneof![
        2 => Just(format!("Authorization: Bearer {TOKEN}\r\n")),
        1 => Just(String::new()),
        1 => "Authorization: [ -~]{0,40}\r\n",
    ];
    let accept = "(Accept: (text/html|\\*/\\*|[ -~]{0,20})\r\n)?";
    let other = "([A-Za-z][A-Za-z-]{0,15}: [ -~]{0,40}\r\n){0,3}";
    let body = "\\PC{0,200}";
    (method, a_path(), a_query(), shown, accept, other, body).prop_map(
        |(method, path, query, shown, accept, other, body)| {
            let length = body.len();
            format!(
                "{method} {path}{query} HTTP/1.1\r\nHost: node1\r\nConnection: close\r\n{shown}{accept}{other}\
                 Content-Length: {length}\r\n\r\n{body}"
            )
        },
    )
}

#[test]
fn whatever_is_asked_is_answered_without_a_secret() {
    let runtime = runtime();
    let address = runtime.block_on(stand());
    let config = config(1500);
    let asked = TestRunner::new(config).run(&a_question(), |question| {
        let answer = runtime.block_on(answer(address, question.as_bytes()));
        let code = code(&answer);
        prop_assert!(code.is_some(), "no answer: {answer:?}");
        prop_assert!(code < Some(500) || code == Some(503), "{answer}");
        prop_assert!(!answer.contains("hush"), "{answer}");
        Ok(())
    });
    asked.unwrap_or_else(|failed| panic!("{failed}"));
}

#[test]
fn what_is_no_question_is_cut_or_refused() {
    let runtime = runtime();
    let address = runtime.block_on(stand());
    let garbage = prop::collection::vec(any::<u8>(), 1..400).prop_map(|mut bytes| {
        bytes.extend(b"\r\n\r\n"); // Else it is slow, which is another test's.
        bytes
    });
    let config = config(300);
    let asked = TestRunner::new(config).run(&garbage, |question| {
        let answer = runtime.block_on(answer(address, &question));
        let code = code(&answer);
        prop_assert!(code.is_none_or(|code| (400..500).contains(&code)), "{answer}");
        Ok(())
    });
    asked.unwrap_or_else(|failed| panic!("{failed}"));
}

#[test]
fn what_is_too_large_or_too_slow_is_cut_and_others_are_answered_meanwhile() {
    let runtime = runtime();
    runtime.block_on(async {
        let address = stand().await;
        let head = |rest: &str| format!("POST /pause {END}{rest}\r\n");
        let long = head(&format!("X: {}\r\n", "x".repeat(40 << 10)));
        assert_eq!(code(&answer(address, long.as_bytes()).await), Some(431));
        let many = head(&"X: y\r\n".repeat(200));
        assert_eq!(code(&answer(address, many.as_bytes()).await), Some(431));
        let large = head("Content-Length: 100000\r\n");
        assert_eq!(code(&answer(address, large.as_bytes()).await), Some(413));

        // Each has begun a question and does not come to its end.
        let mut slow = Vec::new();
        for _ in 0..100 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(b"GET /primary HTTP/1.1\r\nHost:").await;
            slow.push(stream);
        }
        let began = Instant::now();
        let question = format!("GET /liveness {END}\r\n");
        let mut answered = None;
        while answered.is_none() && began.elapsed() < Duration::from_secs(8) {
            answered = code(&answer(address, question.as_bytes()).await);
        }
        assert_eq!(answered, Some(200));
        for mut stream in slow {
            let mut rest = Vec::new();
            let end = timeout(Duration::from_secs(8), stream.read_to_end(&mut rest)).await;
            assert!(end.is_ok(), "it is still open after {:?}", began.elapsed());
        }
    });
}

#[test]
fn who_goes_on_asking_is_answered_over_one_connection_and_not_for_ever() {
    let runtime = runtime();
    runtime.block_on(async {
        let mut stream = BufReader::new(TcpStream::connect(stand().await).await.unwrap());
        let began = Instant::now();
        let mut answered = 0;
        while began.elapsed() < Duration::from_secs(8) {
            let question = b"GET /liveness HTTP/1.1\r\nHost: node1\r\n\r\n";
            let sent = stream.write_all(question).await;
            let mut line = String::new();
            if sent.is_err() || stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                break;
            }
            assert_eq!(code(&line), Some(200), "{line}");
            let mut length = 0;
            while line != "\r\n" {
                line.clear();
                assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "cut in an answer");
                if let Some(said) = line.strip_prefix("content-length: ") {
                    length = said.trim().parse().unwrap();
                }
            }
            stream.read_exact(&mut vec![0; length]).await.unwrap();
            answered += 1;
            crate::system::wait::back_off(Duration::from_millis(10)).await;
        }
        assert!(answered > 20, "{answered} after {:?}", began.elapsed());
        let lasted = began.elapsed().as_secs();
        assert!((4..8).contains(&lasted), "{lasted} s");
    });
}

#[test]
fn each_question_of_the_document_is_one() {
    let runtime = runtime();
    runtime.block_on(async {
        let address = stand().await;
        let probes = PATHS.iter().map(|(path, _)| ("get", *path, false));
        let others = QUESTIONS.iter().map(|one| (one.method, one.path, one.token));
        for (method, path, token) in probes.chain(others) {
            if path == "/events" {
                continue; // Of the journal, which this stand has not.
            }
            let code = code(&answer(address, question(method, path).as_bytes()).await);
            match token {
                true => assert_eq!(code, Some(401), "{method} {path}"),
                false => assert!(matches!(code, Some(200 | 503)), "{method} {path}: {code:?}"),
            }
        }
        let document = document();
        assert!(document["paths"]["/primary"]["get"]["responses"]["200"].is_object());
    });
}

/// Without the token.
fn question(method: &str, path: &str) -> String {
    let path = path.replace("{id}", "none").replace("{name}", "none");
    format!("{} {path} {END}\r\n", method.to_uppercase())
}

#[test]
fn nothing_is_changed_for_whoever_does_not_show_the_token() {
    let document = document();
    runtime().block_on(async {
        let address = stand().await;
        let mut asked = 0;
        for (path, methods) in document["paths"].as_object().unwrap() {
            let changes = |method: &&String| !["get", "head", "options"].contains(&method.as_str());
            for method in methods.as_object().unwrap().keys().filter(changes) {
                let code = code(&answer(address, question(method, path).as_bytes()).await);
                assert!(matches!(code, Some(401 | 403)), "{method} {path}: {code:?}");
                assert!(methods[method]["security"].is_array(), "{method} {path} does not say so");
                asked += 1;
            }
        }
        assert!(asked > 10, "the document names {asked} questions that change something");
    });
}

#[test]
fn a_wish_with_a_body_is_refused_and_one_with_an_empty_object_is_not() {
    runtime().block_on(async {
        let address = stand().await;
        for (body, expected) in [("{\"candidate\":\"node3\"}", 400), ("{}", 409), ("", 409)] {
            let length = body.len();
            let question = format!(
                "POST /switchover {END}Authorization: Bearer {TOKEN}\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            let answer = answer(address, question.as_bytes()).await;
            assert_eq!(code(&answer), Some(expected), "{body}: {answer}");
        }
    });
}
