# Aliases for people with the habit; every one calls ./run, which sets itself up.
.DEFAULT_GOAL := help
.PHONY: help serve test check format bench migrations clean

help: ## list these
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

serve: ## serve on http://127.0.0.1:8000
	./run

test: ## every check and every test
	./run test

check: ## the checks without the tests: ruff, import-linter, mypy, tests that assert nothing
	./run check

format: ## let ruff fix and format what it can
	./run check --fix

bench: ## measure the hot path
	./run bench

migrations: ## write the migrations the models ask for
	./run manage makemigrations

clean: ## forget the environment; the data stays
	rm -rf .venv .boot
