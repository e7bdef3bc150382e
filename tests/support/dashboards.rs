//! The dashboards of `deploy/grafana`.

use std::fs;

use serde_json::Value;

pub struct Dashboard {
    pub file: String,
    pub json: Value,
}

pub fn dashboards() -> Vec<Dashboard> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/grafana");
    let files = fs::read_dir(folder).expect("the dashboards' folder");
    let paths = files.map(|file| file.unwrap().path());
    let dashboards = paths.filter(|path| path.extension().is_some_and(|end| end == "json"));
    dashboards
        .map(|path| Dashboard {
            json: serde_json::from_slice(&fs::read(&path).unwrap()).expect("JSON"),
            file: path.display().to_string(),
        })
        .collect()
}

impl Dashboard {
    pub fn panels(&self) -> impl Iterator<Item = &Value> {
        let panels = self.json["panels"].as_array().expect("panels").iter();
        panels.filter(|panel| panel["type"] != "row")
    }

    /// The queries, with a time that Grafana would put in.
    pub fn queries(&self) -> Vec<String> {
        let targets = self.panels().flat_map(|panel| {
            let targets = panel["targets"].as_array();
            targets.unwrap_or_else(|| panic!("{}: {panel}", self.file))
        });
        let queries = targets.map(|target| target["expr"].as_str().expect("a query"));
        queries
            .map(|query| query.replace("$__rate_interval", "1m"))
            .collect()
    }
}
