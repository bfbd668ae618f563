//! `pointsman schemes`: what can be chosen.

use std::process::ExitCode;

use pointsman_policies::Registry;

/// Options of `pointsman schemes`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// Lists the schemes.
pub(super) fn run(options: &Options, registry: &Registry) -> ExitCode {
    if options.json {
        let list: Vec<_> = registry
            .entries()
            .iter()
            .map(|entry| {
                serde_json::json!({
                    "name": entry.name, "aliases": entry.aliases, "summary": entry.summary,
                    "parameters": entry.defaults, "default_hwm": entry.default_hwm,
                })
            })
            .collect();
        println!("{:#}", serde_json::Value::Array(list));
        return ExitCode::SUCCESS;
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY).set_header(["scheme", "what it does", "parameters"]);
    for entry in registry.entries() {
        let parameters: Vec<String> = entry.defaults.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let parameters = if parameters.is_empty() { "-".to_owned() } else { parameters.join(", ") };
        table.add_row([entry.name, entry.summary, &parameters]);
    }
    println!("{table}");
    println!("Choose one with --scheme NAME, or NAME[key=value,...], or in TOML: [scheduler] scheme = \"NAME\".");
    ExitCode::SUCCESS
}
