//! The settings in force, for `pgherd settings`.

use super::input::{Input, variables};
use super::secret::{HIDDEN, holds_secret};
use super::source::{Given, Origin};
use serde::Serialize;
use std::fmt;

/// Every variable in the order of the contract's tables. `Display` is a table with a heading,
/// `Serialize` an array of objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Listing(pub Vec<Listed>);

/// A variable, its value in force, and where that came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The variable's name.
    pub variable: &'static str,
    /// As understood, not as written (`yes` is `true`). Secrets are `***`; empty is unset.
    pub value: String,
    /// Where the value comes from.
    pub origin: Origin,
}

impl Listing {
    pub(super) fn new(input: &Input, given: &[Given]) -> Self {
        let origin = |variable| {
            let given = given.iter().find(|given| given.variable == variable);
            given.map_or(Origin::Default, |given| given.origin.clone())
        };
        let listed = |(variable, (_, value)): (&'static str, (String, String))| Listed {
            variable,
            value: if holds_secret(&value) { HIDDEN.to_owned() } else { value },
            origin: origin(variable),
        };
        Listing(variables().zip(input.rows()).map(listed).collect())
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: fn(&Listed) -> &str, heading: &str| {
            let widths = self.0.iter().map(|row| text(row).chars().count());
            widths.chain([heading.len()]).max().unwrap_or_default()
        };
        let variable_width = width(|row| row.variable, "VARIABLE");
        let value_width = width(|row| &row.value, "VALUE");

        write!(f, "{:variable_width$}  {:value_width$}  FROM", "VARIABLE", "VALUE")?;
        for Listed { variable, value, origin } in &self.0 {
            let value = match value.as_str() {
                "" => "-".to_owned(),
                // A line end may stand in quotes in initdb's arguments.
                _ => value.replace(char::is_control, " "),
            };
            write!(f, "\n{variable:variable_width$}  {value:value_width$}  {origin}")?;
        }
        Ok(())
    }
}
