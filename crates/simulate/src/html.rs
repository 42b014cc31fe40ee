//! A report's page of HTML that needs nothing else: no script, no font, no picture from anywhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("html.css");

/// What lies around every report. `conditions`: name and value of what it was made under.
pub fn page(title: &str, conditions: &[(&str, String)], header: Markup, main: Markup, footer: Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    dl { @for (name, value) in conditions { dt { (name) } dd { (value) } } }
                    (header)
                }
                main { (main) }
                footer { (footer) }
            }
        }
    }
    .into_string()
}
