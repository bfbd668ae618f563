//! Literals of Python in `c.Class.trait = literal` lines: numbers, strings, booleans, None, lists, tuples and dicts of them.
//! Nothing is evaluated: what is not a literal is not understood, and said so.

use serde_json::{Map, Value};

/// Parses one literal that fills `text` up to a comment; several with commas between them are a list, as they are a tuple in Python.
pub(super) fn parse(text: &str) -> Option<Value> {
    let mut parser = Parser { rest: text };
    let mut value = parser.value(0)?;
    parser.skip_space();
    if parser.take(",") {
        let mut items = vec![value];
        parser.skip_space();
        while !parser.rest.is_empty() {
            items.push(parser.value(0)?);
            parser.skip_space();
            if !parser.take(",") {
                break;
            }
            parser.skip_space();
        }
        value = Value::Array(items);
    }
    parser.rest.is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a str,
}

/// Deeper nesting than any setting has.
const MAX_DEPTH: u32 = 16;

impl<'a> Parser<'a> {
    /// Goes behind white space, comments, and ends of lines that are none.
    fn skip_space(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            let is_continued = |rest: &&str| rest.starts_with(['\r', '\n']);
            if self.rest.starts_with('#') {
                self.rest = &self.rest[self.rest.find('\n').unwrap_or(self.rest.len())..];
            } else if let Some(rest) = self.rest.strip_prefix('\\').filter(is_continued) {
                self.rest = rest;
            } else {
                return;
            }
        }
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: u32) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.skip_space();
        match self.rest.chars().next()? {
            '[' => self.list(depth),
            '(' => self.group(depth),
            '{' => self.dict(depth),
            _ => match self.string() {
                Some(text) => text.map(Value::String),
                None => self.word(),
            },
        }
    }

    fn word(&mut self) -> Option<Value> {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_.+-".contains(c))).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word {
            "True" => Some(Value::Bool(true)),
            "False" => Some(Value::Bool(false)),
            "None" => Some(Value::Null),
            other => number(other),
        }
    }

    /// Strings beside each other, which are one; outer nothing if there is none here, inner if it is none that stands for itself.
    #[expect(clippy::option_option, reason = "no string here, and a string that is no literal, are two things")]
    fn string(&mut self) -> Option<Option<String>> {
        let mut whole = String::new();
        let mut count = 0;
        loop {
            let prefix = self.rest.find(|c: char| !"rRbBuUfF".contains(c)).unwrap_or(self.rest.len());
            if !self.rest[prefix..].starts_with(['\'', '"']) {
                return (count > 0).then_some(Some(whole));
            }
            let prefix = self.rest[..prefix].to_ascii_lowercase();
            self.rest = &self.rest[prefix.len()..];
            // What is computed is no literal.
            if prefix.contains('f') || prefix.len() > 2 {
                return Some(None);
            }
            match self.quoted(prefix.contains('r'), prefix.contains('b')) {
                Some(text) => whole.push_str(&text),
                None => return Some(None),
            }
            count += 1;
            self.skip_space();
        }
    }

    fn quoted(&mut self, is_raw: bool, is_bytes: bool) -> Option<String> {
        let quote = &self.rest[..1];
        let triple = quote.repeat(3);
        let close = if self.rest.starts_with(&triple) { triple.as_str() } else { quote };
        self.rest = &self.rest[close.len()..];
        let mut text = String::new();
        loop {
            if self.take(close) {
                return Some(text);
            }
            match self.next()? {
                '\\' if is_raw => text.extend(['\\', self.next()?]),
                '\\' => self.escape(&mut text, is_bytes)?,
                '\n' if close.len() == 1 => return None,
                c => text.push(c),
            }
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// What stands behind a backslash. Unknown escapes are kept as they are, as Python does.
    fn escape(&mut self, text: &mut String, is_bytes: bool) -> Option<()> {
        let c = self.next()?;
        let digits = |parser: &mut Self, count: usize| {
            let digits = parser.rest.get(..count).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
            parser.rest = &parser.rest[count..];
            u32::from_str_radix(digits, 16).ok()
        };
        let code = match c {
            '\n' => return Some(()),
            'x' => digits(self, 2)?,
            'u' if !is_bytes => digits(self, 4)?,
            'U' if !is_bytes => digits(self, 8)?,
            'N' if !is_bytes => return None,
            '0'..='7' => {
                let mut code = c.to_digit(8)?;
                for _ in 0..2 {
                    let Some(digit) = self.rest.chars().next().and_then(|c| c.to_digit(8)) else { break };
                    self.rest = &self.rest[1..];
                    code = code * 8 + digit;
                }
                code
            }
            'n' => 10,
            't' => 9,
            'r' => 13,
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'v' => 11,
            '\\' | '\'' | '"' => c.into(),
            other => {
                text.extend(['\\', other]);
                return Some(());
            }
        };
        // Bytes that are not ASCII have no text.
        text.push(char::from_u32(code).filter(|c| !is_bytes || c.is_ascii())?);
        Some(())
    }

    /// Brackets around a value, which are nothing, or around none, several, or one with a comma: a tuple.
    fn group(&mut self, depth: u32) -> Option<Value> {
        self.rest = &self.rest[1..];
        self.skip_space();
        if self.take(")") {
            return Some(Value::Array(Vec::new()));
        }
        let value = self.value(depth + 1)?;
        self.skip_space();
        if self.take(")") {
            return Some(value);
        }
        self.take(",").then_some(())?;
        self.items(vec![value], ')', depth)
    }

    fn list(&mut self, depth: u32) -> Option<Value> {
        self.rest = &self.rest[1..];
        self.items(Vec::new(), ']', depth)
    }

    /// The rest of a list or tuple, behind its bracket or a comma.
    fn items(&mut self, mut items: Vec<Value>, close: char, depth: u32) -> Option<Value> {
        loop {
            self.skip_space();
            if self.rest.starts_with(close) {
                self.rest = &self.rest[1..];
                return Some(Value::Array(items));
            }
            items.push(self.value(depth + 1)?);
            self.skip_space();
            if !self.take(",") && !self.rest.starts_with(close) {
                return None;
            }
        }
    }

    fn dict(&mut self, depth: u32) -> Option<Value> {
        self.rest = &self.rest[1..];
        let mut map = Map::new();
        loop {
            self.skip_space();
            if self.take("}") {
                return Some(Value::Object(map));
            }
            let Value::String(key) = self.value(depth + 1)? else { return None };
            self.skip_space();
            if !self.take(":") {
                return None;
            }
            map.insert(key, self.value(depth + 1)?);
            self.skip_space();
            if !self.take(",") && !self.rest.starts_with('}') {
                return None;
            }
        }
    }
}

/// A number as Python spells it.
fn number(word: &str) -> Option<Value> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", word.strip_prefix('+').unwrap_or(word)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    let plain = digits.replace('_', "").to_ascii_lowercase();
    let based = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().find(|(prefix, _)| plain.starts_with(prefix));
    if let Some((prefix, radix)) = based {
        let value = i64::from_str_radix(&plain[prefix.len()..], radix).ok().filter(|_| !plain.contains(['-', '+']))?;
        return Some(if sign == "-" { -value } else { value }.into());
    }
    let signed = format!("{sign}{plain}");
    if !plain.bytes().all(|digit| digit.is_ascii_digit()) {
        return signed.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from);
    }
    // Python has no numbers with a zero in front, but for zero itself.
    let is_octal_of_old = plain.starts_with('0') && plain.bytes().any(|digit| digit != b'0');
    let whole = signed.parse::<i64>().map(Value::from).or_else(|_| signed.parse::<u64>().map(Value::from));
    whole.ok().filter(|_| !is_octal_of_old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn literals_are_read_and_nothing_else() {
        for (text, value) in [
            ("200", json!(200)),
            (" -1.5e3 # fast", json!(-1500.0)),
            ("1_000", json!(1000)),
            ("True", json!(true)),
            ("None", json!(null)),
            ("'a # b'", json!("a # b")),
            ("\"it's\\n\"", json!("it's\n")),
            ("['x', (1, 2,), {}]", json!(["x", [1, 2], {}])),
            ("{'a': 1, \"b\": [True]}", json!({"a": 1, "b": [true]})),
            ("r'raw\\n'", json!("raw\\n")),
            ("'\\x41\\u00e9\\101\\0\\q'", json!("AéA\0\\q")),
            ("b'key' # of bytes", json!("key")),
            ("'one' \"two\"", json!("onetwo")),
            ("('one')", json!("one")),
            ("(1)", json!(1)),
            ("(1,)", json!([1])),
            ("()", json!([])),
            ("1, 2", json!([1, 2])),
            ("1,", json!([1])),
            ("0x1F", json!(31)),
            ("-0b11", json!(-3)),
            ("1e3", json!(1000.0)),
            (".5", json!(0.5)),
            ("18446744073709551615", json!(u64::MAX)),
            ("\"\"\"a\n'b'\"\"\"", json!("a\n'b'")),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
        let deep = "[".repeat(1000);
        for text in [
            "",
            "os.getcwd()",
            "'open",
            "[1",
            "1 2",
            "{1: 2}",
            "{'a'}",
            "nan",
            "[1 2]",
            "b",
            "é",
            deep.as_str(),
            "f'{x}'",
            "'a' f'b'",
            "007",
            "1__0",
            "--1",
            "0x",
            "0x-1",
            "infinity",
            "1,,",
            "1 if x else 2",
            "'\\N{DASH}'",
            "b'\\xff'",
            "'a\nb'",
            "_1",
            "1+1",
            "5 or 6",
            "99999999999999999999",
            "'\\x4'",
            "'\\x+4'",
            "'\\xé'",
            "(1 2)",
            "(1",
            "e5",
            ".",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
