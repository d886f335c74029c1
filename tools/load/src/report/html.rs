//! The figures as one page: a verdict, the table, and plots. No script, and nothing from elsewhere.

use std::fmt::Write;

use super::Report;
use super::plot::{Curve, Plot, bars, escape};
use super::table::time;
use crate::processes::{Process, Sample};
use crate::record::Second;

const STYLE: &str = ":root{color-scheme:light dark;--ink:#222;--paper:#fff;--grid:#ddd;--dim:#666;--c0:#0a58ca;--c1:#b35900;--c2:#6f42c1;\
    --c3:#0a7a4b;--c4:#c2185b;--c5:#00788c;--c6:#7a6400;--c7:#555}\
    @media(prefers-color-scheme:dark){:root{--ink:#e6e6e6;--paper:#16181c;--grid:#33363c;--dim:#9aa0a6;--c0:#6ea8fe;--c1:#ffa94d;--c2:#b197fc;\
    --c3:#63e6be;--c4:#f783ac;--c5:#66d9e8;--c6:#ffe066;--c7:#bbb}}\
    body{font:15px/1.4 system-ui,sans-serif;max-width:1060px;margin:2em auto;padding:0 1em;color:var(--ink);background:var(--paper)}\
    pre{overflow-x:auto;font-size:13px}figure{margin:1.5em 0}figcaption{margin-bottom:.3em}svg{width:100%;height:auto}\
    path{fill:none;stroke-width:1.6}.grid{stroke:var(--grid);stroke-width:1}.mark{stroke:var(--dim);stroke-width:1;stroke-dasharray:3 4}\
    text{font-size:12px;fill:var(--dim)}.b0{fill:var(--c0)}.bad{color:var(--c4)}\
    .key{display:inline-block;width:.9em;height:.9em;margin:0 .3em 0 1em;vertical-align:-1px}";

impl Report {
    /// One page.
    pub fn html(&self) -> String {
        let heading = match self.verdict.exit_code() {
            0 => "The run is valid",
            1 => "The run is over a limit",
            _ => "The run is not valid",
        };
        let mut colours = String::new();
        for n in 0..8 {
            let _ = write!(colours, ".c{n}{{stroke:var(--c{n})}}.k{n}{{background:var(--c{n})}}");
        }
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <title>Load of {url}</title><style>{STYLE}{colours}</style></head><body>\n<h1>{heading}</h1>\n<p>{url}, mix {mix}, {loop_}, \
             seed {seed}</p>\n",
            url = escape(&self.url),
            mix = self.plan.mix,
            loop_ = match self.plan.kind {
                crate::plan::Loop::Open => "open loop",
                crate::plan::Loop::Closed => "closed loop",
            },
            seed = self.plan.seed,
        );
        for line in self.verdict_lines() {
            let _ = writeln!(page, "<p>{}</p>", escape(&line));
        }
        let _ = writeln!(page, "<pre>{}</pre>", escape(&self.text()));
        for plot in self.plots() {
            page.push_str(&plot);
        }
        page.push_str("</body></html>\n");
        page
    }

    fn plots(&self) -> Vec<String> {
        let curve = |name, of: fn(&Second) -> f64| Curve {
            name,
            points: self.seconds.iter().map(|second| (second.at, of(second))).collect(),
        };
        let plot = |title, unit, curves| Plot { title, unit, curves, end: self.end(), marks: self.marks() };
        let mut plots = [
            plot(
                "Shoppers",
                "a second",
                vec![
                    curve("due", |s| s.offered as f64),
                    curve("begun", |s| s.started as f64),
                    curve("gone home", |s| s.ended as f64),
                ],
            ),
            plot(
                "Requests",
                "a second",
                vec![
                    curve("sent", |s| s.sent as f64),
                    curve("answered", |s| s.answered as f64),
                    curve("failed or refused", |s| s.errors as f64),
                ],
            ),
            plot(
                "Time of requests",
                "milliseconds",
                vec![
                    curve("p50", |s| s.p50 * 1e3),
                    curve("p90", |s| s.p90 * 1e3),
                    curve("p99", |s| s.p99 * 1e3),
                ],
            ),
            plot(
                "Orders",
                "a second; backlog: how many",
                vec![
                    curve("placed", |s| s.placed as f64),
                    curve("confirmed", |s| s.confirmed as f64),
                    curve("backlog", |s| s.backlog as f64),
                ],
            ),
        ]
        .iter()
        .map(Plot::draw)
        .collect::<Vec<_>>();
        let counted: Vec<(String, u64)> =
            self.histogram.iter().map(|bar| (time(bar.up_to), bar.count)).collect();
        plots.push(bars("All requests by time", "how many", &counted));
        match &self.processes {
            Some(processes) => {
                let of = |value: fn(&Sample) -> f64| {
                    let drawn = processes.iter().filter(|process| !process.samples.is_empty());
                    drawn.map(|process| samples(process, value)).collect::<Vec<_>>()
                };
                plots.push(plot("CPU", "cores", of(|s| s.cpu)).draw());
                plots.push(plot("Memory", "MiB", of(|s| s.memory as f64 / f64::from(1 << 20))).draw());
            }
            None => plots.push("<p>CPU and memory are left out: there was no /proc.</p>\n".to_owned()),
        }
        plots
    }

    fn end(&self) -> f64 {
        self.seconds.last().map_or(1.0, |second| second.at)
    }

    /// Where each stage begins.
    fn marks(&self) -> Vec<(f64, String)> {
        let mut begun = 0.0;
        let stages = self.plan.stages.iter().map(|stage| {
            let mark = (begun, stage.name.clone());
            begun += stage.length.as_secs_f64();
            mark
        });
        let mut marks: Vec<(f64, String)> = stages.collect();
        marks.push((begun, "last ones".to_owned()));
        marks.retain(|(at, _)| *at <= self.end());
        marks
    }
}

fn samples(process: &Process, value: fn(&Sample) -> f64) -> Curve<'_> {
    let points = process.samples.iter().map(|sample| (sample.at, value(sample))).collect();
    Curve { name: &process.name, points }
}
