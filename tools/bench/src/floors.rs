//! The figures, and what each may not fall below or rise above.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A measured figure: one value for each round.
pub struct Figure {
    name: &'static str,
    what: &'static str,
    values: Vec<f64>,
}

impl Figure {
    pub fn of(name: &'static str, what: &'static str, values: Vec<f64>) -> Figure {
        Figure { name, what, values }
    }

    pub fn one(name: &'static str, what: &'static str, value: f64) -> Figure {
        Figure::of(name, what, vec![value])
    }

    fn sorted(&self) -> Vec<f64> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    /// Not a number where nothing was measured, which keeps no floor.
    pub fn median(&self) -> f64 {
        let values = self.sorted();
        match values.len() {
            0 => f64::NAN,
            n if n.is_multiple_of(2) => f64::midpoint(values[n / 2 - 1], values[n / 2]),
            n => values[n / 2],
        }
    }

    pub fn json(&self) -> Value {
        json!({"name": self.name, "what": self.what, "median": self.median(), "values": self.values})
    }
}

/// From a file with a section `[NAME.at_least]` and one `[NAME.at_most]` for each bench, each of `figure = number`.
#[derive(Debug, Default)]
pub struct Floors {
    bounds: Vec<(String, Bound)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn keeps(self, value: f64) -> bool {
        match self {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        }
    }
}

impl Floors {
    pub fn read(path: &Path, bench: &str) -> Result<Floors> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Floors::parse(&text, bench).with_context(|| path.display().to_string())
    }

    fn parse(text: &str, bench: &str) -> Result<Floors> {
        let table: toml::Table = text.parse().context("it is not TOML")?;
        let table = table.get(bench).and_then(toml::Value::as_table);
        let mut bounds = Vec::new();
        for (section, figures) in table.with_context(|| format!("there is no section for {bench}"))? {
            let bound = match section.as_str() {
                "at_least" => Bound::AtLeast,
                "at_most" => Bound::AtMost,
                other => bail!("[{other}] is neither [at_least] nor [at_most]"),
            };
            for (name, value) in figures.as_table().with_context(|| format!("{section} is no section"))? {
                let number = value.as_float().or(value.as_integer().map(|n| n as f64));
                bounds.push((name.clone(), bound(number.with_context(|| format!("{name} is no number"))?)));
            }
        }
        Ok(Floors { bounds })
    }

    fn of(&self, figure: &Figure) -> Option<Bound> {
        self.bounds.iter().find(|(name, _)| name == figure.name).map(|(_, bound)| *bound)
    }

    /// The names of figures that do not keep theirs, and of floors that nothing was measured for.
    pub fn broken(&self, figures: &[Figure]) -> Vec<String> {
        let kept = |name: &str, bound: Bound| {
            figures.iter().any(|figure| figure.name == name && bound.keeps(figure.median()))
        };
        self.bounds.iter().filter(|(name, bound)| !kept(name, *bound)).map(|(name, _)| name.clone()).collect()
    }

    /// In Markdown.
    pub fn table(&self, figures: &[Figure]) -> String {
        let mut table = "| figure | median | spread | floor | |\n|---|---|---|---|---|\n".to_owned();
        for figure in figures {
            let values = figure.sorted();
            let spread = match (values.first(), values.last()) {
                (Some(low), Some(high)) if values.len() > 1 => format!("{} to {}", short(*low), short(*high)),
                _ => String::new(),
            };
            let (floor, kept) = match self.of(figure) {
                Some(bound) => {
                    let text = match bound {
                        Bound::AtLeast(value) => format!("at least {}", short(value)),
                        Bound::AtMost(value) => format!("at most {}", short(value)),
                    };
                    (text, if bound.keeps(figure.median()) { "kept" } else { "**NOT KEPT**" })
                }
                None => (String::new(), ""),
            };
            // Writing to a String does not fail.
            let _ = writeln!(
                table,
                "| {} | {} | {spread} | {floor} | {kept} |",
                figure.what,
                short(figure.median())
            );
        }
        for name in self.broken(figures) {
            if !figures.iter().any(|figure| figure.name == name) {
                let _ = writeln!(table, "| {name} | not measured | | | **NOT KEPT** |");
            }
        }
        table
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    // A sum of nothing is -0.
    let value = value + 0.0;
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_zero_without_a_sign() {
        assert_eq!(short([0.0; 0].iter().sum()), "0.000");
    }

    #[test]
    fn a_figure_is_the_median_of_its_rounds() {
        assert_eq!(Figure::of("x", "x", vec![3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Figure::of("x", "x", vec![4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert!(Figure::of("x", "x", vec![]).median().is_nan());
    }

    #[test]
    fn a_floor_is_kept_or_named() {
        let floors = Floors::parse(
            "[x.at_least]\nspeed = 2\n[x.at_most]\ncost = 1.5\nsize = 3\n[y.at_most]\nother = 1",
            "x",
        )
        .unwrap();
        let figures = |speed, cost| [Figure::one("speed", "speed", speed), Figure::one("cost", "cost", cost)];
        assert_eq!(floors.broken(&figures(2.0, 1.5)), ["size"]);
        assert_eq!(floors.broken(&figures(1.9, 1.6)), ["speed", "cost", "size"]);
        assert_eq!(floors.broken(&figures(f64::NAN, 1.0)), ["speed", "size"]);
        let table = floors.table(&figures(1.9, 1.0));
        assert!(table.contains("| speed | 1.90 |  | at least 2.00 | **NOT KEPT** |"), "{table}");
        assert!(table.contains("| size | not measured |"), "{table}");
    }

    #[test]
    fn floors_that_make_no_sense_are_refused() {
        for (text, why) in [
            ("x.speed = 1", "speed"),
            ("[x.at_least]\na = \"a\"", "a is no number"),
            ("[", "TOML"),
            ("", "no section"),
        ] {
            let error = format!("{:#}", Floors::parse(text, "x").unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }
}
