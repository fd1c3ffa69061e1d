//! Our own lines in the container's log, in the form that the services' lines have.

use super::run::format;
use crate::settings::Settings;
use crate::system::output::{Format, OutputHandle, Stream, Tag};
use std::fmt::{self, Write};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What is still in the queue gets so long to be read, at the very end.
pub(super) const FLUSH_AT_MOST: Duration = Duration::from_secs(2);

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

/// From here on a panic, in whichever task, is said and ends this process. Without one of its tasks
/// the node would go on in a state that nobody thought of; the init half stops Postgres in order.
pub(super) fn abort_on_panic(output: OutputHandle) {
    std::panic::set_hook(Box::new(move |panic| {
        let said = format!("panic, which is a mistake in pgherd; the container stops: {panic}");
        for line in said.lines() {
            output.line(&Tag::pgherd(), Stream::Stderr, line.as_bytes());
        }
        output.flush_and_close(FLUSH_AT_MOST);
        let _ = nix::sys::prctl::set_dumpable(false); // A core would have the passwords in it.
        std::process::abort();
    }));
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    /// Says to the test below that it is the process that panics.
    const PANICS: &str = "PGHERD_TEST_PANICS";

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test starts itself from outside")]
    fn a_panic_in_any_task_is_said_and_ends_the_process() {
        if std::env::var(PANICS).is_ok() {
            abort_on_panic(OutputHandle::to_stdio(Format::Text).unwrap());
            crate::cli::runtime().block_on(async {
                tokio::spawn(async { panic!("as the test wants it") });
                std::future::pending::<()>().await;
            });
        }
        let this = std::env::current_exe().unwrap();
        let mut panics = std::process::Command::new(this);
        let name = "cli::log::tests::a_panic_in_any_task_is_said_and_ends_the_process";
        let ended = panics.args(["--exact", name, "--nocapture"]).env(PANICS, "1").output();
        let ended = ended.unwrap();
        assert_eq!(ended.status.signal(), Some(nix::libc::SIGABRT));
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(said.contains("pgherd | panic, which is a mistake in pgherd"), "{said}");
        assert!(said.contains("pgherd | as the test wants it"), "{said}");
    }
}
