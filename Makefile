# Thin on purpose: the work is in docker/*.sh and in cargo.
PG ?= 17
export PG
# A file of compose/, without its ending.
STACK ?= primary-standby
export STACK
# What stands before it: a file compose/with-*.yml.
WITH ?=
export WITH
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help up down image test trials soak bench lint clean prerequisites

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r target text; do \
	  printf '%-12s %s\n' "$$target" "$$text"; done

up: image ## build, start a master, a slave, a node for backups and HAProxy, wait for them; STACK=single: one node; WITH=pgbouncer
	@docker/up.sh

down: ## stop and remove the nodes; their data stays
	@docker/compose.sh down --remove-orphans

image: prerequisites ## build pgherd:17 on Debian trixie; PG=15: pgherd:15 on bookworm
	@docker/image.sh $(PG)

test: prerequisites lint ## lints, tests, and the stories in containers of both images
	@docker/test.sh

trials: prerequisites lint ## the same with the long stories
	@PGHERD_TRIALS=1 docker/test.sh

soak: image ## half an hour of all that can happen to a node, at random; PGHERD_SOAK_SEED=, PGHERD_SOAK_MINUTES=
	PGHERD_IMAGE=pgherd:$(PG) PGHERD_SOAK_MINUTES=$${PGHERD_SOAK_MINUTES:-30} \
	  cargo test --locked --test stories -- --ignored --nocapture soak

bench: image ## starts beside bare Postgres, failover beside Patroni; BENCH_ONLY=killed,idle,…, BENCH_ROUNDS=10
	cargo bench --locked --bench start --bench failover

lint: ## formatting, clippy, the shell scripts
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	@if command -v shellcheck >/dev/null; then echo shellcheck docker/*.sh; shellcheck docker/*.sh; fi

clean: ## remove what make made: containers, images, volumes WITH THEIR DATA, target/
	@docker/clean.sh
	cargo clean

test: FOR = tests
trials: FOR = trials
prerequisites:
	@docker/prerequisites.sh $(FOR)
