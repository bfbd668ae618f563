//! ipcontroller's config files in Python, read as data: `c.Class.trait = literal` at the top level counts, whatever it takes lines for, and
//! nothing is run. What a file says besides, inside `if` or otherwise, has no effect, and comes back as a note that names its line.
//!
//! Lines are split by Python's own lexical rules (brackets, quotes, backslashes, comments, indentation); values are read by
//! [`literal`](super::literal). A whole parser of Python would be more than the controller itself, and could not run the file either.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::literal;

/// One `c.Class.trait = literal`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Assignment {
    /// Its line, from 1.
    pub(super) line: usize,
    pub(super) class: String,
    pub(super) name: String,
    pub(super) value: Value,
}

/// Something that has no effect here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Its line, from 1.
    pub(super) line: usize,
    pub(super) kind: NoteKind,
    /// The settings in it, `Class.trait` or as they are written.
    pub(super) settings: Vec<String>,
}

/// Why something has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoteKind {
    /// A block up to a last line, which would have to be run: its first words.
    Block { head: String, last: usize },
    /// Text over several lines in which settings stand: up to a last line.
    Text { last: usize },
    /// A setting whose value is not a literal.
    NotLiteral,
    /// A setting in another form than an assignment, as it is written.
    OtherForm { text: String },
    /// Any other code, as it is written.
    Code { text: String },
}

/// What a file says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct PythonFile {
    pub(super) assignments: Vec<Assignment>,
    pub(super) notes: Vec<Note>,
}

/// A file that Python could not read either: where, and what never ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) line: usize,
    pub(super) reason: String,
}

/// Reads a file. Its cost is one pass over the text.
///
/// # Errors
/// If a bracket or a string is not closed.
pub(super) fn read(text: &str) -> Result<PythonFile, Unreadable> {
    let mut reader = Reader { file: PythonFile::default(), names: BTreeSet::from(["c"]), block: None };
    for line in logical_lines(text)? {
        reader.take(&line)?;
    }
    Ok(reader.file)
}

/// Words that begin a block, also one of a single line.
const BLOCKS: [&str; 14] =
    ["if", "elif", "else", "for", "while", "def", "class", "with", "try", "except", "finally", "async", "match", "case"];
/// Blocks that go on with the one before.
const CONTINUED: [&str; 4] = ["elif", "else", "except", "finally"];

struct Reader<'a> {
    file: PythonFile,
    /// What the configuration is called.
    names: BTreeSet<&'a str>,
    /// The note of the block that lines are in.
    block: Option<usize>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, line: &Logical<'a>) -> Result<(), Unreadable> {
        let word = first_word(line.text);
        let is_block = BLOCKS.contains(&word) && line.has_colon;
        let goes_on = line.is_indented || (is_block && CONTINUED.contains(&word));
        if let Some(note) = self.block.filter(|_| goes_on).map(|index| &mut self.file.notes[index]) {
            for setting in settings_in(&self.names, line.text) {
                if !note.settings.contains(&setting) {
                    note.settings.push(setting);
                }
            }
            if let NoteKind::Block { last: end, .. } = &mut note.kind {
                *end = line.last;
            }
        } else if line.is_indented {
            return Err(Unreadable { line: line.number, reason: "it is indented, and stands in no block".into() });
        } else if is_block {
            let settings = settings_in(&self.names, line.text);
            let kind = NoteKind::Block { head: shortened(line.text), last: line.last };
            self.file.notes.push(Note { line: line.number, kind, settings });
            self.block = Some(self.file.notes.len() - 1);
        } else if !line.text.starts_with('@') {
            self.block = None;
            for part in line.parts() {
                self.statement(line, part);
            }
        }
        Ok(())
    }

    /// A simple statement at the top level.
    fn statement(&mut self, line: &Logical<'a>, text: &'a str) {
        let number = line.number + line.text[..offset_in(line.text, text)].matches('\n').count();
        let word = first_word(text);
        let rest = skip_space(&text[word.len()..]);
        if text.is_empty() || matches!(text, "pass" | "...") {
            return;
        }
        if rest.starts_with(['\'', '"']) && word.chars().all(|c| "rRbBuUfF".contains(c)) {
            // A text that stands for itself: often, lines that somebody has taken out.
            let would_be = |line: &&str| self.names.contains(first_word(line.trim_start()));
            let settings: Vec<_> =
                text.lines().skip(1).filter(would_be).flat_map(|line| settings_in(&self.names, line)).collect();
            if !settings.is_empty() {
                self.file.notes.push(Note { line: number, kind: NoteKind::Text { last: line.last }, settings });
            }
            return;
        }
        if !self.names.contains(word) || !rest.starts_with(['.', '[', '=']) || rest.starts_with("==") {
            return self.other_code(number, word, text);
        }
        if let Some(value) = rest.strip_prefix('=') {
            // Another configuration under this name.
            if !value.trim_start().starts_with("get_config(") {
                self.names.remove(word);
                self.file.notes.push(Note { line: number, kind: NoteKind::Code { text: shortened(text) }, settings: Vec::new() });
            }
            return;
        }
        let Some((class, name, value)) = assignment(rest) else {
            let settings = settings_in(&self.names, text);
            self.file.notes.push(Note { line: number, kind: NoteKind::OtherForm { text: shortened(text) }, settings });
            return;
        };
        match literal::parse(value) {
            Some(value) => {
                self.file.assignments.push(Assignment { line: number, class: class.into(), name: name.into(), value });
            }
            None => {
                let mut settings = vec![format!("{class}.{name}")];
                let others = settings_in(&self.names, value).into_iter().filter(|other| *other != settings[0]);
                settings = settings.iter().cloned().chain(others).collect();
                self.file.notes.push(Note { line: number, kind: NoteKind::NotLiteral, settings });
            }
        }
    }

    /// `NAME = get_config()` gives the configuration a name; imports alone do nothing; all else is noted.
    fn other_code(&mut self, number: usize, word: &'a str, text: &'a str) {
        let value = text[word.len()..].trim_start().strip_prefix('=');
        if value.is_some_and(|value| value.trim_start().starts_with("get_config(")) {
            self.names.insert(word);
            return;
        }
        if text.starts_with("get_config(") {
            return;
        }
        let settings = settings_in(&self.names, text);
        self.file.notes.push(Note { line: number, kind: NoteKind::Code { text: shortened(text) }, settings });
    }
}

impl PythonFile {
    /// What a user has to hear of it: each setting that has no effect, by its line, and one line for all other code. In a file that
    /// also speaks to other programs, only what `concerns` the controller: settings of such a class.
    pub(super) fn warnings(&self, path: &Path, concerns: Option<&dyn Fn(&str) -> bool>) -> Vec<String> {
        let (mut warnings, mut code) = (Vec::new(), Vec::new());
        for note in &self.notes {
            let is_ours =
                |setting: &&String| concerns.is_none_or(|concerns| concerns(setting.split('.').next().unwrap_or_default()));
            let ours: Vec<_> = note.settings.iter().filter(is_ours).map(|setting| format!("c.{setting}")).collect();
            let (at, names) = (format!("{}:{}", path.display(), note.line), list(&ours));
            match &note.kind {
                NoteKind::Block { head, last } if !ours.is_empty() => warnings.push(format!(
                    "{at}: `{head}` is not run here, and what stands in it, to line {last}, has no effect: {names}"
                )),
                NoteKind::Text { last } if !ours.is_empty() => {
                    warnings.push(format!("{at}: text to line {last}; what is set in it has no effect: {names}"));
                }
                NoteKind::NotLiteral if !ours.is_empty() => {
                    warnings
                        .push(format!("{at}: {names}: its value is not a literal, and nothing is run here: it has no effect"));
                }
                NoteKind::OtherForm { text } if !ours.is_empty() || concerns.is_none() => {
                    warnings.push(format!("{at}: `{text}`: not supported, it has no effect: only `c.Class.trait = literal` has"));
                }
                NoteKind::Code { text } if text.starts_with("load_subconfig") => {
                    warnings.push(format!("{at}: `{text}` is not followed: give that file with --config, or its settings here"));
                }
                NoteKind::Code { text } if !ours.is_empty() => {
                    warnings.push(format!("{at}: `{text}` is not run here, and has no effect on {names}"));
                }
                NoteKind::Block { head: text, .. } | NoteKind::Code { text } if concerns.is_none() => {
                    code.push(format!("line {} (`{text}`)", note.line));
                }
                _ => {}
            }
        }
        if !code.is_empty() {
            warnings.push(format!("{}: read as data, not run, so this code has no effect: {}", path.display(), list(&code)));
        }
        warnings
    }
}

/// The first few of a list, and how many more there are.
fn list(items: &[String]) -> String {
    let shown = items[..items.len().min(4)].join(", ");
    match items.len().saturating_sub(4) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Where a part of a text begins in it.
fn offset_in(whole: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize).min(whole.len())
}

/// The name or keyword at the beginning.
fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// The first line of a statement, within what a log line bears.
fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim_end();
    match line.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line.to_owned(),
    }
}

/// `.Class.trait = value`, taken apart; nothing if it has another form.
fn assignment(rest: &str) -> Option<(&str, &str, &str)> {
    let rest = skip_space(skip_space(rest).strip_prefix('.')?);
    let class = first_word(rest);
    let rest = skip_space(skip_space(&rest[class.len()..]).strip_prefix('.')?);
    let name = first_word(rest);
    let value = skip_space(&rest[name.len()..]).strip_prefix('=')?;
    (!class.is_empty() && !name.is_empty() && !value.starts_with('=')).then_some((class, name, value))
}

/// Goes behind white space, and ends of lines behind a backslash.
fn skip_space(text: &str) -> &str {
    text.trim_start_matches(|c: char| c.is_whitespace() || c == '\\')
}

/// The settings that a piece of code touches, as `Class.trait`: whatever is spelt `c.Class.trait`.
fn settings_in(names: &BTreeSet<&str>, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut before = None;
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_alphanumeric() || c == '_') {
        before = rest[..start].chars().next_back().or(before);
        rest = &rest[start..];
        let word = first_word(rest);
        rest = &rest[word.len()..];
        if names.contains(word) && before != Some('.') {
            let class = rest.strip_prefix('.').map(first_word).unwrap_or_default();
            let name = rest.get(1 + class.len()..).and_then(|rest| rest.strip_prefix('.')).map(first_word).unwrap_or_default();
            if class.starts_with(|c: char| c.is_uppercase()) && !name.is_empty() {
                let setting = format!("{class}.{name}");
                if !found.contains(&setting) {
                    found.push(setting);
                }
            }
        }
        before = word.chars().next_back();
    }
    found
}

/// A line as Python sees it: up to a line end outside brackets and strings.
struct Logical<'a> {
    /// Its first and last line, from 1.
    number: usize,
    last: usize,
    is_indented: bool,
    /// Whether a colon stands in it outside of brackets and strings.
    has_colon: bool,
    /// Where semicolons are, outside of brackets and strings.
    semicolons: Vec<usize>,
    text: &'a str,
}

impl<'a> Logical<'a> {
    /// The statements of a line.
    fn parts(&self) -> impl Iterator<Item = &'a str> {
        let starts = std::iter::once(0).chain(self.semicolons.iter().map(|at| at + 1));
        let ends = self.semicolons.iter().copied().chain(std::iter::once(self.text.len()));
        starts.zip(ends).map(|(start, end)| self.text[start..end].trim())
    }
}

/// Splits a file into logical lines; those of comments alone are left out.
fn logical_lines(text: &str) -> Result<Vec<Logical<'_>>, Unreadable> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut scanner = Scanner { text, at: 0, line: 1 };
    let mut lines = Vec::new();
    while scanner.at < text.len() {
        lines.extend(scanner.logical()?);
    }
    Ok(lines)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The next logical line, unless it is empty or a comment.
    fn logical(&mut self) -> Result<Option<Logical<'a>>, Unreadable> {
        let indent = self.rest().len() - self.rest().trim_start_matches([' ', '\t', '\u{c}']).len();
        self.at += indent;
        let (start, number) = (self.at, self.line);
        let mut brackets: Vec<(char, usize)> = Vec::new();
        let (mut has_colon, mut semicolons) = (false, Vec::new());
        // Where code ends: a comment behind it is no part of it.
        let mut end = start;
        while let Some(c) = self.rest().chars().next() {
            let here = self.at - start;
            match c {
                '\n' if brackets.is_empty() => {
                    self.at += 1;
                    self.line += 1;
                    break;
                }
                '\n' => self.line += 1,
                '#' => {
                    self.at += self.rest().find('\n').unwrap_or(self.rest().len());
                    continue;
                }
                '\'' | '"' => {
                    self.string(c)?;
                    end = self.at;
                    continue;
                }
                '\\' if self.rest()[1..].trim_start_matches('\r').starts_with('\n') => {
                    self.at += self.rest().find('\n').unwrap_or(0);
                    self.line += 1;
                }
                '(' | '[' | '{' => brackets.push((c, self.line)),
                ')' | ']' | '}' => {
                    let opened = brackets.pop().map(|(opened, _)| opened);
                    if !matches!((opened, c), (Some('('), ')') | (Some('['), ']') | (Some('{'), '}')) {
                        return Err(Unreadable { line: self.line, reason: format!("'{c}' closes nothing") });
                    }
                }
                ':' if brackets.is_empty() => has_colon = true,
                ';' if brackets.is_empty() => semicolons.push(here),
                _ => {}
            }
            self.at += self.rest().chars().next().map_or(0, char::len_utf8);
            if !c.is_whitespace() && c != '\\' {
                end = self.at;
            }
        }
        if let Some((bracket, line)) = brackets.pop() {
            return Err(Unreadable { line, reason: format!("'{bracket}' is not closed") });
        }
        if end == start {
            return Ok(None);
        }
        let last = number + self.text[start..end].matches('\n').count();
        let text = &self.text[start..end];
        Ok(Some(Logical { number, last, is_indented: indent > 0, has_colon, semicolons, text }))
    }

    /// Goes behind a string.
    fn string(&mut self, quote: char) -> Result<(), Unreadable> {
        let began = self.line;
        let triple = [quote; 3].iter().collect::<String>();
        let is_triple = self.rest().starts_with(&triple);
        let close = if is_triple { triple.as_str() } else { &triple[..1] };
        self.at += close.len();
        loop {
            let rest = self.rest();
            if rest.starts_with(close) {
                self.at += close.len();
                return Ok(());
            }
            let mut chars = rest.chars();
            let taken = match chars.next() {
                Some('\\') => {
                    let escaped = chars.next();
                    self.line += usize::from(escaped == Some('\n'));
                    1 + escaped.map_or(0, char::len_utf8)
                }
                Some('\n') if is_triple => {
                    self.line += 1;
                    1
                }
                None | Some('\n') => return Err(Unreadable { line: began, reason: "a string is not closed".into() }),
                Some(other) => other.len_utf8(),
            };
            self.at += taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn assigned(text: &str) -> Vec<(usize, String, Value)> {
        let file = read(text).unwrap();
        file.assignments.into_iter().map(|a| (a.line, format!("{}.{}", a.class, a.name), a.value)).collect()
    }

    #[test]
    fn only_the_top_level_counts() {
        for (text, head, last, settings) in [
            ("if x:\n    c.A.b = 1\n", "if x:", 2, vec!["A.b"]),
            ("if x: c.A.b = 1; c.A.d = 2\n", "if x: c.A.b = 1; c.A.d = 2", 1, vec!["A.b", "A.d"]),
            ("if x:\n  pass\nelif y:\n  c.A.b = 1\nelse:\n  c.A.b = 2\n\n", "if x:", 6, vec!["A.b"]),
            ("def f():\n\tc.A.b = 1\n", "def f():", 2, vec!["A.b"]),
            ("@cached\nasync def f():\n\tc.A.b = 1\n", "async def f():", 3, vec!["A.b"]),
            ("class C:\n    x = 1\n    c.A.b = 1\n", "class C:", 3, vec!["A.b"]),
            ("for i in range(3):\n  # words\n\n  c.A.b = i\n", "for i in range(3):", 4, vec!["A.b"]),
            ("while True:\n  c.A.b = 1\n  break\n", "while True:", 3, vec!["A.b"]),
            ("with open('x') as f:\n  c.A.b = f.read()\n", "with open('x') as f:", 2, vec!["A.b"]),
            ("try:\n  c.A.b = 1\nexcept E:\n  c.A.d = 2\nfinally:\n  pass\n", "try:", 6, vec!["A.b", "A.d"]),
            ("match x:\n  case 1:\n    c.A.b = 1\n", "match x:", 3, vec!["A.b"]),
            ("if (x and\n    y):\n  c.A.b = '''\nc.B.d = 1\n'''\n", "if (x and", 5, vec!["A.b", "B.d"]),
        ] {
            let file = read(&format!("{text}c.Z.z = 9\n")).unwrap();
            let kind = NoteKind::Block { head: head.into(), last };
            let settings = settings.into_iter().map(str::to_owned).collect();
            assert_eq!(file.notes, [Note { line: 1 + usize::from(text.starts_with('@')), kind, settings }], "{text}");
            assert_eq!(file.assignments.len(), 1, "{text}");
            assert_eq!((file.assignments[0].class.as_str(), file.assignments[0].value.clone()), ("Z", json!(9)), "{text}");
        }
    }

    #[test]
    fn text_of_several_lines_sets_nothing() {
        let file = read("\"\"\"\nc.A.b = 1\n\"\"\"\nr'''see c.A.d\n'''\nc.A.e = 2\n").unwrap();
        assert_eq!(file.notes, [Note { line: 1, kind: NoteKind::Text { last: 3 }, settings: vec!["A.b".into()] }]);
        assert_eq!((file.assignments.len(), file.assignments[0].line), (1, 6));
    }

    #[test]
    fn a_value_may_take_several_lines() {
        for (text, value) in [
            ("c.A.b = {\n  'x': 1,  # it's one\n  'y': [\n    2,\n  ],\n}\n", json!({"x": 1, "y": [2]})),
            ("c.A.b = [\n]", json!([])),
            ("c.A.b = \\\n    3", json!(3)),
            ("c.A \\\n  .b = 3", json!(3)),
            ("c.A.b = ('one '\n   \"two\")", json!("one two")),
            ("c.A.b = '''one\ntwo'''", json!("one\ntwo")),
            ("c.A.b = 'a\\\nb'", json!("ab")),
            ("c.A.b=5;", json!(5)),
            ("\u{feff}c.A.b = 'é#' # é\r\n", json!("é#")),
            ("cfg = get_config()\ncfg.A.b = 1\n", json!(1)),
            ("c = get_config()  #noqa\nc.A.b = 1, 2\n", json!([1, 2])),
        ] {
            let seen = assigned(text);
            assert_eq!(seen.len(), 1, "{text}");
            assert_eq!((seen[0].1.as_str(), &seen[0].2), ("A.b", &value), "{text}");
            assert_eq!(read(text).unwrap().notes, [], "{text}");
        }
        let seen = assigned("c.A.b = [\n 1,\n]\nc.A.d = 1; c.A.e = 2\n");
        assert_eq!(seen.iter().map(|a| (a.0, a.1.as_str())).collect::<Vec<_>>(), [(1, "A.b"), (4, "A.d"), (4, "A.e")]);
    }

    #[test]
    fn what_is_said_in_another_form_is_named() {
        let other = |text: &str| NoteKind::OtherForm { text: text.into() };
        let code = |text: &str| NoteKind::Code { text: text.into() };
        for (text, kind, settings) in [
            ("c.A.b.append('x')", other("c.A.b.append('x')"), vec!["A.b"]),
            ("c.A.b.update({\n'x': 1})", other("c.A.b.update({"), vec!["A.b"]),
            ("c.A.b += [1]", other("c.A.b += [1]"), vec!["A.b"]),
            ("c['A']['b'] = 1", other("c['A']['b'] = 1"), vec![]),
            ("c.A.b: int = 1", other("c.A.b: int = 1"), vec!["A.b"]),
            ("c.A = 1", other("c.A = 1"), vec![]),
            ("c.merge(d)", other("c.merge(d)"), vec![]),
            ("c.A.b = os.environ['X']", NoteKind::NotLiteral, vec!["A.b"]),
            ("c.A.b = c.A.d = 1", NoteKind::NotLiteral, vec!["A.b", "A.d"]),
            ("c.A.b = {1, 2}", NoteKind::NotLiteral, vec!["A.b"]),
            ("import os", code("import os"), vec![]),
            ("del c.A.b", code("del c.A.b"), vec!["A.b"]),
            ("load_subconfig('x.py')", code("load_subconfig('x.py')"), vec![]),
            ("c = Config()", code("c = Config()"), vec![]),
        ] {
            let file = read(text).unwrap();
            let settings = settings.into_iter().map(str::to_owned).collect();
            assert_eq!(file, PythonFile { assignments: vec![], notes: vec![Note { line: 1, kind, settings }] }, "{text}");
        }
    }

    #[test]
    fn what_python_can_not_read_either_is_an_error_with_its_line() {
        for (text, line, reason) in [
            ("c.A.b = 1\nc.A.d = [\n1\n", 2, "'[' is not closed"),
            ("x = 'open\n", 1, "a string is not closed"),
            ("\n'''open\n\n", 2, "a string is not closed"),
            ("x = 1]", 1, "']' closes nothing"),
            ("x = (1]", 1, "']' closes nothing"),
            ("x = 1\n  c.A.b = 2\n", 2, "it is indented, and stands in no block"),
        ] {
            assert_eq!(read(text), Err(Unreadable { line, reason: reason.into() }), "{text}");
        }
    }

    #[test]
    fn a_user_hears_of_settings_by_line_and_of_other_code_once() {
        let text = "import os\nfrom x import y\nx = 1\nprint(x)\ny()\nif x:\n  c.IPController.ip = '*'\nc.IPEngine.a = f()\n";
        let file = read(text).unwrap();
        let path = Path::new("x.py");
        assert_eq!(
            file.warnings(path, None),
            [
                "x.py:6: `if x:` is not run here, and what stands in it, to line 7, has no effect: c.IPController.ip",
                "x.py:8: c.IPEngine.a: its value is not a literal, and nothing is run here: it has no effect",
                "x.py: read as data, not run, so this code has no effect: line 1 (`import os`), line 2 (`from x import y`), \
                 line 3 (`x = 1`), line 4 (`print(x)`) and 1 more",
            ]
        );
        assert_eq!(file.warnings(path, Some(&|class| class == "IPController")).len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[cA.b=(){}\\[\\]'\"\\\\:;#,\n \t1xréif@]{0,60}") {
            if let Ok(file) = read(&text) {
                let lines = text.lines().count().max(1);
                proptest::prop_assert!(file.assignments.iter().all(|assigned| (1..=lines).contains(&assigned.line)), "{text:?}");
                proptest::prop_assert!(file.notes.iter().all(|note| (1..=lines).contains(&note.line)), "{text:?}");
                file.warnings(Path::new("x"), None);
            }
        }
    }
}
