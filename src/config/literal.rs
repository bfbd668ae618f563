//! Literals of Python in `c.Class.trait = literal` lines: numbers, strings, booleans, None, lists, tuples and dicts of them.
//! Nothing is evaluated: what is not a literal is not understood, and said so.

use serde_json::{Map, Value};

/// Parses one literal that fills `text` up to a comment.
pub(super) fn parse(text: &str) -> Option<Value> {
    let mut parser = Parser { rest: text };
    let value = parser.value(0)?;
    parser.skip_space();
    (parser.rest.is_empty() || parser.rest.starts_with('#')).then_some(value)
}

struct Parser<'a> {
    rest: &'a str,
}

/// Deeper nesting than any setting has.
const MAX_DEPTH: u32 = 16;

impl<'a> Parser<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
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
            '[' => self.sequence(']', depth),
            '(' => self.sequence(')', depth),
            '{' => self.dict(depth),
            '\'' | '"' => self.string().map(Value::String),
            'b' | 'u' | 'r' if self.rest[1..].starts_with(['\'', '"']) => {
                self.rest = &self.rest[1..];
                self.string().map(Value::String)
            }
            _ => self.word(),
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
            number => {
                let plain = number.replace('_', "");
                let whole = plain.parse::<i64>().map(Value::from).ok();
                whole.or_else(|| plain.parse::<f64>().ok().filter(|n| n.is_finite()).map(Value::from))
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        let quote = self.rest.chars().next()?;
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((index, c)) = chars.next() {
            match c {
                '\\' => match chars.next()?.1 {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    other @ ('\\' | '\'' | '"') => text.push(other),
                    other => text.extend(['\\', other]), // as Python keeps unknown escapes
                },
                c if c == quote => {
                    self.rest = &self.rest[index + c.len_utf8()..];
                    return Some(text);
                }
                c => text.push(c),
            }
        }
        None
    }

    fn sequence(&mut self, close: char, depth: u32) -> Option<Value> {
        self.rest = &self.rest[1..];
        let mut items = Vec::new();
        loop {
            self.skip_space();
            if self.take(close.encode_utf8(&mut [0; 4])) {
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
            ("r'raw'", json!("raw")),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
        let deep = "[".repeat(1000);
        for text in ["", "os.getcwd()", "'open", "[1", "1 2", "{1: 2}", "{'a'}", "nan", "[1 2]", "b", "é", deep.as_str()] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
