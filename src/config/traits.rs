//! Which traits there are: ipcontroller's own, by class, from the list that a test compares with `ipcontroller --help-all`, and ours.
//! A name that is in none of them is a mistake, and the nearest one is known here.

use pointsman_policies::nearest;

/// A line for each class, `Class: trait trait ...`; behind `elsewhere:` are classes that speak to engines, launchers and clients.
const IPYPARALLEL: &str = include_str!("ipcontroller_traits.txt");

/// What ipcontroller had once and config files still say.
const FORMER: [(&str, &[&str]); 1] = [("IPController", &["url_file", "ipython_version", "import_statements"])];

/// What only this controller has.
const OWN: [(&str, &[&str]); 3] = [
    ("TaskScheduler", &["placement", "order", "admission", "rebalance", "shadow", "seed", "log_decisions"]),
    ("IPController", &["allow_plaintext", "allow_dask", "restore_engines", "reuse_files", "monitor_url", "max_message_bytes"]),
    ("MongoDB", &["uri"]),
];

/// What a trait is to a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// ipcontroller has it, or had it.
    Known,
    /// It speaks to another program.
    Elsewhere,
    /// Nobody has it; the `Class.trait` that was probably meant.
    Unknown(Option<String>),
}

fn classes() -> impl Iterator<Item = (&'static str, &'static str)> {
    IPYPARALLEL.lines().filter_map(|line| line.split_once(": ")).filter(|(class, _)| *class != "elsewhere")
}

fn names_of(class: &str) -> impl Iterator<Item = &'static str> {
    let listed = classes().filter(move |(known, _)| *known == class).flat_map(|(_, names)| names.split(' '));
    let more = |list: &'static [(&'static str, &'static [&'static str])]| list.iter().copied();
    let added = more(&FORMER).chain(more(&OWN)).filter(move |(known, _)| *known == class);
    listed.chain(added.flat_map(|(_, names)| names.iter().copied()))
}

/// What is known of `class.name`. O(traits), for each line of a command line or config file.
pub(super) fn verdict(class: &str, name: &str) -> Verdict {
    if names_of(class).any(|known| known == name) {
        return Verdict::Known;
    }
    let elsewhere = || IPYPARALLEL.lines().filter_map(|line| line.strip_prefix("elsewhere: ")).flat_map(|all| all.split(' '));
    if elsewhere().any(|known| known == class) {
        return Verdict::Elsewhere;
    }
    let class = if classes().any(|(known, _)| known == class) {
        Some(class)
    } else {
        nearest(class, classes().map(|(known, _)| known).chain(elsewhere()))
    };
    // The right class may be meant with a wrong name, or a wrong class with the right name.
    let by_class = class.and_then(|class| {
        let name = if names_of(class).any(|known| known == name) { Some(name) } else { nearest(name, names_of(class)) };
        name.map(|name| format!("{class}.{name}"))
    });
    let by_name =
        || classes().find(|(known, _)| names_of(known).any(|known| known == name)).map(|(known, _)| format!("{known}.{name}"));
    Verdict::Unknown(by_class.or_else(by_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trait_is_known_or_elsewhere_or_has_a_nearest_name() {
        let near = |text: &str| Verdict::Unknown(Some(text.to_owned()));
        for (class, name, is) in [
            ("TaskScheduler", "hwm", Verdict::Known),
            ("TaskScheduler", "order", Verdict::Known),
            ("Session", "digest_history_size", Verdict::Known),
            ("IPController", "url_file", Verdict::Known),
            ("IPEngine", "anything", Verdict::Elsewhere),
            ("TaskScheduler", "hwn", near("TaskScheduler.hwm")),
            ("TaskSchedular", "hwm", near("TaskScheduler.hwm")),
            ("Scheduler", "scheme_name", near("TaskScheduler.scheme_name")),
            ("Session", "kye", near("Session.key")),
            ("IPController", "colour", Verdict::Unknown(None)),
            ("Colour", "red", Verdict::Unknown(None)),
        ] {
            assert_eq!(verdict(class, name), is, "{class}.{name}");
        }
    }
}
