//! Plots as SVG, to stand in a page. Colours and fonts are the page's.

use std::fmt::Write;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;
/// Colours that the page has, `c0` and on.
const COLOURS: usize = 8;

/// A curve: points of seconds and values.
pub(super) struct Curve<'a> {
    pub name: &'a str,
    pub points: Vec<(f64, f64)>,
}

/// What a plot of curves over time needs.
pub(super) struct Plot<'a> {
    pub title: &'a str,
    pub unit: &'a str,
    pub curves: Vec<Curve<'a>>,
    /// Seconds that it shows.
    pub end: f64,
    /// Where something new begins, and its name.
    pub marks: Vec<(f64, String)>,
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The least of 1, 2, 5, 10, 20, 50 ... that is not below a value.
fn round_up(value: f64) -> f64 {
    if !(value.is_finite() && value > 0.0) {
        return 1.0;
    }
    let ten = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * ten).find(|n| *n >= value).unwrap_or(value)
}

/// A number for an axis: `0.05`, `20`, `1500`.
fn number(value: f64) -> String {
    if value >= 10.0 || value == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{}", (value * 1e4).round() / 1e4)
    }
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (n, (x, y)) in points.enumerate() {
        let _ = write!(path, "{}{x:.1} {y:.1}", if n == 0 { "M" } else { "L" });
    }
    path
}

impl Plot<'_> {
    /// A figure with a heading and a legend.
    pub(super) fn draw(&self) -> String {
        let end = self.end.max(1.0);
        let most = self.curves.iter().flat_map(|curve| &curve.points).map(|(_, y)| *y).fold(0.0, f64::max);
        let step = round_up(most / 4.0);
        let top = step * (most / step).ceil().max(1.0);
        let x = |at: f64| LEFT + at / end * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP);
        let mut svg = String::new();
        let mut level = 0.0;
        while level <= top * 1.001 {
            let at = y(level);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}L{} {at:.1}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                number(level)
            );
            level += step;
        }
        let every = round_up(end / 8.0);
        let mut second = 0.0;
        while second <= end {
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{} s</text>",
                x(second),
                HEIGHT - 8.0,
                number(second)
            );
            second += every;
        }
        for (at, name) in &self.marks {
            let at = x(*at);
            let _ = write!(
                svg,
                "<path class=\"mark\" d=\"M{at:.1} {TOP}L{at:.1} {}\"/><text x=\"{:.1}\" y=\"{}\">{}</text>",
                HEIGHT - BOTTOM,
                at + 3.0,
                TOP + 4.0,
                escape(name)
            );
        }
        for (n, curve) in self.curves.iter().enumerate() {
            let points = curve.points.iter().map(|(at, value)| (x(*at), y(*value)));
            let _ = write!(svg, "<path class=\"c{}\" d=\"{}\"/>", n % COLOURS, path(points));
        }
        let names: Vec<&str> = self.curves.iter().map(|curve| curve.name).collect();
        figure(self.title, self.unit, &names, &svg)
    }
}

/// Bars of equal width, each with the upper end of what it counts.
pub(super) fn bars(title: &str, unit: &str, bars: &[(String, u64)]) -> String {
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1) as f64;
    let width = (WIDTH - LEFT - RIGHT) / bars.len().max(1) as f64;
    let mut svg = String::new();
    for (n, (name, count)) in bars.iter().enumerate() {
        let height = *count as f64 / most * (HEIGHT - BOTTOM - TOP);
        let x = LEFT + n as f64 * width;
        let _ = write!(
            svg,
            "<rect class=\"b0\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>up to {}: {count}</title></rect>",
            HEIGHT - BOTTOM - height,
            (width - 1.0).max(0.5),
            escape(name)
        );
        if n % (bars.len() / 12 + 1) == 0 {
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                x + width,
                HEIGHT - 8.0,
                escape(name)
            );
        }
    }
    let _ = write!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{most}</text>", LEFT - 6.0, TOP + 4.0);
    figure(title, unit, &[], &svg)
}

fn figure(title: &str, unit: &str, names: &[&str], svg: &str) -> String {
    let mut legend = String::new();
    for (n, name) in names.iter().enumerate() {
        let _ = write!(legend, "<span class=\"key k{}\"></span>{} ", n % COLOURS, escape(name));
    }
    format!(
        "<figure><figcaption><b>{title}</b>, {unit} {legend}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"{title}, {unit}\">{svg}</svg></figure>\n",
        title = escape(title),
        unit = escape(unit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_above_what_it_shows() {
        assert_eq!([0.0, 0.03, 1.0, 1.1, 7.0, 230.0].map(round_up), [1.0, 0.05, 1.0, 2.0, 10.0, 500.0]);
        assert_eq!([0.0, 0.05, 2.5, 1500.0].map(number), ["0", "0.05", "2.5", "1500"]);
    }

    #[test]
    fn a_plot_of_nothing_is_a_plot() {
        let plot =
            Plot { title: "a<b", unit: "ms", curves: vec![], end: 0.0, marks: vec![(0.0, "<x>".to_owned())] };
        let drawn = plot.draw();
        assert!(drawn.contains("a&lt;b") && drawn.contains("&lt;x&gt;") && !drawn.contains("NaN"), "{drawn}");
        assert!(!bars("t", "u", &[]).contains("NaN"));
    }
}
