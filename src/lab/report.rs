//! Results as a page: one HTML file with tables and charts inside, and the same charts as files. Nothing is fetched from anywhere.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use pointsman_policies::Registry;

use super::experiment::{Detail, Experiment, POLICY_KEYS, Results};
use super::measure::{METRICS, metric};
use super::theory;
use crate::plot::{Bar, Look, Panel, Point as Dot, Scale, Series, svg};
use crate::stats::Estimate;

/// No chart has more lines than an eye can tell apart.
const MOST_LINES: usize = 12;
/// No page has more Gantt charts.
const MOST_GANTTS: usize = 6;
/// No page has more charts.
const MOST_PANELS: usize = 48;

/// A page of a folder's results, and its charts by name.
#[derive(Clone, Debug)]
pub struct Page {
    /// HTML.
    pub html: String,
    /// Name and SVG of each chart.
    pub charts: Vec<(String, String)>,
}

/// Figures of a point: one estimate for each metric.
pub(super) struct Known<'r> {
    results: &'r Results,
    values: Vec<Vec<Vec<f64>>>,
}

impl<'r> Known<'r> {
    pub(super) fn new(results: &'r Results) -> Known<'r> {
        let mut values = vec![vec![Vec::new(); METRICS.len()]; results.experiment.points().len()];
        for row in &results.rows {
            for (column, figure) in row.figures.iter().enumerate() {
                values[row.point][column].push(*figure);
            }
        }
        Known { results, values }
    }

    pub(super) fn of(&self, point: usize, metric: &str) -> Option<Estimate> {
        let column = METRICS.iter().position(|known| known.name == metric)?;
        let values = &self.values[point][column];
        (!values.is_empty() && values.iter().all(|value| value.is_finite())).then(|| Estimate::of(values))
    }

    pub(super) fn values(&self, point: usize, metric: &str) -> &[f64] {
        METRICS.iter().position(|known| known.name == metric).map_or(&[], |column| &self.values[point][column])
    }

    fn experiment(&self) -> &Experiment {
        &self.results.experiment
    }
}

/// Makes the page. With results of live runs of the same experiment, they stand beside the simulated ones.
///
/// # Errors
/// If there are no results yet.
pub fn page(results: &Results, live: Option<&Results>, registry: &Registry) -> anyhow::Result<Page> {
    if results.rows.is_empty() {
        bail!("no run is finished yet");
    }
    let known = Known::new(results);
    let experiment = &results.experiment;
    let mut charts = Vec::new();
    let axis = numeric_factor(experiment);
    let series_axis = axis.and_then(|axis| series_factor(experiment, axis));
    if let Some(axis) = axis {
        for name in &experiment.metrics {
            for (at, (title, panel)) in curves(&known, registry, axis, series_axis, name).into_iter().enumerate() {
                charts.push((format!("{name}-{at}{}", slug(&title)), panel));
            }
        }
    }
    for (at, panel) in tails(&known).into_iter().enumerate() {
        charts.push((format!("tail-{at}"), panel));
    }
    for (at, panel) in loads(&known).into_iter().enumerate() {
        charts.push((format!("engines-{at}"), panel));
    }
    for (at, panel) in clients(&known).into_iter().enumerate() {
        charts.push((format!("clients-{at}"), panel));
    }
    for (at, panel) in gantts(&known).into_iter().enumerate() {
        charts.push((format!("gantt-{at}"), panel));
    }
    charts.truncate(MOST_PANELS);
    let drawn = charts.iter().filter_map(|(name, panel)| Some((name.clone(), svg(std::slice::from_ref(panel), 1).ok()?)));
    let charts: Vec<(String, String)> = drawn.collect();
    Ok(Page { html: html(&known, live, registry, &charts), charts })
}

/// Writes the page and its charts into the folder of the results; returns the page's path.
///
/// # Errors
/// If a file can not be written.
pub fn write(page: &Page, folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    let charts = folder.join("charts");
    // Charts of an earlier page would be taken for this one's.
    let _ = std::fs::remove_dir_all(&charts);
    std::fs::create_dir_all(&charts).with_context(|| charts.display().to_string())?;
    for (name, text) in &page.charts {
        std::fs::write(charts.join(format!("{name}.svg")), text)?;
    }
    let path = folder.join("report.html");
    std::fs::write(&path, &page.html).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn slug(text: &str) -> String {
    let mut slug: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    slug.truncate(60);
    if slug.is_empty() { slug } else { format!("-{slug}") }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// The numeric factor of most values: what charts have along x. `load` if it is one of them.
fn numeric_factor(experiment: &Experiment) -> Option<usize> {
    let count = |at: usize| {
        let mut levels: Vec<&String> =
            (0..experiment.points().len()).map(|point| &experiment.levels(point)[at]).filter(|level| *level != "-").collect();
        levels.sort_unstable();
        levels.dedup();
        if levels.iter().all(|level| number(level).is_some()) { levels.len() } else { 0 }
    };
    let factors = experiment.factors();
    let candidates = (0..factors.len()).map(|at| (at, count(at))).filter(|(_, count)| *count > 1);
    candidates.max_by_key(|&(at, count)| (factors[at] == "load", count)).map(|(at, _)| at)
}

/// What has a line of its own: of the policies that vary the one with most values, or else any other factor that does.
fn series_factor(experiment: &Experiment, axis: usize) -> Option<usize> {
    let factors = experiment.factors();
    let count = |at: usize| {
        let own = (0..experiment.points().len()).filter(|&point| experiment.points()[point].reference().is_none());
        let mut levels: Vec<&String> = own.map(|point| &experiment.levels(point)[at]).collect();
        levels.sort_unstable();
        levels.dedup();
        levels.len()
    };
    let policies = ["placement", "order", "admission", "rebalance"];
    let candidates = (0..factors.len()).filter(|&at| at != axis && count(at) > 1);
    candidates.max_by_key(|&at| (policies.contains(&factors[at].as_str()), count(at)))
}

/// The name of a point's line.
fn line_of(experiment: &Experiment, point: usize, lines: Option<usize>) -> String {
    let placement = &experiment.points()[point].placement;
    match lines {
        _ if experiment.points()[point].reference().is_some() => placement.clone(),
        Some(at) => experiment.levels(point)[at].clone(),
        None => String::new(),
    }
}

/// Points grouped by what neither x nor the lines show.
fn curves(known: &Known<'_>, registry: &Registry, axis: usize, lines: Option<usize>, name: &str) -> Vec<(String, Panel)> {
    let experiment = known.experiment();
    let Some(metric) = metric(name) else { return Vec::new() };
    let varies = |at: &usize| {
        (0..experiment.points().len()).any(|point| {
            experiment.points()[point].reference().is_none()
                && experiment.levels(point)[*at] != experiment.levels(experiment.points().len() - 1)[*at]
        })
    };
    let shown: Vec<usize> =
        (0..experiment.factors().len()).filter(|&at| at != axis && Some(at) != lines).filter(varies).collect();
    let named = |point: usize, only_world: bool| -> Vec<String> {
        let is_policy = |at: usize| POLICY_KEYS.contains(&experiment.factors()[at].as_str());
        let parts = shown.iter().filter(|&&at| !(only_world && is_policy(at)));
        parts.map(|&at| format!("{} {}", experiment.factors()[at], experiment.levels(point)[at])).collect()
    };
    let all = 0..experiment.points().len();
    let (rest, worlds): (Vec<_>, Vec<_>) = all.map(|point| (named(point, false), named(point, true))).unzip();
    let mut groups: Vec<&Vec<String>> = Vec::new();
    for (point, group) in rest.iter().enumerate() {
        if experiment.points()[point].reference().is_none() && !groups.contains(&group) {
            groups.push(group);
        }
    }
    let mut panels = Vec::new();
    for group in groups {
        let world = rest.iter().position(|other| other == group).map(|first| &worlds[first]);
        let belongs = |point: usize| {
            if experiment.points()[point].reference().is_some() { Some(&worlds[point]) == world } else { rest[point] == *group }
        };
        let mut names: Vec<String> = Vec::new();
        for point in (0..experiment.points().len()).filter(|&point| belongs(point)) {
            let line = line_of(experiment, point, lines);
            if !names.contains(&line) {
                names.push(line);
            }
        }
        let mut series = Vec::new();
        let is_reference = |name: &str| name.starts_with('~');
        for (at, line) in names.iter().take(MOST_LINES).enumerate() {
            // References are grey, so that colours are the policies'.
            let style = names[..at].iter().filter(|name| is_reference(name) == is_reference(line)).count();
            let look = if is_reference(line) { Look::Reference } else { Look::Measured };
            let points =
                (0..experiment.points().len()).filter(|&point| belongs(point) && line_of(experiment, point, lines) == *line);
            let (mut dots, mut told) = (Vec::new(), Vec::new());
            for point in points {
                let (Some(x), Some(estimate)) = (number(&experiment.levels(point)[axis]), known.of(point, name)) else {
                    continue;
                };
                dots.push(Dot {
                    x,
                    y: estimate.mean,
                    range: estimate.half_width.map(|half| (estimate.mean - half, estimate.mean + half)),
                });
                if name == "response_mean_s"
                    && let Some((theory, _)) = theory::mean_response_s(&experiment.points()[point], registry)
                {
                    told.push(Dot { x, y: theory, range: None });
                }
            }
            dots.sort_by(|a, b| a.x.total_cmp(&b.x));
            told.sort_by(|a, b| a.x.total_cmp(&b.x));
            if !told.is_empty() {
                series.push(Series { name: String::new(), points: told, look: Look::Theory, style });
            }
            series.push(Series { name: line.clone(), points: dots, look, style });
        }
        series.retain(|series| !series.points.is_empty());
        if series.is_empty() {
            continue;
        }
        let ys: Vec<f64> = series.iter().flat_map(|series| &series.points).map(|point| point.y).collect();
        let (least, most) = (ys.iter().copied().fold(f64::INFINITY, f64::min), ys.iter().copied().fold(0.0, f64::max));
        let xs: Vec<f64> = series.iter().flat_map(|series| &series.points).map(|point| point.x).collect();
        let (first, last) = (xs.iter().copied().fold(f64::INFINITY, f64::min), xs.iter().copied().fold(0.0, f64::max));
        let title = group.join(", ");
        panels.push((
            title.clone(),
            Panel {
                title: if title.is_empty() { metric.label.to_owned() } else { format!("{} ({title})", metric.label) },
                x_label: axis_label(&experiment.factors()[axis]),
                y_label: metric.label.to_owned(),
                x_scale: if first > 0.0 && last / first > 30.0 { Scale::Log } else { Scale::Linear },
                y_scale: if least > 0.0 && most / least > 20.0 { Scale::Log } else { Scale::Linear },
                series,
                bars: Vec::new(),
            },
        ));
    }
    panels
}

fn axis_label(factor: &str) -> String {
    match factor {
        "load" => "load of each engine".into(),
        "hwm" => "tasks in flight per engine (hwm)".into(),
        "latency_s" => "latency one way, s".into(),
        other => match other.strip_suffix("_s") {
            Some(name) => format!("{}, s", name.replace('_', " ")),
            None => other.replace('_', " "),
        },
    }
}

/// A chart for each world with a line for each policy, of what the details of a run have. Its axes are spread alike.
fn details(
    known: &Known<'_>,
    [title, x_label, y_label]: [&str; 3],
    scale: Scale,
    shown: impl Fn(&Detail) -> bool,
    line: impl Fn(&Detail) -> (Vec<Dot>, Look),
) -> Vec<Panel> {
    let panel = |(world, lines): (String, Vec<(String, usize)>)| {
        let series = lines.into_iter().enumerate().map(|(style, (name, point))| {
            let (points, look) = line(detail(known, point));
            Series { name, points, look, style }
        });
        Panel {
            title: if world.is_empty() { title.to_owned() } else { format!("{title} ({world})") },
            x_label: x_label.to_owned(),
            y_label: y_label.to_owned(),
            x_scale: scale,
            y_scale: scale,
            series: series.collect(),
            bars: Vec::new(),
        }
    };
    grouped(known, shown).into_iter().map(panel).collect()
}

/// Tails of the response.
fn tails(known: &Known<'_>) -> Vec<Panel> {
    details(
        known,
        ["tail of the response", "response, s", "share of tasks above"],
        Scale::Log,
        |detail| detail.tail.len() > 2,
        |detail| {
            // What nearly all tasks take is not the tail.
            let tail = detail.tail.iter().filter(|(_, y)| *y < 0.9);
            (tail.map(|&(x, y)| Dot { x, y, range: None }).collect(), Look::Curve)
        },
    )
}

/// How busy each engine was, the busiest first.
fn loads(known: &Known<'_>) -> Vec<Panel> {
    details(
        known,
        ["share of time at work", "engine, busiest first", "share of time at work"],
        Scale::Linear,
        |detail| detail.busy.len() > 1,
        |detail| {
            let mut busy = detail.busy.clone();
            busy.sort_by(|a, b| b.total_cmp(a));
            let look = if busy.len() > 40 { Look::Curve } else { Look::Measured };
            (busy.iter().enumerate().map(|(at, &y)| Dot { x: at as f64 + 1.0, y, range: None }).collect(), look)
        },
    )
}

/// How well each client was served.
fn clients(known: &Known<'_>) -> Vec<Panel> {
    details(
        known,
        ["mean slowdown by client", "client", "mean slowdown"],
        Scale::Linear,
        |detail| !detail.clients.is_empty(),
        |detail| (detail.clients.iter().map(|&(x, y)| Dot { x: x as f64, y, range: None }).collect(), Look::Measured),
    )
}

/// Which engine did which task when: a chart for each of a few points of the smallest graphs.
fn gantts(known: &Known<'_>) -> Vec<Panel> {
    let mut shown: Vec<_> = known.results.details.iter().filter(|detail| !detail.gantt.is_empty()).collect();
    shown.sort_by_key(|detail| (detail.gantt.len(), detail.point));
    let panel = |detail: &&Detail| Panel {
        title: known.experiment().describe(detail.point),
        x_label: "time, s".into(),
        y_label: "engine".into(),
        bars: detail.gantt.iter().map(|&(engine, from, to)| Bar { row: f64::from(engine) + 1.0, from, to, style: 0 }).collect(),
        ..Panel::default()
    };
    shown.iter().take(MOST_GANTTS).map(panel).collect()
}

fn detail<'k>(known: &'k Known<'_>, point: usize) -> &'k Detail {
    // Only points that have one are asked for.
    known.results.details.iter().rfind(|detail| detail.point == point).unwrap_or(&known.results.details[0])
}

/// For each combination of numeric factors the points, by what else they are called. Only the last few combinations: those of the highest load.
fn grouped(known: &Known<'_>, shown: impl Fn(&Detail) -> bool) -> Vec<(String, Vec<(String, usize)>)> {
    let experiment = known.experiment();
    let mut groups: Vec<(String, Vec<(String, usize)>)> = Vec::new();
    for point in 0..experiment.points().len() {
        if experiment.points()[point].reference().is_some()
            || !known.results.details.iter().any(|detail| detail.point == point && shown(detail))
        {
            continue;
        }
        let pair = |at: usize| format!("{} {}", experiment.factors()[at], experiment.levels(point)[at]);
        let (numeric, named): (Vec<usize>, Vec<usize>) =
            (0..experiment.factors().len()).partition(|&at| number(&experiment.levels(point)[at]).is_some());
        let title = numeric.into_iter().map(pair).collect::<Vec<_>>().join(", ");
        let name = named.into_iter().map(|at| experiment.levels(point)[at].clone()).collect::<Vec<_>>().join(", ");
        match groups.iter_mut().find(|group| group.0 == title) {
            Some(group) if group.1.len() < MOST_LINES => group.1.push((name, point)),
            Some(_) => {}
            None => groups.push((title, vec![(name, point)])),
        }
    }
    let skip = groups.len().saturating_sub(4);
    groups.split_off(skip)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number to four digits.
pub(super) fn digits(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if !value.is_finite() => "–".into(),
        _ if value.fract() == 0.0 && size < 1e5 => format!("{value}"),
        _ if !(1e-3..1e5).contains(&size) => format!("{value:.3e}"),
        _ => format!("{value:.*}", (3 - size.log10().floor() as i32).max(0) as usize),
    }
}

/// A mean with half of its confidence interval, both to that one's second digit.
pub(super) fn with_spread(estimate: &Estimate) -> String {
    let (mean, half) = (estimate.mean, estimate.half_width.unwrap_or(0.0));
    // What always comes out the same has no spread but that of rounding.
    if half <= 1e-9 * mean.abs() {
        return digits(mean);
    }
    let places = 1 - half.log10().floor() as i32;
    if !half.is_finite() || !(0..=6).contains(&places) {
        return format!("{} ± {}", digits(mean), digits(half));
    }
    format!("{mean:.*} ± {half:.*}", places as usize, places as usize)
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#222}
h1,h2{line-height:1.2}table{border-collapse:collapse;margin:1em 0;font-size:13px;font-variant-numeric:tabular-nums}
td{white-space:nowrap}th,td{padding:3px 10px;border-bottom:1px solid #ddd;text-align:right}th:first-child,td:first-child,.l{text-align:left}
thead th{border-bottom:2px solid #555;vertical-align:bottom}tr.ref{color:#666;font-style:italic}
.better{color:#00634a}.worse{color:#a83f00}figure{display:inline-block;margin:0 0 1em;max-width:100%}
figure svg{max-width:100%;height:auto}pre{background:#f5f5f5;padding:1em;overflow:auto;font-size:12px}
.note{background:#fff6e0;border-left:4px solid #e69f00;padding:.5em 1em}@media print{figure,tr{break-inside:avoid}}";

fn html(known: &Known<'_>, live: Option<&Results>, registry: &Registry, charts: &[(String, String)]) -> String {
    let experiment = known.experiment();
    let mut page = String::new();
    let title = escape(&experiment.name);
    // Writing to a string does not fail, here and below.
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
    );
    if !experiment.about.is_empty() {
        let _ = write!(page, "<p>{}</p>", escape(&experiment.about));
    }
    let runs = known.results.rows.len();
    let _ = write!(
        page,
        "<p>{} points, {runs} runs, seed {}. A figure is the mean over replications ± half its 95 % confidence interval (Student). Rows in italics are references that nothing live can be. Each policy had the same tasks.</p>",
        experiment.points().len(),
        experiment.seed
    );
    let after = super::experiment::start_up_warnings(experiment, &known.results.details);
    for warning in super::experiment::warnings(experiment, registry).into_iter().chain(after) {
        let _ = write!(page, "<p class=\"note\">{}</p>", escape(&warning));
    }
    if !charts.is_empty() {
        let _ =
            write!(page, "<h2>Charts</h2><p>Bars are 95 % confidence intervals; dashed lines without markers are theory.</p>");
        for (name, text) in charts {
            let _ = write!(page, "<figure id=\"{}\">{text}</figure>", escape(name));
        }
    }
    let _ = write!(page, "<h2>Figures</h2>");
    table_of_figures(known, registry, &mut page);
    comparisons(known, &mut page);
    if let Some(live) = live {
        if let Some(warning) = super::summary::stretched(live) {
            let _ = write!(page, "<p class=\"note\">Live: {}</p>", escape(&warning));
        }
        beside(known, &Known::new(live), &mut page);
    }
    let _ = write!(
        page,
        "<h2>The experiment</h2><pre>{}</pre><p>Run by Pointsman {}, executable {}; this page is by {}.</p>",
        escape(&experiment.to_toml()),
        escape(&known.results.maker.version),
        escape(&known.results.maker.executable),
        env!("CARGO_PKG_VERSION")
    );
    let _ = write!(page, "<table><thead><tr><th>policy</th><th class=\"l\">source</th></tr></thead><tbody>");
    for (policy, source) in &known.results.maker.policies {
        let _ = write!(page, "<tr><td class=\"l\">{}</td><td class=\"l\">{}</td></tr>", escape(policy), escape(source));
    }
    let _ = write!(page, "</tbody></table></body></html>");
    page
}

fn table_of_figures(known: &Known<'_>, registry: &Registry, page: &mut String) {
    let experiment = known.experiment();
    let _ = write!(page, "<table><thead><tr>");
    for factor in experiment.factors() {
        let _ = write!(page, "<th class=\"l\">{}</th>", escape(factor));
    }
    for name in &experiment.metrics {
        let _ = write!(page, "<th>{}</th>", metric(name).map_or("", |metric| metric.label));
    }
    let _ = write!(page, "<th>theory, mean response, s</th><th>runs</th></tr></thead><tbody>");
    for point in 0..experiment.points().len() {
        let runs = known.values(point, "tasks").len();
        if runs == 0 {
            continue;
        }
        let class = if experiment.points()[point].reference().is_some() { " class=\"ref\"" } else { "" };
        let _ = write!(page, "<tr{class}>");
        for level in experiment.levels(point) {
            let _ = write!(page, "<td class=\"l\">{}</td>", escape(level));
        }
        for name in &experiment.metrics {
            let text = known.of(point, name).map_or("–".into(), |estimate| with_spread(&estimate));
            let _ = write!(page, "<td>{text}</td>");
        }
        let theory = theory::mean_response_s(&experiment.points()[point], registry);
        let theory = theory.map_or(String::new(), |(value, name)| format!("{} ({})", digits(value), escape(name)));
        let _ = write!(page, "<td>{theory}</td><td>{runs}</td></tr>");
    }
    let _ = write!(page, "</tbody></table>");
}

/// Live runs beside simulated ones.
fn beside(known: &Known<'_>, live: &Known<'_>, page: &mut String) {
    let experiment = known.experiment();
    let _ = write!(
        page,
        "<h2>Live beside simulated</h2><p>The same experiment on a live cluster: this program's controller as a process, engines that are busy for as long as tasks take.</p><table><thead><tr><th>point</th><th class=\"l\">metric</th><th>live</th><th>simulated</th><th>live by simulated</th></tr></thead><tbody>"
    );
    for point in 0..experiment.points().len().min(live.experiment().points().len()) {
        for name in experiment.metrics.iter().filter(|name| name.starts_with("response") || name.starts_with("wait")) {
            let (Some(real), Some(told)) = (live.of(point, name), known.of(point, name)) else { continue };
            let _ = write!(
                page,
                "<tr><td class=\"l\">{}</td><td class=\"l\">{}</td><td>{}</td><td>{}</td><td>{:.3}</td></tr>",
                escape(&experiment.describe(point)),
                metric(name).map_or("", |metric| metric.label),
                with_spread(&real),
                with_spread(&told),
                real.mean / told.mean
            );
        }
    }
    let _ = write!(page, "</tbody></table>");
}

/// Each policy against the first that stands in the same world, run by run: the same tasks make differences visible that means would hide.
fn comparisons(known: &Known<'_>, page: &mut String) {
    let experiment = known.experiment();
    let Some(name) = experiment.metrics.first() else { return };
    let named = |point: usize, policies: bool| -> String {
        let factors = experiment.factors().iter().zip(experiment.levels(point));
        let chosen = factors.filter(|(factor, _)| POLICY_KEYS.contains(&factor.as_str()) == policies);
        chosen.map(|(factor, level)| format!("{factor} {level}")).collect::<Vec<_>>().join(", ")
    };
    let mut firsts: HashMap<String, usize> = HashMap::new();
    let mut rows = String::new();
    for point in (0..experiment.points().len()).filter(|&point| experiment.points()[point].reference().is_none()) {
        let world = named(point, false);
        let first = *firsts.entry(world.clone()).or_insert(point);
        let pairs = known.values(first, name).iter().zip(known.values(point, name));
        let ratios: Vec<f64> = pairs.filter(|(a, b)| **a > 0.0 && **b > 0.0).map(|(a, b)| (b / a).ln()).collect();
        if first == point || ratios.len() < 2 {
            continue;
        }
        let estimate = Estimate::of(&ratios);
        let half = estimate.half_width.unwrap_or(f64::INFINITY);
        let (low, high) = ((estimate.mean - half).exp(), (estimate.mean + half).exp());
        let (class, verdict) = match () {
            () if high < 1.0 => ("better", "less"),
            () if low > 1.0 => ("worse", "more"),
            () => ("", "no difference shown"),
        };
        let _ = write!(
            rows,
            "<tr><td class=\"l\">{}</td><td class=\"l\">{}</td><td class=\"l\">{}</td><td>{:.4}</td><td>{low:.4} to {high:.4}</td><td class=\"{class}\">{verdict}</td></tr>",
            escape(&world),
            escape(&named(point, true)),
            escape(&named(first, true)),
            estimate.mean.exp()
        );
    }
    if !rows.is_empty() {
        let label = metric(name).map_or("", |metric| metric.label);
        let _ = write!(
            page,
            "<h2>Paired comparisons</h2><p>Ratio of {label} to the first policy in the same world, over pairs of runs with the same tasks (geometric mean, 95 %).</p><table><thead><tr><th>where</th><th class=\"l\">policy</th><th class=\"l\">against</th><th>ratio</th><th>95 %</th><th></th></tr></thead><tbody>{rows}</tbody></table>"
        );
    }
}
