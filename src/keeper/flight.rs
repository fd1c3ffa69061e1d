//! A question to etcd that is under way, and what comes of it.

use crate::etcd::{self, EtcdError, Expected, Pair, Written};
use crate::lead::{Desire, Desired, Record, Revision};
use std::time::Duration;
use tokio::time::timeout;

/// The keys of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) lead: String,
    pub(super) desired: String,
}

impl Keys {
    pub(super) fn of(cluster: &str) -> Self {
        Keys {
            lead: format!("/pgherd/{cluster}/lead"),
            desired: format!("/pgherd/{cluster}/desired"),
        }
    }
}

/// A record at its revision; none where nobody has led yet.
pub(super) type Read = Option<(Revision, Record)>;

/// What a question was about, with what came of it.
pub(super) enum Landed {
    /// The record, and what people asked for.
    Looked(Result<(Read, Desired), String>),
    /// The holder's change of the record.
    Tried(Wrote),
    /// The taking.
    Took(Wrote),
    /// What a person asked for.
    Desired(Result<Came, String>),
}

/// What came of a wish.
pub(super) enum Came {
    /// It stands there, with all else that people asked for.
    Stands(Desired),
    /// Nobody could lead then.
    Refused,
    /// Others were sooner, each time.
    Late,
}

/// What came of a compare-and-swap.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is short-lived")]
pub(super) enum Wrote {
    Done(Revision),
    Changed(Read),
    /// It may have been done, or may be done yet.
    Unknown(String),
}

pub(super) async fn look(client: etcd::Client, keys: Keys, within: Duration) -> Landed {
    let asked = async {
        let (lead, desired) = futures_util::future::join(
            client.get(&keys.lead, within),
            client.get(&keys.desired, within),
        )
        .await;
        let lead = lead.map_err(|error| error.to_string())?;
        let read = lead.map(read);
        let desired = desired.map_err(|error| error.to_string())?;
        Ok((read.transpose()?, self::desired(desired.as_ref())))
    };
    Landed::Looked(asked.await)
}

pub(super) async fn write(
    client: etcd::Client,
    keys: Keys,
    expected: Expected,
    record: Record,
    within: Duration,
) -> Wrote {
    let text = serde_json::to_string(&record).expect("its keys are texts");
    match client.put_if(&keys.lead, expected, &text, within).await {
        Ok(Written::Done { revision }) => Wrote::Done(revision.cast_unsigned()),
        Ok(Written::Changed { now }) => match now.map(read).transpose() {
            Ok(read) => Wrote::Changed(read),
            Err(why) => Wrote::Unknown(why),
        },
        Err(error) => Wrote::Unknown(error.to_string()),
    }
}

pub(super) async fn desire(
    client: etcd::Client,
    keys: Keys,
    desire: Desire,
    within: Duration,
) -> Landed {
    let asked = async {
        let mut now = client.get(&keys.desired, within).await?;
        for _ in 0..WISHES_AT_ONCE_MAX {
            let before = desired(now.as_ref());
            if !before.allows(&desire) {
                return Ok(Came::Refused);
            }
            let desired = before.with(&desire);
            let text = serde_json::to_string(&desired).expect("its keys are texts");
            let expected = now.as_ref().map_or(Expected::Absent, |now| Expected::At(now.revision));
            match client.put_if(&keys.desired, expected, &text, within).await? {
                Written::Done { .. } => return Ok(Came::Stands(desired)),
                Written::Changed { now: instead } => now = instead,
            }
        }
        Ok(Came::Late)
    };
    // Renewals wait for it, and must not wait long.
    Landed::Desired(match timeout(within, asked).await {
        Ok(said) => said.map_err(|error: EtcdError| error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", within.as_millis())),
    })
}

/// People ask for one thing after another; in between, another node's word may come first.
const WISHES_AT_ONCE_MAX: usize = 8;

fn desired(pair: Option<&Pair>) -> Desired {
    pair.and_then(|pair| serde_json::from_str(&pair.value).ok()).unwrap_or_default()
}

fn read(pair: Pair) -> Result<(Revision, Record), String> {
    serde_json::from_str(&pair.value)
        .map(|record| (pair.revision.cast_unsigned(), record))
        .map_err(|error| format!("the record in etcd is not one of ours: {error}"))
}
