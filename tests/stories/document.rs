//! What the scenario document says, and what a log or a plan makes of it.

/// A copy of it; another test sees to it that it stays one.
const DOCUMENT: &str = include_str!("../golden/scenarios.md");

/// A section's numbered lines, without their numbers (it counts two of them "3.").
pub(crate) fn lines_of(section: &str) -> Vec<String> {
    let mut sections = DOCUMENT.split("\n## ");
    let found = sections.find(|text| text.lines().next() == Some(section)).expect("it is there");
    let line = |line: &str| {
        let (number, title) = line.split_once(". ")?;
        number.parse::<u8>().ok()?;
        Some(title.trim().replace("\\_", "_"))
    };
    found.lines().filter_map(line).collect()
}

/// The stages that the log tells of, as `(number, of, title)`.
pub(crate) fn stages_in(log: &str) -> Vec<(usize, usize, String)> {
    let stage = |line: &str| {
        let (counter, title) = line.split_once(" INFO  ")?.1.split_once(' ')?;
        let (number, of) = counter.split_once('/')?;
        Some((number.parse().ok()?, of.parse().ok()?, title.to_owned()))
    };
    log.lines().filter_map(stage).collect()
}

/// A printed plan's stages, as `(number, title)`.
pub(crate) fn stages_of(plan: &str) -> Vec<(usize, String)> {
    let is_stage = |line: &&str| line.starts_with("  ") && !line.starts_with("     ");
    let stage = |line: &str| {
        let (number, title) = line.split_once(". ")?;
        Some((number.trim().parse().ok()?, title.to_owned()))
    };
    plan.lines().filter(is_stage).filter_map(stage).collect()
}
