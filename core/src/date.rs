//! Dates of the wire: ISO 8601 with a zone, microseconds, UTC written as `Z`. Reading the clock is the driver's business.

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A wall-clock moment to the microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(i64);

impl Date {
    /// `us` microseconds after 1970-01-01T00:00:00Z.
    pub const fn from_unix_us(us: i64) -> Date {
        Date(us)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub const fn as_unix_us(self) -> i64 {
        self.0
    }

    /// Reads a date and a time with a `T` or a blank between them (SQLite's files have either), `Z`, `±HH:MM` and `±HHMM` zones with up to
    /// nine decimals; without a zone the date counts as UTC, since a controller can not know the writer's. Anything else is `None`.
    pub fn parse(text: &str) -> Option<Date> {
        // A bare date or number is not a moment; cheap test before the parser.
        if text.len() < 16 || text.len() > 40 || !text.as_bytes()[..4].iter().all(u8::is_ascii_digit) {
            return None;
        }
        let with_zone = |text: &str| text.parse::<Timestamp>().ok();
        let moment = with_zone(text).or_else(|| text.is_ascii().then(|| with_zone(&format!("{text}Z")))?)?;
        Some(Date(moment.as_microsecond()))
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        static PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
        static WHOLE: DateTimePrinter = DateTimePrinter::new().precision(Some(0));
        let moment = Timestamp::from_microsecond(self.0).unwrap_or(if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX });
        let printer = if moment.subsec_microsecond() == 0 { &WHOLE } else { &PRINTER };
        printer.print_timestamp(&moment, jiff::fmt::StdFmtWrite(f)).map_err(|_| std::fmt::Error)
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Date::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("'{text}' is not an ISO 8601 date")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_and_written_as_python_does() {
        let text = "2026-11-21T03:01:46.239356Z";
        let date = Date::parse(text).unwrap();
        assert_eq!(date.to_string(), text);
        for same in [
            "2026-11-21T04:01:46.239356+01:00",
            "2026-11-21T04:01:46.239356+0100",
            "2026-11-21T03:01:46.239356",
            "2026-11-21 03:01:46.239356",
            "2026-11-21 03:01:46.2393560",
        ] {
            assert_eq!(Date::parse(same), Some(date), "{same}");
        }
        assert_eq!(Date::from_unix_us(1_000_000).to_string(), "1970-01-01T00:00:01Z");
        assert_eq!(Date::from_unix_us(500_000).to_string(), "1970-01-01T00:00:00.500000Z");
        for junk in ["", "2026-11-21", "soon, very soon indeed", "20262026202620262026", "2026-11-21T99:01:46Z"] {
            assert_eq!(Date::parse(junk), None, "{junk}");
        }
    }
}
