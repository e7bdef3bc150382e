# shellcheck shell=bash
# Prometheus beside the local stack, and promtool for the tests. Sourced by lib.sh.
#
# From Debian's package, unpacked and not installed: installing would start a server. Grafana is in no Debian; docker-compose.yml
# has it.

PROMETHEUS=$LOCAL/prometheus

download_prometheus() (
  rm -rf "$PROMETHEUS" && mkdir -p "$PROMETHEUS" && cd "$PROMETHEUS" &&
    { apt-get -qq download prometheus 2>/dev/null || { apt-get -qq update && apt-get -qq download prometheus; }; } >&2 &&
    dpkg -x prometheus_*.deb . && rm prometheus_*.deb
)

# install_prometheus: PROMETHEUS_BIN is the folder of prometheus and promtool; once for all stacks and runs.
install_prometheus() {
  local promtool
  if promtool=$(command -v promtool) && [ -x "$(dirname "$promtool")/prometheus" ]; then
    PROMETHEUS_BIN=$(dirname "$promtool")
    return
  fi
  PROMETHEUS_BIN=$PROMETHEUS/usr/bin
  mkdir -p "$LOCAL"
  exec 8>"$LOCAL/install.lock"
  flock 8
  [ -x "$PROMETHEUS_BIN/promtool" ] || progress "downloading Prometheus from Debian (20 MB)" download_prometheus ||
    die $EXIT_SERVICE "no Prometheus. As root run: apt-get install prometheus"
  exec 8>&-
}

prometheus_text() { echo "--config.file=$RUN/prometheus/prometheus.yml"; }

# JSON is YAML. More workers on this machine: their admin addresses go into another .json file beside targets.json; it is seen
# by itself.
prometheus_config() {
  cat <<EOF
{
  "global": { "scrape_interval": "5s", "evaluation_interval": "5s" },
  "rule_files": ["$ROOT/deploy/prometheus/alerts.yml"],
  "scrape_configs": [
    { "job_name": "feedmill", "file_sd_configs": [{ "files": ["$RUN/prometheus/*.json"] }] }
  ]
}
EOF
}

prometheus_is_ready() { curl -sf --max-time 2 "http://127.0.0.1:$PROMETHEUS_PORT/-/ready" >/dev/null 2>&1; }

# start_monitoring: Prometheus runs and answers, with feedmill's alerts.
start_monitoring() {
  [ -n "${PROMETHEUS_PORT:-}" ] ||
    die $EXIT_USAGE "stack '$STACK' was started by an earlier version: deploy/local/down --name $STACK, and up again"
  if is_running "$RUN/prometheus.pid" "$(prometheus_text)"; then
    say "Prometheus is running already: http://127.0.0.1:$PROMETHEUS_PORT"
    return
  fi
  mkdir -p "$RUN/prometheus"
  prometheus_config >"$RUN/prometheus/prometheus.yml"
  echo "[{ \"targets\": [\"127.0.0.1:$ADMIN_PORT\"] }]" >"$RUN/prometheus/targets.json"
  start prometheus "$PROMETHEUS_BIN/prometheus" "$(prometheus_text)" --storage.tsdb.path="$RUN/prometheus/data" \
    --web.listen-address="127.0.0.1:$PROMETHEUS_PORT"
  wait_until prometheus "$(prometheus_text)" prometheus_is_ready
  say "Prometheus: http://127.0.0.1:$PROMETHEUS_PORT/alerts (it scrapes what $RUN/prometheus/*.json names)"
}

stop_monitoring() { stop prometheus "$(prometheus_text)" 10; }
