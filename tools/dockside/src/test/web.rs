//! The tests in a browser: what they are given, and what is said where it can't be had.

use anyhow::Result;
use machine::console::step;
use machine::install;
use machine::layout::Layout;

use super::programs::{self, Lanes, Program};
use super::{Plan, Run};
use crate::contracts;

/// Runs them, where there is a browser. They use the shop that `env` tells of.
pub fn run(
    layout: &Layout,
    plan: &Plan,
    run: &mut Run,
    programs: &[&Program],
    mut env: Vec<(String, String)>,
) -> Result<()> {
    let mut skipped = Vec::new();
    match run.step("the browser", || Ok(given(layout, &mut skipped)))? {
        Ok(own) => {
            env.extend(own);
            // One at a time: one of them kills a process.
            let lanes = Lanes { programs: 1, threads: 1, logs: &layout.logs() };
            run.step("tests in a browser", || programs::run(programs, &env, &plan.filters, &lanes))?;
        }
        Err(why) => skipped.push(format!("the tests in a browser: {why:#}")),
    }
    for text in &skipped {
        step("SKIPPED", text);
    }
    run.skipped.extend(skipped);
    Ok(())
}

/// The browser's driver, and axe-core; what they do without is added to `skipped`.
fn given(layout: &Layout, skipped: &mut Vec<String>) -> Result<Vec<(String, String)>> {
    let driver = install::browser(layout)?;
    let mut env = vec![("TEST_CHROMEDRIVER".to_owned(), driver.display().to_string())];
    match contracts::axe(layout) {
        Ok(file) => env.push(("TEST_AXE".to_owned(), file.display().to_string())),
        Err(why) => skipped.push(format!("what axe-core finds on the pages: {why:#}")),
    }
    Ok(env)
}
