# The recipes, one a line.
help:
    @{{ just_executable() }} --list --unsorted

# format everything
fmt:
    cargo fmt

# what tests/run checks before the tests: format, and clippy with warnings as errors
lint:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings

# format check, lints and all tests, on servers of their own; arguments go to cargo test
test *arguments:
    tests/run {{ arguments }}

# the whole of feedmill on this machine: sample files in, JSON out, every outcome checked
demo *arguments:
    deploy/local/demo {{ arguments }}

# start Kafka and S3 and print the environment that uses them: eval "$(just up)"
up *arguments:
    @deploy/local/up {{ arguments }}

# stop them, and feedmill; --wipe forgets the data
down *arguments:
    @deploy/local/down {{ arguments }}

# measure the pipeline on Kafka and S3 of the stack `bench`
bench *arguments:
    eval "$(deploy/local/up --name bench --no-webhook)" && FEEDMILL_TEST_KAFKA=$FEEDMILL_KAFKA__BROKERS FEEDMILL_TEST_S3=$FEEDMILL_S3__ENDPOINT cargo bench --locked --bench pipeline {{ arguments }}

# measure 1, 2 and 4 workers, a rolling restart, and small files behind a huge one; or one of: workers, restart, behind
scale *arguments:
    eval "$(deploy/local/up --name bench --no-webhook)" && FEEDMILL_TEST_KAFKA=$FEEDMILL_KAFKA__BROKERS FEEDMILL_TEST_S3=$FEEDMILL_S3__ENDPOINT cargo bench --locked --bench scale -- {{ arguments }}

# measure how long a worker without its state folder takes to read two million states
bench-restore:
    eval "$(deploy/local/up --name bench --no-webhook)" && FEEDMILL_TEST_KAFKA=$FEEDMILL_KAFKA__BROKERS FEEDMILL_TEST_S3=$FEEDMILL_S3__ENDPOINT cargo bench --locked --bench restore

# measure the conversion engine beside the parsers it is made of; a word picks figures by name
bench-feed *arguments:
    cargo bench --locked --bench feed -- {{ arguments }}

# convert 10 GB of generated XML in release, and check that memory stays flat; needs 7 GB in TMPDIR
soak:
    cargo test --locked --release --test memory -- --ignored --nocapture

# fuzz the conversion engine: all targets for a minute each, or `just fuzz csv 600`; --help names them
fuzz *arguments:
    fuzz/run {{ arguments }}

# licences, advisories and sources of the dependencies (needs cargo-deny)
deny:
    cargo deny --all-features check
