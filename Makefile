# Everything a newcomer needs: `make run` to try Myelin, `make test` for all that continuous integration runs.
# The work is in dev/; each script there also runs by itself.

.DEFAULT_GOAL := help
.PHONY: help run test prepare check unit integration clients chaos bench bench-check clean

help: ## Lists these targets.
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: ## Starts a homeserver with a demo user, data under var/. Ctrl-C stops it. PORT=8008, TOPOLOGY=cluster (or single).
	@dev/run

test: ## Runs everything that continuous integration runs.
	@dev/test

prepare: ## Installs what the other targets need (PostgreSQL, the client libraries of the tests), if missing.
	@dev/prepare

check: ## Checks format and lints, warnings being errors.
	@dev/check

unit: ## Runs the tests of the crates.
	@cargo test --workspace --exclude myelin-integration-tests

integration: ## Runs the black-box tests against the daemons, real clients included.
	@dev/integration

clients: ## Runs the tests with real client libraries only.
	@dev/integration --test clients

chaos: ## Breaks a cluster in all ways that the fault suite knows, and writes what it cost into docs/reliability.md.
	@dev/chaos

bench: ## Measures a release build: one JSON line per scenario, in a quarter of an hour. `dev/bench --list` tells which.
	@dev/bench

bench-check: ## Counts the instructions of the hot paths and fails if they are 3 % more than the committed counts.
	@dev/bench-check

clean: ## Stops and removes what the tests and the build made; keeps var/, where `make run` has its data.
	@dev/clean
