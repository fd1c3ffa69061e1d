//! Where copies of backups go: `s3://bucket/path`, and who answers for it.

use super::Expected;
use serde::{Deserialize, Serialize};

/// `BARMAN_CLOUD_URL`: a word on the command lines of barman's tools, without a slash at its end.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct CloudUrl(pub(in crate::settings) String);

impl TryFrom<String> for CloudUrl {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let expected = "s3://BUCKET or s3://BUCKET/PATH";
        let rest = text.strip_prefix("s3://").ok_or(expected)?.trim_end_matches('/');
        let mut words = rest.split('/');
        let bucket = words.next().unwrap_or_default();
        // Old ones may have capitals and underscores, too.
        let in_bucket = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_bucket = (3..=63).contains(&bucket.len())
            && bucket.starts_with(|c: char| c.is_ascii_alphanumeric())
            && bucket.chars().all(in_bucket);
        // What a URL gives no other meaning.
        let in_path = |c: char| c.is_ascii_alphanumeric() || "-_.~+=".contains(c);
        let is_word = |word: &str| !matches!(word, "" | "." | "..") && word.chars().all(in_path);
        match is_bucket && words.all(is_word) {
            true => Ok(CloudUrl(format!("s3://{rest}"))),
            false => Err(expected),
        }
    }
}

/// `BARMAN_CLOUD_ENDPOINT_URL`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct EndpointUrl(pub(in crate::settings) String);

impl TryFrom<String> for EndpointUrl {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:/[]~".contains(c);
        let is_host = |rest: &&str| {
            rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
                && rest.chars().all(fits)
        };
        rest.filter(is_host).ok_or(
            "http://host:port or https://host:port (the keys go to BARMAN_CLOUD_ACCESS_KEY and \
             BARMAN_CLOUD_SECRET_KEY)",
        )?;
        Ok(EndpointUrl(text.trim_end_matches('/').to_owned()))
    }
}
