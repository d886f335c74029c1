//! A browser that a test looks through. Every wait is for something, and has an end.

use std::cell::RefCell;
use std::time::Duration;

use fantoccini::actions::{
    InputSource, KeyAction, KeyActions, MOUSE_BUTTON_LEFT, MouseActions, PointerAction,
};
use fantoccini::elements::Element;
use fantoccini::error::{CmdError, ErrorStatus};
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use system_tests::eventually;

use crate::driver::{Chromium, Driver};
use crate::site::Site;

/// The longest that a page takes to show something, on a busy machine.
const LONG: Duration = Duration::from_secs(60);

pub struct Browser<'a> {
    pub client: Client,
    site: &'a Site,
    /// Other origins where a click may lead.
    elsewhere: RefCell<Vec<String>>,
    /// Statuses that a page may have.
    statuses: RefCell<Vec<u16>>,
    /// Last: it ends the browser.
    _driver: Driver,
}

impl<'a> Browser<'a> {
    pub async fn open(site: &'a Site) -> Self {
        Self::start(site, true).await
    }

    pub async fn without_script(site: &'a Site) -> Self {
        Self::start(site, false).await
    }

    async fn start(site: &'a Site, script: bool) -> Self {
        let driver = Driver::start(&site.driver).await;
        let content = if script { 1 } else { 2 };
        let wanted = json!({
            "goog:chromeOptions": {
                // Tests run as root and in containers, where its own sandbox and /dev/shm are not to be had.
                "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900",
                         "--disable-background-networking", "--disable-component-update", "--no-first-run",
                         "--force-prefers-reduced-motion", "--hide-scrollbars", "--lang=en-GB"],
                "prefs": {"profile.managed_default_content_settings.javascript": content,
                          "intl.accept_languages": "en-GB,en"},
            },
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        });
        let Value::Object(wanted) = wanted else { unreachable!() };
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let client = builder.capabilities(wanted).connect(&driver.url).await.unwrap();
        Self { client, site, elsewhere: RefCell::default(), statuses: RefCell::default(), _driver: driver }
    }

    /// A page may have this status, which the console reports as an error.
    pub fn expect_status(&self, status: u16) {
        self.statuses.borrow_mut().push(status);
    }

    /// A click may lead to this origin.
    pub fn expect_visit(&self, origin: &str) {
        self.elsewhere.borrow_mut().push(origin.to_owned());
    }

    pub async fn goto(&self, path: &str) {
        self.client.goto(&format!("{}{path}", self.site.pages)).await.unwrap();
    }

    pub async fn path(&self) -> String {
        self.client.current_url().await.unwrap().path().to_owned()
    }

    /// Waits until the page is at an address that begins so; its whole path.
    pub async fn comes_to(&self, start: &str) -> String {
        let there = || async { Some(self.path().await).filter(|path| path.starts_with(start)) };
        eventually(&format!("the page {start}"), LONG, there).await
    }

    /// Waits for an element that can be seen.
    pub async fn find(&self, css: &str) -> Element {
        let seen = || async {
            let found = self.client.find(Locator::Css(css)).await.ok()?;
            found.is_displayed().await.ok()?.then_some(found)
        };
        eventually(&format!("{css} on the page"), LONG, seen).await
    }

    pub async fn has(&self, css: &str) -> bool {
        !self.client.find_all(Locator::Css(css)).await.unwrap().is_empty()
    }

    pub async fn click(&self, css: &str) {
        let clicked = || async {
            // A page that moves by itself may replace what was found, or push it aside.
            match self.find(css).await.click().await {
                Ok(()) => Some(()),
                Err(CmdError::Standard(error)) => {
                    let moved = [ErrorStatus::StaleElementReference, ErrorStatus::ElementClickIntercepted];
                    assert!(moved.contains(&error.error), "click on {css}: {error}");
                    None
                }
                Err(error) => panic!("click on {css}: {error}"),
            }
        };
        eventually(&format!("a click on {css}"), LONG, clicked).await;
    }

    /// As a hand that clicks twice: the second click may meet another page already.
    pub async fn double_click(&self, css: &str) {
        let element = self.find(css).await;
        let mut twice = MouseActions::new("mouse".to_owned()).then(PointerAction::MoveToElement {
            element,
            duration: None,
            x: 0.,
            y: 0.,
        });
        for _ in 0..2 {
            twice = twice
                .then(PointerAction::Down { button: MOUSE_BUTTON_LEFT })
                .then(PointerAction::Up { button: MOUSE_BUTTON_LEFT });
        }
        self.client.perform_actions(twice).await.unwrap();
    }

    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    pub async fn select(&self, css: &str, value: &str) {
        self.find(css).await.select_by_value(value).await.unwrap();
    }

    pub async fn value(&self, css: &str) -> String {
        self.client.find(Locator::Css(css)).await.unwrap().prop("value").await.unwrap().unwrap_or_default()
    }

    pub async fn text(&self, css: &str) -> String {
        self.find(css).await.text().await.unwrap_or_default()
    }

    /// Waits until an element's text has these words in it.
    pub async fn reads(&self, css: &str, words: &str) {
        let has = || async {
            let text = self.client.find(Locator::Css(css)).await.ok()?.text().await.ok()?;
            text.contains(words).then_some(())
        };
        eventually(&format!("“{words}” in {css}"), LONG, has).await;
    }

    pub async fn press(&self, key: Key) {
        let value = char::from(key);
        let press = KeyActions::new("keyboard".to_owned())
            .then(KeyAction::Down { value })
            .then(KeyAction::Up { value });
        self.client.perform_actions(press).await.unwrap();
    }

    /// Types where the focus is.
    pub async fn types(&self, text: &str) {
        let mut keys = KeyActions::new("keyboard".to_owned());
        for value in text.chars() {
            keys = keys.then(KeyAction::Down { value }).then(KeyAction::Up { value });
        }
        self.client.perform_actions(keys).await.unwrap();
    }

    /// Presses Tab until the focus is there, and can be seen.
    pub async fn tab_to(&self, css: &str) {
        self.find(css).await;
        let here = "const at = document.activeElement; return at.matches(arguments[0]) && at.matches(':focus-visible')";
        for _ in 0..150 {
            self.press(Key::Tab).await;
            if self.script(here, vec![json!(css)]).await == true {
                return;
            }
        }
        panic!("the keyboard does not get to {css}");
    }

    pub async fn script(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.client.execute(script, arguments).await.unwrap()
    }

    pub async fn devtools(&self, command: &str, params: Value) -> Value {
        let command = Chromium("goog/cdp/execute", json!({"cmd": command, "params": params}));
        self.client.issue_cmd(command).await.unwrap()
    }

    pub async fn dark(&self, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// Another tab, in front. This one's handle and that one's.
    pub async fn another_tab(&self) -> [fantoccini::wd::WindowHandle; 2] {
        let first = self.client.window().await.unwrap();
        let second = self.client.new_window(true).await.unwrap().handle;
        self.client.switch_to_window(second.clone()).await.unwrap();
        [first, second]
    }

    pub async fn turn_to(&self, tab: &fantoccini::wd::WindowHandle) {
        self.client.switch_to_window(tab.clone()).await.unwrap();
    }

    /// What the browser has noted since it was asked last: `browser` or `performance`.
    async fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.client.issue_cmd(Chromium("se/log", json!({"type": kind}))).await.unwrap();
        entries.as_array().cloned().unwrap_or_default()
    }

    /// Waits until the browser has sent a form to this path.
    pub async fn has_sent(&self, path: &str) {
        let url = format!("{}{path}", self.site.pages);
        let sent = || async {
            let requests = requests(&self.log("performance").await);
            requests.iter().any(|(method, to)| method == "POST" && *to == url).then_some(())
        };
        eventually(&format!("{path} to be sent"), LONG, sent).await;
    }

    /// Ends it. No page may have had an error, nor asked anybody else for anything.
    pub async fn close(self) {
        let statuses = self.statuses.borrow().clone();
        for entry in self.log("browser").await {
            let text = entry["message"].as_str().unwrap_or_default();
            let allowed = |status: &u16| text.contains(&format!("responded with a status of {status} "));
            let bad = ["SEVERE", "WARNING"].contains(&entry["level"].as_str().unwrap_or_default());
            assert!(!bad || statuses.iter().any(allowed), "the console says: {text}");
        }
        let elsewhere = self.elsewhere.borrow().clone();
        for (_, url) in requests(&self.log("performance").await) {
            let own = ["data:", "about:", "chrome:", "chrome-untrusted:", &self.site.pages];
            let may = own.into_iter().chain(elsewhere.iter().map(String::as_str));
            assert!(may.into_iter().any(|start| url.starts_with(start)), "a request to {url}");
        }
        self.client.clone().close().await.unwrap();
    }
}

/// Method and address of each request in a performance log.
fn requests(log: &[Value]) -> Vec<(String, String)> {
    let requests = log.iter().filter_map(|entry| {
        let event: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
        let message = &event["message"];
        (message["method"] == "Network.requestWillBeSent").then_some(())?;
        let request = &message["params"]["request"];
        Some((request["method"].as_str()?.to_owned(), request["url"].as_str()?.to_owned()))
    });
    requests.collect()
}
