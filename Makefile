# Everything builds with the dev profile, which is optimised, and for the whole workspace: one selection of features and one
# profile, so that RocksDB is compiled once for all of these.

.DEFAULT_GOAL := help
.PHONY: help prerequisites run cluster test bench kafka-up kafka-down

help: ## Show this help
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

prerequisites: ## Install what is missing to build: a C++ compiler, libclang, Rust
	@scripts/install-prerequisites.sh

run: prerequisites ## Build, start Clickmill with generated clicks, and show the ten most clicked ads as they change
	@scripts/run.sh

cluster: prerequisites ## Build, start a real Kafka, three instances and generated clicks, and show what to look at and to kill
	@scripts/cluster.sh

test: prerequisites ## Check formatting, lints, documentation and dependencies, and run all tests
	@scripts/test.sh

bench: prerequisites ## Run the benchmarks
	@. scripts/rust-path.sh && cargo bench --workspace --profile dev

kafka-up: ## Start a real Apache Kafka of one node on 127.0.0.1:9092
	@scripts/kafka-up.sh

kafka-down: ## Stop it again; with CLEAN=1 delete its data too
	@scripts/kafka-down.sh
