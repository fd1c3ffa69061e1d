//! A real server, a real directory as barman leaves it, and the real client.

use super::*;
use crate::barman::{fetch_wal, latest_backups, write_sources};
use crate::cluster::{Address, Lsn};
use crate::layout::Layout;
use crate::system::download;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::net::TcpListener;
use tokio::sync::watch;

const SEGMENT: &str = "000000010000000000000003";

fn here(port: u16) -> download::Node<'static> {
    download::Node { host: "127.0.0.1", port, tls: None }
}

/// barman's directory, and a node that answers for it.
struct Stand {
    directory: PathBuf,
    settings: Settings,
    port: u16,
}

impl Stand {
    async fn new() -> Stand {
        static STANDS: AtomicU32 = AtomicU32::new(0);
        let number = STANDS.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("pgherd-archive-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let variables = [
            ("BARMAN_BACKUP_DIR", directory.display().to_string()),
            ("PGHERD_CONTROL_TOKEN", "open sesame".to_owned()),
            ("PGHERD_HTTP_PORT", port.to_string()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        let settings = crate::settings::read(variables, |path| fs::read_to_string(path)).unwrap();
        let archived = Archived::of(&settings, &Account::current()).unwrap();
        let snapshot = serde_json::from_str(super::super::tests::SNAPSHOT).unwrap();
        let (_, snapshots) = watch::channel(snapshot);
        let wishes = super::super::Wishes::new(&settings, None, tokio::sync::mpsc::channel(1).0);
        let door = super::super::Door { listener, tls: None };
        tokio::spawn(super::super::serve(door, snapshots, Some(archived), wishes, None));
        Stand { directory, settings, port }
    }

    fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.directory.join("pgherd").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    async fn get(&self, path: &str, token: &str) -> (u16, String) {
        let answer = download::get(here(self.port), path, token).await.unwrap();
        (answer.code, answer.text(100).await.unwrap())
    }

    /// What `pgherd wal fetch` would leave in a file.
    async fn fetched(&self, name: &str, with_partial: bool) -> Option<Vec<u8>> {
        let mut layout = Layout::new(&self.settings, 17, "/nowhere".into(), false);
        layout.archive_sources = self.directory.join("archive.json");
        fs::create_dir_all(&self.directory).unwrap();
        let own = Address { host: "node1".to_owned(), port: 5432 };
        let members = self.settings.members();
        write_sources(&self.settings, &layout, &own, &members, &Account::current()).unwrap();
        let path = self.directory.join("RECOVERYXLOG");
        let _ = fs::remove_file(&path);
        let fetched = fetch_wal(&layout.archive_sources, name, &path, with_partial).await.unwrap();
        assert_eq!(fetched, path.exists());
        assert!(!self.directory.join("RECOVERYXLOG.pgherd-part").exists());
        fetched.then(|| fs::read(&path).unwrap())
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn on_a_stand(test: impl AsyncFnOnce(Stand)) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(async { test(Stand::new().await).await });
}

#[test]
fn nothing_is_handed_out_without_the_token() {
    on_a_stand(async |stand| {
        stand.put(&format!("wals/0000000100000000/{SEGMENT}"), "wal");
        let path = format!("/archive/wal/{SEGMENT}");
        for token in ["", "open", "open sesam", "open sesame!", "OPEN SESAME"] {
            assert_eq!(stand.get(&path, token).await.0, 401, "{token:?}");
            assert_eq!(stand.get("/archive/backup/latest", token).await.0, 401, "{token:?}");
        }
        assert_eq!(stand.get(&path, "open sesame").await, (200, "wal".to_owned()));
        // Not a word about what is there to whom it does not concern.
        assert_eq!(stand.get("/archive/wal/000000010000000000000004", "x").await.0, 401);
    });
}

#[test]
fn a_segment_is_found_wherever_barman_has_it_and_a_part_only_when_asked_for() {
    on_a_stand(async |stand| {
        let content = vec![0xD1; 1 << 20];
        assert_eq!(stand.fetched(SEGMENT, true).await, None);
        stand.put(&format!("streaming/{SEGMENT}.partial"), "part");
        assert_eq!(stand.fetched(SEGMENT, false).await, None);
        assert_eq!(stand.fetched(SEGMENT, true).await.unwrap(), b"part");
        stand.put(&format!("streaming/{SEGMENT}"), "complete");
        assert_eq!(stand.fetched(SEGMENT, true).await.unwrap(), b"complete");
        stand.put(&format!("wals/0000000100000000/{SEGMENT}"), &content);
        assert!(stand.fetched(SEGMENT, false).await.unwrap() == content);
        stand.put("wals/00000002.history", "1\t0/5000\tno recovery target specified\n");
        assert!(stand.fetched("00000002.history", false).await.unwrap().starts_with(b"1\t0/5000"));
        assert_eq!(stand.fetched("00000003.history", false).await, None);
        assert_eq!(stand.fetched("../../../etc/passwd", true).await, None);
    });
}

#[test]
fn a_link_in_barman_s_directory_leads_nowhere() {
    on_a_stand(async |stand| {
        stand.put("wals/0000000100000000/x", "");
        let link = stand.directory.join("pgherd/wals/0000000100000000").join(SEGMENT);
        std::os::unix::fs::symlink("/etc/passwd", link).unwrap();
        let (code, _) = stand.get(&format!("/archive/wal/{SEGMENT}"), "open sesame").await;
        assert_eq!(code, 500);
    });
}

#[test]
fn a_node_that_cannot_be_asked_is_not_one_that_has_nothing() {
    on_a_stand(async |stand| {
        let (closed, list) = (TcpListener::bind(("127.0.0.1", 0)).await.unwrap(), "list.json");
        let port = closed.local_addr().unwrap().port();
        drop(closed);
        let ask = async |nodes: &str, token: &str| {
            let list = stand.directory.join(list);
            fs::create_dir_all(&stand.directory).unwrap();
            fs::write(&list, format!(r#"{{"token":"{token}","nodes":[{nodes}]}}"#)).unwrap();
            fetch_wal(&list, SEGMENT, &stand.directory.join("x"), false).await
        };
        let there = format!(r#"["127.0.0.1",{}]"#, stand.port);
        let away = format!(r#"["127.0.0.1",{port}]"#);
        assert!(!ask(&there, "open sesame").await.unwrap());
        let both = format!("{away},{there}");
        assert!(ask(&both, "open sesame").await.unwrap_err().to_string().contains("refused"));
        assert!(ask(&there, "wrong").await.unwrap_err().to_string().contains("401"));
        stand.put(&format!("wals/0000000100000000/{SEGMENT}"), "wal");
        assert!(ask(&both, "open sesame").await.unwrap(), "one that has it is enough");
    });
}

#[test]
fn the_newest_complete_backup_comes_as_a_tar_archive() {
    on_a_stand(async |stand| {
        let latest = "/archive/backup/latest";
        assert_eq!(stand.get(latest, "open sesame").await.0, 404);
        for (id, status) in [
            ("20260101T000000", "DONE"),
            ("20260102T000000", "DONE"),
            ("20260103T000000", "FAILED"),
        ] {
            let wal = "begin_xlog=0/2000028\nend_xlog=0/2000158\nsize=3145728";
            let info =
                format!("status={status}\nsystemid=77\ntimeline=3\n{wal}\ntablespaces=None\n");
            stand.put(&format!("meta/{id}-backup.info"), info);
            stand.put(&format!("base/{id}/data/PG_VERSION"), "17\n");
            stand.put(&format!("base/{id}/data/backup_label"), id);
            stand.put(&format!("base/{id}/data/base/1/1259"), vec![7; 3 << 20]);
        }
        let answer = download::get(here(stand.port), latest, "open sesame").await.unwrap();
        assert_eq!(answer.code, 200);
        assert_eq!(answer.header("pgherd-backup"), Some("20260102T000000"));
        assert_eq!(answer.header("pgherd-system"), Some("77"));
        assert_eq!(answer.header("pgherd-timeline"), Some("3"));
        drop(answer);
        let list = stand.directory.join("list.json");
        let nodes = format!(r#"["127.0.0.1",{}]"#, stand.port);
        fs::write(&list, format!(r#"{{"token":"open sesame","nodes":[{nodes}]}}"#)).unwrap();
        let mut offers = latest_backups(&list).await.unwrap();
        assert_eq!(offers.unclear, Vec::<String>::new());
        let offer = offers.backups.pop().unwrap();
        assert_eq!((offer.begin, offer.end), (Some(Lsn(0x2000028)), Some(Lsn(0x2000158))));
        let to = stand.directory.join("to");
        fs::create_dir(&to).unwrap();
        let mut told = Vec::new();
        let tell = |done, total| told.push((done, total));
        offer.unpack_into(&to, &Account::current(), tell).await.unwrap();
        assert!(told.iter().all(|(done, total)| done <= total));
        assert!(told.last().is_some_and(|(done, total)| done == total && *done > 3 << 20));
        assert_eq!(fs::read_to_string(to.join("backup_label")).unwrap(), "20260102T000000");
        assert_eq!(fs::metadata(to.join("base/1/1259")).unwrap().len(), 3 << 20);

        let tablespaces = "status=DONE\ntablespaces=[('a', 16384, '/srv/a')]\n";
        stand.put("meta/20260102T000000-backup.info", tablespaces);
        let offers = latest_backups(&list).await.unwrap();
        assert!(offers.backups.is_empty() && offers.unclear[0].contains("tablespaces"));
        let (code, words) = stand.get(latest, "open sesame").await;
        assert!(code == 409 && words.contains("tablespaces"), "{words}");
    });
}

/// A program that fails half-way, and a client that must notice.
#[test]
fn an_answer_that_is_not_all_there_is_cut_off() {
    on_a_stand(async |stand| {
        let connection =
            Connection { certified: None, peer: ([127, 0, 0, 1], 1).into(), marks: Arc::default() };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let missing = stand.directory.join("missing");
        let half = async move || {
            let turn = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
            let tar = crate::system::child::Program::new("tar");
            let tar = tar.args(["-cC", "/etc", "passwd"]).arg(missing).stream().unwrap();
            streamed(&connection, turn, Source::Program(tar))
        };
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = hyper_util::rt::TokioIo::new(stream);
            let service = hyper::service::service_fn(move |_| {
                let half = half.clone();
                async move { Ok::<_, std::convert::Infallible>(half().await) }
            });
            let _ =
                hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
        });
        let answer = download::get(here(port), "/", "x").await.unwrap();
        let error = answer.text(1 << 20).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
    });
}

#[test]
fn another_archive_is_asked_for_by_its_name_and_nothing_else_is_one() {
    on_a_stand(async |stand| {
        let other = stand.directory.join("pgherd.2/wals/0000000100000000");
        fs::create_dir_all(&other).unwrap();
        fs::write(other.join(SEGMENT), "another history").unwrap();
        let get = async |of: &str| {
            stand.get(&format!("/archive/wal/{SEGMENT}?of={of}"), "open sesame").await
        };
        assert_eq!(get("pgherd.2").await, (200, "another history".to_owned()));
        for of in ["pgherd", "pgherd.3", "..", ".", "pgherd%2F..%2Fpgherd.2", "%2Fetc", ".pgherd"] {
            assert_eq!(get(of).await.0, 404, "{of}");
        }
        // barman archives the last file of a timeline so.
        stand.put(&format!("wals/0000000100000000/{SEGMENT}.partial"), "the end");
        assert_eq!(stand.fetched(SEGMENT, false).await, None);
        assert_eq!(stand.fetched(SEGMENT, true).await.unwrap(), b"the end");
        assert_eq!(stand.get("/archive/backups", "open").await.0, 401);
        let (code, all) = stand.get("/archive/backups", "open sesame").await;
        assert!(code == 200 && all.starts_with("[{\"name\":\"pgherd.2\""), "{all}");
        assert_eq!(stand.get("/archive/backup/..?of=pgherd", "open sesame").await.0, 404);
    });
}
