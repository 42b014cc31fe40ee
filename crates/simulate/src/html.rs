//! A report's page of HTML that refers to nothing else: no script, no font, no picture.

use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("html.css");

/// The frame of every report. `conditions`: name and value of each condition of the measurement.
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
