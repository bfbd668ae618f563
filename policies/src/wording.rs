//! Words for people who have mistyped: the name that was probably meant, and what was expected without the words of a programming language.
//! Every "did you mean" of the program is measured here; nothing here decides whether a name is accepted.

/// The known name that was probably meant: a letter in four may be wrong, missing, doubled or have changed places, or all but the first
/// three may be missing at the end. Upper and lower case are alike. O(names * letters squared), for errors alone.
///
/// ```
/// use pointsman_policies::nearest;
/// assert_eq!(nearest("hwn", ["scheme_name", "hwm"]), Some("hwm"));
/// assert_eq!(nearest("LeastLaod", ["lru", "leastload"]), Some("leastload"));
/// assert_eq!(nearest("critical", ["cost", "criticalpath"]), Some("criticalpath"));
/// assert_eq!(nearest("xyzzy", ["lru", "fifo"]), None);
/// ```
pub fn nearest<'n>(wanted: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let wanted = wanted.to_lowercase();
    let typing_errors = |name: &str| {
        let name = name.to_lowercase();
        if wanted.len() >= 3 && name.starts_with(&wanted) { 1 } else { strsim::osa_distance(&wanted, &name) }
    };
    let measured = known.into_iter().map(|name| (typing_errors(name), name));
    let near = measured.filter(|(errors, name)| *errors <= 1 + name.len() / 4 && *errors < name.chars().count());
    near.min_by_key(|(errors, _)| *errors).map(|(_, name)| name)
}

/// What serde expects, and what people call it.
const EXPECTED: [(&str, &str); 13] = [
    ("usize", "a whole number, 0 or more"),
    ("u64", "a whole number, 0 or more"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("u16", "a whole number from 0 to 65535"),
    ("u8", "a whole number from 0 to 255"),
    ("i64", "a whole number"),
    ("f64", "a number"),
    ("f32", "a number"),
    ("a boolean", "true or false"),
    ("a string", "text"),
    ("a borrowed string", "text"),
    ("a sequence", "a list"),
    ("a map", "a table"),
];

/// A complaint of serde's about a type or value, in words that need no Rust.
///
/// ```
/// use pointsman_policies::plain_words;
/// assert_eq!(plain_words("invalid type: string \"x\", expected usize"), "expected a whole number, 0 or more, not \"x\"");
/// assert_eq!(plain_words("unknown field `e`, expected `d`"), "unknown field `e`, expected `d`");
/// ```
pub fn plain_words(message: &str) -> String {
    let Some(rest) = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: ")) else {
        return message.to_owned();
    };
    let Some((found, expected)) = rest.rsplit_once(", expected ") else { return message.to_owned() };
    // "usize at line 1 column 5": where it is stays.
    let (expected, place) = match expected.find(" at line ") {
        Some(at) => expected.split_at(at),
        None => (expected, ""),
    };
    let expected = EXPECTED.iter().find(|(theirs, _)| *theirs == expected).map_or_else(
        || if expected.starts_with("struct ") { "a table".to_owned() } else { expected.to_owned() },
        |(_, ours)| (*ours).to_owned(),
    );
    let found = match found {
        "map" => "a table",
        "sequence" => "a list",
        "null" | "unit value" => "nothing",
        found => ["string ", "integer ", "floating point ", "boolean "]
            .iter()
            .find_map(|kind| found.strip_prefix(kind))
            .unwrap_or(found),
    };
    format!("expected {expected}, not {}{place}", found.trim_matches('`'))
}
