//! For how long nobody takes a write, by what befalls the primary.

use crate::asked::{Load, Over};
use crate::cluster::{Cluster, Kind};
use crate::common::container::{PLACES, docker};
use crate::common::numbers::{Sample, aim, table};
use crate::common::wanted;
use crate::prober::Prober;
use crate::record::Record;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// As long as one that was thawed is watched, and every other after the change: it could err.
const WATCHED_FOR: Duration = Duration::from_secs(3);
/// More than can have been on their way when it was killed.
const ROWS_AFTERWARDS: usize = 50;

/// What befalls the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Its container: every process at once, etcd's too.
    Killed,
    /// The same while each node is asked a thousand times a second whether it leads.
    Asked,
    /// Every process, and its connections stay open. It is thawed when another leads.
    Frozen,
    /// The server alone.
    Postmaster,
    /// A person wishes it.
    Switchover,
    /// `docker stop`.
    Stop,
}

const PARTS: [Part; 6] =
    [Part::Killed, Part::Asked, Part::Frozen, Part::Postmaster, Part::Switchover, Part::Stop];

/// Those that are wanted. A shorter lease changes nothing where there is no lease to wait for.
pub(crate) fn parts_of(kind: Kind) -> impl Iterator<Item = Part> {
    let matters = move |part: &Part| match part {
        Part::Killed | Part::Frozen => true,
        Part::Asked => kind == Kind::Pgherd,
        Part::Postmaster | Part::Switchover | Part::Stop => kind != Kind::ShortLease,
    };
    PARTS.into_iter().filter(|part| wanted(part.word())).filter(matters)
}

impl Part {
    fn word(self) -> &'static str {
        match self {
            Part::Killed => "killed",
            Part::Asked => "asked",
            Part::Frozen => "frozen",
            Part::Postmaster => "postmaster",
            Part::Switchover => "switchover",
            Part::Stop => "stop",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Part::Killed => "Primary's container killed to the first write elsewhere, ms",
            Part::Asked => "The same while each node is asked 1,000 times a second, ms",
            Part::Frozen => "Primary frozen to the first write elsewhere, ms",
            Part::Postmaster => "Postmaster killed to the first write anywhere, ms",
            Part::Switchover => "Switchover: longest time without a write, ms",
            Part::Stop => "docker stop of the primary: longest time without a write, ms",
        }
    }

    /// Seconds at most.
    fn aim(self, kind: Kind) -> Option<f64> {
        match (self, kind) {
            (Part::Killed | Part::Asked | Part::Frozen, Kind::Pgherd) => Some(4.0 + 1.0), // The lease, and one.
            (Part::Killed | Part::Asked | Part::Frozen, Kind::ShortLease) => Some(3.5),
            (Part::Postmaster, Kind::Pgherd) => Some(1.5),
            (Part::Switchover | Part::Stop, Kind::Pgherd) => Some(0.3),
            (_, Kind::Patroni | Kind::ShortLease) => None,
        }
    }
}

/// In ms, and all that should not have been.
#[derive(Debug, Default)]
pub(crate) struct Outages(BTreeMap<(Part, Kind), (Sample, Wrong)>);

/// What Patroni is told about, and pgherd fails for.
#[derive(Debug, Default)]
struct Wrong {
    /// Rows that were acknowledged and are not there.
    missing: usize,
    /// Writes of a primary that was thawed, after another had taken some.
    after_thaw: usize,
    overlaps: Vec<String>,
}

impl Outages {
    /// So many rounds of it.
    pub(crate) fn measure(&mut self, cluster: &Cluster<'_>, part: Part, rounds: usize) {
        let mut primary = cluster.await_rest();
        for _ in 0..rounds {
            let prober = cluster.probe();
            befall(cluster, part, primary, &prober);
            let record = prober.end(&cluster.next_row);
            match part {
                Part::Killed | Part::Asked | Part::Stop => cluster.nodes[primary].start(),
                // Or the next one would measure how long who crashes again and again is made to wait.
                Part::Postmaster => drop(docker(&["restart", cluster.nodes[primary].id()])),
                Part::Frozen | Part::Switchover => {}
            }
            let took = match part {
                Part::Killed | Part::Asked | Part::Frozen => record.until_elsewhere(primary),
                Part::Postmaster | Part::Switchover | Part::Stop => Some(record.longest_gap()),
            };
            let took = took.expect("the prober has seen who took its rows");
            println!("  {}, {}: {} ms", cluster.kind.name(), part.word(), took.as_millis());
            let victim = primary;
            primary = cluster.await_rest();
            let (sample, wrong) = self.0.entry((part, cluster.kind)).or_default();
            sample.add(took.as_secs_f64() * 1e3);
            if wrong.add(&record, victim, &rows(cluster, primary, &record)) {
                keep_logs(cluster, part);
            }
            if cluster.kind != Kind::Patroni {
                let Wrong { missing, after_thaw, overlaps } = wrong;
                assert!(overlaps.is_empty(), "two took writes: {overlaps:?}");
                assert_eq!((*missing, *after_thaw), (0, 0), "rows missing, taken after the thaw");
            }
        }
    }

    pub(crate) fn show(&self) {
        for part in PARTS {
            let of_part = |kind: Kind| self.0.get(&(part, kind)).map(|found| (kind, found));
            let found: Vec<_> = Kind::ALL.into_iter().filter_map(of_part).collect();
            if found.is_empty() {
                continue;
            }
            let row =
                |(kind, (sample, _)): &(Kind, &(Sample, Wrong))| (kind.name(), sample.clone());
            let rows: Vec<_> = found.iter().map(row).collect();
            table(part.title(), Kind::Patroni.name(), &rows);
            let patronis = self.0.get(&(part, Kind::Patroni)).map(|(sample, _)| sample.median());
            for (kind, (sample, wrong)) in found {
                if let Some(at_most) = part.aim(kind) {
                    aim(kind.name(), sample.median() / 1e3, at_most, "s");
                    if let Some(patronis) = patronis
                        && matches!(part, Part::Killed | Part::Frozen)
                    {
                        let what = format!("{} beside Patroni", kind.name());
                        aim(&what, sample.median() / patronis, 0.25, "×");
                    }
                }
                wrong.show(kind);
            }
        }
    }
}

impl Wrong {
    /// Whether there was anything.
    fn add(&mut self, record: &Record, victim: usize, there: &BTreeSet<i64>) -> bool {
        let (missing, after_thaw) = (record.missing(there), record.taken_after_another(victim));
        let overlaps = record.two_at_once();
        let is_wrong = missing + after_thaw + overlaps.len() > 0;
        self.missing += missing;
        self.after_thaw += after_thaw;
        self.overlaps.extend(overlaps);
        is_wrong
    }

    fn show(&self, kind: Kind) {
        let Wrong { missing, after_thaw, overlaps } = self;
        println!(
            "  {}: {missing} acknowledged rows missing, {after_thaw} taken by the old primary after \
             the new one's first, {} overlaps",
            kind.name(),
            overlaps.len()
        );
        overlaps.iter().for_each(|overlap| println!("    {overlap}"));
    }
}

/// For whoever wants to know how it came about: the containers will be gone.
fn keep_logs(cluster: &Cluster<'_>, part: Part) {
    for (place, node) in PLACES.iter().zip(&cluster.nodes) {
        let name = format!("failover-{}-{}-{}.log", cluster.kind.word(), part.word(), place.name);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, node.log()).expect("there is room below target/");
        println!("  what {} said is in {}", place.name, path.display());
    }
}

/// Returns when it is over and has been watched for a while.
fn befall(cluster: &Cluster<'_>, part: Part, primary: usize, prober: &Prober) {
    let container = &cluster.nodes[primary];
    match part {
        Part::Asked => {
            let load: Vec<_> =
                (0..cluster.nodes.len()).map(|node| Load::on(node, Over::OneEach)).collect();
            load[primary].await_answers();
            befall(cluster, Part::Killed, primary, prober);
        }
        Part::Killed => {
            // What `docker kill` does in the end: a namespace dies with its first process.
            kill_at_once(container.pid());
            docker(&["wait", container.id()]);
            prober.await_elsewhere(primary);
        }
        Part::Frozen => {
            docker(&["pause", container.id()]);
            prober.await_elsewhere(primary);
            docker(&["unpause", container.id()]);
        }
        Part::Postmaster => {
            kill_at_once(cluster.postmaster(primary));
            prober.await_rows(ROWS_AFTERWARDS);
        }
        Part::Switchover => {
            cluster.switch_over(primary);
            prober.await_elsewhere(primary);
        }
        Part::Stop => {
            docker(&["stop", "-t", "60", container.id()]);
            prober.await_elsewhere(primary);
        }
    }
    prober.goes_on_for(WATCHED_FOR);
}

fn kill_at_once(pid: u32) {
    let pid = Pid::from_raw(pid.try_into().expect("a process' number"));
    kill(pid, Signal::SIGKILL).expect("the bench runs as root, and the process is there");
}

/// What there is of the rows that the prober wrote.
fn rows(cluster: &Cluster<'_>, primary: usize, record: &Record) -> BTreeSet<i64> {
    let since = record.first_number();
    let query = format!("SELECT number FROM written WHERE number >= {since}");
    let rows = cluster.nodes[primary].sql(&query);
    rows.lines().map(|row| row.parse().expect("a number")).collect()
}
