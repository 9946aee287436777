# One command for each thing one does here. Building needs Rust, a C compiler and make, and no root.

CARGO  ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
# What `make demo` and `make check-cases` run, and `make install` installs. RUNNER=… takes a binary that is there; otherwise it is built.
RUNNER ?=
BUILT = $(or $(RUNNER),target/release/runner)
SHARE = $(DESTDIR)$(PREFIX)/share
SOURCE ?=
# More for `make bench`: --quick, --only ROW,…, --repeat N, --work DIR; `python3 benches --help` has them all.
BENCH_ARGS ?=
FUZZ_SECONDS ?= 60
# More for `make mutants`, such as --re twin.rs or --jobs 2.
MUTANTS_ARGS ?=
# The story that `make replay` tells.
SEED ?= 0
# The cases that `make check-cases` runs, of all: by name (ha/*) or file name (fail-lease*).
CASE ?=
# How many tests run at once: most wait more than they compute (.config/nextest.toml).
TEST_THREADS ?= $(shell echo $$((3 * $$(nproc))))
NEXTEST = PATH="$(CURDIR)/.tools/bin:$$PATH" $(CARGO) nextest run --locked
# A build for what computes for minutes: optimised, without the clients of S3 and etcd, with the bugs that can be planted.
OPTIMISED = --no-default-features --features planted --config 'profile.dev.package.runner.opt-level=1'
SIM = $(OPTIMISED) --test sim
LONG = binary(sim) | binary(damage) | binary(durability)

.PHONY: help build debug demo test suite long check-large check-pair check-slots check-hostile check-long-life check-cases check-cases-slow soak replay planted mutants fmt lint deny advisories bench fuzz install clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r t d; do printf '  make %-16s %s\n' "$$t" "$$d"; done

build: ## the release binary, target/release/runner, and its line tables beside it, target/release/runner.debug
	$(CARGO) build --release --locked
	@scripts/split-debug target/release/runner

demo: $(if $(RUNNER),,debug) ## the main job on real input: make demo [SOURCE=/etc] [RUNNER=path/of/binary]
	@RUNNER="$(or $(RUNNER),target/debug/runner)" SOURCE="$(SOURCE)" scripts/demo

test: suite long ## installs what the tests need and is missing, then runs them all

suite: ## the tests but for the long ones, and the examples of the docs
	@scripts/setup-tests
	@scripts/test-tools
	@scripts/cargo-tool nextest
	$(NEXTEST) --test-threads $(TEST_THREADS) -E 'not ($(LONG))'
	$(CARGO) test --locked --doc

long: ## the long tests: the simulator with and without planted bugs, damage to every byte, a power cut after every change
	@scripts/cargo-tool nextest
	$(NEXTEST) $(SIM) --test damage --test durability -E '$(LONG)'

check-large: ## the core story on 100,000 real files, to a directory and to S3; minutes, and some 10 GB in TMPDIR
	@scripts/check-large

check-pair: ## how fast a killed holder is followed, 20 times over: prints the distribution; minutes
	@scripts/campaign campaign_of_kills

check-slots: ## 200 slots with random failovers, as daemons and as crons; a quarter of an hour
	@scripts/campaign campaign_of_daemons campaign_of_crons

check-hostile: ## ten minutes of a pair beside a user who harms the source and a writer who harms the bucket: make check-hostile [SEED=n]
	@scripts/campaign campaign_of_harm

check-long-life: ## an hour in which every secret and certificate changes under a pair and its services go away: make check-long-life [SEED=n]
	@scripts/campaign campaign_of_life

check-cases: $(if $(RUNNER),,debug) ## situations of users as scripts, as root; minutes: make check-cases [CASE=GLOB] [RUNNER=path/of/binary]
	@scripts/setup-tests
	@scripts/test-tools
	@RUNNER="$(RUNNER)" .tools/venv/bin/python3 tests/cases/run.py quick $(if $(CASE),'$(CASE)')

check-cases-slow: $(if $(RUNNER),,debug) ## those that take longer: weeks of looks, outages, roles that hang
	@scripts/setup-tests
	@scripts/test-tools
	@RUNNER="$(RUNNER)" .tools/venv/bin/python3 tests/cases/run.py slow $(if $(CASE),'$(CASE)')

debug:
	$(CARGO) build --locked

soak: ## the simulator's stories on every core until it is stopped; says seed and commit of each that ends badly
	SIM_COMMIT="$$(git rev-parse --short HEAD 2>/dev/null)" $(CARGO) test --locked $(SIM) -- --ignored --exact seeds::soak --nocapture

replay: ## the story of one seed, with what the program logs: make replay SEED=n
	SIM_SEED="$(SEED)" SIM_LOG=info $(CARGO) test --locked $(SIM) -- --ignored --exact seeds::replay --nocapture

mutants: ## cargo mutants on what decides: which change of an expression no unit test notices; hours
	@scripts/cargo-tool mutants
	PROPTEST_CASES=64 PATH="$(CURDIR)/.tools/bin:$$PATH" $(CARGO) mutants --output target $(MUTANTS_ARGS)

planted: ## whether the simulator finds each of the bugs that are planted for it
	$(CARGO) test --locked $(SIM) -- planted --nocapture

fmt: ## formats the code
	$(CARGO) fmt --all

lint: ## clippy, with and without the clients of S3 and etcd; without both, with the bugs that are planted; links of the docs
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features --features s3 -- -D warnings
	$(CARGO) clippy --locked --no-default-features --features etcd -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features --features planted -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --lib --document-private-items

deny: ## licences, banned crates, sources
	@scripts/cargo-tool deny
	PATH="$(CURDIR)/.tools/bin:$$PATH" $(CARGO) deny --locked check licenses bans sources

advisories: ## known vulnerabilities of what is built in: needs the advisory database on GitHub, so a machine that can reach it
	@scripts/cargo-tool deny
	PATH="$(CURDIR)/.tools/bin:$$PATH" $(CARGO) deny --locked check advisories

bench: build ## side by side with restic, rustic and borg: writes docs/BENCHMARKS.md and docs/*.svg; hours, and some 40 GB in TMPDIR
	python3 benches --runner target/release/runner $(BENCH_ARGS)

fuzz: ## each decoder's fuzz target for FUZZ_SECONDS (says which toolchain it uses)
	@scripts/fuzz $(FUZZ_SECONDS)

install: ## what `make build` built (or RUNNER=path/of/binary), into PREFIX (default /usr/local): program, units, sysusers, tmpfiles, man pages, completions, docs
	@test -x "$(BUILT)" || { echo "run \"make build\" first, as a normal user" >&2; exit 1; }
	install -D -m 0755 "$(BUILT)" "$(DESTDIR)$(PREFIX)/bin/runner"
	install -d "$(DESTDIR)$(PREFIX)/lib/systemd/system" "$(SHARE)/man/man1" "$(SHARE)/doc/runner/docs/decisions" "$(SHARE)/bash-completion/completions" \
	    "$(SHARE)/zsh/site-functions" "$(SHARE)/fish/vendor_completions.d"
	for unit in systemd/*.service systemd/*.timer; do \
	    sed 's|/usr/local/bin/|$(PREFIX)/bin/|' "$$unit" > "$(DESTDIR)$(PREFIX)/lib/systemd/system/$${unit##*/}" || exit 1; \
	done
	for kind in sysusers tmpfiles; do \
	    install -D -m 0644 "systemd/runner.$$kind" "$(DESTDIR)$(PREFIX)/lib/$$kind.d/runner.conf" || exit 1; \
	done
	"$(BUILT)" man --dir "$(SHARE)/man/man1"
	"$(BUILT)" completions bash > "$(SHARE)/bash-completion/completions/runner"
	"$(BUILT)" completions zsh > "$(SHARE)/zsh/site-functions/_runner"
	"$(BUILT)" completions fish > "$(SHARE)/fish/vendor_completions.d/runner.fish"
	install -m 0644 config/runner.toml README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md LICENSE-MIT LICENSE-APACHE "$(SHARE)/doc/runner"
	install -m 0644 docs/*.* "$(SHARE)/doc/runner/docs"
	install -m 0644 docs/decisions/*.md "$(SHARE)/doc/runner/docs/decisions"

clean: ## what was built; .tools (peers and test servers) stays
	$(CARGO) clean
