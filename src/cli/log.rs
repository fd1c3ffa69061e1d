//! Our own lines in the container's log, in the form that the services' lines have.

use super::run::format;
use crate::settings::Settings;
use crate::system::output::{Format, OutputHandle};
use std::fmt::{self, Write};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What of our own is logged: `PGHERD_LOG`.
pub(super) fn filter(settings: &Settings) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(&settings.herd.log_filter).map_err(|error| {
        format!(
            "PGHERD_LOG is `{}`, and that is no filter ({error}); write a level (error, warn, info, \
             debug, trace) or a list such as info,pgherd::execute=debug",
            settings.herd.log_filter
        )
    })
}

/// From here on everything that is logged goes to `output`.
pub(super) fn begin(settings: &Settings, output: OutputHandle) -> Result<(), String> {
    tracing_subscriber::fmt()
        .with_env_filter(filter(settings)?)
        .event_format(Lines(format(settings)))
        .with_writer(output)
        .init();
    Ok(())
}

/// For what cron runs: its lines are tagged and dated by the node that reads them.
pub(super) fn begin_plainly() {
    tracing_subscriber::fmt().without_time().with_target(false).with_ansi(false).init();
}

/// A line an event: time, level, message.
struct Lines(Format);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut message = Message(String::new());
        event.record(&mut message);
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let level = event.metadata().level();
        match self.0 {
            Format::Text => writeln!(writer, "{time} {level:<5} {}", message.0),
            Format::Json => {
                let level = level.as_str().to_lowercase();
                let line = serde_json::Value::from(message.0);
                write!(writer, r#"{{"ts":"{time}","service":"pgherd","level":"{level}","line":"#)?;
                writeln!(writer, "{line}}}")
            }
        }
    }
}

/// The message, and whatever fields a library's event has beside it.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
        written.expect("a String takes everything");
    }
}
