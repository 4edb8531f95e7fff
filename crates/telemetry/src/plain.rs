//! Lines as tracing-subscriber writes them, without colours.
//!
//! Every request is a line, and the library's formatter, which asks of each part whether to colour it, took a tenth of what a small
//! request costs.

use std::fmt::{self, Debug};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields, format,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

/// Formats events and the fields of spans.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plain;

impl<S> FormatEvent<S, Plain> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, Plain>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        // Of libraries that log in the old way: they keep their real target among the fields.
        if metadata.target() == "log" {
            return format().with_ansi(false).format_event(context, writer, event);
        }
        SystemTime.format_time(&mut writer)?;
        writer.write_str(match *metadata.level() {
            Level::ERROR => " ERROR ",
            Level::WARN => "  WARN ",
            Level::INFO => "  INFO ",
            Level::DEBUG => " DEBUG ",
            Level::TRACE => " TRACE ",
        })?;
        if let Some(scope) = context.event_scope() {
            for span in scope.from_root() {
                writer.write_str(span.name())?;
                if let Some(fields) = span.extensions().get::<FormattedFields<Self>>()
                    && !fields.is_empty()
                {
                    writer.write_char('{')?;
                    writer.write_str(fields)?;
                    writer.write_char('}')?;
                }
                writer.write_char(':')?;
            }
            writer.write_char(' ')?;
        }
        writer.write_str(metadata.target())?;
        writer.write_str(": ")?;
        self.format_fields(writer.by_ref(), event)?;
        writer.write_char('\n')
    }
}

impl<'writer> FormatFields<'writer> for Plain {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = Fields { writer, is_first: true, outcome: Ok(()) };
        fields.record(&mut visitor);
        visitor.outcome
    }
}

/// Writes `name=value` for each field, and the message as it is.
struct Fields<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    outcome: fmt::Result,
}

impl Fields<'_> {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.outcome.is_ok() && !field.name().starts_with("log.") {
            self.outcome = self.name(field).and_then(|()| value(&mut self.writer));
        }
    }

    fn name(&mut self, field: &Field) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        match field.name() {
            "message" => Ok(()),
            name => {
                self.writer.write_str(name.trim_start_matches("r#"))?;
                self.writer.write_char('=')
            }
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write(field, |writer| write!(writer, "{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let is_message = field.name() == "message";
        // What Debug leaves as it is but for the quotation marks, which is nearly everything.
        let is_simple =
            value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\');
        self.write(field, |writer| match (is_message, is_simple) {
            (true, _) => writer.write_str(value),
            (false, false) => write!(writer, "{value:?}"),
            (false, true) => {
                writer.write_char('"')?;
                writer.write_str(value)?;
                writer.write_char('"')
            }
        });
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, |writer| writer.write_str(if value { "true" } else { "false" }));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing::{debug_span, error, info, info_span, trace, warn};
    use tracing_subscriber::{
        Layer, Registry, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    impl Lines {
        /// What `talk` makes a layer write, without the times.
        fn of<L: Layer<Registry> + Send + Sync>(
            layer: impl FnOnce(Self) -> L,
            talk: impl Fn(),
        ) -> Vec<String> {
            let lines = Self::default();
            let subscriber = tracing_subscriber::registry().with(layer(lines.clone()));
            let guard = subscriber.set_default();
            talk();
            drop(guard);
            let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
            text.lines().map(|line| line.split_once('Z').unwrap().1.to_owned()).collect()
        }
    }

    fn talk() {
        info!("a message alone");
        warn!(status = 404_u16, duration_ms = 0.25, is_new = true, "with {}", "arguments");
        let nobody = None::<&str>;
        error!(error = %io::Error::other("a \"quoted\" one"), nobody, name = "Zoë \\ \"x\"\n", debugged = ?[1, 2]);
        trace!(target: "elsewhere", r#type = "m.room.message", "the message is first");
        let outer = info_span!("request", endpoint = "sync").entered();
        info!("in a span");
        let _inner = debug_span!("inner", number = 7, late = tracing::field::Empty).entered();
        info!(a.b = -1, "in two");
        drop(outer);
        let _bare = info_span!("bare").entered();
        info!(message = "as a field", other = "x");
        log::info!(target: "tokio_postgres::connection", "in the {} way", "old");
    }

    #[test]
    fn lines_are_those_of_the_library() {
        use tracing_subscriber::fmt;

        let library = Lines::of(|lines| fmt::layer().with_ansi(false).with_writer(lines), talk);
        let ours =
            Lines::of(|lines| fmt::layer().fmt_fields(Plain).event_format(Plain).with_writer(lines), talk);
        assert_eq!(ours, library);
        assert_eq!(
            ours[1],
            "  WARN myelin_telemetry::plain::tests: with arguments status=404 duration_ms=0.25 is_new=true"
        );
        assert_eq!(ours.len(), 8);
    }
}
