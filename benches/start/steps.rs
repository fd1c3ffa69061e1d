//! Where the time goes: pgherd's own account, which it gives where `PGHERD_LOG=debug`.

use crate::Bench;
use crate::common::container::{Container, serves};
use crate::common::numbers::Sample;
use std::time::{Duration, Instant};

/// The last step of every start that is looked at here.
const LAST: &str = "keep repmgrd running";
/// Each round takes long and the steps' order of magnitude is what is looked for.
const ROUNDS_AT_MOST: usize = 5;

/// Each step of a start with what it took, in their order.
#[derive(Debug, Default)]
pub(crate) struct Steps(Vec<(String, Sample)>);

impl Steps {
    /// Waits until the start is through whose log begins after so many lines, adds its steps, and
    /// returns where the log ends.
    pub(crate) fn add(&mut self, container: &Container, after: usize) -> usize {
        await_log(container, LAST, after);
        let log = container.log();
        let steps = log.lines().skip(after).filter_map(|line| {
            let (_, rest) = line.split_once(" took ")?;
            let (ms, step) = rest.split_once(" ms: ")?;
            Some((ms.parse::<f64>().ok()?, step.to_owned()))
        });
        for (at, (ms, step)) in steps.enumerate() {
            if self.0.len() == at {
                self.0.push((step, Sample::default()));
            }
            self.0[at].1.add(ms);
        }
        log.lines().count()
    }

    pub(crate) fn show(&self, title: &str) {
        println!("\nSteps of {title}, ms");
        self.0.iter().for_each(|(step, sample)| println!("  {sample:<28} {step}"));
    }
}

impl Bench {
    /// Of a master.
    pub(crate) fn steps(&self, rounds: usize) {
        let (mut first_start, mut restart) = (Steps::default(), Steps::default());
        for _ in 0..rounds.min(ROUNDS_AT_MOST) {
            let pgherd = self.container(&["-e", "PGHERD_LOG=debug"], &[]);
            let mut lines = 0;
            for into in [&mut first_start, &mut restart] {
                pgherd.start_to(&self.runtime, serves("app"));
                into.add(&pgherd, lines);
                pgherd.stop("TERM");
                lines = pgherd.log().lines().count();
            }
        }
        first_start.show("a first start");
        restart.show("a restart");
    }
}

fn await_log(container: &Container, text: &str, after: usize) {
    let began = Instant::now();
    let done = || container.log().lines().skip(after).any(|line| line.contains(text));
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "no end: {}", container.log());
        std::thread::park_timeout(Duration::from_millis(50));
    }
}
