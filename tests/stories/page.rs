//! The page that a node shows, in a real Chromium. Screenshots stay in `target/screenshots`.

use crate::harness::{Browser, Cluster, LEADS_WITHIN, TOKEN};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The page has been brought up to date by its script since it was loaded.
const LIVE: &str = "document.getElementById('said')?.dataset.last !== undefined";

/// What a reader with a keyboard, a screen reader or weak eyes would stumble over, a line each.
const CHECKS: &str = r#"(() => {
  const found = [];
  const seen = (one) => one.checkVisibility() && getComputedStyle(one).clipPath === "none";
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) found.push(`it is ${wide} wide, on a screen of ${innerWidth}`);
  if (document.querySelectorAll("h1").length !== 1) found.push("it has not one h1");
  if (document.querySelectorAll("main").length !== 1) found.push("it has not one main");
  if (!document.documentElement.lang) found.push("it has no language");
  if (!document.title.trim()) found.push("it has no title");
  const zoom = document.querySelector("meta[name=viewport]")?.content ?? "";
  if (/user-scalable=no|maximum-scale/.test(zoom)) found.push(`it cannot be made larger: ${zoom}`);
  let level = 0;
  for (const one of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    if (!one.checkVisibility()) continue;
    if (one.tagName[1] > level + 1) found.push(`a level is left out before: ${one.outerHTML}`);
    level = Number(one.tagName[1]);
  }
  for (const one of document.querySelectorAll("th")) {
    if (!one.scope && !one.getAttribute("role")) found.push(`whose heading: ${one.outerHTML}`);
  }
  for (const name of ["aria-labelledby", "aria-describedby", "aria-controls", "for"]) {
    for (const one of document.querySelectorAll(`[${name}]`)) for (const id of one.getAttribute(name).split(" ")) {
      if (!document.getElementById(id)) found.push(`${name}, and there is no ${id}`);
    }
  }
  const reached = "a[href], button, input, select, textarea, summary, [tabindex]";
  for (const one of document.querySelectorAll(reached)) {
    if (one.tabIndex > 0) found.push(`out of turn: ${one.outerHTML.slice(0, 80)}`);
    if (one.closest("[aria-hidden=true]")) found.push(`reached and not read: ${one.outerHTML.slice(0, 80)}`);
    const {width, height, right} = one.getBoundingClientRect();
    if (right < 0) continue; // To be seen when one comes to it.
    const inLine = one.tagName === "A" && getComputedStyle(one).display === "inline";
    if (one.checkVisibility() && !inLine && Math.min(width, height) < 24) {
      found.push(`hard to hit, ${width} by ${height}: ${one.outerHTML.slice(0, 80)}`);
    }
  }
  for (const one of document.querySelectorAll("section, aside, table, dialog")) {
    const title = document.getElementById(one.getAttribute("aria-labelledby"));
    if (!title?.textContent.trim()) found.push(`no title: ${one.outerHTML.slice(0, 80)}`);
  }
  for (const one of document.querySelectorAll("svg")) {
    const named = one.getAttribute("role") === "img" && one.getAttribute("aria-label");
    if (!named && !one.closest("[aria-hidden=true], [role=img]")) found.push(`no words: ${one.outerHTML.slice(0, 80)}`);
  }
  for (const one of document.querySelectorAll("input, select")) {
    if (!one.labels.length) found.push(`no label: ${one.id}`);
  }
  for (const one of document.querySelectorAll("button, a")) {
    if (!one.textContent.trim()) found.push(`no name: ${one.outerHTML}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) found.push(`twice: ${id}`);
  const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = parts(colour).map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (one) => {
    for (let up = one; up; up = up.parentElement) {
      const colour = getComputedStyle(up).backgroundColor;
      if ((parts(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  for (const one of document.querySelectorAll("body *")) {
    const text = [...one.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!text || !seen(one) || one.closest("svg, option, :disabled")) continue;
    const [a, b] = [light(getComputedStyle(one).color), light(ground(one))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.push(`contrast ${contrast.toFixed(1)}: ${one.outerHTML.slice(0, 80)}`);
  }
  return found;
})()"#;

/// What a reader with a keyboard comes to, in the order of the page.
const REACHED: &str = r#"window.reached = [...document.querySelectorAll(
  "a[href], button, input, select, textarea, summary, [tabindex='0']"
)].filter((one) => one.checkVisibility() && !one.disabled && !one.closest("dialog:not([open])")),
window.reached.length"#;

/// Where the reader is now: which of those it is, and whether that is seen.
const FOCUSED: &str = r#"(() => {
  const one = document.activeElement, style = getComputedStyle(one);
  return [window.reached.indexOf(one), style.outlineStyle !== "none" || style.boxShadow !== "none"];
})()"#;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots").join(format!("{name}.png"))
}

/// In the ways that people look at it.
fn look(browser: &mut Browser, name: &str) {
    for (width, dark) in [(1280, false), (1280, true), (390, false), (390, true)] {
        browser.resize(width, dark);
        let found = browser.eval(CHECKS);
        assert_eq!(found, Value::Array(Vec::new()), "{name}, {width} wide, dark: {dark}");
        let how = if dark { "dark" } else { "light" };
        browser.screenshot(&file(&format!("{name}-{width}-{how}")));
    }
    browser.resize(1280, false);
}

/// With the tab key one comes to everything, in the order in which it is read, and sees where one is.
fn walk(browser: &mut Browser) {
    let count = browser.eval(REACHED).as_u64().expect("a number");
    assert!(count > 0, "there is something to come to");
    for number in 0..count {
        browser.tab();
        assert_eq!(browser.eval(FOCUSED), serde_json::json!([number, true]), "of {count}");
    }
}

#[test]
#[ignore = "needs docker: make test"]
fn a_failover_is_watched_on_one_page_and_a_switchover_asked_for_on_it() {
    let Some(mut browser) = Browser::start() else { return };
    let cluster = Cluster::voting_up(3);
    let watched = 5 - cluster.await_synchronous(1);
    browser.resize(1280, false);
    let url = format!("http://{}:8008/", cluster.node(watched).ip());
    browser.open(&url, LIVE);
    browser.await_true("document.querySelectorAll('.herd .line').length === 2");
    walk(&mut browser);
    look(&mut browser, "well");
    // It is gone with the page: whoever finds it there later has not seen another one.
    browser.eval("window.first = true; window.said = []; new MutationObserver(() => {
        const now = document.querySelector('[data-say]').textContent;
        if (window.said.at(-1) !== now) window.said.push(now);
    }).observe(document.getElementById('main'), {subtree: true, childList: true, characterData: true})");

    cluster.kill(1);
    browser.await_true(
        "document.querySelector('.herd').ariaLabel.includes('node1, was primary, unreachable')",
    );
    browser.screenshot(&file("nobody-leads"));
    let leader = cluster.await_primary(&[2, 3], LEADS_WITHIN);
    browser.await_true(&format!(
        "document.querySelector('[data-say]').textContent.startsWith('node{leader} leads (epoch 2)')"
    ));
    browser.await_true("document.querySelector('h1').textContent.includes('degraded')");
    look(&mut browser, "one-gone");
    cluster.start(1);
    browser.await_true("document.querySelector('h1').textContent.includes('healthy')");
    let said = browser.eval("window.first && window.said").to_string();
    println!("{said}");
    assert!(said.contains("nobody takes writes"), "it said so on the way: {said}");
    let aloud = browser.eval("document.getElementById('said').textContent").to_string();
    assert!(aloud.contains(&format!("node{leader} leads")), "a screen reader is told: {aloud}");

    cluster.await_settled(leader);
    browser.eval("document.getElementById('token').value = 'another'; document.getElementById('unlock').requestSubmit()");
    browser.await_true("!document.getElementById('acts').hidden");
    browser.eval("document.getElementById('to').value = 'node1'; document.getElementById('acts').requestSubmit()");
    browser
        .await_true("document.getElementById('outcome').textContent.includes('missing or wrong')");
    browser.eval(&format!(
        "document.getElementById('token').value = '{TOKEN}'; document.getElementById('unlock').requestSubmit()"
    ));
    browser.eval("document.getElementById('acts').requestSubmit()");
    browser.await_true("document.getElementById('sure').open");
    browser.screenshot(&file("sure"));
    browser.eval("document.querySelector('#sure [value=yes]').click()");
    browser.await_true(
        "document.querySelector('[data-say]').textContent.startsWith('node1 leads (epoch 3)')",
    );
    let kept = "localStorage.length + sessionStorage.length + document.cookie.length";
    assert_eq!(browser.eval(kept), 0, "the token is kept nowhere");
    assert_eq!(browser.eval("window.first"), true, "it is the page that was loaded first");
    // The wrong token is refused with a status that the console shows.
    let refused = |one: &&String| one.contains("401");
    let others: Vec<_> = browser.complaints.iter().filter(|one| !refused(one)).collect();
    assert!(others.is_empty(), "{others:#?}");
}
