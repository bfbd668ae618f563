//! `pointsman schemes`: the policies that can be chosen, on each axis.

use std::process::ExitCode;

use pointsman_policies::{Axis, Entry, Registry};

/// Options of `pointsman schemes`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
    /// As a table in Markdown.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

/// Lists the policies.
pub(super) fn run(options: &Options, registry: &Registry) -> ExitCode {
    if options.json {
        let list: Vec<_> = registry.entries().iter().map(as_json).collect();
        println!("{:#}", serde_json::Value::Array(list));
        return ExitCode::SUCCESS;
    }
    if options.markdown {
        print!("{}", markdown(registry));
        return ExitCode::SUCCESS;
    }
    for axis in Axis::ALL {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
        table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
        table.set_header([axis.name(), "what it does", "parameters", "needs", "source"]);
        for entry in registry.on(axis) {
            let names = std::iter::once(&entry.name).chain(entry.aliases).copied().collect::<Vec<_>>().join("\n");
            let explained =
                entry.parameters.iter().map(|(name, meaning)| format!("{name}={}: {meaning}", default_of(entry, name)));
            let parameters = explained.collect::<Vec<_>>().join("\n");
            table.add_row([
                names,
                entry.summary.to_owned(),
                or_dash(parameters),
                entry.needs.describe(),
                entry.source.to_owned(),
            ]);
        }
        println!("{table}");
    }
    println!(
        "Choose with --placement, --order, --admission, --rebalance NAME or NAME[key=value,...], in TOML under [policy] by axis,"
    );
    println!("or on a running controller: pointsman policy set NAME...");
    ExitCode::SUCCESS
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn default_of(entry: &Entry, parameter: &str) -> String {
    entry.defaults.get(parameter).map(ToString::to_string).unwrap_or_default().replace('"', "")
}

fn as_json(entry: &Entry) -> serde_json::Value {
    let parameters: serde_json::Map<String, serde_json::Value> = entry
        .parameters
        .iter()
        .map(|(name, meaning)| {
            ((*name).to_owned(), serde_json::json!({"default": entry.defaults.get(*name), "meaning": meaning}))
        })
        .collect();
    serde_json::json!({
        "axis": entry.axis.name(), "name": entry.name, "aliases": entry.aliases, "summary": entry.summary, "parameters": parameters,
        "needs": entry.needs.iter_names().map(|(name, _)| name.to_lowercase()).collect::<Vec<_>>(), "source": entry.source,
        "default_hwm": entry.default_hwm,
    })
}

/// The table of policies as the README has it.
pub(crate) fn markdown(registry: &Registry) -> String {
    let mut text = String::new();
    for axis in Axis::ALL {
        text.push_str(&format!("| {} | what it does | parameters | needs | source |\n|---|---|---|---|---|\n", axis.name()));
        for entry in registry.on(axis) {
            let names =
                std::iter::once(&entry.name).chain(entry.aliases).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ");
            let parameters = entry.parameters.iter().map(|(name, _)| format!("`{name}={}`", default_of(entry, name)));
            let parameters = or_dash(parameters.collect::<Vec<_>>().join(" "));
            text.push_str(&format!(
                "| {names} | {} | {parameters} | {} | {} |\n",
                entry.summary,
                entry.needs.describe(),
                entry.source
            ));
        }
        text.push('\n');
    }
    text
}
