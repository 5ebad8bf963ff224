# `make demo` and `make test` are all that a fresh clone needs. `make help` lists the rest.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
VENV := $(TARGET)/venv
# The Python tool that direct mode stays compatible with, a watcher of directories, and what the second implementation
# stands on.
PYTHON_TOOL := agent-wormhole==0.1.5
PYTHON_TOOLS := $(PYTHON_TOOL) watchdog==6.0.0 \
	cryptography==50.0.2 mnemonic==0.21 spake2==0.9 websockets==17.4
NODE := $(TARGET)/node
# What the relay's static binary is built for.
STATIC := $(shell uname -m)-unknown-linux-musl
# A watcher of directories, and what npm saves files with.
NODE_TOOLS := chokidar@4.0.3 write-file-atomic@6.0.0
# What knows the rules for a plugin of Claude Code.
CLAUDE := @anthropic-ai/claude-code@2.1.332
# Programs that tests run, as `command:Debian package`.
NEEDS := redis-server:redis-server fusermount3:fuse3 rsync:rsync vim:vim git:git ip:iproute2 python3:python3 \
	nano:nano emacs:emacs-nox sqlite3:sqlite3 curl:curl inotifywait:inotify-tools gcc:gcc perl:perl \
	node:nodejs npm:npm getfattr:attr strace:strace mandoc:mandoc jq:jq
# Installs Debian packages, of a list like NEEDS, or says which.
define debian
	@missing=; \
	for need in $(1); do \
		PATH="$$PATH:/usr/sbin:/sbin" command -v "$${need%%:*}" >/dev/null || missing="$$missing $${need##*:}"; \
	done; \
	python3 -c 'import ensurepip' 2>/dev/null || missing="$$missing python3-venv"; \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && \
			DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
		else \
			echo "install these first:$$missing" >&2; exit 1; \
		fi; \
	fi
endef

# What packages there are, in the order in which they can use what was built for the one before.
PACKAGES := cargo deb static wheel npm sdist
# What builds them besides cargo, and what installs them as a user does.
PACKAGING := $(TARGET)/packaging-tools
PACKAGING_PYTHON := maturin==1.16.0 uv==0.13.9
CARGO_DEB := 3.8.0
PACKAGING_NEEDS := musl-gcc:musl-tools lintian:lintian fusermount3:fuse3 python3:python3 node:nodejs npm:npm
# What runs the targets in fuzz/, and for how many seconds each.
CARGO_FUZZ := 0.13.2
FUZZ_TOOLS := $(TARGET)/fuzz-tools
FUZZ_SECONDS ?= 60
# Where the tests find the Python tools, and those of Node.
export AGENT_WORMHOLE_PYTHON := $(abspath $(VENV))/bin/python
export AGENT_WORMHOLE_NODE := $(abspath $(NODE))/node_modules

.DEFAULT_GOAL := help
.PHONY: help demo test fmt lint unit docs needs soak test-posix plugin-check bench \
	fuzz relay-static packages packaging-tools audit clean $(PACKAGES:%=package-%)

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: ## Two ends on this machine: a message, 1 GiB, 2,000 files, both ways; MOUNT=dir without FUSE
	$(CARGO) build --release --locked
	BIN=$(abspath $(TARGET))/release/agent-wormhole MOUNT=$(or $(MOUNT),auto) ./examples/demo.sh

test: needs fmt lint unit docs ## Everything that has to hold: format, lints, tests, documentation

fmt: ## Check the format
	$(CARGO) fmt --all --check

lint: ## Check the lints
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

unit: needs ## Run the tests
	$(CARGO) test --workspace --locked

docs: ## Check the documentation
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

needs: ## Install what the tests run besides Rust (Debian packages as root; those of Python and Node under target/)
	$(call debian,$(NEEDS))
	@[ "$$(cat $(VENV)/ready 2>/dev/null)" = "$(PYTHON_TOOLS)" ] || { \
		python3 -m venv $(VENV) && \
		$(VENV)/bin/pip install --quiet --disable-pip-version-check $(PYTHON_TOOLS) && \
		echo "$(PYTHON_TOOLS)" > $(VENV)/ready; \
	}
	@[ "$$(cat $(NODE)/ready 2>/dev/null)" = "$(NODE_TOOLS)" ] || { \
		mkdir -p $(NODE) && \
		npm install --silent --no-audit --no-fund --prefix $(NODE) $(NODE_TOOLS) && \
		echo "$(NODE_TOOLS)" > $(NODE)/ready; \
	}

soak: needs ## Run the long tests: many gigabytes, several minutes
	$(CARGO) test --release --test program --test relays --locked -- --ignored --nocapture

test-posix: ## fsx and pjdfstest against a mounted outbox/ (Linux, root; builds both from crates.io)
	$(CARGO) build --release --locked
	@test -x $(TARGET)/posix/bin/fsx -a -x $(TARGET)/posix/bin/pjdfstest || \
		$(CARGO) install --locked --root $(TARGET)/posix fsx@0.3.2 pjdfstest@0.2.2
	BIN=$(abspath $(TARGET))/release/agent-wormhole FSX=$(TARGET)/posix/bin/fsx \
		PJDFSTEST=$(TARGET)/posix/bin/pjdfstest tests/posix/run.sh

plugin-check: ## Look at the plugin for Claude Code with its vendor's validator (from npm, 400 MB; needs no account)
	@[ -x $(TARGET)/claude/node_modules/.bin/claude ] || \
		npm install --silent --no-audit --no-fund --prefix $(TARGET)/claude $(CLAUDE)
	HOME=$(abspath $(TARGET))/claude $(TARGET)/claude/node_modules/.bin/claude plugin validate --strict .
	HOME=$(abspath $(TARGET))/claude $(TARGET)/claude/node_modules/.bin/claude plugin validate --strict skill

bench: ## Measure the parts, and the whole beside the machine (MW=… MW_SERVERS=… adds magic-wormhole.rs)
	$(CARGO) build --release --locked
	$(CARGO) bench --workspace --locked --bench parts
	python3 benches/whole.py --bin $(abspath $(TARGET))/release/agent-wormhole \
		$(if $(MW),--mw $(MW) --mw-servers $(MW_SERVERS))
	python3 benches/mount.py --bin $(abspath $(TARGET))/release/agent-wormhole

fuzz: ## Give random bytes to each property in fuzz/, FUZZ_SECONDS=60 each (builds cargo-fuzz; needs g++)
	@[ -x $(FUZZ_TOOLS)/bin/cargo-fuzz ] || \
		$(CARGO) install --quiet --locked --root $(FUZZ_TOOLS) cargo-fuzz@$(CARGO_FUZZ)
	@for property in $(basename $(notdir $(wildcard fuzz/targets/*.rs))); do \
		mkdir -p $(TARGET)/fuzz-corpus/$$property; \
		$(FUZZ_TOOLS)/bin/cargo-fuzz run --fuzz-dir fuzz --target-dir $(TARGET)/fuzz --sanitizer none $$property \
			$(TARGET)/fuzz-corpus/$$property -- -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 \
			-print_final_stats=1 -artifact_prefix=$(TARGET)/fuzz-$$property- || exit 1; \
	done

relay-static: ## Build the relay as one static binary (musl) and see it run in an empty root (Linux, root, rustup, musl-gcc)
	@command -v musl-gcc >/dev/null || { echo "install musl-gcc first (Debian: musl-tools)" >&2; exit 1; }
	@rustup target list --installed | grep -qx $(STATIC) || rustup target add $(STATIC)
	$(CARGO) build --release --locked --target $(STATIC) -p agent-wormhole-relay --bin agent-wormhole-relay
	relay/deploy/check-static.sh $(TARGET)/$(STATIC)/release/agent-wormhole-relay

packages: $(PACKAGES:%=package-%) ## Build every package and use it from an empty place (root); package-wheel and so on: one

$(PACKAGES:%=package-%): package-%: packaging-tools
	TOOLS=$(abspath $(PACKAGING)) packaging/build.sh $*
	TOOLS=$(abspath $(PACKAGING)) timeout 1800 packaging/smoke.sh $*

packaging-tools:
	$(call debian,$(PACKAGING_NEEDS))
	@[ "$$(cat $(PACKAGING)/ready 2>/dev/null)" = "$(PACKAGING_PYTHON) $(CARGO_DEB)" ] || { \
		python3 -m venv $(PACKAGING) && \
		$(PACKAGING)/bin/pip install --quiet --disable-pip-version-check $(PACKAGING_PYTHON) && \
		$(CARGO) install --quiet --locked --root $(PACKAGING) cargo-deb@$(CARGO_DEB) && \
		echo "$(PACKAGING_PYTHON) $(CARGO_DEB)" > $(PACKAGING)/ready; \
	}

bench-relay: ## Measure a relay: memory of idle sockets, latency, throughput, storms; with Redis where there is one
	$(CARGO) build --release --locked --example relay-load
	benches/relay.sh $(abspath $(TARGET))/release/examples/relay-load

audit: ## Check licences, advisories and bans (needs cargo-deny)
	$(CARGO) deny --all-features check

clean: ## Remove everything that was built
	$(CARGO) clean
	rm -rf $(VENV) $(NODE) $(PACKAGING)
