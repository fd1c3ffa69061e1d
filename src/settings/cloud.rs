//! Where copies of backups go: `BARMAN_CLOUD_*`, all of it together.

use super::input::Input;
use super::values::{CloudUrl, Source};
use super::{Problem, Secret};

/// A place of S3's kind, in which each of barman's directories has one of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudSettings {
    /// `s3://bucket/path`. `BARMAN_CLOUD_URL`.
    pub url: String,
    /// Who answers for it, where that is not Amazon. `BARMAN_CLOUD_ENDPOINT_URL`.
    pub endpoint: Option<String>,
    /// The key's name, and the key; without them whatever Amazon's own library finds.
    /// `BARMAN_CLOUD_ACCESS_KEY`, `BARMAN_CLOUD_SECRET_KEY`.
    pub keys: Option<(String, Secret)>,
}

/// What does not go together, as far as the variables could be read.
pub(super) fn problem(input: &Input, unread: &[Problem]) -> Option<Problem> {
    const KEYS: [&str; 2] = ["BARMAN_CLOUD_ACCESS_KEY", "BARMAN_CLOUD_SECRET_KEY"];
    let is_unread = |variable: &str| unread.iter().any(|problem| problem.is_about(variable));
    let given = [
        input.barman_cloud_access_key.is_some(),
        input.barman_cloud_secret_key.is_some(),
        input.barman_cloud_endpoint_url.is_some(),
    ];
    let restores = matches!(input.restore_source, Some(Source::Cloud(_)));
    let missing = |given: &str, missing: &str, why: &str| {
        let message = format!("is given, and {missing} is not: {why}");
        (!is_unread(missing)).then(|| Problem::new(given, message))
    };
    match given {
        [true, false, _] => missing(KEYS[0], KEYS[1], "the two belong together."),
        [false, true, _] => missing(KEYS[1], KEYS[0], "the two belong together."),
        [has_keys, _, has_endpoint] if input.barman_cloud_url.is_none() && !restores => {
            let given = match (has_endpoint, has_keys) {
                (true, _) => "BARMAN_CLOUD_ENDPOINT_URL",
                (false, true) => KEYS[0],
                (false, false) => return None,
            };
            missing(given, "BARMAN_CLOUD_URL", "it says where copies of the backups go.")
        }
        [..] => None,
    }
}

pub(super) fn meant(input: &Input) -> Option<CloudSettings> {
    Some(at(input.barman_cloud_url.clone()?, input))
}

/// The same keys are for every place.
pub(super) fn at(CloudUrl(url): CloudUrl, input: &Input) -> CloudSettings {
    let key = input.barman_cloud_access_key.clone().map(|key| key.0);
    CloudSettings {
        url,
        endpoint: input.barman_cloud_endpoint_url.clone().map(|url| url.0),
        keys: key.zip(input.barman_cloud_secret_key.clone()),
    }
}
