//! What the benches share: containers, what the kernel says of processes, numbers and how they are shown.

pub(crate) mod container;
pub(crate) mod image;
pub(crate) mod numbers;
pub(crate) mod process;

/// The bench's own setting of that name; an empty one counts as unset.
#[expect(clippy::disallowed_methods, reason = "a bench's own settings")]
pub(crate) fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A setting that is a number, or this one.
pub(crate) fn number(name: &str, otherwise: u32) -> u32 {
    setting(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Whether `BENCH_ONLY` names this part, or none at all.
pub(crate) fn wanted(part: &str) -> bool {
    setting("BENCH_ONLY").is_none_or(|only| only.split(',').any(|one| one == part))
}
