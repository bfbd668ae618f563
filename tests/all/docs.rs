//! What the documents say in numbers and names, held against the code that they speak of.

use pointsman::config::Config;
use pointsman::core::db::Query;
use pointsman_policies::Axis;
use serde_json::{Map, json};

fn read(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A document as one line, so that sentences may be wrapped anywhere.
fn document(path: &str) -> String {
    read(path).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A constant of the code, private ones too: a number, or a duration in milliseconds.
fn constant(path: &str, name: &str) -> u64 {
    let code = read(path);
    let behind = code.split_once(&format!("const {name}:")).unwrap_or_else(|| panic!("{path}: no constant {name}")).1;
    let value = behind.split_once('=').unwrap().1.split_once(';').unwrap().0.trim();
    let (unit, value) = match value.strip_suffix(')') {
        Some(value) if value.starts_with("Duration::from_secs(") => (1000, &value["Duration::from_secs(".len()..]),
        Some(value) if value.starts_with("Duration::from_millis(") => (1, &value["Duration::from_millis(".len()..]),
        _ => (1, value),
    };
    let number = |text: &str| text.trim().replace('_', "").parse::<u64>().unwrap_or_else(|_| panic!("{path}: {name} is {text}"));
    unit * match value.split_once("<<") {
        Some((number_of, by)) => number(number_of) << number(by),
        None => value.split('*').map(number).product(),
    }
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn in_words(number: usize) -> String {
    const SMALL: [&str; 20] = [
        "no",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    match (number / 10, number % 10) {
        (0 | 1, _) => SMALL[number].into(),
        (tens, 0) => TENS[tens - 2].into(),
        (tens, ones) => format!("{}-{}", TENS[tens - 2], SMALL[ones]),
    }
}

#[test]
fn numbers_in_the_documents_are_those_of_the_code() {
    let mib = |path: &str, name: &str| constant(path, name) >> 20;
    let gib = |path: &str, name: &str| constant(path, name) >> 30;
    let seconds = |path: &str, name: &str| constant(path, name) / 1000;
    let grace_s = Config::default().scheduler.grace_ms / 1000;
    let differences = "docs/differences.md";
    for (path, sentence) in [
        ("docs/architecture.md", format!("for {} seconds, in order", seconds("core/src/relay/hold.rs", "PATIENCE"))),
        (differences, format!("| {grace_s} s (`scheduler.grace_ms`) |")),
        (
            differences,
            format!("questions wait for {} s and are answered with `OSError`", seconds("core/src/hub/store.rs", "ANSWER_AFTER")),
        ),
        (differences, format!("answer to `db_query` of at most {} GiB", gib("core/src/db/mod.rs", "MAX_ANSWER_BYTES"))),
        (differences, format!("a message id of at most {} bytes", grouped(constant("core/src/wire.rs", "MAX_ID_BYTES")))),
        (differences, format!("{} MiB of each output stream", mib("core/src/db/record.rs", "MAX_OUTPUT_BYTES"))),
        (differences, format!("pings {} ms to a day apart", constant("src/config/rules.rs", "SHORTEST_PERIOD_MS"))),
        (differences, format!("at most {} leaves", 1 << constant("src/config/rules.rs", "MAX_DEPTH"))),
        (differences, format!("at most {} frames", grouped(constant("core/src/net/port.rs", "MAX_FRAMES")))),
        (
            "src/controller/mod.rs",
            format!(
                "within {} seconds (`supervise::PATIENCE`)",
                in_words(seconds("src/controller/supervise.rs", "PATIENCE") as usize)
            ),
        ),
    ] {
        assert!(document(path).contains(&sentence), "{path} does not say: {sentence}");
    }
}

#[test]
fn the_changelog_counts_the_policies_that_there_are() {
    let registry = pointsman::builtin();
    let schemes = registry.on(Axis::Placement).count() - 6;
    let orders = registry.on(Axis::Order).count();
    for words in [format!("ipyparallel's six schemes and {} more,", in_words(schemes)), format!("{} orders", in_words(orders))] {
        assert!(document("CHANGELOG.md").contains(&words), "CHANGELOG.md does not say: {words}");
    }
}

#[test]
fn the_operators_of_db_query_in_the_documents_are_those_that_work() {
    let text = document("docs/differences.md");
    let (_, row) = text.split_once("the same in every store: `").expect("a row about db_query");
    let listed: Vec<&str> = row.split_once('`').unwrap().0.split(' ').collect();
    let works = |operator: &str| {
        [json!(1), json!("a"), json!([1]), json!([2, 1]), json!(true)].into_iter().any(|argument| {
            let query: Map<_, _> = [("label".to_owned(), json!({operator: argument}))].into_iter().collect();
            Query::parse(&query).is_ok()
        })
    };
    assert!(listed.len() > 10, "{listed:?}");
    for operator in &listed {
        assert!(works(operator), "{operator}");
    }
    for operator in ["$eq", "$ne", "$lt", "$lte", "$gt", "$gte", "$in", "$nin", "$exists", "$all", "$mod", "$glob"]
        .iter()
        .chain(&["$or", "$and", "$not", "$nor", "$regex", "$size", "$type", "$elemMatch", "$where", "$expr"])
    {
        assert_eq!(listed.contains(operator), works(operator), "{operator}");
    }
    for key in ["header.msg_type", "$or"] {
        let query: Map<_, _> = [(key.to_owned(), json!("x"))].into_iter().collect();
        assert_eq!(Query::parse(&query).unwrap_err().ename(), "KeyError", "{key}");
    }
}

#[test]
fn each_package_carries_its_licences_and_says_what_it_is() {
    let licences = ["LICENSE-APACHE", "LICENSE-MIT"];
    for folder in ["core", "policies", "schedulers", "python"] {
        for licence in licences {
            assert_eq!(read(&format!("{folder}/{licence}")), read(licence), "{folder}");
        }
        assert!(!read(&format!("{folder}/README.md")).is_empty());
    }
    for folder in [".", "core", "policies", "schedulers"] {
        let manifest: toml::Table = read(&format!("{folder}/Cargo.toml")).parse().unwrap();
        let package = manifest["package"].as_table().unwrap();
        for field in ["description", "license", "repository", "homepage", "documentation", "keywords", "categories", "readme"] {
            assert!(package.contains_key(field), "{folder}/Cargo.toml: no {field}");
        }
        let include = package["include"].as_array().unwrap();
        for kept in ["/src", "/README.md", "/LICENSE-*"] {
            assert!(include.contains(&kept.into()), "{folder}/Cargo.toml does not include {kept}");
        }
    }
    let wheel: toml::Table = read("python/pyproject.toml").parse().unwrap();
    let project = &wheel["project"];
    assert_eq!(project["license-files"].as_array().unwrap(), &licences.map(toml::Value::from));
    assert!(project["urls"].as_table().is_some_and(|urls| !urls.is_empty()));
    let classifiers = project["classifiers"].as_array().unwrap();
    let systems: Vec<_> = classifiers.iter().filter(|line| line.as_str().unwrap().starts_with("Operating System")).collect();
    assert_eq!(systems, [&toml::Value::from("Operating System :: POSIX :: Linux")]);
}
