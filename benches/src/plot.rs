//! Plots as SVG. They have a background, so that they are readable on a dark page too.

use std::fmt::Write;

use crate::figure::Spread;

/// A plot.
pub struct Plot<'a> {
    /// The title.
    pub title: &'a str,
    /// The label of the x axis, with the unit.
    pub x: &'a str,
    /// The label of the y axis, with the unit.
    pub y: &'a str,
    /// The series to draw.
    pub series: Vec<Series<'a>>,
}

/// Points that belong together.
pub struct Series<'a> {
    /// The name in the legend.
    pub name: &'a str,
    /// The points.
    pub points: Vec<Point>,
    /// The index of their colour.
    pub colour: usize,
}

/// A median, drawn with its spread.
pub struct Point {
    /// Its position on the x axis.
    pub x: f64,
    /// The measured value.
    pub y: Spread,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
/// The margins around the plot's area: left, right, top, bottom.
const MARGIN: (f64, f64, f64, f64) = (70.0, 150.0, 45.0, 55.0);
const COLOURS: [&str; 7] = ["#555555", "#0072b2", "#009e73", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9"];

impl Series<'_> {
    fn colour(&self) -> &'static str {
        COLOURS[self.colour % COLOURS.len()]
    }
}

impl Plot<'_> {
    /// Draws a line for each series; both axes start at zero.
    pub fn lines(&self) -> String {
        let max_x = self.points().map(|point| point.x).fold(0.0, f64::max);
        let max_y = self.max_y();
        let mut svg = self.frame(max_y);
        for tick in ticks(max_x) {
            text(&mut svg, across(tick / max_x), HEIGHT - MARGIN.3 + 18.0, "middle", &label(tick));
        }
        for series in &self.series {
            let places = series.points.iter().map(|Point { x, y }| (across(x / max_x), up(y.median / top(max_y))));
            let places: Vec<_> = places.collect();
            let line: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let colour = series.colour();
            let _ = writeln!(
                svg,
                r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
                line.join(" ")
            );
            for ((x, y), point) in places.iter().zip(&series.points).filter(|_| places.len() <= 20) {
                let _ = writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#);
                whisker(&mut svg, *x, point.y, max_y, colour);
            }
        }
        svg + "</svg>\n"
    }

    /// Draws a group of bars for each x, named by `groups`, with a bar for each series.
    pub fn bars(&self, groups: &[String]) -> String {
        let max = self.max_y();
        let mut svg = self.frame(max);
        let (group, bars) = (1.0 / groups.len() as f64, self.series.len() as f64 + 1.0);
        for (place, name) in groups.iter().enumerate() {
            text(&mut svg, across((place as f64 + 0.5) * group), HEIGHT - MARGIN.3 + 18.0, "middle", name);
        }
        for (number, series) in self.series.iter().enumerate() {
            for point in &series.points {
                let left = across(group * (point.x + (number as f64 + 0.5) / bars));
                let (width, y) = (across(group / bars) - across(0.0), up(point.y.median / top(max)));
                let (height, colour) = (up(0.0) - y, series.colour());
                let _ = writeln!(
                    svg,
                    r#"<rect x="{left:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}"/>"#
                );
                whisker(&mut svg, left + width / 2.0, point.y, max, "#222222");
            }
        }
        svg + "</svg>\n"
    }

    fn points(&self) -> impl Iterator<Item = &Point> {
        self.series.iter().flat_map(|series| &series.points)
    }

    fn max_y(&self) -> f64 {
        self.points().map(|point| point.y.max).fold(0.0, f64::max)
    }

    /// The background, title, axes and legend.
    fn frame(&self, max_y: f64) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"13\" fill=\"#222222\" role=\"img\">\n<title>{title}</title>\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n",
            title = self.title
        );
        text(&mut svg, MARGIN.0, 24.0, "start", self.title);
        text(&mut svg, across(0.5), HEIGHT - 14.0, "middle", self.x);
        let _ = writeln!(
            svg,
            r#"<text transform="translate(18 {:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
            up(0.5),
            self.y
        );
        for tick in ticks(max_y) {
            let y = up(tick / top(max_y));
            let (left, right) = (across(0.0), across(1.0));
            let _ = writeln!(svg, r##"<path d="M{left} {y:.1}H{right}" stroke="#dddddd"/>"##);
            text(&mut svg, left - 8.0, y + 4.0, "end", &label(tick));
        }
        for (number, series) in self.series.iter().enumerate() {
            let (x, y) = (across(1.0) + 14.0, MARGIN.2 + 20.0 * number as f64);
            let colour = series.colour();
            let _ = writeln!(svg, r#"<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>"#);
            text(&mut svg, x + 18.0, y + 11.0, "start", series.name);
        }
        svg
    }
}

/// A vertical line from the least to the greatest value.
fn whisker(svg: &mut String, x: f64, spread: Spread, max_y: f64, colour: &str) {
    let [low, high] = [spread.min, spread.max].map(|value| up(value / top(max_y)));
    let _ = writeln!(svg, r#"<path d="M{x:.1} {low:.1}V{high:.1}" stroke="{colour}"/>"#);
}

fn across(part: f64) -> f64 {
    MARGIN.0 + part * (WIDTH - MARGIN.0 - MARGIN.1)
}

fn up(part: f64) -> f64 {
    HEIGHT - MARGIN.3 - part * (HEIGHT - MARGIN.2 - MARGIN.3)
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#);
}

/// About five round numbers, from zero to `max` or just below.
fn ticks(max: f64) -> impl Iterator<Item = f64> {
    let rough = max / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough).max(f64::MIN_POSITIVE);
    (0..).map(move |number| f64::from(number) * step).take_while(move |tick| *tick <= max)
}

/// The end of the y axis.
fn top(max: f64) -> f64 {
    if max > 0.0 { max * 1.05 } else { 1.0 }
}

fn label(tick: f64) -> String {
    if tick >= 10_000.0 { format!("{}k", tick / 1000.0) } else { format!("{tick}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(ticks(31.0).collect::<Vec<_>>(), [0.0, 10.0, 20.0, 30.0]);
        assert_eq!(ticks(97.0).collect::<Vec<_>>(), [0.0, 20.0, 40.0, 60.0, 80.0]);
        assert_eq!(ticks(2.0).collect::<Vec<_>>(), [0.0, 0.5, 1.0, 1.5, 2.0]);
    }
}
