//! A member that is gone for good is taken out.

use super::{Hands, StepError};
use crate::cluster::NodeId;
use crate::etcd::{self, EtcdError};
use crate::repmgr;
use crate::system::error::chain;
use std::time::Duration;
use tracing::info;

/// A question to the voters.
const WITHIN: Duration = Duration::from_secs(3);

/// Who is to be taken out.
#[derive(Clone, Debug)]
pub(crate) struct Departed {
    /// `REPMGR_NODE_NAME`.
    pub(crate) name: String,
    /// repmgr's number, of one with data.
    pub(crate) id: Option<NodeId>,
    /// Where it was.
    pub(crate) host: String,
}

impl Hands {
    /// Afterwards the member has no vote, repmgr's records do not know it, and no WAL is kept for it. On the
    /// primary. Says what was done, or why not; then asking again goes on with the rest.
    pub(crate) async fn take_out(&self, member: &Departed) -> Result<String, String> {
        let votes = self
            .take_vote_of(&member.host)
            .await
            .map_err(|error| format!("the voters do not take its vote away: {}", chain(&error)))?;
        if let Some(id) = member.id {
            self.forget(id).await.map_err(|error| chain(&error))?;
        }
        let name = &member.name;
        info!("{name} was taken out of the cluster");
        Ok(match votes {
            None => format!("{name} is no member any more"),
            Some(left) => format!(
                "{name} is no member any more, and {left} voters are left: name three or five in \
                 PGHERD_VOTERS, the same on each node, and start the nodes again one after the other"
            ),
        })
    }

    async fn forget(&self, id: NodeId) -> Result<(), StepError> {
        let session = self.session("repmgr").await?;
        let forget = repmgr::forget_sql(id);
        session.run("take the node out of repmgr's records", &forget).await?;
        session.close().await;
        Ok(())
    }

    /// How many voters are left, if it was one of them, or would have been.
    async fn take_vote_of(&self, host: &str) -> Result<Option<usize>, EtcdError> {
        if self.settings.herd.voters.is_empty() {
            return Ok(None);
        }
        let Ok(Some(client)) = etcd::Client::of(&self.settings, &self.address) else {
            return Ok(None); // The operator's own, where nobody of ours votes.
        };
        let members = client.members(WITHIN).await?;
        let is_its = |url: &String| url.contains(&format!("//{host}:"));
        let (its, others): (Vec<_>, Vec<_>) =
            members.iter().partition(|member| member.peer_urls.iter().any(is_its));
        for member in &its {
            client.remove_member(member.id, WITHIN).await?;
        }
        Ok((!its.is_empty()).then_some(others.len()))
    }
}
