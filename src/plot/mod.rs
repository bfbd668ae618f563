//! Charts as SVG: panels of lines, points and bands on linear or logarithmic axes. Colours are told apart by colour-blind readers (Okabe and
//! Ito) and lines also by marker and dash, so that a print in grey says the same. Nothing here measures or computes.

mod axis;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

pub use axis::Scale;

use axis::{Ticks, spell};

/// Okabe and Ito's palette, black first, without the yellow that paper swallows.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(0, 0, 0),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];
const INK: RGBColor = RGBColor(40, 40, 40);
const GREY: RGBColor = RGBColor(140, 140, 140);
const GRID: RGBColor = RGBColor(222, 222, 222);
const PANEL_WIDTH: u32 = 460;
const PANEL_HEIGHT: u32 = 330;
/// Longer titles are set smaller.
const LONG_TITLE: usize = 50;
/// Room of one line of the legend.
const LEGEND_LINE: i32 = 15;

/// A point, and the interval that it is known to lie in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Where.
    pub x: f64,
    /// How much.
    pub y: f64,
    /// Least and most that it may be.
    pub range: Option<(f64, f64)>,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A line with a marker at each point: what was measured.
    Measured,
    /// A thin dashed line without markers: what a formula says, or a bound.
    Theory,
    /// A thin grey line with a marker at each point: what others are held against.
    Reference,
    /// A line without markers: many points.
    Curve,
    /// Markers only.
    Dots,
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend; empty for none.
    pub name: String,
    /// The points, in the order in which they are joined.
    pub points: Vec<Point>,
    /// How.
    pub look: Look,
    /// Which colour and marker; the same number looks the same in each panel.
    pub style: usize,
}

/// A stretch of time on a row: of a Gantt chart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    /// Which row, from 1.
    pub row: f64,
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// Its colour.
    pub style: usize,
}

/// One chart.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    /// What lies along the horizontal axis, with its unit.
    pub x_label: String,
    /// And along the vertical one.
    pub y_label: String,
    /// How x is spread.
    pub x_scale: Scale,
    /// How y is spread. A linear axis starts at 0.
    pub y_scale: Scale,
    /// What is drawn.
    pub series: Vec<Series>,
    /// Drawn behind it, on linear axes.
    pub bars: Vec<Bar>,
}

/// Draws panels in rows of so many; the text of an SVG file.
///
/// # Errors
/// If nothing can be drawn, as there is no point.
pub fn svg(panels: &[Panel], in_a_row: usize) -> Result<String> {
    let columns = in_a_row.clamp(1, panels.len().max(1));
    let rows = panels.len().div_ceil(columns).max(1);
    let mut text = String::new();
    {
        let size = (PANEL_WIDTH * columns as u32, PANEL_HEIGHT * rows as u32);
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE).map_err(drawing)?;
        for (panel, area) in panels.iter().zip(root.split_evenly((rows, columns))) {
            draw(panel, &area)?;
        }
        root.present().map_err(drawing)?;
    }
    Ok(text)
}

fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("a chart can not be drawn: {error}")
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Ticks, Ticks>>;

fn draw(panel: &Panel, area: &Area<'_>) -> Result<()> {
    let is_shown = |scale: Scale, value: f64| value.is_finite() && (scale == Scale::Linear || value > 0.0);
    let is_drawn = |point: &&Point| is_shown(panel.x_scale, point.x) && is_shown(panel.y_scale, point.y);
    let points = || panel.series.iter().flat_map(|series| &series.points).filter(is_drawn);
    let ends = panel.bars.iter().flat_map(|bar| [bar.from, bar.to]);
    let x = Ticks::around(panel.x_scale, points().map(|point| point.x).chain(ends), false);
    let ys = points().flat_map(|point| [Some(point.y), point.range.map(|r| r.0), point.range.map(|r| r.1)]).flatten();
    let rows = panel.bars.iter().map(|bar| bar.row + 0.4);
    let y = Ticks::around(panel.y_scale, ys.filter(|&y| is_shown(panel.y_scale, y)).chain(rows), true);
    let (Some(x), Some(y)) = (x, y) else { return Err(anyhow!("the chart '{}' has no point", panel.title)) };
    let legend = panel.series.iter().filter(|series| !series.name.is_empty()).count();
    let legend_rows = if legend > 1 { legend.div_ceil(2) as i32 } else { 0 };
    let style = |size: i32| ("sans-serif", size).into_font().color(&INK);
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, style(if panel.title.len() > LONG_TITLE { 11 } else { 15 }))
        .margin(8)
        .margin_right(18)
        .margin_bottom(8 + legend_rows * LEGEND_LINE)
        .x_label_area_size(38)
        .y_label_area_size(58)
        .build_cartesian_2d(x, y)
        .map_err(drawing)?;
    chart
        .configure_mesh()
        .x_desc(&panel.x_label)
        .y_desc(&panel.y_label)
        .axis_desc_style(style(12))
        .label_style(style(11))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|value| spell(*value))
        .y_label_formatter(&|value| spell(*value))
        .draw()
        .map_err(drawing)?;
    for bar in &panel.bars {
        let colour = COLOURS[bar.style % COLOURS.len()];
        let corners = [(bar.from, bar.row - 0.4), (bar.to, bar.row + 0.4)];
        chart.draw_series([Rectangle::new(corners, colour.mix(0.55).filled())]).map_err(drawing)?;
        chart.draw_series([Rectangle::new(corners, WHITE.stroke_width(1))]).map_err(drawing)?;
    }
    for series in &panel.series {
        let kept: Vec<Point> = series.points.iter().filter(is_drawn).copied().collect();
        draw_series(&mut chart, series, &kept, panel.y_scale)?;
    }
    draw_legend(panel, area, legend_rows)
}

fn colour_of(series: &Series) -> RGBColor {
    if series.look == Look::Reference { GREY } else { COLOURS[series.style % COLOURS.len()] }
}

fn has_markers(look: Look) -> bool {
    matches!(look, Look::Measured | Look::Reference | Look::Dots)
}

fn draw_series(chart: &mut Chart<'_, '_>, series: &Series, points: &[Point], y_scale: Scale) -> Result<()> {
    let colour = colour_of(series);
    let line = points.iter().map(|point| (point.x, point.y));
    match series.look {
        Look::Theory => {
            chart.draw_series(DashedLineSeries::new(line, 5, 3, colour.stroke_width(1))).map_err(drawing)?;
        }
        Look::Reference => {
            chart.draw_series(LineSeries::new(line, colour.stroke_width(1))).map_err(drawing)?;
        }
        Look::Measured | Look::Curve => {
            chart.draw_series(LineSeries::new(line, colour.stroke_width(2))).map_err(drawing)?;
        }
        Look::Dots => {}
    }
    for point in points {
        if let Some((low, high)) = point.range {
            let low = if y_scale == Scale::Log && low <= 0.0 { point.y } else { low };
            let bar = PathElement::new(vec![(point.x, low), (point.x, high)], colour.stroke_width(1));
            chart.draw_series([bar]).map_err(drawing)?;
        }
        if has_markers(series.look) {
            let mark = EmptyElement::at((point.x, point.y)) + Polygon::new(marker(series.style, (0, 0)), colour.filled());
            chart.draw_series([mark]).map_err(drawing)?;
        }
    }
    Ok(())
}

/// The outline of a style's marker around a place: circle, square, triangle, cross, diamond.
fn marker(style: usize, (x, y): (i32, i32)) -> Vec<(i32, i32)> {
    let outline: &[(i32, i32)] = match style % 5 {
        0 => &[(-1, -4), (1, -4), (3, -3), (4, -1), (4, 1), (3, 3), (1, 4), (-1, 4), (-3, 3), (-4, 1), (-4, -1), (-3, -3)],
        1 => &[(-3, -3), (3, -3), (3, 3), (-3, 3)],
        2 => &[(0, -5), (4, 3), (-4, 3)],
        3 => &[(-4, -3), (-3, -4), (0, -1), (3, -4), (4, -3), (1, 0), (4, 3), (3, 4), (0, 1), (-3, 4), (-4, 3), (-1, 0)],
        _ => &[(0, -5), (5, 0), (0, 5), (-5, 0)],
    };
    outline.iter().map(|&(dx, dy)| (x + dx, y + dy)).collect()
}

/// The legend stands below the chart, where it hides nothing.
fn draw_legend(panel: &Panel, area: &Area<'_>, rows: i32) -> Result<()> {
    if rows == 0 {
        return Ok(());
    }
    let (width, height) = area.dim_in_pixel();
    let named = panel.series.iter().filter(|series| !series.name.is_empty());
    for (at, series) in named.enumerate() {
        let (column, row) = (at as i32 % 2, at as i32 / 2);
        let x = 60 + column * (width as i32 - 70) / 2;
        let y = height as i32 - 4 - (rows - row) * LEGEND_LINE + LEGEND_LINE / 2;
        let colour = colour_of(series);
        let ends = [(x, y), (x + 22, y)];
        match series.look {
            Look::Theory => {
                for dash in 0..3 {
                    let from = x + dash * 8;
                    area.draw(&PathElement::new(vec![(from, y), (from + 5, y)], colour.stroke_width(1))).map_err(drawing)?;
                }
            }
            Look::Measured | Look::Reference | Look::Curve => {
                area.draw(&PathElement::new(ends.to_vec(), colour.stroke_width(2))).map_err(drawing)?;
            }
            Look::Dots => {}
        }
        if has_markers(series.look) {
            area.draw(&Polygon::new(marker(series.style, (x + 11, y)), colour.filled())).map_err(drawing)?;
        }
        let style = TextStyle::from(("sans-serif", 11).into_font()).color(&INK);
        area.draw(&Text::new(series.name.clone(), (x + 28, y - 5), style)).map_err(drawing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(points: &[(f64, f64)], scale: Scale) -> Panel {
        let points = points.iter().map(|&(x, y)| Point { x, y, range: Some((y * 0.9, y * 1.1)) }).collect();
        let series = |name: &str, style, look, points| Series { name: name.into(), points, look, style };
        Panel {
            title: "a < b".into(),
            x_label: "engines".into(),
            y_label: "tasks/s".into(),
            x_scale: scale,
            y_scale: Scale::Linear,
            bars: vec![Bar { row: 1.0, from: 1.0, to: 2.0, style: 0 }],
            series: vec![series("ours", 0, Look::Measured, points), series("theory", 1, Look::Theory, Vec::new())],
        }
    }

    #[test]
    fn panels_become_one_file_with_every_name_and_unit() {
        let panels = [panel(&[(1.0, 3.0), (1000.0, 7e4)], Scale::Log), panel(&[(1.0, 3.0), (f64::NAN, 1.0)], Scale::Linear)];
        let text = svg(&panels, 2).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        for word in ["engines", "tasks/s", "ours", "theory", "1000", "a &lt; b"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(svg(&[Panel { bars: Vec::new(), ..panel(&[], Scale::Log) }], 1).unwrap_err().to_string().contains("no point"));
    }
}
