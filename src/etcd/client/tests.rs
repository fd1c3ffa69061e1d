//! Against endpoints that answer with what etcd did.

use super::*;
use crate::etcd::EtcdError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const WITHIN: Duration = Duration::from_secs(2);

/// What an endpoint does with each question.
#[derive(Clone, Copy)]
enum Endpoint {
    Says(u16, &'static str),
    SaysNothing,
    SaysNothingAtFirst,
    Absent,
}

async fn client(endpoints: &[Endpoint]) -> Client {
    let mut found = Vec::new();
    for endpoint in endpoints {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        found.push(EtcdEndpoint { tls: false, host: "127.0.0.1".to_owned(), port });
        let mut endpoint = *endpoint;
        if matches!(endpoint, Endpoint::Absent) {
            continue;
        }
        tokio::spawn(async move {
            let mut silent = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                match endpoint {
                    Endpoint::Says(code, body) => drop(tokio::spawn(async move {
                        let mut request = [0; 4096];
                        while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                            let length = body.len();
                            let head =
                                format!("HTTP/1.1 {code} x\r\nContent-Length: {length}\r\n\r\n");
                            stream.write_all((head + body).as_bytes()).await.unwrap();
                        }
                    })),
                    Endpoint::SaysNothing | Endpoint::Absent => silent.push(stream),
                    Endpoint::SaysNothingAtFirst => {
                        silent.push(stream);
                        endpoint = FOUND;
                    }
                }
            }
        });
    }
    Client::new(found, None, None)
}

fn running<T>(asking: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(asking)
}

const FOUND: Endpoint = Endpoint::Says(
    200,
    r#"{"header":{"revision":"9"},"kvs":[{"key":"aw==","mod_revision":"7","value":"aGVsbG8="}]}"#,
);
const CHANGED: Endpoint = Endpoint::Says(
    200,
    r#"{"header":{"revision":"9"},"responses":[{"response_range":{"kvs":[{"mod_revision":"7","value":"aGVsbG8="}]}}]}"#,
);
const NO_LEADER: Endpoint = Endpoint::Says(
    503,
    r#"{"error":"etcdserver: no leader","message":"etcdserver: no leader","code":14}"#,
);
const FULL: Endpoint =
    Endpoint::Says(429, r#"{"error":"etcdserver: mvcc: database space exceeded","code":8}"#);
const UNKNOWN_USER: Endpoint =
    Endpoint::Says(400, r#"{"error":"etcdserver: user name is empty","code":3}"#);

#[test]
fn whoever_answers_is_believed_and_whoever_does_not_is_not_waited_for() {
    running(async {
        for others in [Endpoint::SaysNothing, Endpoint::Absent, NO_LEADER] {
            let client = client(&[others, FOUND]).await;
            for _ in 0..3 {
                let began = Instant::now();
                let found = client.get("k", WITHIN).await.unwrap().unwrap();
                assert_eq!((found.value.as_str(), found.revision), ("hello", 7));
                assert!(began.elapsed() < WITHIN * 3 / 4);
            }
        }
    });
}

#[test]
fn a_connection_serves_many_questions() {
    running(async {
        let client = client(&[FOUND]).await;
        for _ in 0..100 {
            client.get("k", WITHIN).await.unwrap();
        }
    });
}

#[test]
fn without_a_majority_it_says_who_was_asked_in_time() {
    running(async {
        let client = client(&[Endpoint::SaysNothing, Endpoint::Absent, NO_LEADER]).await;
        let within = Duration::from_millis(200);
        let began = Instant::now();
        let error = client.get("k", within).await.unwrap_err();
        assert!(began.elapsed() < within * 3, "{:?}", began.elapsed());
        assert!(error.is_no_quorum());
        let text = error.to_string();
        for cause in ["does not answer", "refused", "no leader"] {
            assert!(text.contains(cause), "{text}");
        }
        assert_eq!((text.lines().count(), text.matches("http://127.0.0.1:").count()), (1, 3));
    });
}

/// A leader that dies takes with it what was on its way there.
#[test]
fn whoever_lost_a_question_is_asked_again() {
    running(async {
        let client = client(&[Endpoint::SaysNothingAtFirst]).await;
        client.get("k", Duration::from_secs(1)).await.unwrap();
    });
}

#[test]
fn a_refusal_is_not_asked_for_twice() {
    running(async {
        let error = client(&[FULL, FOUND]).await.get("k", WITHIN).await.unwrap_err();
        assert!(matches!(error, EtcdError::Refused(_)), "{error}");
        let error = client(&[UNKNOWN_USER, FOUND]).await.get("k", WITHIN).await.unwrap_err();
        assert!(matches!(error, EtcdError::Credentials(_)), "{error}");
    });
}

#[test]
fn what_is_there_and_ours_was_put_by_us() {
    running(async {
        let client = client(&[CHANGED]).await;
        let put = async |value| client.put_if("k", Expected::At(3), value, WITHIN).await.unwrap();
        assert_eq!(put("hello").await, Written::Done { revision: 7 });
        let now = Some(Pair { value: "hello".to_owned(), revision: 7 });
        assert_eq!(put("other").await, Written::Changed { now });
    });
}
